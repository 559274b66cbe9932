"""Matching of runs with routing rules."""

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import translate
from functools import lru_cache
from typing import Final, Protocol

from runyard.coordinator.core.routing.rules import Globs, Match, Rule

_SPECIAL: Final = re.compile(r"[*?[]")


class Routable(Protocol):
    """The properties of a launch that rules match."""

    @property
    def job(self) -> str: ...
    @property
    def location(self) -> str: ...
    @property
    def repository(self) -> str: ...
    @property
    def deployment(self) -> str: ...
    @property
    def tags(self) -> Mapping[str, str]: ...


def first_match(rules: Iterable[Rule], launch: Routable) -> Rule | None:
    """Return the first rule that matches the run, or None."""
    return next((rule for rule in rules if fits(rule.match, launch)), None)


def fits(match: Match, launch: Routable) -> bool:
    """True if the run matches. Upper and lower case differ."""
    return (
        _any_fits(match.job, launch.job)
        and _any_fits(match.code_location, launch.location)
        and _any_fits(match.repository, launch.repository)
        and _any_fits(match.deployment, launch.deployment)
        and (not match.tags or _tags_fit(match, launch.tags))
    )


def overshadowing(rules: Sequence[Rule]) -> list[tuple[int, int]]:
    """Return pairs of indexes: a rule that no run can reach, and the earlier one that matches all its runs.

    Finds the simple cases: a catch-all, the same globs again, a name that an earlier glob matches.
    """
    found = []
    for place, rule in enumerate(rules):
        for earlier in range(place):
            if _covers(rules[earlier].match, rule.match):
                found.append((place, earlier))
                break
    return found


def _tags_fit(match: Match, tags: Mapping[str, str]) -> bool:
    return all(name in tags and _any_fits(globs, tags[name]) for name, globs in match.tags)


def _any_fits(globs: Globs, text: str) -> bool:
    return not globs or _pattern(globs).match(text) is not None


@lru_cache(maxsize=10_000)
def _pattern(globs: Globs) -> re.Pattern[str]:
    # Python's fnmatch caches too few patterns for a long list of rules.
    return re.compile("|".join(map(translate, globs)))


def _covers(wide: Match, narrow: Match) -> bool:
    tags = dict(narrow.tags)
    return (
        _all_within(narrow.job, wide.job)
        and _all_within(narrow.code_location, wide.code_location)
        and _all_within(narrow.repository, wide.repository)
        and _all_within(narrow.deployment, wide.deployment)
        and all(name in tags and _all_within(tags[name], globs) for name, globs in wide.tags)
    )


def _all_within(narrow: Globs, wide: Globs) -> bool:
    """True if every text that matches `narrow` surely matches `wide`."""
    return not wide or _takes_all(wide) or all(_within(glob, wide) for glob in narrow or ("*",))


@lru_cache(maxsize=10_000)
def _takes_all(globs: Globs) -> bool:
    return any(not glob.strip("*") for glob in globs)


def _within(glob: str, wide: Globs) -> bool:
    return glob in wide or (not _SPECIAL.search(glob) and _pattern(wide).match(glob) is not None)
