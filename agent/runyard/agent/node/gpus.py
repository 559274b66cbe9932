"""The NVIDIA GPUs of this machine: asked of NVML where it is installed, or else of `nvidia-smi`."""

import importlib
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import structlog

from runyard.agent.supervisor.records import SpecRecord

TOOL_DIRECTORIES = ("/usr/bin", "/usr/local/bin", "/usr/local/nvidia/bin", "/opt/bin", "/usr/lib/wsl/lib")
"""Where drivers put `nvidia-smi`: distributions, containers, Kubernetes nodes, WSL."""

ANSWER_WITHIN = 30.0
"""Seconds; a sleeping driver takes some to wake."""

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""What CUDA lets a process see, see the CUDA programming guide."""

VISIBLE_IN_CONTAINERS = "NVIDIA_VISIBLE_DEVICES"
"""What NVIDIA's container runtime lets a container see."""

IN_BUS_ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
"""Has CUDA count the devices as `nvidia-smi` does; by default it begins with the fastest."""

_LISTED = re.compile(r"^GPU \d+: (?P<model>.+?)(?: \(UUID: (?P<uuid>.*)\))?$", re.MULTILINE)

log = structlog.get_logger("runyard.agent")


@dataclass(frozen=True)
class Gpu:
    """One device. Both are empty where nobody tells."""

    uuid: str
    model: str


def find_gpus(tool_directories: Sequence[str] = TOOL_DIRECTORIES) -> list[Gpu]:
    """The GPUs in the order of the bus; empty if there are none, or no driver for them. Blocks.

    Args:
        tool_directories: Where to look for `nvidia-smi`.
    """
    found = _ask_nvml()
    return _ask_tool(tool_directories) if found is None else found


def allottable(named: Sequence[str], count: int | None, found: Sequence[Gpu]) -> tuple[str, ...]:
    """The devices that the node gives to runs, by UUID, or by index where UUIDs are not known.

    Args:
        named: Those that the owner named; empty: all that were found.
        count: How many the owner says there are; None: as many as were found.
        found: What was found.

    Returns:
        Nothing if the owner has more to give than there are: then runs share them as they see fit.
    """
    devices = tuple(named) or tuple(gpu.uuid or str(index) for index, gpu in enumerate(found))
    if count is None:
        return devices
    if not devices:
        return tuple(str(index) for index in range(count))
    if count > len(devices):
        log.warning("gpus_not_allotted", count=count, devices=len(devices), remedy="name all in gpus")
        return ()
    return devices[:count]


def given(spec: SpecRecord, devices: Sequence[str]) -> SpecRecord:
    """The spec of an attempt that has these devices, and sees no others."""
    visible = ",".join(devices)
    seen = {VISIBLE: visible, VISIBLE_IN_CONTAINERS: visible, **IN_BUS_ORDER}
    return replace(spec, gpus=list(devices), env={**spec.env, **seen})


def given_none(spec: SpecRecord) -> SpecRecord:
    """The spec of an attempt that has no device, and sees none unless its own environment says so."""
    if VISIBLE in spec.env or VISIBLE_IN_CONTAINERS in spec.env:
        return spec
    unseen = {VISIBLE: "", VISIBLE_IN_CONTAINERS: "void", **IN_BUS_ORDER}
    return replace(spec, env={**unseen, **spec.env})


def devices_of(spec: SpecRecord) -> tuple[str, ...]:
    """The devices that an attempt has, for drivers that hand them over in a way of their own."""
    return tuple(spec.gpus)


def asked_for(resources: Mapping[str, int]) -> int:
    """How many devices a launch asks for."""
    return resources.get("gpu", 0)


def _ask_nvml() -> list[Gpu] | None:
    try:
        nvml = importlib.import_module("pynvml")  # the distribution nvidia-ml-py, which is optional
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None  # no driver here; and if there is one that NVML cannot speak to, the tool says why
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        return [
            Gpu(_text(nvml.nvmlDeviceGetUUID(handle)), _text(nvml.nvmlDeviceGetName(handle)))
            for handle in handles
        ]
    except nvml.NVMLError as error:
        log.warning("gpus_not_found", tool="NVML", error=str(error))
        return None
    finally:
        nvml.nvmlShutdown()


def _text(told: object) -> str:
    return told.decode() if isinstance(told, bytes) else str(told)


def _ask_tool(directories: Sequence[str]) -> list[Gpu]:
    tool = shutil.which("nvidia-smi", path=":".join(directories))
    if tool is None:
        return []
    try:
        listed = subprocess.run(
            [tool, "-L"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ANSWER_WITHIN,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        log.warning(
            "gpus_not_found", tool=tool, error=str(error), remedy="set resources.gpu, if need be to 0"
        )
        return []
    return [Gpu(match["uuid"] or "", match["model"]) for match in _LISTED.finditer(listed.stdout)]
