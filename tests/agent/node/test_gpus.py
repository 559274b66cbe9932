"""Who gets which GPU: whole devices, one run at a time, over crashes and restarts."""

from collections.abc import Callable
from pathlib import Path

import pytest
from agent.node_side import Gate, text_in
from agent.runtime_side import no_drivers
from agent.stub_coordinator import Agent, StubCoordinator, StubSession
from harness.waiting import await_until
from hypothesis import given as hypothesis_given
from hypothesis import strategies as st

from runyard.agent.config.agent import AgentSettings
from runyard.agent.core.gpu_allotment import allot
from runyard.agent.core.model import UNKNOWN_LAUNCH, AttemptKey, Finished, HeldAttempt, Outcome, OutcomeKind
from runyard.agent.core.reconcile import AttemptTable
from runyard.agent.node.gpus import Gpu, allottable, devices_of, gpu_inventory, with_gpus, without_gpus
from runyard.agent.runtime.resource_monitor import ResourceMonitor
from runyard.agent.supervisor.records import SpecRecord
from runyard.v1 import placement_pb2, run_pb2

DEVICES = ("GPU-a", "GPU-b", "GPU-c")
OVER = Finished(Outcome(OutcomeKind.SUCCEEDED, "exited with code 0"))
FOUND = [Gpu("GPU-a", "T4"), Gpu("GPU-b", "T4")]


class Disk:
    """A node as its disk has it: the devices of each attempt, and which are over."""

    def __init__(self) -> None:
        self.specs: dict[AttemptKey, bytes] = {}
        self.over: set[AttemptKey] = set()
        self.acknowledged: set[AttemptKey] = set()

    def recovered(self) -> AttemptTable:
        """Return the table of an agent that starts."""
        table = AttemptTable()
        table.on_recovered(self.held(key) for key in self.specs if key not in self.acknowledged)
        return table

    def held(self, key: AttemptKey) -> HeldAttempt:
        devices = devices_of(SpecRecord.decode(self.specs[key]))
        held = HeldAttempt(key, UNKNOWN_LAUNCH, devices=devices)
        return HeldAttempt(key, UNKNOWN_LAUNCH, OVER, devices) if key in self.over else held

    def live(self) -> list[tuple[str, ...]]:
        """The devices of those that may have a worker."""
        return [
            devices_of(SpecRecord.decode(spec)) for key, spec in self.specs.items() if key not in self.over
        ]


STEP_NAMES = ["crash before it is held", "end", "end unseen", "acknowledge"]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("accept"), st.integers(1, 4)),
        st.tuples(st.sampled_from(STEP_NAMES), st.integers(0, 9)),
        st.tuples(st.just("restart"), st.just(0)),
    ),
    max_size=40,
)


@hypothesis_given(STEPS)
def test_no_device_is_ever_had_by_two_and_none_is_lost(steps: list[tuple[str, int]]) -> None:
    disk, table = Disk(), AttemptTable()
    for number, (step, choice) in enumerate(steps):
        keys = [key for key in disk.specs if key not in disk.over]
        ended = [held.key for held in table.all() if isinstance(held.phase, Finished)]
        match step:
            case "accept" | "crash before it is held":
                key = AttemptKey(f"run-{number}", 0)
                count = max(1, choice % 4)
                devices = allot(DEVICES, table.all(), count)
                free = len(DEVICES) - sum(map(len, disk.live()))
                if step == "accept":
                    unseen = [each for each in disk.over if table.get(each) is not None]
                    assert (devices is not None) == (count <= free) or unseen
                if devices is not None:
                    assert len(devices) == count
                    disk.specs[key] = with_gpus(SpecRecord(["prog"], {}), devices).encode()
                    if step == "accept":
                        table.on_accepted(key, UNKNOWN_LAUNCH, devices)
                    else:
                        table = disk.recovered()
            case "end" if keys:
                key = keys[choice % len(keys)]
                disk.over.add(key)
                table.on_change(key, OVER)
            case "end unseen" if keys:
                disk.over.add(keys[choice % len(keys)])
            case "acknowledge" if ended:
                key = ended[choice % len(ended)]
                table.on_acknowledged(key)
                disk.acknowledged.add(key)
            case "restart":
                table = disk.recovered()
        had = [device for devices in disk.live() for device in devices]
        assert len(had) == len(set(had)), f"had by two: {had}"
    disk.over.update(disk.specs)
    assert allot(DEVICES, disk.recovered().all(), len(DEVICES)) == DEVICES


# What the node gives, and what workers see


@pytest.mark.parametrize(
    ("named", "count", "found", "devices"),
    [
        ((), None, FOUND, ("GPU-a", "GPU-b")),
        ((), 1, FOUND, ("GPU-a",)),
        ((), 2, [], ("0", "1")),
        ((), None, [Gpu("", "T4")], ("0",)),
        (("MIG-1", "MIG-2"), None, FOUND, ("MIG-1", "MIG-2")),
        ((), 8, FOUND, ()),
        ((), None, [], ()),
    ],
    ids=[
        "all that were found",
        "as many as were set",
        "by index where none was found",
        "by index where UUIDs are not told",
        "those that were named",
        "none one by one where they are to be shared",
        "none",
    ],
)
def test_node_gives(
    named: tuple[str, ...], count: int | None, found: list[Gpu], devices: tuple[str, ...]
) -> None:
    assert allottable(named, count, found) == devices


def test_worker_sees_its_own_devices_whatever_its_environment_says() -> None:
    spec = with_gpus(SpecRecord(["prog"], {"CUDA_VISIBLE_DEVICES": "0,1,2", "A": "b"}), ["GPU-b", "GPU-c"])
    assert spec.env == {
        "A": "b",
        "CUDA_VISIBLE_DEVICES": "GPU-b,GPU-c",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "NVIDIA_VISIBLE_DEVICES": "GPU-b,GPU-c",
    }


def test_worker_without_devices_sees_none_unless_its_owner_says_so() -> None:
    assert without_gpus(SpecRecord(["prog"], {})).env["CUDA_VISIBLE_DEVICES"] == ""
    shared = SpecRecord(["prog"], {"CUDA_VISIBLE_DEVICES": "0"})
    assert without_gpus(shared) == shared


@pytest.mark.parametrize(
    ("gpus", "complaint"), [(["GPU-a", "GPU-a"], "names a GPU twice"), (["a b"], "is not a UUID of a GPU")]
)
def test_devices_that_cannot_be_are_refused_by_name(gpus: list[str], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        AgentSettings.model_validate({"gpus": gpus})


async def test_named_devices_are_offered(tmp_path: Path) -> None:
    settings = AgentSettings(gpus=("GPU-a", "GPU-b"))
    gpus = gpu_inventory(settings.gpus, None)
    monitor = ResourceMonitor(settings, no_drivers(tmp_path), gpus)
    await monitor.open()
    assert (gpus.devices, monitor.current.resources["gpu"]) == (("GPU-a", "GPU-b"), 2)


# A whole agent


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """Where the workers wait."""
    return Gate(tmp_path / "gate")


@pytest.fixture
def worker(tmp_path: Path, gate: Gate) -> Path:
    """A program that notes which devices it sees, and ends when the gate is opened."""
    program = tmp_path / "worker"
    program.write_text(
        "#!/bin/sh\n"
        f"echo $CUDA_DEVICE_ORDER $CUDA_VISIBLE_DEVICES > {tmp_path}/seen-${{RUNYARD_ATTEMPT%/*}}\n"
        f"while [ ! -e {gate.path} ]; do sleep 0.05; done\n"
    )
    program.chmod(0o755)
    return program


def ask(session: StubSession, worker: Path, run_id: str, count: int) -> None:
    wanted = placement_pb2.Requirements(resources={"gpu": count})
    session.assign(worker, run_id=run_id, requirements=wanted, after=len(session.beats))


async def refusal(session: StubSession, run_id: str) -> str:
    def found() -> list[str]:
        told = [report.rejection for report in session.reports if report.HasField("rejection")]
        return [each.reason for each in told if each.run_id == run_id]

    return (await await_until(found, lambda: session.reports))[0]


async def test_devices_of_workers_that_outlive_the_agent_stay_theirs(
    new_agent: Callable[..., Agent], coordinator: StubCoordinator, worker: Path, gate: Gate, tmp_path: Path
) -> None:
    agent = new_agent(gpus=["GPU-a", "GPU-b"])
    agent.start()
    session = await coordinator.session(1)
    ask(session, worker, "run-a", 1)
    assert await text_in(tmp_path / "seen-run-a") == "PCI_BUS_ID GPU-a\n"
    await agent.kill()
    agent.start()
    session = await coordinator.session(2)
    ask(session, worker, "run-b", 2)
    assert await refusal(session, "run-b") == "the run asks for 2 GPUs, and 1 of 2 are free"
    ask(session, worker, "run-c", 1)
    assert await text_in(tmp_path / "seen-run-c") == "PCI_BUS_ID GPU-b\n"
    gate.open()
    await await_until(lambda: session.finished("run-a"), session.statuses)
    await await_until(lambda: session.finished("run-c"), session.statuses)
    ask(session, worker, "run-d", 2)
    assert await text_in(tmp_path / "seen-run-d") == "PCI_BUS_ID GPU-a,GPU-b\n"
    await await_until(lambda: session.finished("run-d"), session.statuses)
    assert session.finished("run-d")[0].outcome.kind == run_pb2.OUTCOME_KIND_SUCCEEDED
