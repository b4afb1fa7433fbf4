"""Some rounds of the crash harness; `python -m tests.publish_crash 500` plays more."""

from __future__ import annotations

import pytest

from tests.publish_crash import main


@pytest.mark.kafka
@pytest.mark.slow
def test_kill_9_at_random_moments_loses_nothing() -> None:
    main(rounds=20, seed=1)
