"""GPUs for containers: whole devices."""

from collections.abc import Mapping, Sequence
from typing import Any

from runyard.agent.node.gpus import VISIBLE


def device_requests(count: int, devices: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The argument `device_requests` of `containers.create`, in the words of the engine's API.

    Args:
        count: How many whole devices.
        devices: The ones that were allotted to the run, by UUID, or by index where UUIDs are not known.
            Without them the engine hands out the first `count`, to every container the same.
    """
    request: dict[str, Any] = {"Driver": "", "Capabilities": [["gpu"]], "Options": {}}
    if devices:
        return [{**request, "Count": 0, "DeviceIDs": list(devices)}]
    return [{**request, "Count": count, "DeviceIDs": []}]


def seen_inside(environment: Mapping[str, str], devices: Sequence[str]) -> dict[str, str]:
    """The environment of a container that has these devices, and in which an index counts only these.

    Args:
        environment: As for a process, which sees all devices of the machine.
        devices: As above.
    """
    if not any(device.isdigit() for device in devices):
        return dict(environment)  # a UUID is the same everywhere
    return {**environment, VISIBLE: ",".join(str(index) for index in range(len(devices)))}
