"""Requirements in one line, as the command line and Dagster's event log show them."""

from collections.abc import Iterator

from runyard.common.defaults import DRIVER
from runyard.common.quantities import show_quantity
from runyard.v1 import placement_pb2


def in_one_line(wanted: placement_pb2.Requirements) -> str:
    """What a run asks for: `cpu 2, memory 16Gi, zone=a, !spot, cluster main`; `1 slot` if nothing else."""
    return ", ".join(_parts(wanted)) or "1 slot"


def _parts(wanted: placement_pb2.Requirements) -> Iterator[str]:
    for name, amount in sorted(wanted.resources.items()):
        if (name, amount) != ("slots", 1):
            yield f"{name} {show_quantity(name, amount)}"
    yield from wanted.labels
    if wanted.cluster:
        yield f"cluster {wanted.cluster}"
    if wanted.node:
        yield f"node {wanted.node}"
    if wanted.driver not in ("", DRIVER):
        yield f"driver {wanted.driver}"
    if wanted.image:
        yield f"image {wanted.image}"
    if wanted.isolation:
        yield f"isolation {wanted.isolation}"
    if wanted.tolerations:
        yield f"tolerates {' '.join(wanted.tolerations)}"
    for wish in wanted.preferences:
        yield f"prefers {wish.label}" + (f" (weight {wish.weight})" if wish.weight > 1 else "")
