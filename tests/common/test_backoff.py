"""Pauses between retries."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.common.backoff import Backoff, jittered


def highest(low: float, high: float) -> float:
    return high


@pytest.mark.parametrize(
    ("failures", "limit"), [(0, 1.0), (1, 1.0), (2, 2.0), (3, 4.0), (5, 10.0), (10_000, 10.0)]
)
def test_the_longest_pause_doubles_with_every_failure_up_to_its_limit(failures: int, limit: float) -> None:
    assert Backoff(1.0, 10.0).pause(failures, highest) == limit


@given(failures=st.integers(0, 10**6), first=st.floats(0.01, 100), longest=st.floats(0.01, 1e6))
def test_every_pause_is_within_its_bounds(failures: int, first: float, longest: float) -> None:
    backoff = Backoff(first, longest)
    assert 0.0 <= backoff.pause(failures) <= longest
    assert backoff.limit(failures) / 2 <= backoff.steady_pause(failures) <= longest


@given(seconds=st.floats(0, 1e6), spread=st.floats(0, 1))
def test_an_interval_with_jitter_stays_within_its_spread(seconds: float, spread: float) -> None:
    assert seconds * (1 - spread) <= jittered(seconds, spread) <= seconds * (1 + spread)
