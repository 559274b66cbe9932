"""A node's warm servers over time: made for the runs that come, replaced when stale, remembered, dropped."""

import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from agent.dagster_project import CASES, Project
from agent.node_side import Node, kill_everything, shell
from harness.waiting import await_until

from runyard.agent.config.agent import AgentSettings
from runyard.agent.config.warm import WarmSettings
from runyard.agent.core.model import AttemptKey, Finished, Running
from runyard.agent.drivers.process.driver import ProcessDriver, worker_command
from runyard.agent.drivers.process.warm_plans import plan_of
from runyard.agent.session.conversions import warm_server_of
from runyard.agent.supervisor.records import SpecRecord
from runyard.agent.supervisor.rundir import RunDirectories
from runyard.common.service.settings import SettingsError
from runyard.common.service.settings_sources import load_settings
from runyard.v1 import fleet_pb2

GOOD = CASES["good"]


@pytest.fixture
async def project(tmp_path: Path) -> AsyncIterator[Project]:
    made = Project(tmp_path / "project")
    yield made
    made.instance.dispose()


@pytest.fixture
async def node(directories: RunDirectories) -> AsyncIterator[Node]:
    """A node that imports code locations ahead of runs."""
    made = Node(directories, WarmSettings(mode="location"))
    await made.driver.open()
    yield made
    await made.driver.close()
    kill_everything(directories)


async def ready(node: Node) -> dict[str, object]:
    """The node's only server, as soon as it forks."""
    servers = node.driver.warm_servers
    await await_until(
        lambda: [each["state"] for each in servers.snapshot()] == ["ready"], servers.snapshot, timeout=60.0
    )
    return servers.snapshot()[0]


async def test_runs_after_the_first_are_forks_and_people_see_how_many(node: Node, project: Project) -> None:
    await project.play(node, GOOD)
    assert (await ready(node))["last_cold_reason"] == "its server is just being started"
    for _ in range(2):
        await project.play(node, GOOD)
    server = await ready(node)
    assert (server["forks"], server["cold_starts"], server["code_locations"]) == (2, 1, ["shop"])
    assert isinstance(server["rss_bytes"], int)
    assert server["rss_bytes"] > 50 << 20
    told = warm_server_of(server)
    assert (told.state, told.mode) == (fleet_pb2.WARM_SERVER_STATE_READY, fleet_pb2.WARM_MODE_LOCATION)
    assert told.preload.ToTimedelta().total_seconds() > 0.1
    node.driver.warm_servers.refresh()
    assert warm_server_of(node.driver.warm_servers.snapshot()[0]).state == (
        fleet_pb2.WARM_SERVER_STATE_PRELOADING
    )


async def test_every_edit_between_two_runs_is_in_the_second(node: Node, project: Project) -> None:
    module = project.code / "beside.py"
    await project.play(node, GOOD)
    await ready(node)
    for edition in range(int(os.environ.get("RUNYARD_TEST_EDITS", "3"))):
        module.write_text(f"def double(number): return 2 * number\nEDITION = '{'x' * edition}'")
        assert (await project.play(node, CASES["tells"])).output == f"edition {'x' * edition}\n"
        await ready(node)


async def test_the_server_of_a_remembered_environment_is_ready_before_its_first_run(
    node: Node, project: Project
) -> None:
    await project.play(node, GOOD)
    await ready(node)
    await node.driver.close()
    later = Node(node.directories, WarmSettings(mode="location"))
    await later.driver.open()
    try:
        assert (await ready(later))["code_locations"] == ["shop"]
        await project.play(later, GOOD)
        assert (await ready(later))["cold_starts"] == 0
    finally:
        await later.driver.close()


async def test_an_environment_that_was_not_used_for_long_is_forgotten(node: Node, project: Project) -> None:
    await project.play(node, GOOD)
    name = str((await ready(node))["name"])
    await node.driver.close()
    plan = node.directories.state / "warm" / name / "plan"
    assert plan.stat().st_mode & 0o777 == 0o600
    os.utime(plan, (0, 0))
    later = Node(node.directories, WarmSettings(mode="location"))
    await later.driver.open()
    assert later.driver.warm_servers.snapshot() == []
    assert not plan.exists()
    await later.driver.close()


async def test_a_refresh_makes_the_server_anew(node: Node, project: Project) -> None:
    await project.play(node, GOOD)
    before = (await ready(node))["pid"]
    node.driver.warm_servers.refresh()
    assert node.driver.warm_servers.snapshot()[0]["state"] == "preloading"
    assert (await ready(node))["pid"] != before


async def test_with_the_fork_server_gone_runs_start_cold_and_then_warm_again(
    node: Node, project: Project
) -> None:
    await project.play(node, GOOD)
    await ready(node)
    assert node.driver.fork_server_pid is not None
    os.kill(node.driver.fork_server_pid, signal.SIGKILL)
    servers = node.driver.warm_servers
    await await_until(lambda: servers.snapshot()[0]["state"] == "unusable", servers.snapshot)
    assert (await project.play(node, GOOD)).status == "SUCCESS"
    servers.refresh()
    await ready(node)


async def test_code_that_cannot_be_shared_runs_cold_and_says_why(node: Node, project: Project) -> None:
    (project.code / "beside.py").write_text("def double(n): return 2 * n\nlog = open('x.log', 'a')")
    servers = node.driver.warm_servers

    def is_unusable() -> bool:
        return bool(servers.snapshot()[0]["state"] == "unusable")

    for _ in range(2):
        assert (await project.play(node, GOOD)).status == "SUCCESS"
        await await_until(is_unusable, servers.snapshot)
    assert "x.log open" in servers.snapshot()[0]["reason"]


async def test_code_that_reads_what_differs_from_run_to_run_on_import_runs_cold(
    node: Node, project: Project
) -> None:
    (project.code / "beside.py").write_text(
        "import os\nNAME = os.getenv('DAGSTER_RUN_JOB_NAME')\ndef double(n): return 2 * n"
    )
    await project.play(node, GOOD)
    servers = node.driver.warm_servers
    await await_until(lambda: servers.snapshot()[0]["state"] == "unusable", servers.snapshot)
    assert "reads DAGSTER_RUN_JOB_NAME" in servers.snapshot()[0]["reason"]


async def test_only_so_many_workers_start_up_at_once(directories: RunDirectories, tmp_path: Path) -> None:
    told: list[tuple[AttemptKey, object]] = []
    driver = ProcessDriver(directories, lambda *news: told.append(news), max_concurrent_starts=2)
    await driver.open()
    keys = [AttemptKey(f"run-{number}", 1) for number in range(5)]
    for key in keys:
        gate, ready_mark = tmp_path / key.run_id, '"$RUNYARD_RUN_DIRECTORY"/ready'
        script = f"while [ ! -e {gate} ]; do sleep 0.02; done; touch {ready_mark}; sleep 60"
        directories.create(key, shell(script))
        await driver.start(key)

    def running() -> dict[AttemptKey, int]:
        return {key: phase.pid for key, phase in told if isinstance(phase, Running)}

    await await_until(lambda: len(running()) == 2, lambda: told)
    first, second = running()
    (tmp_path / second.run_id).touch()
    await await_until(lambda: len(running()) == 3, lambda: told)
    waiting, stopped = [key for key in keys if key not in running()]
    await driver.stop(stopped, 1.0, "by alice")
    (end,) = await await_until(
        lambda: [phase for key, phase in told if key == stopped and isinstance(phase, Finished)], lambda: told
    )
    assert end.outcome.message == "stopped before it started: by alice"
    assert len(running()) == 3
    os.kill(running()[first], signal.SIGKILL)
    await await_until(lambda: waiting in running(), lambda: told)
    await driver.close()


async def test_a_fork_that_is_stuck_before_it_began_is_replaced_by_a_cold_start(
    node: Node, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runyard.agent.drivers.process.supervise._STUCK_SECONDS", 1.0)
    (project.code / "beside.py").write_text(
        "import os, time\nos.register_at_fork(after_in_child=lambda: time.sleep(60))\n"
        "def double(n): return 2 * n"
    )
    await project.play(node, GOOD)
    await ready(node)
    assert (await project.play(node, GOOD)).status == "SUCCESS"
    assert (await ready(node))["forks"] == 1


def test_plans_are_made_for_runyards_own_worker_with_its_arguments_only() -> None:
    ours = worker_command("", "execute_run", "r")
    instance = '{"secrets_loader_data": {"class_name": "VaultLoader"}}'
    arguments = f'{{"instance_ref": {instance}, "job_origin": {{"job_name": "orders"}}}}'
    assert plan_of(SpecRecord(["/bin/sh"], {}, worker_args=arguments), "framework", True) is None
    assert plan_of(SpecRecord(ours, {}, worker_args="no JSON"), "framework", True) is None
    assert plan_of(SpecRecord(ours, {}, worker_args="[]"), "framework", True) is None
    assert plan_of(SpecRecord(ours, {}, worker_args="{}"), "framework", True) is None
    assert plan_of(SpecRecord(ours, {}, worker_args=arguments), "off", True) is None
    plan = plan_of(SpecRecord(ours, {}, worker_args=arguments), "location", True)
    assert plan is not None
    assert (plan.python, plan.job_origin) == (sys.executable, "")  # its variables come from who knows where


ARGUMENTS = '{"instance_ref": {}, "job_origin": {"repository_origin": {}}}'


def test_no_secret_is_in_a_plan_that_imports_no_user_code() -> None:
    environment = {"PLAIN": "a", "API_TOKEN": "canary"}
    spec = SpecRecord(
        worker_command("", "execute_run", "r"), environment, worker_args=ARGUMENTS, secret_names=["API_TOKEN"]
    )
    framework, location = plan_of(spec, "framework", True), plan_of(spec, "location", True)
    assert framework is not None
    assert (framework.env, framework.is_secret) == ({"PLAIN": "a"}, False)
    assert location is not None  # user code may read it when it is imported
    assert (location.env, location.is_secret) == (environment, True)
    assert "canary" not in repr(location)


async def test_a_plan_with_secrets_is_on_disk_only_while_a_server_reads_it(
    node: Node, project: Project
) -> None:
    project.secrets["API_TOKEN"] = "canary-token"
    homes = node.directories.state / "warm"

    def with_secrets() -> list[Path]:
        return [path for path in homes.rglob("*") if path.is_file() and b"canary" in path.read_bytes()]

    await project.play(node, GOOD)
    await ready(node)
    assert with_secrets() == []
    await project.play(node, GOOD)
    assert (await ready(node))["all_forks"] == 1
    node.driver.warm_servers.refresh()  # made once more, from what the agent remembers
    await ready(node)
    await project.play(node, GOOD)
    assert (await ready(node))["all_forks"] == 2
    assert with_secrets() == []


def test_settings_tell_for_each_code_location_what_is_imported_ahead(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text("warm: {mode: off, locations: {shop: location}}")
    settings = load_settings(AgentSettings, file=file, prefix="NONE", flags={})
    assert settings.warm.mode_of("shop") == "location"
    assert settings.warm.mode_of("other") == "off"
    file.write_text("warm: {mode: tepid}")
    with pytest.raises(SettingsError, match=r"warm.mode: Input should be 'off', 'framework' or 'location'"):
        load_settings(AgentSettings, file=file, prefix="NONE", flags={})
