"""Matching of runs with rules."""

import warnings
from fnmatch import fnmatchcase

import pytest
from coordinator.routing.launches import launch_of
from hypothesis import given
from hypothesis import strategies as st

from runyard.coordinator.core.routing.matching import first_match, fits, overshadowing
from runyard.coordinator.core.routing.rules import Match, Rule

TRAINING = launch_of(tags={"team": "vision-2", "dagster/priority": "3", "empty": ""})

FOR_TRAINING = {
    "a rule without a match is for every run": Match(),
    "the job's whole name": Match(job=("train_model",)),
    "the job by a glob": Match(job=("train_*",)),
    "the job by a set of characters": Match(job=("[rst]rain_?odel",)),
    "any of several globs": Match(job=("report", "train_*")),
    "the code location": Match(code_location=("ml", "vision")),
    "the repository": Match(repository=("mod*",)),
    "the deployment": Match(deployment=("prod",)),
    "a tag's value": Match(tags=(("team", ("vision-2",)),)),
    "a tag by any of several globs": Match(tags=(("team", ("data*", "vision*")),)),
    "a tag that must merely be there": Match(tags=(("empty", ("*",)),)),
    "all at once": Match(("train_*",), ("ml",), ("*",), ("prod",), (("team", ("v*",)),)),
}

NOT_FOR_TRAINING = {
    "another job": Match(job=("report",)),
    "a part of the job's name": Match(job=("train",)),
    "the end of the job's name": Match(job=("model",)),
    "another case": Match(job=("Train_*",)),
    "another code location": Match(code_location=("shop",)),
    "another repository": Match(repository=("shop",)),
    "another deployment": Match(deployment=("test*",)),
    "a tag that the run lacks": Match(tags=(("owner", ("*",)),)),
    "a tag with another value": Match(tags=(("team", ("data*",)),)),
    "one of two tags": Match(tags=(("owner", ("*",)), ("team", ("*",)))),
    "all but one": Match(("train_*",), ("ml",), ("shop",), ("prod",)),
    "no value of a set": Match(job=("[!t]rain_model",)),
}


@pytest.mark.parametrize("case", FOR_TRAINING)
def test_rule_matches_the_training_if_it_names(case: str) -> None:
    assert fits(FOR_TRAINING[case], TRAINING)


@pytest.mark.parametrize("case", NOT_FOR_TRAINING)
def test_rule_does_not_match_the_training_if_it_names(case: str) -> None:
    assert not fits(NOT_FOR_TRAINING[case], TRAINING)


def test_reading_for_a_tag_does_not_give_it_to_the_run() -> None:
    launch = launch_of()
    fits(Match(tags=(("owner", ("*",)),)), launch)
    assert "owner" not in launch.spec.tags


def test_first_matching_rule_wins() -> None:
    rules = [Rule("no", Match(job=("no",))), Rule("one", Match(job=("t*",))), Rule("two", Match())]
    assert first_match(rules, TRAINING) is rules[1]
    assert first_match(rules[:1], TRAINING) is None


GLOBS = st.text(st.sampled_from("ab*?[]!-_^&|~\\\n"), min_size=1, max_size=8)
NAMES = st.text(st.sampled_from("ab[]!-_^&|~\\\n"), max_size=6)


@given(st.lists(GLOBS, min_size=1, max_size=3), NAMES)
def test_globs_are_those_of_the_shell_whatever_they_hold(globs: list[str], name: str) -> None:
    with warnings.catch_warnings(action="error"):
        fitting = fits(Match(job=tuple(globs)), launch_of(job=name))
    assert fitting == any(fnmatchcase(name, glob) for glob in globs)


# Rules that nothing reaches


def shadows(*matches: Match) -> list[tuple[int, int]]:
    return overshadowing([Rule(f"rule {place}", match) for place, match in enumerate(matches)])


UNREACHABLE = {
    "after a catch-all": (Match(), Match(job=("a",))),
    "after a glob for everything": (Match(job=("*",), repository=("**",)), Match(job=("a",))),
    "after the same rule": (Match(job=("a*",)), Match(job=("a*",))),
    "after a glob that takes the name": (Match(job=("a*",)), Match(job=("abc",))),
    "after a list that holds it": (Match(job=("a", "b")), Match(job=("b",))),
    "after a rule with fewer conditions": (Match(job=("a",)), Match(job=("a",), deployment=("d",))),
    "after a rule for the same tag": (
        Match(tags=(("team", ("*",)),)),
        Match(job=("a",), tags=(("team", ("x*",)),)),
    ),
}

REACHABLE = {
    "after a narrower rule": (Match(job=("abc",)), Match(job=("a*",))),
    "before a catch-all": (Match(job=("a",)), Match()),
    "after a list that holds some of it": (Match(job=("a", "b")), Match(job=("b", "c"))),
    "for runs without the tag": (Match(tags=(("team", ("*",)),)), Match(job=("a",))),
    "for another tag": (Match(tags=(("team", ("*",)),)), Match(tags=(("owner", ("*",)),))),
    "after a glob that may be narrower": (Match(job=("?*",)), Match(job=("*",))),
}


@pytest.mark.parametrize("case", UNREACHABLE)
def test_rule_is_unreachable(case: str) -> None:
    assert shadows(*UNREACHABLE[case]) == [(1, 0)]


@pytest.mark.parametrize("case", REACHABLE)
def test_rule_is_reachable(case: str) -> None:
    assert shadows(*REACHABLE[case]) == []


GLOB_LISTS = st.lists(st.text(st.sampled_from("ab*?"), min_size=1, max_size=4), max_size=2).map(tuple)
MATCHES = st.builds(
    Match,
    job=GLOB_LISTS,
    tags=st.sampled_from([(), (("team", ("a*",)),), (("team", ("*",)),)]),
)


@given(MATCHES, MATCHES, NAMES, st.sampled_from([{}, {"team": "a"}, {"team": "b"}]))
def test_no_run_ever_matches_a_rule_that_is_reported_as_unreachable(
    first: Match, second: Match, job: str, tags: dict[str, str]
) -> None:
    if shadows(first, second) and fits(second, launch := launch_of(job=job, tags=tags)):
        assert fits(first, launch)
