"""The NVIDIA GPUs of this machine: asked of NVML where it is installed, or else of `nvidia-smi`."""

import importlib
import re
import shutil
import subprocess
from collections.abc import Sequence

import structlog

TOOL_DIRECTORIES = ("/usr/bin", "/usr/local/bin", "/usr/local/nvidia/bin", "/opt/bin", "/usr/lib/wsl/lib")
"""Where drivers put `nvidia-smi`: distributions, containers, Kubernetes nodes, WSL."""

ANSWER_WITHIN = 30.0
"""Seconds; a sleeping driver takes some to wake."""

_LISTED = re.compile(r"^GPU \d+: (?P<model>.+?)(?: \(UUID: .*\))?$", re.MULTILINE)

log = structlog.get_logger("runyard.agent")


def gpu_models(tool_directories: Sequence[str] = TOOL_DIRECTORIES) -> list[str]:
    """The model of each GPU; empty if there are none, or no driver for them. Blocks.

    Args:
        tool_directories: Where to look for `nvidia-smi`.
    """
    found = _ask_nvml()
    return _ask_tool(tool_directories) if found is None else found


def _ask_nvml() -> list[str] | None:
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
        names = [nvml.nvmlDeviceGetName(handle) for handle in handles]
        return [name.decode() if isinstance(name, bytes) else str(name) for name in names]
    except nvml.NVMLError as error:
        log.warning("gpus_not_found", tool="NVML", error=str(error))
        return None
    finally:
        nvml.nvmlShutdown()


def _ask_tool(directories: Sequence[str]) -> list[str]:
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
    return [match["model"] for match in _LISTED.finditer(listed.stdout)]
