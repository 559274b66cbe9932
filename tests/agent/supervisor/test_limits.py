"""A run gets no more memory than it asked for, by whatever means its node has; its neighbours live on."""

import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from agent.node_side import KEY, Gate, Node, is_alive, python, shell
from harness.waiting import await_until

from runyard.agent.config.isolation import IsolationSettings
from runyard.agent.core.model import AttemptKey, Outcome, OutcomeKind
from runyard.agent.drivers.process.orphans import sweep_resources
from runyard.agent.node.isolation_backends import WATCHDOG_ONLY, IsolationBackend, find_isolation_backend
from runyard.agent.supervisor import procfs
from runyard.agent.supervisor.limits.plan import BACKENDS, BY_THE_KERNEL, CGROUP_1
from runyard.agent.supervisor.oom import log_tells_of_group
from runyard.agent.supervisor.records import SpecRecord
from runyard.agent.supervisor.rundir import RunDirectories

LIMIT = 96 << 20
"""Bytes: above what an idle interpreter and its shim take, on any Python."""

NEIGHBOUR = AttemptKey("run-b", 1)

EATS = "import time; eaten = []\nwhile True: eaten.append(bytes(range(256)) * 4096); time.sleep(0.001)"
EATS_IN_A_CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {EATS!r}], check=True)"
EATS_IN_CHILDREN = """
import subprocess, sys
eats = "import time; eaten = [bytes(range(256)) * 4096 for _ in range(24)]; time.sleep(60)"
children = [subprocess.Popen([sys.executable, "-c", eats]) for _ in range(6)]
sys.exit(any(child.wait() for child in children))
"""


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, directories: RunDirectories) -> Iterator[IsolationBackend]:
    """Each of the means that this machine has."""
    wanted = request.param
    found, reasons = find_isolation_backend(IsolationSettings(backends=(wanted,)), directories.state)
    if found.name != wanted:
        pytest.skip(f"this machine has no {wanted}: {reasons[wanted]}")
    yield found
    sweep_resources(directories, found, None)
    for home in found.homes:
        home.rmdir()  # so nothing was left in it


def limited(
    spec: SpecRecord, backend: IsolationBackend, key: AttemptKey = KEY, memory: int = LIMIT
) -> SpecRecord:
    """The same worker with a limit on its memory."""
    return replace(spec, limits=backend.plan(key, memory, 0, required=False).as_record())


def groups(backend: IsolationBackend) -> list[str]:
    """Names of the control groups of attempts that are there."""
    return [name for name, _ in backend.groups()]


async def no_groups(backend: IsolationBackend) -> None:
    """Waits until the groups of all attempts are gone."""
    await await_until(lambda: not groups(backend), lambda: groups(backend))


def assert_oom(outcome: Outcome) -> None:
    assert outcome.kind is OutcomeKind.OOM_KILLED, outcome
    assert outcome.memory_limit_bytes == LIMIT
    assert LIMIT * 0.9 < outcome.peak_rss_bytes < LIMIT * 2
    assert "at its memory limit of 96 MiB" in outcome.message


@pytest.mark.parametrize(
    "script", [EATS, EATS_IN_A_CHILD, EATS_IN_CHILDREN], ids=["itself", "a child", "many children"]
)
async def test_a_worker_that_eats_memory_is_killed_at_its_limit_and_its_neighbour_lives_on(
    node: Node, backend: IsolationBackend, tmp_path: Path, script: str
) -> None:
    gate = Gate(tmp_path / "gate")
    neighbour = limited(shell(f"while ! [ -e {gate.path} ]; do sleep 0.05; done"), backend, NEIGHBOUR)
    await node.start(neighbour, NEIGHBOUR)
    lives = await node.running(NEIGHBOUR)
    directory = await node.start(limited(python(script), backend))
    assert_oom(await node.outcome())
    assert not procfs.with_environment(
        f"RUNYARD_RUN_DIRECTORY={directory.path}", procfs.all_processes().values()
    )
    assert is_alive(lives.pid)
    gate.open()
    outcome = await node.outcome(NEIGHBOUR)
    assert (outcome.kind, outcome.memory_limit_bytes) == (OutcomeKind.SUCCEEDED, LIMIT)
    await no_groups(backend)


async def test_a_worker_within_its_limit_is_left_alone(node: Node, backend: IsolationBackend) -> None:
    await node.start(limited(python("eaten = bytes(range(256)) * 4096 * 16"), backend))
    outcome = await node.outcome()
    assert outcome.kind is OutcomeKind.SUCCEEDED
    assert 16 << 20 < outcome.peak_rss_bytes <= LIMIT
    await no_groups(backend)


async def test_memory_that_children_share_counts_once(node: Node, backend: IsolationBackend) -> None:
    script = (
        "import os, time; shared = bytes(range(256)) * 4096 * 48\n"
        "children = [os.fork() for _ in range(2)]\n"
        "time.sleep(1)"
    )
    await node.start(limited(python(script), backend))
    assert (await node.outcome()).kind is OutcomeKind.SUCCEEDED


async def test_the_limit_holds_when_the_shim_is_dead(
    node: Node, backend: IsolationBackend, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    wait = f"import os, time\nwhile not os.path.exists({str(gate.path)!r}): time.sleep(0.01)\n"
    await node.start(limited(python(wait + EATS), backend))
    worker = await node.running()
    procfs.send_signal(worker.shim, signal.SIGKILL)
    await await_until(lambda: not procfs.is_alive(worker.shim), "the shim lives")
    gate.open()
    assert_oom(await node.outcome())
    await no_groups(backend)


async def test_the_limit_holds_when_shim_and_fork_server_are_dead(
    node: Node, backend: IsolationBackend, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    wait = f"import os, time\nwhile not os.path.exists({str(gate.path)!r}): time.sleep(0.01)\n"
    await node.start(limited(python(wait + EATS), backend))
    worker = await node.running()
    assert node.driver.fork_server_pid is not None
    os.kill(node.driver.fork_server_pid, signal.SIGKILL)
    procfs.send_signal(worker.shim, signal.SIGKILL)
    await await_until(lambda: not procfs.is_alive(worker.shim), "the shim lives")
    gate.open()
    outcome = await node.outcome()
    # Only the newest kernels tell how the child of somebody else ended.
    assert outcome.kind in (OutcomeKind.OOM_KILLED, OutcomeKind.EXIT_UNKNOWN)
    assert not is_alive(worker.pid)
    await no_groups(backend)


async def test_a_group_that_was_left_behind_is_removed_when_the_agent_starts(
    node: Node, backend: IsolationBackend, directories: RunDirectories
) -> None:
    if not backend.homes:
        pytest.skip(f"{backend.name} leaves nothing behind")
    for home in backend.homes:
        (home / "run-gone-3").mkdir()
    await node.start(limited(shell("sleep 60", grace_seconds=0), backend))
    await node.running()
    sweep_resources(directories, backend, None)
    assert groups(backend) == ["run-a-1"]
    await node.driver.stop(KEY, 0, "enough")
    assert (await node.outcome()).kind is OutcomeKind.STOPPED
    await no_groups(backend)


def test_the_kernels_log_tells_in_which_group_it_killed(small_memory: Path) -> None:
    joins = f"import os; open({str(small_memory / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))\n"
    assert subprocess.run([sys.executable, "-c", joins + EATS], check=False).returncode == -signal.SIGKILL
    assert log_tells_of_group(small_memory.name)
    assert not log_tells_of_group(f"{small_memory.name}0")
    assert not log_tells_of_group(small_memory.name[:-1])


async def test_cpu_is_limited_by_control_groups(node: Node, backend: IsolationBackend) -> None:
    if backend.name not in BY_THE_KERNEL:
        pytest.skip("a watchdog does not limit CPU")
    # What it takes to start the interpreter depends on the machine.
    spin = (
        "import time; began = time.process_time(); end = time.time() + 1.0\n"
        "while time.time() < end: pass\n"
        "print(time.process_time() - began)"
    )
    limits = backend.plan(KEY, 0, 200, required=True).as_record()
    directory = await node.start(replace(python(spin), limits=limits))
    assert (await node.outcome()).kind is OutcomeKind.SUCCEEDED
    assert float(directory.stdout.read_text()) < 0.5


async def test_a_worker_that_must_be_confined_does_not_start_otherwise(node: Node, tmp_path: Path) -> None:
    nowhere = IsolationBackend(CGROUP_1, (tmp_path / "memory", tmp_path / "cpu"))
    plan = nowhere.plan(KEY, LIMIT, 0, required=True)
    directory = await node.start(replace(shell("echo started"), limits=plan.as_record()))
    outcome = await node.outcome()
    assert (outcome.kind, outcome.reason_code) == (OutcomeKind.START_FAILED, "isolation_failed")
    assert "isolation is required" in outcome.message
    assert directory.stdout.read_text() == ""


async def test_a_worker_that_need_not_be_confined_is_watched_instead(node: Node, tmp_path: Path) -> None:
    nowhere = IsolationBackend(CGROUP_1, (tmp_path / "memory", tmp_path / "cpu"))
    await node.start(limited(python(EATS), nowhere))
    outcome = await node.outcome()
    assert_oom(outcome)
    assert "watchdog" in outcome.message


async def test_a_worker_killed_for_another_reason_was_not_out_of_memory(
    node: Node, backend: IsolationBackend
) -> None:
    await node.start(limited(shell("kill -9 $$"), backend))
    outcome = await node.outcome()
    assert (outcome.kind, outcome.signal) == (OutcomeKind.FAILED, signal.SIGKILL)
    assert outcome.memory_limit_bytes == LIMIT


def test_a_machine_without_control_groups_is_told_why(tmp_path: Path) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text("0::/agent\n")
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu\n")
    settings = IsolationSettings(backends=("cgroup2", "cgroup1"))
    found, reasons = find_isolation_backend(settings, tmp_path, membership, tmp_path)
    assert found == WATCHDOG_ONLY
    assert "lacks the memory controller; delegate it" in reasons["cgroup2"]
    assert "no memory controller of cgroup version 1" in reasons["cgroup1"]


# Who the worker is, and what it may do


def as_nobody() -> pwd.struct_passwd:
    if os.geteuid() != 0:
        pytest.skip("running workers as another user needs root; run these tests in a container as root")
    return pwd.getpwnam("nobody")


async def test_a_worker_runs_as_its_user_and_can_read_nothing_of_the_agents(node: Node) -> None:
    user = as_nobody()
    script = 'id -u; id -g; ls "$RUNYARD_RUN_DIRECTORY" || echo closed'
    directory = await node.start(replace(shell(script), run_as="nobody"))
    await node.outcome()
    assert directory.stdout.read_text().split() == [str(user.pw_uid), str(user.pw_gid), "closed"]


async def test_an_unknown_user_is_a_failed_start(node: Node) -> None:
    directory = await node.start(replace(shell("echo started"), run_as="nobody-knows"))
    outcome = await node.outcome()
    assert outcome.kind is OutcomeKind.START_FAILED
    assert "user nobody-knows (run_as) does not exist" in outcome.message
    assert directory.stdout.read_text() == ""


async def test_a_scratch_directory_is_the_runs_own_and_gone_after_it(node: Node, tmp_path: Path) -> None:
    scratch = tmp_path / "run-a-1"
    spec = replace(
        shell('echo x > "$TMPDIR/file"; stat -c %a "$TMPDIR"; echo "$TMPDIR"'), scratch=str(scratch)
    )
    directory = await node.start(spec)
    assert (await node.outcome()).exit_code == 0
    assert directory.stdout.read_text().split() == ["700", str(scratch)]
    await await_until(lambda: not scratch.exists(), "the scratch directory is still there")


async def test_no_new_privileges_and_no_core_where_the_settings_say_so(node: Node) -> None:
    script = "grep NoNewPrivs /proc/self/status; ulimit -c"
    directory = await node.start(replace(shell(script), no_new_privs=True, core_dumps=False))
    await node.outcome()
    assert directory.stdout.read_text().split() == ["NoNewPrivs:", "1", "0"]
