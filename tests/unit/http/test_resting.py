"""The collector rests while large batches are worked on, and never for long."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from sidecar.http import resting
from sidecar.http.resting import LARGE_BYTES, Rest
from tests.servers import poll_until


@pytest.fixture(autouse=True)
def collecting() -> Iterator[None]:
    gc.enable()
    yield
    gc.enable()


async def test_it_rests_until_the_last_of_them_is_done() -> None:
    rest = Rest()
    with rest.during(LARGE_BYTES):
        with rest.during(LARGE_BYTES), rest.during(10):
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    with rest.during(LARGE_BYTES - 1):
        assert gc.isenabled()


async def test_it_never_rests_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resting, "REST_S", 0.02)
    rest = Rest()
    with rest.during(LARGE_BYTES):
        await poll_until(gc.isenabled, 5.0, "it goes on")
        with rest.during(LARGE_BYTES):
            assert not gc.isenabled(), "the next one has a rest of its own"
        await poll_until(gc.isenabled, 5.0, "which ends as well")
    assert gc.isenabled()


async def test_who_has_disabled_it_is_to_enable_it() -> None:
    gc.disable()
    with Rest().during(LARGE_BYTES):
        assert not gc.isenabled()
    assert not gc.isenabled()
