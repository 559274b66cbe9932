"""Authorization of launches by signature and policy, in a runtime and in a whole agent."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from agent.launches import KEY, SIGNER, launch, sign, statement
from agent.runtime_side import wired
from agent.stub_coordinator import Agent, StubCoordinator
from harness.waiting import await_until

from runyard.agent.admission.errors import NotAuthorized
from runyard.agent.admission.trust.authorizer import LaunchAuthorizer
from runyard.agent.config.agent import AgentSettings
from runyard.agent.core.effects import Reject, Report
from runyard.agent.core.model import Assignment, AttemptKey
from runyard.agent.drivers.base import Driver, OnChange
from runyard.agent.drivers.fake import FakeDriver
from runyard.agent.runtime import agent as runtime_agent
from runyard.agent.runtime.events import Assigned
from runyard.agent.session.messages import report
from runyard.agent.spec_record.identities import identity_of
from runyard.agent.supervisor.procfs import boottime
from runyard.agent.supervisor.rundir import RunDirectories
from runyard.v1 import agent_pb2, placement_pb2, run_pb2

REQUIRED = {"signatures": "require", "signing_keys": (str(SIGNER.public),)}
WARNED = {**REQUIRED, "signatures": "warn"}


class Idle(FakeDriver):
    """Starts nothing."""

    async def start(self, key: AttemptKey) -> None:
        return


class Node:
    """An agent with drivers that start nothing, and its reports to the coordinator."""

    def __init__(self, agent: runtime_agent.Agent) -> None:
        self.agent = agent
        self.directories = agent.directories
        self.reports: list[agent_pb2.AttemptReport] = []

    def take(self, about: Report | Reject) -> None:
        """Keep a report of the runtime."""
        self.reports.append(report(about).report)

    async def assign(self, spec: run_pb2.LaunchSpec, key: AttemptKey = KEY) -> agent_pb2.AttemptReport:
        """Assign a launch, and return the first report of it."""
        told = len(self.reports)
        assignment = Assignment(key, identity_of(spec), spec, boottime() + 60)
        await self.agent.events.put(Assigned(assignment))
        await await_until(lambda: len(self.reports) > told, "nothing is told of the launch")
        return self.reports[told]

    async def refusal(self, spec: run_pb2.LaunchSpec, key: AttemptKey = KEY) -> str:
        """Why a launch is refused; it leaves nothing on disk."""
        answer = await self.assign(spec, key)
        assert answer.HasField("rejection"), answer
        assert self.directories.open(key) is None
        return answer.rejection.reason


@contextlib.asynccontextmanager
async def working(state: Path, **settings: Any) -> AsyncIterator[Node]:
    """A node in session."""
    agent = await wired(AgentSettings(state_directory=state, **settings), idle_drivers)
    node = Node(agent)
    await agent.open()
    task = asyncio.create_task(agent.runtime.run())
    with agent.runtime.reporting_to(node.take):
        yield node
    task.cancel()
    await agent.close()


def idle_drivers(directories: RunDirectories, on_change: OnChange) -> dict[str, Driver]:
    return {name: Idle(directories, on_change) for name in ("fake", "process")}


def fresh(driver: str = "fake", **fields: Any) -> run_pb2.LaunchSpec:
    """A launch that was signed just now."""
    spec = launch(requirements=placement_pb2.Requirements(driver=driver), **fields)
    return sign(spec, statement(spec, int(time.time())).SerializeToString())


def authorizer_of(**settings: Any) -> LaunchAuthorizer:
    """Return the authorizer of an agent with these settings."""
    return LaunchAuthorizer(AgentSettings(**settings))


async def test_what_was_signed_is_what_the_run_directory_holds(tmp_path: Path) -> None:
    async with working(tmp_path, **REQUIRED) as node:
        answer = await node.assign(fresh())
        assert answer.status.phase == run_pb2.PHASE_STARTING
        assert (answer.status.job, answer.status.deployment) == ("orders", "prod")
        directory = node.directories.open(KEY)
        assert directory is not None
        spec = directory.read_spec()
        assert spec is not None
        assert spec.env["SHOP_MODE"] == "night"
        assert not directory.stderr.exists()


async def test_an_unsigned_launch_is_refused_where_signatures_are_required(tmp_path: Path) -> None:
    async with working(tmp_path, **REQUIRED) as node:
        reason = await node.refusal(launch())
        assert reason == (
            "this node takes signed launches only: it is not signed; give its launcher a signing_key"
        )


async def test_a_launch_is_not_taken_under_the_name_of_another_run(tmp_path: Path) -> None:
    async with working(tmp_path, **REQUIRED) as node:
        assert "it was signed for another run" in await node.refusal(fresh(), AttemptKey("another", 0))


async def test_a_launch_that_ran_is_started_again_only_as_another_attempt(tmp_path: Path) -> None:
    async with working(tmp_path, **REQUIRED) as node:
        sent = fresh()
        await node.assign(sent)
        again = await node.assign(sent)
        assert again.HasField("status")
        assert len(node.directories.scan()) == 1


async def test_a_doubtful_launch_is_run_and_marked_where_signatures_only_warn(tmp_path: Path) -> None:
    async with working(tmp_path, **WARNED) as node:
        answer = await node.assign(launch(requirements=placement_pb2.Requirements(driver="fake")))
        assert answer.status.phase == run_pb2.PHASE_STARTING
        directory = node.directories.open(KEY)
        assert directory is not None
        reason = "it is not signed; give its launcher a signing_key"
        said = f"runyard: the signature of this launch is not trusted: {reason}\n"
        assert directory.stderr.read_text() == said
        assert directory.stderr.stat().st_mode & 0o777 == 0o600


async def test_a_driver_that_the_coordinator_chose_is_refused_or_marked(tmp_path: Path) -> None:
    spec = launch()
    sent = sign(spec, statement(spec, int(time.time())).SerializeToString())
    sent.requirements.driver = "fake"
    async with working(tmp_path / "required", **REQUIRED) as node:
        reason = await node.refusal(sent)
        assert "rule drivers) refuses it: driver 'fake' is the coordinator's choice" in reason
    async with working(tmp_path / "warned", **WARNED) as node:
        assert (await node.assign(sent)).HasField("status")
        directory = node.directories.open(KEY)
        assert directory is not None
        assert "driver 'fake' is the coordinator's choice" in directory.stderr.read_text()
    named = {"policy": {"profiles": [{"name": "here", "drivers": ["fake"]}]}}
    async with working(tmp_path / "named", **REQUIRED, **named) as node:
        assert (await node.assign(sent)).HasField("status")


async def test_signatures_mean_nothing_where_they_are_off(tmp_path: Path) -> None:
    async with working(tmp_path) as node:
        sent = fresh()
        sent.environment["SHOP_MODE"] = "day"
        assert (await node.assign(sent)).HasField("status")


async def test_a_launch_that_the_policy_forbids_is_refused_with_the_rule(tmp_path: Path) -> None:
    policy = {"profiles": [{"name": "bakery", "code_locations": ["bakery"]}]}
    async with working(tmp_path, policy=policy) as node:
        assert await node.refusal(launch(requirements=placement_pb2.Requirements(driver="fake"))) == (
            "the policy of this node (profile bakery, rule code_locations) refuses it: "
            "it is not for the code location 'shop', only for bakery"
        )


async def test_a_dangerous_variable_is_refused_by_default(tmp_path: Path) -> None:
    async with working(tmp_path) as node:
        sent = launch(environment={"LD_PRELOAD": "/tmp/evil.so"})
        sent.requirements.driver = "fake"
        assert "rule environment) refuses it: LD_PRELOAD can make another program run" in await node.refusal(
            sent
        )


async def test_a_process_is_never_root_by_default(tmp_path: Path) -> None:
    asked = launch(code_origin=run_pb2.CodeOrigin(executable="/bin/sh"))
    if os.geteuid() == 0:
        async with working(tmp_path) as node:
            assert "rule allow_root) refuses it: its process would run as root" in await node.refusal(asked)
    authorizer = authorizer_of(isolation={"run_as": {"*": "root"}, "users": ["root"]})
    with pytest.raises(NotAuthorized, match="rule allow_root"):
        authorizer.check_policy(authorizer.check_signature(KEY, asked))


def test_a_process_of_another_user_is_fine() -> None:
    authorizer = authorizer_of(isolation={"run_as": {"*": "nobody"}, "users": ["nobody"]})
    admission = authorizer.check_signature(KEY, launch())
    assert authorizer.check_policy(admission) == admission


def test_a_container_that_mounts_the_engines_socket_is_refused() -> None:
    authorizer = authorizer_of(docker={"allow": {"mounts": ["*"]}})
    context = '{"docker": {"container_kwargs": {"volumes": ["/var/run/docker.sock:/s"]}}}'
    sent = launch(code_origin=run_pb2.CodeOrigin(container_context_json=context))
    sent.requirements.driver = "docker"
    with pytest.raises(NotAuthorized, match=r"rule allow_engine_socket.*a mount of '/var/run/docker.sock'"):
        authorizer.check_policy(authorizer.check_signature(KEY, sent))


def test_variables_of_the_container_context_are_variables_of_the_launch() -> None:
    authorizer = authorizer_of(docker={})
    sent = launch(code_origin=run_pb2.CodeOrigin(container_context_json='{"env_vars": ["PYTHONPATH=/x"]}'))
    sent.requirements.driver = "docker"
    with pytest.raises(NotAuthorized, match=r"rule environment.*PYTHONPATH"):
        authorizer.check_policy(authorizer.check_signature(KEY, sent))


@pytest.mark.parametrize("by", ["the launch", "the code location"])
def test_variables_whose_values_the_node_looks_up_are_variables_of_the_launch_too(by: str) -> None:
    sent = launch()
    if by == "the launch":
        sent.environment_references["LD_PRELOAD"].env = "HARMLESS"
    else:
        context = '{"runyard": {"env_vars": ["LD_PRELOAD@env:HARMLESS"]}}'
        sent.code_origin.container_context_json = context
    authorizer = authorizer_of(policy={"allow_root": True})
    with pytest.raises(NotAuthorized, match=r"rule environment.*LD_PRELOAD"):
        authorizer.check_policy(authorizer.check_signature(KEY, sent))


async def test_who_looks_at_a_doubtful_run_sees_that_nobody_vouches_for_it(
    new_agent: Callable[..., Agent], coordinator: StubCoordinator, tmp_path: Path
) -> None:
    worker = tmp_path / "worker"
    worker.write_text("#!/bin/sh\necho broken >&2\nexit 3\n")
    worker.chmod(0o755)
    agent = new_agent(**WARNED)
    agent.start()
    session = await coordinator.session()
    await session.beat(1)
    session.assign(worker, after=1)
    outcome = (await session.status(run_pb2.PHASE_FINISHED)).outcome
    mark, *rest = outcome.stderr_tail.splitlines()
    assert mark.startswith("runyard: the signature of this launch is not trusted: it is not signed")
    assert rest == ["broken"]
    assert "launch_doubtful" in agent.log()


async def test_an_agent_that_is_root_says_at_once_that_it_will_start_no_process(
    new_agent: Callable[..., Agent], coordinator: StubCoordinator
) -> None:
    agent = new_agent(policy={})
    agent.start()
    await coordinator.session()
    assert ("processes_refused" in agent.log()) == (os.geteuid() == 0)
