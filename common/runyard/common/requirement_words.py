"""Requirements in one line, for the command line and Dagster's event log."""

from collections.abc import Iterator

from runyard.common.defaults import DRIVER
from runyard.common.quantities import show_quantity
from runyard.v1 import placement_pb2


def in_one_line(requirements: placement_pb2.Requirements) -> str:
    """Return for example `cpu 2, memory 16Gi, zone=a, cluster main`; `1 slot` if nothing is required."""
    return ", ".join(_parts(requirements)) or "1 slot"


def _parts(requirements: placement_pb2.Requirements) -> Iterator[str]:
    for name, amount in sorted(requirements.resources.items()):
        if (name, amount) != ("slots", 1):
            yield f"{name} {show_quantity(name, amount)}"
    yield from requirements.labels
    if requirements.cluster:
        yield f"cluster {requirements.cluster}"
    if requirements.node:
        yield f"node {requirements.node}"
    if requirements.driver not in ("", DRIVER):
        yield f"driver {requirements.driver}"
    if requirements.image:
        yield f"image {requirements.image}"
    if requirements.isolation:
        yield f"isolation {requirements.isolation}"
    if requirements.tolerations:
        yield f"tolerates {' '.join(requirements.tolerations)}"
    for each in requirements.preferences:
        yield f"prefers {each.label}" + (f" (weight {each.weight})" if each.weight > 1 else "")
