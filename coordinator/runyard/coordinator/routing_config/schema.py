"""Keys of a routing file and their values."""

import difflib
import enum
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from runyard.common.durations import DURATION_REMEDY, parse_duration
from runyard.common.names import LABEL_KEY, NAME
from runyard.common.quantities import parse_quantity
from runyard.common.service.yaml_document import YamlDocument, YamlProblem
from runyard.coordinator.core.requirements.resources import NOTHING, Resources
from runyard.coordinator.core.routing.rules import Globs, Order, WeightedCluster
from runyard.coordinator.core.scheduling.config import (
    DEFAULT_CONFIG,
    NoNodeAction,
    NoRuleAction,
    QueueConfig,
    Strategy,
)

MOST_RULES: Final = 1_000
"""Each launch is compared with the rules one by one."""

HEAVIEST: Final = 1_000_000
"""The largest weight of a cluster."""

LONGEST: Final = 10 * 365 * 86_400.0
"""The longest span of time, in seconds."""

_LONGEST_TEXT: Final = 256
_QUEUE: Final = QueueConfig()

E = TypeVar("E", bound=enum.Enum)


def _word_of(kind: type[E]) -> Callable[[object], E]:
    words = {str(each.value): each for each in kind}

    def read(value: object) -> E:
        if not isinstance(value, str) or value not in words:
            raise ValueError(f"{_shown(value)} is none of {', '.join(words)}")
        return words[value]

    return read


def _globs(value: object) -> Globs:
    globs = tuple(value) if isinstance(value, list) else (value,)
    if not globs:
        raise ValueError("is an empty list; leave it out to match everything")
    return tuple(_glob(each) for each in globs)


def _glob(value: object) -> str:
    text = _text(value)
    if not text or len(text) > _LONGEST_TEXT:
        raise ValueError(f"a pattern has 1 to {_LONGEST_TEXT} characters; '*' matches everything")
    return text


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{_shown(value)} is not text; put it in quotes")
    return value


def _name(value: object) -> str:
    text = _text(value)
    if not NAME.fullmatch(text):
        raise ValueError(f"{_shown(text)} must be letters, digits, '.', '_' and '-' (128 at most)")
    return text


def _tag_name(value: object) -> str:
    text = _text(value)
    if not 0 < len(text) <= _LONGEST_TEXT:
        raise ValueError(f"the name of a tag has 1 to {_LONGEST_TEXT} characters")
    return text


def _clusters(value: object) -> tuple[WeightedCluster, ...]:
    if isinstance(value, dict):
        found = tuple(WeightedCluster(_name(name), _weight(weight)) for name, weight in value.items())
    elif isinstance(value, list):
        found = tuple(WeightedCluster(_name(name)) for name in value)
    else:
        raise ValueError(f"{_shown(value)} is not a list; write [gpu-a, gpu-b], or {{gpu-a: 3, gpu-b: 1}}")
    if not found:
        raise ValueError("is empty; leave it out if any cluster will do")
    if len({each.name for each in found}) < len(found):
        raise ValueError("names a cluster twice; keep one")
    return found


def _weight(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= HEAVIEST:
        raise ValueError(
            f"the weight {_shown(value)} is not a whole number from 1 to {HEAVIEST}; "
            "leave out a cluster that is to get nothing"
        )
    return value


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{_shown(value)} is not a span of time; {DURATION_REMEDY}")
    try:
        seconds = parse_duration(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError(f"{_shown(value)} is not a span of time; {DURATION_REMEDY}") from None
    if not 0 <= seconds <= LONGEST:  # which nan is not either
        raise ValueError(f"{_shown(value)} is not between 0 and {LONGEST / 86_400:.0f} days")
    return float(seconds)


def _some_seconds(value: object) -> float:
    if not (seconds := _seconds(value)):
        raise ValueError(f"{_shown(value)} must be more than 0")
    return seconds


def _age_step(value: object) -> float | None:
    return None if value == "never" else _some_seconds(value)


def _share_by(value: object) -> str:
    match value:
        case "code_location":
            return ""
        case {"tag": name, **others} if not others:
            return _tag_name(name)
        case _:
            raise ValueError(f"{_shown(value)} is neither code_location nor a tag; write {{tag: team}}")


def _resources(value: object) -> Resources:
    if not isinstance(value, dict):
        raise ValueError(f"{_shown(value)} is not a mapping; write {{slots: 10, memory: 64Gi}}")
    amounts = {name: _amount(name, written) for name, written in value.items()}
    if empty := next((name for name, amount in amounts.items() if not amount), None):
        raise ValueError(
            f"{empty}: 0 is not a limit; leave it out, or keep these runs off its nodes by a rule"
        )
    return Resources.of(amounts)


def _amount(name: str, written: object) -> int:
    if not LABEL_KEY.fullmatch(name):
        raise ValueError(f"{_shown(name)} must be letters, digits, '.', '_', '-' and at most one '/'")
    try:
        return parse_quantity(name, written)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{_shown(value)} is not a mapping; write {{cpu: 2, memory: 4Gi}}")
    return value


def _tags(value: object) -> tuple[tuple[str, Globs], ...]:
    if not isinstance(value, dict):
        raise ValueError(f"{_shown(value)} is not a mapping; write {{team: 'data-*'}}")
    return tuple(sorted((_tag_name(name), _globs(globs)) for name, globs in value.items()))


GlobList = Annotated[Globs, BeforeValidator(_globs)]
Name = Annotated[str, BeforeValidator(_name)]
Seconds = Annotated[float, BeforeValidator(_seconds)]
SomeSeconds = Annotated[float, BeforeValidator(_some_seconds)]
Amounts = Annotated[Resources, BeforeValidator(_resources)]
Config = Annotated[dict[str, Any], BeforeValidator(_mapping)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class MatchPart(_Part):
    """`rules[].match`"""

    job: GlobList = ()
    code_location: GlobList = ()
    repository: GlobList = ()
    deployment: GlobList = ()
    tags: Annotated[tuple[tuple[str, Globs], ...], BeforeValidator(_tags)] = ()


class RulePart(_Part):
    """`rules[]`"""

    name: Name
    match: MatchPart = MatchPart()
    clusters: Annotated[tuple[WeightedCluster, ...], BeforeValidator(_clusters)] = ()
    cluster_order: Annotated[Order | None, BeforeValidator(_word_of(Order))] = None
    spill_after: Seconds = 0.0
    set: Config = {}


class QueuePart(_Part):
    """`queue`"""

    share_by: Annotated[str, BeforeValidator(_share_by)] = _QUEUE.share_by
    age_step: Annotated[float | None, BeforeValidator(_age_step)] = _QUEUE.age_step
    limit: int = Field(default=_QUEUE.limit, ge=1)
    limit_per_share: int = Field(default=_QUEUE.limit_per_share, ge=1)
    reserve_after: Seconds = _QUEUE.reserve_after
    reservation: SomeSeconds = _QUEUE.reservation


class QuotaPart(_Part):
    """`quotas.<share>`"""

    guaranteed: Amounts = NOTHING
    limit: Amounts = NOTHING


class RoutingPart(_Part):
    """The whole file."""

    defaults: Config = {}
    placement: Annotated[Strategy, BeforeValidator(_word_of(Strategy))] = Strategy.BINPACK
    default_cluster: Annotated[str, BeforeValidator(_name)] = ""
    on_no_matching_rule: Annotated[NoRuleAction, BeforeValidator(_word_of(NoRuleAction))] = (
        NoRuleAction.ANYWHERE
    )
    on_no_eligible_node: Annotated[NoNodeAction, BeforeValidator(_word_of(NoNodeAction))] = NoNodeAction.FAIL
    max_placement_attempts: int = Field(default=DEFAULT_CONFIG.max_placement_attempts, ge=1)
    rules: list[RulePart] = Field(default=[], max_length=MOST_RULES)
    queue: QueuePart = QueuePart()
    quotas: dict[str, QuotaPart] = {}


def parts_of(document: YamlDocument) -> RoutingPart:
    """Check each key by itself.

    Raises:
        InvalidYamlFile: A key is unknown, is missing, or has an invalid value.
    """
    try:
        return RoutingPart.model_validate(document.value)
    except ValidationError as error:
        document.problems.extend(_problem(document, each) for each in error.errors(include_url=False))
    document.require_no_problems()
    raise AssertionError("pydantic raised an error without errors")


def _problem(document: YamlDocument, error: ErrorDetails) -> YamlProblem:
    path, value, context = error["loc"], error["input"], error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            text = _unknown(str(path[-1]), _keys_at(path[:-1]))
        case "missing":
            return document.problem_at(path[:-1], f"has no {path[-1]}; give one")
        case "value_error":
            text = str(context["error"])
        case "model_type" | "dict_type":
            text = f"{_shown(value)} is not a mapping; write its keys below it, each with a colon"
        case "list_type":
            text = f"{_shown(value)} is not a list; write its items below it, each after a dash"
        case "int_type" | "int_parsing_size":
            text = f"{_shown(value)} is not a whole number"
        case "greater_than_equal":
            text = f"{_shown(value)} is less than {context['ge']}"
        case "too_long":
            text = f"has {context['actual_length']} items; {context['max_length']} at most"
        case _:
            text = f"{error['msg']}, not {_shown(value)}"
    return document.problem_at(path, text)


def _keys_at(path: tuple[str | int, ...]) -> Mapping[str, object]:
    parts: dict[str, type[BaseModel]] = {"rules": RulePart, "queue": QueuePart, "quotas": QuotaPart}
    match path:
        case (*_, "match"):
            return MatchPart.model_fields
        case (str(first), *_):
            return parts[first].model_fields
        case _:
            return RoutingPart.model_fields


def _unknown(key: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    meant = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
    return f"there is no such key; {meant}"


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
