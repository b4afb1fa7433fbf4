"""Keys in memory: a request that is sent twice is accepted once."""

from __future__ import annotations

from sidecar.core.idempotency import MAX_KEY, MemoryKeys, of_record
from sidecar.core.spooling import KEY_MAX, Accepted, Claim, Idempotency

ONE = of_record("k", b"one-", 0)
DONE = Accepted(partition=1, offset=7)


async def claim(keys: MemoryKeys, topic: str, what: Idempotency, at: float) -> Claim | Accepted:
    (said,) = await keys.claim(topic, [what], at)
    return said


async def test_a_key_is_somebodys_until_it_is_settled_or_given_back() -> None:
    keys = MemoryKeys()
    assert await claim(keys, "t", ONE, 0.0) is Claim.YOURS
    assert await claim(keys, "t", ONE, 0.0) is Claim.IN_PROGRESS
    assert await claim(keys, "other", ONE, 0.0) is Claim.YOURS, "keys are a topic's own"
    keys.abandon("t", "k")
    assert await claim(keys, "t", ONE, 0.0) is Claim.YOURS
    keys.settle("t", ONE, DONE, 0.0)
    assert await claim(keys, "t", ONE, 1.0) == DONE
    keys.abandon("t", "unknown")


async def test_other_content_under_the_same_key_is_told() -> None:
    keys, other = MemoryKeys(), of_record("k", b"two-", 0)
    assert await claim(keys, "t", ONE, 0.0) is Claim.YOURS
    assert await claim(keys, "t", other, 0.0) is Claim.OTHER_CONTENT
    keys.settle("t", ONE, DONE, 0.0)
    assert await claim(keys, "t", other, 0.0) is Claim.OTHER_CONTENT


async def test_keys_are_forgotten_by_age_and_by_number() -> None:
    keys = MemoryKeys(for_s=10.0, most=2)
    for name in ("a", "b", "c"):
        what = of_record(name, b"x", 0)
        assert await claim(keys, "t", what, 0.0) is Claim.YOURS
        keys.settle("t", what, DONE, 0.0)
    assert await claim(keys, "t", of_record("a", b"x", 0), 1.0) is Claim.YOURS
    assert await claim(keys, "t", of_record("c", b"x", 0), 9.0) == DONE
    assert await claim(keys, "t", of_record("c", b"x", 0), 10.0) is Claim.YOURS


def test_a_records_key_fits_the_spool() -> None:
    assert of_record("k", b"", 0).key == "k"
    assert len(of_record("k" * MAX_KEY, b"", 9999).key) <= KEY_MAX
