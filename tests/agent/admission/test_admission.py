"""The pipeline that accepts or rejects an assignment, step by step."""

import json
from pathlib import Path
from typing import Any

import pytest
from agent.launches import KEY, launch

from runyard.agent.admission.admission import Admission, Admitted, AlreadyOnDisk, Rejected
from runyard.agent.admission.errors import DISK_FULL
from runyard.agent.admission.preflight import Preflight
from runyard.agent.admission.trust.authorizer import LaunchAuthorizer
from runyard.agent.config.agent import AgentSettings
from runyard.agent.config.pressure import PressureSettings
from runyard.agent.core.model import UNKNOWN_LAUNCH, Assignment, AttemptKey, HeldAttempt
from runyard.agent.core.pressure import Room, Scarce
from runyard.agent.drivers.base import MissingPrerequisite
from runyard.agent.drivers.fake import FakeDriver
from runyard.agent.node.isolation_backends import WATCHDOG_ONLY
from runyard.agent.node.pressure import PressureMonitor
from runyard.agent.spec_record.identities import identity_of
from runyard.agent.supervisor.records import SpecRecord
from runyard.agent.supervisor.rundir import NoRoom, RunDirectories
from runyard.v1 import placement_pb2, run_pb2

OTHER = HeldAttempt(AttemptKey("another-run", 0), UNKNOWN_LAUNCH, devices=("GPU-a",))


class Picky(FakeDriver):
    """A driver that misses what the test sets, and counts its checks."""

    misses = ""
    checks = 0

    def missing(self, spec: SpecRecord) -> MissingPrerequisite | None:
        self.checks += 1
        return MissingPrerequisite(self.misses, "executable_missing") if self.misses else None


class Node:
    """Admission over one driver, which is called `fake`."""

    def __init__(self, state: Path, **settings: Any) -> None:
        made = AgentSettings(state_directory=state, **settings)
        self.directories = RunDirectories(state)
        self.driver = Picky(self.directories, lambda key, phase: None)
        self.room = {Scarce.DISK: Room(1 << 39, 1 << 40)}
        self.pressures = PressureMonitor(PressureSettings(), state, lambda state: self.room)
        self.admission = Admission(
            made,
            self.directories,
            {"fake": self.driver},
            LaunchAuthorizer(made),
            Preflight(self.pressures),
            WATCHDOG_ONLY,
            ("GPU-a", "GPU-b"),
        )

    async def admit(
        self, driver: str = "fake", gpus: int = 0, **fields: Any
    ) -> Admitted | AlreadyOnDisk | Rejected:
        resources = {"gpu": gpus} if gpus else {}
        requirements = placement_pb2.Requirements(driver=driver, resources=resources)
        spec: run_pb2.LaunchSpec = launch(requirements=requirements, **fields)
        return await self.admission.admit(Assignment(KEY, identity_of(spec), spec, start_by=0.0), [OTHER])


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "state")


async def test_an_admitted_attempt_is_on_disk_with_its_identity_and_its_gpus(node: Node) -> None:
    decision = await node.admit(gpus=1)
    assert isinstance(decision, Admitted)
    assert (decision.identity.job, decision.devices) == ("orders", ("GPU-b",))
    directory = node.directories.open(KEY)
    assert directory is not None
    spec = directory.read_spec()
    assert spec is not None
    assert (spec.driver, spec.gpus, spec.env["CUDA_VISIBLE_DEVICES"]) == ("fake", ["GPU-b"], "GPU-b")


async def test_an_attempt_on_disk_is_not_checked_again(node: Node) -> None:
    await node.admit()
    node.driver.misses = "everything"
    assert await node.admit() == AlreadyOnDisk()
    assert node.driver.checks == 1


async def test_a_rejected_attempt_leaves_nothing_on_disk(node: Node) -> None:
    node.driver.misses = "there is no such program"
    assert await node.admit() == Rejected("there is no such program", "executable_missing")
    assert node.directories.scan() == []


@pytest.mark.parametrize(
    ("launched", "reason"),
    [
        ({"driver": "docker"}, "this agent has no driver 'docker'"),
        ({"gpus": 2}, "the run asks for 2 GPUs, and 1 of 2 are free"),
        ({"kind": 99}, "launch kind 99 is not known to this agent; upgrade it"),
        ({"environment": {"LD_PRELOAD": "/x"}}, "rule environment"),
        ({"environment_references": {"A": {"env": "HOME"}}}, "does not allow"),
    ],
    ids=["unknown driver", "no free GPU", "unknown kind", "policy", "reference"],
)
async def test_every_step_can_reject(node: Node, launched: dict[str, Any], reason: str) -> None:
    references = launched.pop("environment_references", {})
    fields = dict(launched)
    if references:
        fields["environment_references"] = {
            name: run_pb2.EnvironmentReference(**each) for name, each in references.items()
        }
    decision = await node.admit(**fields)
    assert isinstance(decision, Rejected)
    assert reason in decision.message, json.dumps(decision.message)
    assert node.directories.scan() == []


async def test_a_nearly_full_disk_rejects_with_a_code_of_its_own(node: Node) -> None:
    node.room[Scarce.DISK] = Room(1, 1 << 40)
    await node.pressures.check()
    decision = await node.admit()
    assert isinstance(decision, Rejected)
    assert decision.reason_code == DISK_FULL


async def test_a_disk_that_is_full_at_the_last_step_rejects_with_the_same_code(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(key: AttemptKey, spec: SpecRecord) -> None:
        raise NoRoom("no space left on device")

    monkeypatch.setattr(node.directories, "create", no_room)
    assert await node.admit() == Rejected("no space left on device", DISK_FULL)
