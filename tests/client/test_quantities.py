"""Amounts of resources as people write them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.client.service.quantities import LARGEST, parse_quantity, show_quantity


@pytest.mark.parametrize(
    ("name", "written", "amount"),
    [
        ("cpu", 2, 2000),
        ("cpu", 0.5, 500),
        ("cpu", "0.1", 100),
        ("cpu", "500m", 500),
        ("cpu", "1.2345", 1235),  # a part of a thousandth counts as a whole one
        ("cpu", 1e-05, 1),
        ("memory", 1024, 1024),
        ("memory", "16Gi", 16 * 1024**3),
        ("memory", "1.5G", 1_500_000_000),
        ("memory", " 512Mi ", 512 * 1024**2),
        ("memory", 1.5e9, 1_500_000_000),
        ("gpu", "2", 2),
        ("gpu", 1.0, 1),
        ("slots", 0, 0),
        ("acme.licenses", 3, 3),
    ],
)
def test_an_amount_is_read_into_whole_units(name: str, written: object, amount: int) -> None:
    assert parse_quantity(name, written) == amount


@pytest.mark.parametrize(
    ("name", "written", "says"),
    [
        ("cpu", "x", "cpu: 'x' is not an amount; write cores as 2 or 0.5"),
        ("cpu", -1, "cpu: -1 is not an amount"),
        ("cpu", float("inf"), "cpu: inf is not an amount"),
        ("cpu", None, "cpu: None is not an amount"),
        ("memory", "16GB", "memory: '16GB' is not an amount; write bytes, or a size such as 512Mi"),
        ("memory", "\u0663", "is not an amount"),  # a digit of another script
        ("gpu", 1.5, "gpu: 1.5 is not a whole number"),
        ("gpu", True, "gpu: True is not an amount"),
        ("gpu", "2Gi", "gpu: '2Gi' is not an amount; write a whole number"),
        ("memory", "99999Pi", "is more than can be counted; 909.5Ti at most"),
        ("a b", 1, "resource 'a b': a name is letters"),
        ("acme/licenses", 1, "resource 'acme/licenses': a name is letters"),
        ("", 1, "resource ''"),
    ],
)
def test_what_is_no_amount_is_refused_with_the_remedy(name: str, written: object, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        parse_quantity(name, written)


@pytest.mark.parametrize(
    ("name", "amount", "shown"),
    [
        ("cpu", 1500, "1.5"),
        ("cpu", 10_000, "10"),
        ("cpu", 0, "0"),
        ("memory", 16 * 1024**3, "16Gi"),
        ("memory", 33_567_428_608, "31.26Gi"),
        ("memory", 1000, "1000"),
        ("memory", 0, "0"),
        ("slots", 12, "12"),
    ],
)
def test_an_amount_is_shown_in_a_short_form(name: str, amount: int, shown: str) -> None:
    assert show_quantity(name, amount) == shown


@given(st.sampled_from(["cpu", "gpu", "slots", "licenses"]), st.integers(0, LARGEST))
def test_what_is_shown_of_countables_reads_back_as_the_same(name: str, amount: int) -> None:
    assert parse_quantity(name, show_quantity(name, amount)) == amount


@given(st.integers(0, LARGEST // 2))
def test_shown_memory_reads_back_to_within_a_thousandth(amount: int) -> None:
    assert abs(parse_quantity("memory", show_quantity("memory", amount)) - amount) <= max(1, amount / 1000)
