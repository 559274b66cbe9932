"""Durations and sizes for people."""

import pytest

from runyard.common.humanize import byte_size, duration_words, nodes_available, short_duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 s"),
        (0.4, "0 s"),
        (42, "42 s"),
        (119.4, "119 s"),
        (120, "2 min"),
        (7100, "118 min"),
        (7200, "2 h"),
        (4800 + 3600, "2 h 20 min"),
        (47 * 3600 + 59 * 60, "47 h 59 min"),
        (48 * 3600, "2 d"),
        (76 * 3600, "3 d 4 h"),
    ],
)
def test_a_duration_in_a_sentence_has_at_most_two_units(seconds: float, words: str) -> None:
    assert duration_words(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0.0s"), (0.44, "0.4s"), (12, "12s"), (245, "4m05s"), (12_000, "3h20m"), (439_200, "5d02h")],
)
def test_a_duration_in_a_table_is_short(seconds: float, text: str) -> None:
    assert short_duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (512, "512 B"), (1024, "1.0 KiB"), (3 * 2**29, "1.5 GiB"), (2**41, "2.0 TiB")],
)
def test_a_size_is_shown_in_the_largest_unit_that_fits(count: int, text: str) -> None:
    assert byte_size(count) == text


def test_counted_reasons_say_how_many_nodes_can_take_the_run_and_why_the_others_cannot() -> None:
    reasons = {"draining": 1, "insufficient memory": 3, "did not match label zone=a": 8}
    listed = "8 did not match label zone=a, 3 insufficient memory, 1 draining"
    assert nodes_available(0, reasons) == f"0/12 nodes available: {listed}"
    assert nodes_available(2, {"suspect": 1}) == "2/3 nodes available: 1 suspect"
    assert nodes_available(2, {}) == "2/2 nodes available"
