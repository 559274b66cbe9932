"""What a run asks of its node and of its stop: the launcher's settings, overridden by the run's tags."""

import json
import math
from collections.abc import Mapping

from google.protobuf.duration_pb2 import Duration

from runyard.launcher import tags as names
from runyard.launcher.config import LONGEST_SECONDS, ON_DISCONNECT_REMEDY, Settings, stop_after_of
from runyard.launcher.errors import InvalidRunTag
from runyard.v1 import run_pb2

_LABELS_REMEDY = 'Write zone=a,disk=ssd or a JSON object: {"zone": "a", "disk": "ssd"}'


def requirements_of(tags: Mapping[str, str], settings: Settings) -> run_pb2.Requirements:
    """What a node must offer.

    Raises:
        InvalidRunTag: A tag cannot be understood.
    """
    return run_pb2.Requirements(
        cluster=_name(tags, names.CLUSTER) or settings.cluster or "",
        node=_name(tags, names.NODE),
        labels={**settings.labels, **_labels(tags)},
        driver=_name(tags, names.DRIVER),
    )


def policies_of(tags: Mapping[str, str], settings: Settings) -> run_pb2.Policies:
    """The run's time limits. One that nobody set is absent; zero is a limit like any other.

    Raises:
        InvalidRunTag: A tag cannot be understood.
    """
    grace = _seconds(tags, names.GRACE)
    return run_pb2.Policies(
        max_queue_time=_duration(settings.max_queue),
        start_timeout=_duration(settings.start_timeout),
        grace=_duration(settings.grace if grace is None else grace),
        stop_after=_duration(_stop_after(tags, settings)),
    )


def _name(tags: Mapping[str, str], tag: str) -> str:
    if tag not in tags:
        return ""
    name = tags[tag].strip()
    if not name:
        raise InvalidRunTag(tag, tags[tag], "is empty", "Give it a value, or remove the tag")
    return name


def _seconds(tags: Mapping[str, str], tag: str) -> float | None:
    if tag not in tags:
        return None
    try:
        seconds = float(tags[tag])
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= LONGEST_SECONDS:
        raise InvalidRunTag(tag, tags[tag], "is not a number of seconds", "Write for example 30")
    return seconds


def _stop_after(tags: Mapping[str, str], settings: Settings) -> float | None:
    text = tags.get(names.ON_DISCONNECT)
    if text is None:
        return settings.stop_after
    try:
        return stop_after_of(text)
    except ValueError:
        tag = names.ON_DISCONNECT
        raise InvalidRunTag(tag, text, "is neither keep nor a time", ON_DISCONNECT_REMEDY) from None


def _labels(tags: Mapping[str, str]) -> dict[str, str]:
    text = tags.get(names.LABELS)
    if text is None:
        return {}
    return _labels_from_json(text) if text.lstrip().startswith("{") else _labels_from_pairs(text)


def _labels_from_json(text: str) -> dict[str, str]:
    try:
        labels = json.loads(text)
    except ValueError as error:
        raise InvalidRunTag(names.LABELS, text, f"is not JSON ({error})", _LABELS_REMEDY) from None
    for key, value in labels.items():
        if not key or not isinstance(value, str):
            raise InvalidRunTag(names.LABELS, text, f"has no text under {key!r}", _LABELS_REMEDY)
    return dict(labels)


def _labels_from_pairs(text: str) -> dict[str, str]:
    labels: dict[str, str] = {}
    for pair in text.split(","):
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not key or not equals:
            raise InvalidRunTag(names.LABELS, text, f"has the part {pair.strip()!r}", _LABELS_REMEDY)
        if labels.setdefault(key, value) != value:
            raise InvalidRunTag(names.LABELS, text, f"gives {key} two values", _LABELS_REMEDY)
    return labels


def _duration(seconds: float | None) -> Duration | None:
    if seconds is None:
        return None
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration
