"""A little of what `tests.publish_crash` and `tests.publish_outage` do for longer by hand."""

from __future__ import annotations

import pytest

from tests import publish_crash, publish_outage


@pytest.mark.kafka
@pytest.mark.slow
def test_kill_9_at_random_moments_loses_nothing() -> None:
    publish_crash.main(rounds=20, seed=1)


@pytest.mark.kafka
@pytest.mark.slow
def test_an_outage_under_load_loses_nothing_and_ends() -> None:
    publish_outage.main(outage_s=8.0, rate=1_000.0)
