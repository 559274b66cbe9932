"""Rules that must hold together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.coordinator.core.requirements.label_sets import Contradiction, joined
from runyard.coordinator.core.requirements.labels import LabelRule, Operator, parse_label_rule

JOINED = [
    ("zone=a zone=a", "zone=a"),
    ("zone=a|b zone=b|c", "zone=b"),
    ("zone=a|b zone!=a", "zone=b"),
    ("zone zone=a", "zone=a"),
    ("zone=a disk=ssd", "disk=ssd zone=a"),
    ("zone!=a zone!=b", "zone!=a|b"),
    ("!spot !spot", "!spot"),
    ("!spot spot!=yes", "!spot"),
    ("cores>=4 cores>=8", "cores>=8"),
    ("cores<=4 cores<=8", "cores<=4"),
    ("cores>=4 cores<=8", "cores<=8 cores>=4"),
    ("cores>=4 cores=2|8", "cores=8"),
    ("cores>=4 cores", "cores>=4"),
]


def rules(text: str) -> list[LabelRule]:
    return [parse_label_rule(part) for part in text.split()]


@pytest.mark.parametrize(("given_rules", "fewest"), JOINED)
def test_rules_of_one_key_become_the_smallest_equivalent_set(given_rules: str, fewest: str) -> None:
    assert " ".join(map(str, joined(rules(given_rules)))) == fewest


CONTRADICTIONS = [
    "zone=a zone=b",
    "zone=a|b zone=c",
    "zone=a zone!=a",
    "zone=a !zone",
    "!zone zone",
    "!cores cores>=4",
    "cores>=8 cores<=4",
    "cores=2 cores>=4",
]


@pytest.mark.parametrize("given_rules", CONTRADICTIONS)
def test_rules_that_no_label_satisfies_are_named(given_rules: str) -> None:
    for order in (rules(given_rules), rules(given_rules)[::-1]):
        with pytest.raises(Contradiction) as caught:
            joined(order)
        assert {caught.value.first, caught.value.second} == set(order)


VALUES = ("1", "2", "3", "x")
ANY_RULE = st.one_of(
    st.builds(
        LabelRule,
        st.just("k"),
        st.sampled_from([Operator.IS, Operator.IS_NOT]),
        st.lists(st.sampled_from(VALUES), min_size=1, max_size=3, unique=True).map(tuple),
    ),
    st.builds(LabelRule, st.just("k"), st.sampled_from([Operator.HAS, Operator.HAS_NOT])),
    st.builds(
        LabelRule,
        st.just("k"),
        st.sampled_from([Operator.AT_LEAST, Operator.AT_MOST]),
        st.sampled_from(["1", "2", "3"]).map(lambda number: (number,)),
    ),
)


@given(st.lists(ANY_RULE, max_size=5))
def test_joined_rules_admit_the_same_labels(given_rules: list[LabelRule]) -> None:
    labels: list[dict[str, str]] = [{}, *({"k": value} for value in (*VALUES, "1.5", "2.5"))]
    admitted = [each for each in labels if all(rule.holds(each) for rule in given_rules)]
    try:
        fewest = joined(given_rules)
    except Contradiction:
        assert not admitted
    else:
        assert admitted == [each for each in labels if all(rule.holds(each) for rule in fewest)]
