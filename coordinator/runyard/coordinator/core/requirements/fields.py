"""Parsers of single fields, as people write them in tags, in YAML and in JSON.

Every function accepts any value, and raises ValueError with the problem and the remedy.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from runyard.common.defaults import ISOLATION_MODES, LONGEST_SECONDS
from runyard.common.durations import DURATION_REMEDY, parse_duration
from runyard.common.names import LABEL_VALUE, NAME
from runyard.common.quantities import parse_quantity
from runyard.coordinator.core.requirements.label_sets import Contradiction, joined
from runyard.coordinator.core.requirements.labels import FORMS, LabelRule, label_is, parse_label_rule
from runyard.coordinator.core.requirements.requirements import (
    Keep,
    OnDisconnect,
    Preference,
    StopAfter,
)
from runyard.coordinator.core.requirements.resources import CPU, GPU, MEMORY, SLOTS, Resources

LARGEST_WEIGHT: Final = 1000

_IMAGE: Final = re.compile(r"\S{1,512}")

_LABELS_REMEDY: Final = f'{FORMS}, separated by commas, or {{"zone": "a", "disk": ["ssd", "nvme"]}}'
_PREFER_REMEDY: Final = f'{FORMS}, separated by commas, or with weights {{"zone=a": 5, "!spot": 1}}'
_WEIGHT_REMEDY: Final = f'write a whole number from 1 to {LARGEST_WEIGHT}, as in {{"zone=a": 5}}'
_TOLERATIONS_REMEDY: Final = "write taints as gpu or team=x, separated by commas, or * for all"
_ON_DISCONNECT_REMEDY: Final = "write keep, or a time as in stop_after=5m"


def read_name(written: object) -> str:
    """Parse the name of a cluster, a node or a driver."""
    name = _text(written, "a name").strip()
    if not NAME.fullmatch(name):
        raise ValueError(f"{quoted(written)} is not a name; write letters, digits, '.', '_' and '-'")
    return name


def read_image(written: object) -> str:
    """Parse the name of a container image."""
    image = _text(written, "an image").strip()
    if not _IMAGE.fullmatch(image):
        raise ValueError(f"{quoted(written)} is not an image; write for example registry.example/etl:1.2")
    return image


def read_isolation(written: object) -> str:
    """Parse the isolation mode."""
    mode = _text(written, "a word").strip()
    if mode not in ISOLATION_MODES:
        raise ValueError(f"{quoted(written)} is not an isolation mode; write {' or '.join(ISOLATION_MODES)}")
    return mode


def read_labels(written: object) -> tuple[LabelRule, ...]:
    """Parse rules that must all hold: text, a list of rules, or values by key."""
    given = structured(written)
    if isinstance(given, Mapping):
        rules = [_label_among(key, values) for key, values in given.items()]
    else:
        rules = [_rule(part, _LABELS_REMEDY) for part in _parts(given, _LABELS_REMEDY)]
    try:
        return joined(rules)
    except Contradiction as contradiction:
        raise ValueError(f"has both {contradiction.first} and {contradiction.second}; drop one") from None


def read_preferences(written: object) -> tuple[Preference, ...]:
    """Parse preferences: text, a list of rules, or weights by rule."""
    given = structured(written)
    parts = [given] if isinstance(given, Mapping) else list(_parts(given, _PREFER_REMEDY))
    return tuple(each for part in parts for each in _preferences(part))


def read_tolerations(written: object) -> tuple[str, ...]:
    """Parse the taints that a run tolerates."""
    taints = [_toleration(part) for part in _parts(structured(written), _TOLERATIONS_REMEDY)]
    return tuple(dict.fromkeys(taints))


def read_amount(name: str, written: object) -> Resources:
    """Parse the amount of one resource; zero cancels the amount of lower layers."""
    return Resources.stated({name: parse_quantity(name, written)})


def read_countables(written: object) -> Resources:
    """Parse whole numbers of resources that operators have named."""
    given = structured(written)
    if not isinstance(given, Mapping):
        raise ValueError(f'{quoted(written)} names no resources; write for example {{"license": 1}}')
    amounts: dict[str, int] = {}
    for name, amount in given.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ValueError(f"has the resource {quoted(name)}; write letters, digits, '.', '_' and '-'")
        if name == SLOTS:
            raise ValueError("names slots; leave them out, since every run takes exactly one")
        if name in (CPU, MEMORY, GPU):
            raise ValueError(f"names {name}, which is a separate field; write it beside resources")
        try:
            amounts[name] = parse_quantity(name, amount)
        except ValueError as error:
            raise ValueError(f"has an invalid amount of {name}: {error}") from None
    return Resources.stated(amounts)


def read_seconds(written: object) -> float:
    """Parse a duration: a number of seconds, or text such as 5m."""
    seconds: float = -1
    if isinstance(written, int | float) and not isinstance(written, bool):
        seconds = written
    elif isinstance(written, str):
        seconds = _seconds_of(written)
    if not 0 <= seconds <= LONGEST_SECONDS:
        raise ValueError(f"{quoted(written)} is not a span of time; {DURATION_REMEDY}")
    return float(seconds)


def read_on_disconnect(written: object) -> OnDisconnect:
    """Parse the fate of a worker whose node has lost the coordinator."""
    if isinstance(written, Mapping) and list(written) == ["stop_after"]:
        word, time = "stop_after", written["stop_after"]
    else:
        text = written if isinstance(written, str) else ""
        word, _, time = (part.strip() for part in text.replace(":", "=", 1).partition("="))
    if (word, time) == ("keep", ""):
        return Keep()
    try:
        seconds = read_seconds(time) if word == "stop_after" else 0.0
    except ValueError:
        seconds = 0.0
    if not seconds:
        raise ValueError(f"{quoted(written)} is neither keep nor a time; {_ON_DISCONNECT_REMEDY}")
    return StopAfter(seconds)


def structured(written: object) -> object:
    """Return the value of a text that holds a JSON object or list; anything else unchanged."""
    if not isinstance(written, str) or not written.lstrip().startswith(("{", "[")):
        return written
    try:
        return json.loads(written)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{quoted(written)} is not JSON ({error}); correct it") from None


def quoted(written: object) -> str:
    """Return the value, short enough for a message."""
    try:
        shown = repr(written[:80] if isinstance(written, str) else written)
    except RecursionError:
        shown = "something nested too deep"
    return shown if len(shown) <= 100 else f"{shown[:97]}..."


def _text(written: object, what: str) -> str:
    if not isinstance(written, str):
        raise ValueError(f"{quoted(written)} is not {what}; write it as text")
    if not written.strip():
        raise ValueError("is empty; give it a value, or leave it out")
    return written


def _parts(given: object, remedy: str) -> Iterator[object]:
    if isinstance(given, str):
        yield from given.split(",")
    elif isinstance(given, list | tuple):
        yield from given
    else:
        raise ValueError(f"{quoted(given)} is neither text nor a list; {remedy}")


def _rule(part: object, remedy: str) -> LabelRule:
    if not isinstance(part, str):
        raise ValueError(f"has the part {quoted(part)}, which is not text; {remedy}")
    try:
        return parse_label_rule(part)
    except ValueError as error:
        raise ValueError(f"{error}; {remedy}") from None


def _label_among(key: object, values: object) -> LabelRule:
    several = values.split("|") if isinstance(values, str) else values
    if not isinstance(several, list | tuple) or not _all_texts(several):
        raise ValueError(f"has {quoted(values)} under {quoted(key)}, which is not text; {_LABELS_REMEDY}")
    rule = label_is(str(key), *dict.fromkeys(value.strip() for value in several))
    # A key such as `zone!` is valid text but reads back as another rule.
    if _rule(str(rule), _LABELS_REMEDY) != rule:
        raise ValueError(f"has the key {quoted(key)}, which is not a label; {_LABELS_REMEDY}")
    return rule


def _all_texts(values: Sequence[object]) -> bool:
    return bool(values) and all(isinstance(value, str) for value in values)


def _preferences(part: object) -> Iterator[Preference]:
    if not isinstance(part, Mapping):
        yield Preference(_rule(part, _PREFER_REMEDY))
        return
    for label, weight in part.items():
        if isinstance(weight, bool) or not isinstance(weight, int) or not 1 <= weight <= LARGEST_WEIGHT:
            raise ValueError(f"gives {quoted(label)} the weight {quoted(weight)}; {_WEIGHT_REMEDY}")
        yield Preference(_rule(label, _PREFER_REMEDY), weight)


def _toleration(part: object) -> str:
    taint = part.strip() if isinstance(part, str) else ""
    key, _, value = taint.partition("=")
    if taint != "*" and not (NAME.fullmatch(key) and LABEL_VALUE.fullmatch(value)):
        raise ValueError(f"has the part {quoted(part)}; {_TOLERATIONS_REMEDY}")
    return taint


def _seconds_of(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return parse_duration(text)
