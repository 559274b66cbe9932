"""Schema of requirements: one dictionary, and a tag for each of its keys.

    runyard/config: {"cpu": 2, "memory": "16Gi", "labels": {"zone": ["a", "b"]}}
    runyard/memory: 32Gi

A code location's container_context and routing files use the same dictionary; see docs/requirements.md.
"""

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import partial
from typing import Any, Final

from runyard.coordinator.core.errors import InvalidField
from runyard.coordinator.core.requirements.fields import (
    quoted,
    read_amount,
    read_countables,
    read_image,
    read_isolation,
    read_labels,
    read_name,
    read_on_disconnect,
    read_preferences,
    read_seconds,
    read_tolerations,
    structured,
)
from runyard.coordinator.core.requirements.layers import overlaid
from runyard.coordinator.core.requirements.requirements import EMPTY_LAYER, RequirementLayer
from runyard.coordinator.core.requirements.resources import CPU, GPU, MEMORY

PREFIX: Final = "runyard/"
CONFIG: Final = "config"

LONGEST_TAG: Final = 8_192
"""Characters of one tag; joining labels takes time quadratic in their number."""

WRITTEN: Final = frozenset({"placed_cluster", "placed_node", "outcome", "exit_cause"})
"""Tags that Runyard writes, for people. It never reads them, since Dagster copies tags onto retries."""

SCHEMA: Final[Mapping[str, Callable[[object], RequirementLayer]]] = {
    "cluster": lambda written: RequirementLayer(cluster=read_name(written)),
    "node": lambda written: RequirementLayer(node=read_name(written)),
    "labels": lambda written: RequirementLayer(labels=read_labels(written)),
    "prefer": lambda written: RequirementLayer(preferences=read_preferences(written)),
    "tolerations": lambda written: RequirementLayer(tolerations=read_tolerations(written)),
    "driver": lambda written: RequirementLayer(driver=read_name(written)),
    "image": lambda written: RequirementLayer(image=read_image(written)),
    "isolation": lambda written: RequirementLayer(isolation=read_isolation(written)),
    "cpu": lambda written: RequirementLayer(resources=read_amount(CPU, written)),
    "memory": lambda written: RequirementLayer(resources=read_amount(MEMORY, written)),
    "gpu": lambda written: RequirementLayer(resources=read_amount(GPU, written)),
    "resources": lambda written: RequirementLayer(resources=read_countables(written)),
    "on_disconnect": lambda written: RequirementLayer(on_disconnect=read_on_disconnect(written)),
    "grace": lambda written: RequirementLayer(grace=read_seconds(written)),
    "max_queue_time": lambda written: RequirementLayer(max_queue_time=read_seconds(written)),
    "start_timeout": lambda written: RequirementLayer(start_timeout=read_seconds(written)),
}


def layer_from_config(config: Mapping[str, Any], where: str) -> RequirementLayer:
    """Parse the dictionary.

    Args:
        config: Values from YAML or JSON.
        where: Its place, for messages, such as `rule gpu`.

    Raises:
        InvalidField: A key is unknown or a value is invalid; the message names the key and the place.
    """
    return _layer(config.items(), lambda key: f"{key} of {where}", partial(_unknown_key, where))


def layer_from_tags(tags: Mapping[str, str], where: str) -> RequirementLayer:
    """Parse the tags of a run, an op or a graph; those that do not begin with `runyard/` are ignored.

    Args:
        tags: Dagster's tags.
        where: Their owner, for messages, such as `op train`.

    Raises:
        InvalidField: A tag is unknown or a value is invalid; the message names the tag and the place.
    """
    ours = {name.removeprefix(PREFIX): text for name, text in tags.items() if name.startswith(PREFIX)}
    for key, text in ours.items():
        if len(text) > LONGEST_TAG:
            raise InvalidField(
                f"tag {PREFIX}{key[:80]} of {where}", f"has more than {LONGEST_TAG} characters"
            )
    shorthands = [(key, text) for key, text in ours.items() if key != CONFIG and key not in WRITTEN]
    layer = _layer(shorthands, lambda key: f"tag {PREFIX}{key} of {where}", partial(_unknown_tag, where))
    return overlaid(_layer_from_config_tag(ours[CONFIG], where), layer) if CONFIG in ours else layer


def _layer_from_config_tag(text: str, where: str) -> RequirementLayer:
    tag = f"{PREFIX}{CONFIG}"
    try:
        config = structured(text)
    except ValueError as error:
        raise InvalidField(f"tag {tag} of {where}", str(error)) from None
    if not isinstance(config, Mapping):
        raise InvalidField(
            f"tag {tag} of {where}",
            f'{quoted(text)} is not a JSON object; write for example {{"memory": "16Gi"}}',
        )
    return layer_from_config(config, f"tag {tag} of {where}")


def _layer(
    written: Iterable[tuple[object, object]],
    named: Callable[[str], str],
    unknown: Callable[[object], InvalidField],
) -> RequirementLayer:
    layer = EMPTY_LAYER
    for key, value in written:
        if not isinstance(key, str) or key not in SCHEMA:
            raise unknown(key)
        try:
            layer = overlaid(layer, SCHEMA[key](value))
        except ValueError as error:
            raise InvalidField(named(key), str(error)) from None
    return layer


def _unknown_key(where: str, key: object) -> InvalidField:
    return InvalidField(where, f"has the unknown key {quoted(key)}; {_meant(str(key)[:80], '', SCHEMA)}")


def _unknown_tag(where: str, key: object) -> InvalidField:
    written = str(key)[:80]
    meant = _meant(written, PREFIX, (CONFIG, *SCHEMA))
    return InvalidField(f"tag {PREFIX}{written} of {where}", f"is not a tag of Runyard; {meant}")


def _meant(written: str, prefix: str, known: Iterable[str]) -> str:
    near = get_close_matches(written, known, n=1)
    if near:
        return f"did you mean {prefix}{near[0]}?"
    return f"known are {', '.join(prefix + each for each in known)}"
