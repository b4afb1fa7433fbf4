from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from sidecar.consumer.lanes import Lanes


def test_a_key_is_one_items_at_a_time_in_the_order_they_came() -> None:
    lanes: Lanes[int] = Lanes()
    assert lanes.enter("a", 1)
    assert not lanes.enter("a", 2)
    assert not lanes.enter("a", 3)
    assert lanes.enter("b", 4)
    assert not lanes.next

    lanes.leave("a")
    assert lanes.next.popleft() == ("a", 2)
    assert not lanes.enter("a", 5)
    lanes.again("a", 2)
    assert lanes.next.popleft() == ("a", 2)
    lanes.leave("a")
    assert lanes.next.popleft() == ("a", 3)


def test_without_a_key_nobody_waits() -> None:
    lanes: Lanes[int] = Lanes()
    assert lanes.enter(None, 1)
    assert lanes.enter(None, 2)
    lanes.leave(None)
    assert not lanes.busy


def test_what_is_dropped_gives_its_key_on_and_who_is_out_keeps_it() -> None:
    lanes: Lanes[int] = Lanes()
    lanes.enter("a", 1)
    lanes.enter("a", 2)
    lanes.enter("a", 13)
    lanes.enter("b", 4)
    lanes.again("b", 4)
    lanes.enter("b", 15)
    lanes.drop(lambda item: item < 10)

    assert list(lanes.next) == [("b", 15)]
    lanes.leave("a")
    assert lanes.next.pop() == ("a", 13)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("enter"), st.sampled_from("abc")),
            st.tuples(st.just("end"), st.integers(0, 9)),
            st.tuples(st.just("retry"), st.integers(0, 9)),
        ),
        max_size=120,
    )
)
def test_whatever_ends_when_each_key_has_its_items_in_order_and_none_is_lost(
    steps: list[tuple[str, str | int]],
) -> None:
    lanes: Lanes[int] = Lanes()
    out: list[tuple[str, int]] = []
    entered: dict[str, list[int]] = defaultdict(list)
    ended: dict[str, list[int]] = defaultdict(list)
    number = 0

    def collect() -> None:
        while lanes.next:
            key, item = lanes.next.popleft()
            assert isinstance(key, str)
            out.append((key, item))
        keys = [key for key, _ in out]
        assert len(keys) == len(set(keys)), "two of a key are out"

    def end(at: int) -> None:
        key, item = out.pop(at)
        ended[key].append(item)
        lanes.leave(key)

    for what, how in steps:
        if isinstance(how, str):
            number += 1
            entered[how].append(number)
            if lanes.enter(how, number):
                out.append((how, number))
        elif out and what == "end":
            end(how % len(out))
        elif out:
            lanes.again(*out.pop(how % len(out)))
        collect()
    while out:
        end(0)
        collect()
    assert ended == entered
    assert not lanes.busy
