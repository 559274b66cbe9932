"""NVIDIA GPUs of this machine, listed by NVML if it is installed, and by `nvidia-smi` otherwise."""

import importlib
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import structlog

from runyard.agent.supervisor.records import SpecRecord

TOOL_DIRECTORIES = ("/usr/bin", "/usr/local/bin", "/usr/local/nvidia/bin", "/opt/bin", "/usr/lib/wsl/lib")
"""Directories where drivers install `nvidia-smi`: distributions, containers, Kubernetes nodes, WSL."""

ANSWER_WITHIN = 30.0
"""Seconds for `nvidia-smi` to answer; a suspended driver takes some to wake."""

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""Variable with the devices that CUDA shows to a process: CUDA programming guide."""

VISIBLE_IN_CONTAINERS = "NVIDIA_VISIBLE_DEVICES"
"""Variable with the devices that NVIDIA's container runtime shows to a container."""

IN_BUS_ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
"""Makes CUDA number the devices as `nvidia-smi` does; by default the fastest one is first."""

_LISTED = re.compile(r"^GPU \d+: (?P<model>.+?)(?: \(UUID: (?P<uuid>.*)\))?$", re.MULTILINE)

log = structlog.get_logger("runyard.agent")


@dataclass(frozen=True)
class Gpu:
    """One device. A field is empty if it is unknown."""

    uuid: str
    model: str


@dataclass(frozen=True)
class GpuInventory:
    """GPUs of this node."""

    devices: tuple[str, ...] = ()
    """Devices that are allotted to runs."""
    models: tuple[str, ...] = ()
    """Model of each GPU; empty texts where it is unknown."""


def gpu_inventory(named: Sequence[str], count: int | None) -> GpuInventory:
    """Detect the GPUs of this node. Blocks.

    Args:
        named, count: See `allottable`.
    """
    if count == 0:
        return GpuInventory()
    found = find_gpus()
    models = {gpu.uuid: gpu.model for gpu in found}
    listed = [models.get(uuid, "") for uuid in named] if named else [gpu.model for gpu in found]
    return GpuInventory(allottable(named, count, found), tuple(listed))


def find_gpus(tool_directories: Sequence[str] = TOOL_DIRECTORIES) -> list[Gpu]:
    """List the GPUs in bus order; empty without a GPU or its driver. Blocks.

    Args:
        tool_directories: Directories that may hold `nvidia-smi`.
    """
    found = _ask_nvml()
    return _ask_tool(tool_directories) if found is None else found


def allottable(named: Sequence[str], count: int | None, found: Sequence[Gpu]) -> tuple[str, ...]:
    """Return the devices that the node gives to runs, by UUID, or by index if UUIDs are unknown.

    Args:
        named: Devices that the owner named; empty: all that were found.
        count: Number that the owner set; None: the number that was found.
        found: Devices that were found.

    Returns:
        Nothing if the owner set a larger number than there are devices: runs then share them.
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


def with_gpus(spec: SpecRecord, devices: Sequence[str]) -> SpecRecord:
    """Return the record with these devices, the only ones that the worker sees."""
    visible = ",".join(devices)
    seen = {VISIBLE: visible, VISIBLE_IN_CONTAINERS: visible, **IN_BUS_ORDER}
    return replace(spec, gpus=list(devices), env={**spec.env, **seen})


def without_gpus(spec: SpecRecord) -> SpecRecord:
    """Return the record without devices. The worker sees none unless its own environment names some."""
    if VISIBLE in spec.env or VISIBLE_IN_CONTAINERS in spec.env:
        return spec
    unseen = {VISIBLE: "", VISIBLE_IN_CONTAINERS: "void", **IN_BUS_ORDER}
    return replace(spec, env={**unseen, **spec.env})


def devices_of(spec: SpecRecord) -> tuple[str, ...]:
    """Return the devices of an attempt, for drivers that pass them in another way."""
    return tuple(spec.gpus)


def required_gpus(resources: Mapping[str, int]) -> int:
    """Return the number of devices that a launch requires."""
    return resources.get("gpu", 0)


def _ask_nvml() -> list[Gpu] | None:
    try:
        nvml = importlib.import_module("pynvml")  # of nvidia-ml-py, installed by the extra `gpu`
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None  # no driver, or one that NVML cannot use: nvidia-smi explains that
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


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


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
