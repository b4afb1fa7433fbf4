"""Nothing is started while nothing succeeds. Pure.

Failures of many events in a row, with no success between them, mean that what they all need is
away. Then handlers are started one at a time, with growing pauses between, until one succeeds:
the tight loop of consume, fail, consume again can't come about.
"""

from __future__ import annotations

from sidecar.consumer.retry import backoff_ceiling_s


class Brake:
    """Counts failures in a row, and says when the next handler may start.

    Args:
        after: so many failures that may pass, without a success between them, engage it.
        first_s: the ceiling of the first pause; doubled with each trial that fails.
        most_s: the ceiling of any pause.
    """

    __slots__ = ("_after", "_first_s", "_most_s", "_not_before", "_trial_out", "_trials", "row")

    def __init__(self, after: int, first_s: float, most_s: float) -> None:
        if after < 1:
            raise ValueError("after must be at least 1")
        if not 0 < first_s <= most_s:
            raise ValueError("0 < first_s <= most_s does not hold")
        self._after = after
        self._first_s = first_s
        self._most_s = most_s
        self.row = 0
        """Failures since the last success."""
        self._trials = 0
        self._not_before = 0.0
        self._trial_out = False

    @property
    def engaged(self) -> bool:
        """Whether only trials may start."""
        return self.row >= self._after

    def wait_s(self, now: float) -> float | None:
        """Seconds until a handler may start, 0 for now; None: a trial is out, its end will tell."""
        if not self.engaged:
            return 0.0
        if self._trial_out:
            return None
        return max(0.0, self._not_before - now)

    def start(self) -> bool:
        """A handler starts, which `wait_s` allowed. Whether it is a trial: its end must say so."""
        self._trial_out = self.engaged
        return self._trial_out

    def succeeded(self) -> None:
        """Some handler ended well: what they need is there."""
        self.row = self._trials = 0
        self._trial_out = False

    def failed(self, now: float, draw: float, *, trial: bool) -> None:
        """Some handler failed in a way that may pass.

        Args:
            draw: in [0, 1); the pause is at least half of its ceiling, so that it is one.
            trial: what `start` said. Of those started before it engaged, the failures are no news.
        """
        self.row += 1
        if not self.engaged or not (trial or self.row == self._after):
            return
        self._trials += 1
        ceiling_s = backoff_ceiling_s(self._trials, self._first_s, self._most_s)
        self._not_before = now + ceiling_s * (0.5 + draw / 2)
        if trial:
            self._trial_out = False

    def unsaid(self, *, trial: bool) -> None:
        """Some handler ended in a way that says nothing: the event was bad, or it was stopped."""
        if trial:
            self._trial_out = False
