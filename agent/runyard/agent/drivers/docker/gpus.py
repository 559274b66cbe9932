"""GPUs for containers: whole devices."""

from collections.abc import Sequence
from typing import Any


def device_requests(count: int, devices: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The argument `device_requests` of `containers.create`, in the words of the engine's API.

    Args:
        count: How many whole devices.
        devices: UUIDs of the ones that were allotted to the run. Without them the engine hands out the first
            `count`, to every container the same: so as long as nothing allots them, give an agent one GPU.
    """
    request: dict[str, Any] = {"Driver": "", "Capabilities": [["gpu"]], "Options": {}}
    if devices:
        return [{**request, "Count": 0, "DeviceIDs": list(devices)}]
    return [{**request, "Count": count, "DeviceIDs": []}]
