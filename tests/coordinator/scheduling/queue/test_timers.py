"""Timers against a plain dict of times."""

from hypothesis import given
from hypothesis import strategies as st

from runyard.coordinator.core.timers import SLACK, Timers

keys = st.sampled_from("abcdef")
steps = st.lists(
    st.tuples(st.just("set"), keys, st.integers(0, 20))
    | st.tuples(st.just("cancel"), keys, st.just(0))
    | st.tuples(st.just("take"), st.just(""), st.integers(0, 20)),
    max_size=200,
)


@given(steps)
def test_timers_wake_each_key_at_the_time_set_last(steps: list[tuple[str, str, int]]) -> None:
    timers: Timers[str] = Timers()
    plain: dict[str, int] = {}
    for what, key, at in steps:
        match what:
            case "set":
                timers.set(key, at)
                plain[key] = at
            case "cancel":
                timers.cancel(key)
                plain.pop(key, None)
            case _:
                due = timers.take_due(at)
                assert sorted(due) == sorted(each for each, time in plain.items() if time <= at)
                assert [plain[each] for each in due] == sorted(plain[each] for each in due)
                for each in due:
                    del plain[each]


def test_timers_that_are_set_again_and_again_take_no_more_room() -> None:
    timers: Timers[str] = Timers()
    for number in range(10_000):
        timers.set("a", float(number))
    assert len(timers._heap) <= 2 + SLACK
    assert timers.take_due(9_999.0) == ["a"]
