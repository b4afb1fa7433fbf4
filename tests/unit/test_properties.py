"""What is told of a property that fails."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


def test_a_property_that_fails_tells_the_values_it_failed_with() -> None:
    @settings(database=None)
    @given(number=st.integers(0, 99))
    def is_small(number: int) -> None:
        assert number < 10

    with pytest.raises(AssertionError) as failed:
        is_small()
    assert "number=10" in "".join(failed.value.__notes__)
