from __future__ import annotations

from sidecar.consumer.stack import MOST_FRAMES, stack_of


def fail(depth: int) -> None:
    if depth:
        fail(depth - 1)
    raise ValueError("no good")


def caught(depth: int = 0, cause: BaseException | None = None) -> Exception:
    try:
        fail(depth)
    except ValueError as error:
        if cause is None:
            return error
        try:
            raise RuntimeError("so it failed") from error
        except RuntimeError as outer:
            return outer
    raise AssertionError


def test_the_frames_stand_in_order_and_the_error_last() -> None:
    lines = stack_of(caught()).splitlines()
    assert [line.rpartition(" ")[2] for line in lines[:2]] == ["caught", "fail"]
    assert lines[-1] == "ValueError: no good"


def test_a_cause_stands_before_what_it_led_to() -> None:
    text = stack_of(caught(cause=ValueError()))
    assert text.index("ValueError: no good") < text.index("which led to")
    assert text.endswith("RuntimeError: so it failed")


def test_of_a_deep_stack_the_innermost_frames_are_kept() -> None:
    lines = stack_of(caught(depth=100)).splitlines()
    assert len(lines) == MOST_FRAMES + 2
    assert lines[0] == f"  … {102 - MOST_FRAMES} more"


def test_an_error_that_causes_itself_ends() -> None:
    error = caught()
    error.__context__ = error
    assert stack_of(error).count("ValueError") == 1
