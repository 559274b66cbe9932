"""Amounts of resources as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.common.quantities import LARGEST, parse_quantity, show_quantity

GI = 1 << 30

WRITTEN = [
    ("cpu", "2", 2000),
    ("cpu", 2, 2000),
    ("cpu", 0.5, 500),
    ("cpu", "0.1", 100),
    ("cpu", 0.1, 100),
    ("cpu", "500m", 500),
    ("cpu", " 1.5 ", 1500),
    ("cpu", 1 / 3, 334),
    ("cpu", 1e-05, 1),
    ("cpu", 0, 0),
    ("memory", "16Gi", 16 * GI),
    ("memory", "16GiB", 16 * GI),
    ("memory", "1.5Gi", GI + GI // 2),
    ("memory", "512M", 512_000_000),
    ("memory", "512MB", 512_000_000),
    ("memory", "4 Gi", 4 * GI),
    ("memory", "2000k", 2_000_000),
    ("memory", "2000K", 2_000_000),
    ("memory", 4 * GI, 4 * GI),
    ("memory", str(4 * GI), 4 * GI),
    ("memory", "0", 0),
    ("gpu", "1", 1),
    ("gpu", 4, 4),
    ("gpu", 4.0, 4),
    ("license", "0", 0),
]


@pytest.mark.parametrize(("name", "written", "amount"), WRITTEN)
def test_an_amount_is_read_in_the_smallest_unit(name: str, written: object, amount: int) -> None:
    assert parse_quantity(name, written) == amount


SENSELESS = [
    ("cpu", "two", "write for example 2, 0.5 or 500m"),
    ("cpu", "", "write for example 2"),
    ("cpu", "-1", "write for example 2"),
    ("cpu", -1, "write for example 2"),
    ("cpu", True, "write for example 2"),
    ("cpu", None, "write for example 2"),
    ("cpu", [2], "write for example 2"),
    ("cpu", "2Gi", "write for example 2"),
    ("cpu", float("nan"), "write for example 2"),
    ("cpu", float("inf"), "write for example 2"),
    ("cpu", "1e3", "write for example 2"),
    ("cpu", "٣", "write for example 2"),
    ("cpu", 10**30, "write for example 2"),
    ("memory", "16", "write the unit, as in 512M or 16Gi"),
    ("memory", 16, "write the unit, as in 512M or 16Gi"),
    ("memory", "512m", "write for example 512M or 16Gi"),
    ("memory", "16gi", "write for example 512M or 16Gi"),
    ("memory", "16 giga", "write for example 512M or 16Gi"),
    ("memory", "9999Pi", "more than there can be"),
    ("gpu", "0.5", "write for example 1"),
    ("gpu", 0.5, "write for example 1"),
    ("gpu", "1Gi", "write for example 1"),
    ("gpu", False, "write for example 1"),
    ("a b", 1, "the name 'a b' is not letters"),
    ("acme/licenses", 1, "the name 'acme/licenses'"),
    ("", 1, "the name ''"),
]


@pytest.mark.parametrize(("name", "written", "remedy"), SENSELESS)
def test_what_is_no_amount_is_refused_with_the_remedy(name: str, written: object, remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        parse_quantity(name, written)


SHOWN = [
    ("cpu", 2000, "2"),
    ("cpu", 500, "0.5"),
    ("cpu", 1, "0.001"),
    ("memory", 16 * GI, "16Gi"),
    ("memory", 1536 << 20, "1536Mi"),
    ("memory", 512_000_000, "512M"),
    ("memory", 12_345_678_901, "11.5Gi"),
    ("memory", 33_567_428_608, "31.26Gi"),
    ("memory", 0, "0"),
    ("gpu", 3, "3"),
]


@pytest.mark.parametrize(("name", "amount", "text"), SHOWN)
def test_an_amount_is_shown_as_people_write_it(name: str, amount: int, text: str) -> None:
    assert show_quantity(name, amount) == text


@given(st.integers(0, LARGEST))
def test_shown_cores_and_counts_read_back(amount: int) -> None:
    assert parse_quantity("cpu", show_quantity("cpu", amount)) == amount
    assert parse_quantity("license", show_quantity("license", amount)) == amount


@given(st.integers(1, 1023), st.sampled_from(["Mi", "Gi", "Ti", "M", "G", "T"]))
def test_shown_memory_reads_back(number: int, unit: str) -> None:
    amount = parse_quantity("memory", f"{number}{unit}")
    assert parse_quantity("memory", show_quantity("memory", amount)) == amount


@given(st.integers(1_000_000, LARGEST // 2))
def test_shown_memory_reads_back_to_within_a_thousandth(amount: int) -> None:
    assert abs(parse_quantity("memory", show_quantity("memory", amount)) - amount) <= amount / 1000
