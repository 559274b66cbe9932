"""Resources of a node: the kernel's limits, the detected GPUs, and the settings that override both."""

import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import psutil
import pytest
from agent.runtime_side import drivers_over, no_drivers

from runyard.agent.config.agent import AgentSettings
from runyard.agent.drivers.base import ClusterDriver, Driver, DriverError
from runyard.agent.drivers.fake import FakeClusterDriver, FakeDriver
from runyard.agent.node.capacity import (
    Capacity,
    Machine,
    NodeResources,
    cluster_resources,
    detect_machine,
    machine_resources,
)
from runyard.agent.node.cgroups import Limits, own_limits
from runyard.agent.node.gpus import Gpu, GpuInventory, find_gpus, gpu_inventory
from runyard.agent.runtime.resource_monitor import ResourceMonitor
from runyard.agent.session.delivery import ResourcesDelivery
from runyard.agent.supervisor.rundir import RunDirectories

GIB = 1 << 30
A100 = "NVIDIA A100-SXM4-40GB"
MACHINE = Machine(cpu=4000, memory=16 * GIB)


def settings(**values: object) -> AgentSettings:
    return AgentSettings.model_validate(values)


# The kernel's limits


@pytest.mark.parametrize(
    ("membership", "files", "limits"),
    [
        pytest.param("0::/", {}, Limits(None, None), id="no limits"),
        pytest.param(
            "0::/runyard.slice/agent.service",
            {
                "runyard.slice/agent.service/cpu.max": "150000 100000\n",
                "runyard.slice/agent.service/memory.max": "max\n",
                "runyard.slice/cpu.max": "max 100000\n",
                "runyard.slice/memory.max": f"{2 * GIB}\n",
            },
            Limits(1500, 2 * GIB),
            id="version 2, the tightest of a group and those above",
        ),
        pytest.param(
            "0::/../outside",
            {"cpu.max": "50000 100000", "memory.max": str(GIB)},
            Limits(500, GIB),
            id="version 2 in a container that sees its outer name",
        ),
        pytest.param(
            "5:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/",
            {
                "memory/memory.limit_in_bytes": f"{3 * GIB}\n",
                "cpu/docker/abc/cpu.cfs_quota_us": "200000\n",
                "cpu/docker/abc/cpu.cfs_period_us": "100000\n",
            },
            Limits(2000, 3 * GIB),
            id="version 1",
        ),
        pytest.param(
            "5:memory:/\n3:cpu:/",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            Limits(None, None),
            id="version 1 without limits",
        ),
        pytest.param(
            "5:devices:/a\n0::/a",
            {"unified/a/memory.max": str(GIB), "devices/a/memory.max": "1"},
            Limits(None, GIB),
            id="version 2 beside version 1",
        ),
    ],
)
def test_limits_are_those_of_the_control_groups(
    tmp_path: Path, membership: str, files: dict[str, str], limits: Limits
) -> None:
    (tmp_path / "membership").write_text(membership)
    for name, content in files.items():
        file = tmp_path / "mount" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    assert own_limits(tmp_path / "membership", tmp_path / "mount") == limits


def test_without_control_groups_there_are_no_limits(tmp_path: Path) -> None:
    assert own_limits(tmp_path / "nothing", tmp_path) == Limits(None, None)


def look_from(preparation: str) -> Machine:
    """The machine as a process sees it that has done this first."""
    script = f"""if True:
        import os
        {preparation}
        from runyard.agent.node.capacity import detect_machine
        machine = detect_machine()
        print(machine.cpu, machine.memory)
    """
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    cpu, memory = printed.stdout.split()
    return Machine(int(cpu), int(memory))


def test_memory_is_what_the_own_control_group_may_have(small_memory: Path) -> None:
    join = f"open('{small_memory}/cgroup.procs', 'w').write(str(os.getpid()))"
    assert look_from(join).memory == 64 << 20


def test_cores_are_those_that_the_process_may_run_on() -> None:
    core = min(os.sched_getaffinity(0))
    assert look_from(f"os.sched_setaffinity(0, [{core}])").cpu == 1000


def test_nothing_is_found_beyond_the_machine() -> None:
    machine = detect_machine()
    assert 0 < machine.cpu <= len(os.sched_getaffinity(0)) * 1000
    assert 0 < machine.memory <= psutil.virtual_memory().total


# GPUs


class NoNvml(Exception):
    """As `pynvml.NVMLError`."""


def install_nvml(monkeypatch: pytest.MonkeyPatch, *models: str | bytes, error: str = "") -> None:
    """Puts a library in place of `pynvml` that knows these GPUs, or fails."""

    def init() -> None:
        if error:
            raise NoNvml(error)

    library: Any = types.ModuleType("pynvml")
    library.NVMLError = NoNvml
    library.nvmlInit = init
    library.nvmlShutdown = lambda: None
    library.nvmlDeviceGetCount = lambda: len(models)
    library.nvmlDeviceGetHandleByIndex = lambda index: index
    library.nvmlDeviceGetName = lambda handle: models[handle]
    library.nvmlDeviceGetUUID = lambda handle: f"GPU-{handle}"
    monkeypatch.setitem(sys.modules, "pynvml", library)


@pytest.fixture
def no_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is not installed."""
    monkeypatch.setitem(sys.modules, "pynvml", None)


def install_tool(folder: Path, script: str) -> list[str]:
    """Puts a program in place of `nvidia-smi`; gives the folders to look in."""
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    return [str(folder)]


def test_gpus_are_asked_of_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    install_nvml(monkeypatch, A100, A100.encode())
    assert find_gpus([]) == [Gpu("GPU-0", A100), Gpu("GPU-1", A100)]


@pytest.mark.usefixtures("no_nvml")
def test_without_the_library_gpus_are_asked_of_the_tool(tmp_path: Path) -> None:
    folders = install_tool(
        tmp_path,
        f'[ "$*" = -L ] && echo "GPU 0: {A100} (UUID: GPU-1)" && echo "  MIG 1g.5gb Device 0: (UUID: MIG-2)" '
        f'&& echo "GPU 1: {A100} (UUID: GPU-3)"',
    )
    assert find_gpus(folders) == [Gpu("GPU-1", A100), Gpu("GPU-3", A100)]


def test_a_library_that_finds_no_driver_leaves_it_to_the_tool(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install_nvml(monkeypatch, error="driver not loaded")
    assert find_gpus(install_tool(tmp_path, "echo 'GPU 0: T4 (UUID: x)'")) == [Gpu("x", "T4")]


@pytest.mark.usefixtures("no_nvml")
def test_no_gpu_is_no_noise_but_a_tool_that_fails_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert find_gpus([str(tmp_path)]) == []
    assert capfd.readouterr() == ("", "")
    assert find_gpus(install_tool(tmp_path, "exit 9")) == []
    told = "".join(capfd.readouterr())
    assert "gpus_not_found" in told
    assert "set resources.gpu" in told


# A machine's offer


def test_a_machine_offers_what_it_has_but_a_little_memory() -> None:
    offer = machine_resources(settings(), MACHINE, ("process",))
    assert offer.resources == {"cpu": 4000, "memory": 16 * GIB - 16 * GIB // 20, "slots": 4}
    assert offer.reserved == {"memory": 16 * GIB // 20}
    assert (offer.drivers, offer.taints, offer.gateway) == (("process",), (), False)


def test_of_much_memory_one_gib_is_kept_back() -> None:
    offer = machine_resources(settings(), Machine(cpu=4000, memory=512 * GIB), ())
    assert (offer.resources["memory"], offer.reserved) == (511 * GIB, {"memory": GIB})


@pytest.mark.parametrize(
    ("given", "resources", "reserved"),
    [
        ({"resources": {"memory": "8Gi"}}, {"memory": 8 * GIB}, {}),
        ({"reserved": {"memory": "2Gi", "cpu": "500m"}}, {"memory": 14 * GIB, "cpu": 3500}, None),
        ({"reserved": {"memory": 0}}, {"memory": 16 * GIB}, {}),
        ({"reserved": {"gpu": 1, "cpu": 9}}, {"cpu": 0, "gpu": 0}, {"memory": 16 * GIB // 20, "cpu": 4000}),
        ({"resources": {"cpu": 9.5, "licenses": 3}}, {"cpu": 9500, "licenses": 3, "slots": 9}, None),
        ({"resources": {"cpu": "100m"}}, {"cpu": 100, "slots": 1}, None),
        ({"slots": 0}, {"slots": 0, "cpu": 4000}, None),
        ({"slots": 20}, {"slots": 20, "cpu": 4000}, None),
    ],
    ids=[
        "memory that was set is offered whole",
        "what is kept back may be set",
        "and set to nothing",
        "but to no more than there is",
        "a slot for each core that was set, and further countables",
        "at least one slot",
        "no slots",
        "more slots than cores",
    ],
)
def test_settings_win_over_what_was_found(
    given: dict[str, Any], resources: dict[str, int], reserved: dict[str, int] | None
) -> None:
    offer = machine_resources(settings(**given), MACHINE, ("process",))
    assert {name: offer.resources.get(name, 0) for name in resources} == resources
    assert reserved is None or offer.reserved == reserved


def test_gpus_are_offered_with_their_model() -> None:
    offer = machine_resources(settings(), Machine(4000, GIB, [A100, A100]), ())
    assert (offer.resources["gpu"], offer.labels["gpu.model"]) == (2, "NVIDIA-A100-SXM4-40GB")


def test_gpus_of_several_models_have_no_label() -> None:
    offer = machine_resources(settings(), Machine(4000, GIB, [A100, "T4"]), ())
    assert offer.resources["gpu"] == 2
    assert "gpu.model" not in offer.labels


def test_own_labels_win_over_those_that_every_node_has() -> None:
    offer = machine_resources(settings(labels={"zone": "a", "runyard/os": "mine"}), MACHINE, ())
    assert offer.labels == {"zone": "a", "runyard/os": "mine", "runyard/arch": os.uname().machine}


# A gateway's offer


def test_a_gateway_offers_its_cluster_and_nothing_of_its_own_machine() -> None:
    capacity = Capacity({"slots": 100, "cpu": 400_000}, largest_run={"cpu": 16_000})
    given = settings(
        labels={"cloud": "x"}, taints=["batch"], resources={"licenses": 3}, reserved={"cpu": 100, "gpu": 1}
    )
    assert cluster_resources(given, capacity, "slurm") == NodeResources(
        labels={"cloud": "x"},
        drivers=("slurm",),
        taints=("batch",),
        resources={"slots": 100, "cpu": 300_000, "licenses": 3},
        reserved={"cpu": 100_000},
        largest_run={"cpu": 16_000},
        gateway=True,
    )


def test_settings_win_over_what_a_cluster_tells() -> None:
    capacity = Capacity({"slots": 100, "cpu": 400_000})
    offer = cluster_resources(settings(slots=7, resources={"cpu": 3}), capacity, "slurm")
    assert offer.resources == {"slots": 7, "cpu": 3000}


class Slow(FakeClusterDriver):
    """A cluster that can be silent."""

    error: DriverError | None = None

    async def capacity(self) -> Capacity:
        if self.error:
            raise self.error
        return await super().capacity()


@pytest.fixture
def cluster(tmp_path: Path) -> Slow:
    """A cluster with 100 slots."""
    return Slow(RunDirectories(tmp_path), lambda key, phase: None, Capacity({"slots": 100}))


def test_only_a_driver_that_tells_its_capacity_stands_for_a_cluster(cluster: Slow, tmp_path: Path) -> None:
    assert isinstance(cluster, ClusterDriver)
    assert not isinstance(FakeDriver(RunDirectories(tmp_path), lambda key, phase: None), ClusterDriver)


async def test_a_cluster_that_does_not_answer_offers_what_it_told_last(cluster: Slow, tmp_path: Path) -> None:
    cluster.error = DriverError("no route")
    monitor = ResourceMonitor(
        settings(labels={"zone": "a"}), drivers_over(tmp_path, {"fake": cluster}), GpuInventory()
    )
    await monitor.open()
    assert (monitor.current.resources, monitor.current.labels) == ({}, {"zone": "a"})
    assert monitor.current.gateway
    cluster.error = None
    await monitor.check()
    assert monitor.current.resources == {"slots": 100}
    cluster.error = DriverError("no route")
    cluster.now = Capacity({"slots": 50})
    await monitor.check()
    assert monitor.current.resources == {"slots": 100}
    cluster.error = None
    await monitor.check()
    assert monitor.current.resources == {"slots": 50}


def test_an_agent_stands_for_one_cluster_only(cluster: Slow, tmp_path: Path) -> None:
    drivers: dict[str, Driver] = {"fake": cluster, "other": cluster}
    with pytest.raises(DriverError, match="each stand for a cluster; start one agent for each"):
        drivers_over(tmp_path, drivers)


async def test_gpus_that_are_set_to_none_are_not_looked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install_nvml(monkeypatch, A100)
    for resources, gpus in (({}, 1), ({"gpu": 4}, 4), ({"gpu": 0}, 0)):
        made = settings(resources=resources)
        found = gpu_inventory((), made.resources.get("gpu"))
        monitor = ResourceMonitor(made, no_drivers(tmp_path), found)
        await monitor.open()
        assert monitor.current.resources.get("gpu", 0) == gpus
        assert ("gpu.model" in monitor.current.labels) == bool(gpus)


# What the coordinator was told


def test_a_change_is_repeated_until_it_was_heard_and_then_no_more() -> None:
    small, large = NodeResources(resources={"slots": 1}), NodeResources(resources={"slots": 2})
    sent = ResourcesDelivery(small)
    assert sent.update_for(1, small) is None
    assert sent.update_for(2, large) == large
    sent.acknowledged(1)
    assert sent.update_for(3, large) == large
    sent.acknowledged(3)
    assert sent.update_for(4, large) is None


def test_a_change_that_is_taken_back_is_told_too() -> None:
    small, large = NodeResources(resources={"slots": 1}), NodeResources(resources={"slots": 2})
    sent = ResourcesDelivery(small)
    assert sent.update_for(1, large) == large
    assert sent.update_for(2, small) == small
    sent.acknowledged(1)
    assert sent.update_for(3, small) == small
