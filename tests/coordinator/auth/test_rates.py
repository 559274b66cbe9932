"""Token buckets: no caller exceeds its rate, and one that waits as long as required is admitted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.coordinator.auth.rates import Limit, Rate, Rates, RateSettings
from runyard.coordinator.auth.throttle import network_of

SLOW = Rate(per_second=0.5, burst=3)

rates = st.builds(Rate, per_second=st.floats(0.01, 1_000), burst=st.integers(1, 50))
pauses = st.lists(st.floats(0, 100), max_size=200)


def make(rate: Rate, keys: int = 100) -> Rates:
    return Rates({Limit.LAUNCH: rate, Limit.JOIN: SLOW}, keys)


def test_a_burst_is_granted_and_then_the_rate() -> None:
    rates = make(SLOW)
    assert [rates.take(Limit.LAUNCH, "a", 10.0) for _ in range(4)] == [None, None, None, 2.0]
    assert rates.take(Limit.LAUNCH, "a", 11.0) == 1.0
    assert rates.take(Limit.LAUNCH, "a", 12.0) is None


@given(rates, pauses)
def test_never_more_is_granted_than_burst_and_rate_allow(rate: Rate, pauses: list[float]) -> None:
    limiter, now, granted = make(rate), 1_000.0, 0
    began = now
    for pause in pauses:
        now += pause
        granted += limiter.take(Limit.LAUNCH, "a", now) is None
        assert granted <= rate.burst + (now - began) * rate.per_second + 1e-3


@given(rates, pauses)
def test_a_caller_that_waits_as_long_as_required_is_admitted(rate: Rate, pauses: list[float]) -> None:
    limiter, now = make(rate), 1_000.0
    for pause in [*pauses, *[0.0] * 60]:
        now += pause
        seconds = limiter.take(Limit.LAUNCH, "a", now)
        if seconds is not None:
            assert 0 < seconds <= 1 / rate.per_second + 1e-6
            now += seconds + 1e-6
            assert limiter.take(Limit.LAUNCH, "a", now) is None


@given(rates, st.integers(1, 100))
def test_to_ask_in_vain_costs_nothing(rate: Rate, askings: int) -> None:
    impatient, patient = make(rate), make(rate)
    for limiter in (impatient, patient):
        for _ in range(rate.burst):
            assert limiter.take(Limit.LAUNCH, "a", 0.0) is None
    for _ in range(askings):
        impatient.take(Limit.LAUNCH, "a", 0.0)
    assert impatient.take(Limit.LAUNCH, "a", 0.0) == patient.take(Limit.LAUNCH, "a", 0.0)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 5)), max_size=100))
def test_callers_do_not_use_up_each_others_tokens(askings: list[tuple[str, float]]) -> None:
    shared, now = make(SLOW), 0.0
    alone = {key: make(SLOW) for key in "abc"}
    for key, pause in askings:
        now += pause
        assert shared.take(Limit.LAUNCH, key, now) == alone[key].take(Limit.LAUNCH, key, now)


def test_limits_do_not_share_their_buckets() -> None:
    rates = make(SLOW)
    for _ in range(10):
        rates.take(Limit.JOIN, "a", 0.0)
    assert rates.take(Limit.LAUNCH, "a", 0.0) is None


def test_any_number_of_addresses_takes_bounded_memory_and_the_busy_are_not_forgotten() -> None:
    rates = make(SLOW, keys=100)
    for number in range(10_000):
        rates.take(Limit.LAUNCH, "busy", 0.0)
        rates.take(Limit.LAUNCH, f"passer-by {number}", 0.0)
    assert rates.take(Limit.LAUNCH, "busy", 0.0) is not None
    assert len(rates._buckets[Limit.LAUNCH]) == 100


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    rates = make(SLOW)
    for _ in range(3):
        rates.take(Limit.LAUNCH, "a", 100.0)
    assert rates.take(Limit.LAUNCH, "a", 50.0) is not None
    assert rates.take(Limit.LAUNCH, "a", 100.5) is not None


def test_the_refusal_names_the_limit_and_when_to_try_again() -> None:
    rates = Rates(RateSettings().by_limit())
    assert rates.refusal(Limit.LAUNCH, 0.0133) == (
        "too many calls: rates.launch allows 50 per second and 200 at once; try again in 0.1 s"
    )
    assert "rates.join allows 0.0833 per second and 5 at once; try again in 12 s" in rates.refusal(
        Limit.JOIN, 12.0
    )


@pytest.mark.parametrize("limit", Limit)
def test_every_limit_has_a_rate(limit: Limit) -> None:
    assert Rates(RateSettings().by_limit()).take(limit, "a", 0.0) is None


@pytest.mark.parametrize(
    ("peer", "counted"),
    [
        ("ipv4:192.0.2.1:4711", "192.0.2.1"),
        ("ipv6:%5B2001:db8:0:7::1%5D:4711", "2001:db8:0:7::/64"),
        ("ipv6:[2001:db8:0:7:ffff::2]:4712", "2001:db8:0:7::/64"),
        ("ipv6:%5B2001:db8:0:8::1%5D:4711", "2001:db8:0:8::/64"),
        ("ipv6:%5B::ffff:192.0.2.1%5D:4711", "192.0.2.1"),
        ("ipv6:%5Bfe80::1%25eth0%5D:4711", "fe80::/64"),
        ("unix:", "unix:"),
        ("ipv4:nonsense", ""),
    ],
)
def test_a_whole_ipv6_network_counts_as_one_caller(peer: str, counted: str) -> None:
    assert network_of(peer) == counted
