"""What the shim gives to a worker, why it may refuse to start one, and that it never loses an exit."""

import json
import os
import signal
import stat
import sys
from pathlib import Path

import pytest
from agent.node_side import KEY, Node, python, shell, text_in
from harness.waiting import await_until

from runyard.agent.core.model import OutcomeKind
from runyard.agent.supervisor import procfs
from runyard.agent.supervisor.records import ExitRecord, SpecRecord
from runyard.agent.supervisor.rundir import RunDirectories

HOG = f'{sys.executable} -c "bytearray(200 << 20)"'
SECRET = "postgresql://dagster:hunter2@db"


async def test_worker_args_are_seen_by_the_worker_and_by_nobody_else(node: Node) -> None:
    script = (
        "import os, time; fd = int(os.environ['RUNYARD_ARGS_FD']);"
        "print(os.fdopen(fd).read(), flush=True); time.sleep(60)"
    )
    directory = await node.start(python(script, worker_args=SECRET))
    assert await text_in(directory.stdout) == f"{SECRET}\n"
    worker = await node.running()
    assert node.driver.fork_server_pid is not None
    for pid in (worker.pid, worker.shim_pid, node.driver.fork_server_pid):
        assert SECRET.encode() not in _seen_by_others(pid)


def _seen_by_others(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()


async def test_worker_args_may_be_of_any_size(node: Node) -> None:
    script = "import os; print(len(os.fdopen(int(os.environ['RUNYARD_ARGS_FD'])).read()))"
    directory = await node.start(python(script, worker_args="ä" * 3_000_000))
    assert (await node.outcome()).exit_code == 0
    assert directory.stdout.read_text() == "3000000\n"


async def test_the_worker_gets_its_environment_and_nothing_else(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_SECRET", "s")
    script = "import json, os; print(json.dumps(dict(os.environ)))"
    directory = await node.start(python(script))
    await node.outcome()
    environment = json.loads(directory.stdout.read_text())
    assert environment.pop("LC_CTYPE", "C.UTF-8") == "C.UTF-8"  # Python's own doing
    assert environment == {"RUNYARD_ATTEMPT": "run-a/1", "RUNYARD_RUN_DIRECTORY": str(directory.path)}


async def test_the_worker_begins_with_clean_descriptors_signals_and_session(node: Node) -> None:
    script = (
        "import os, re; print(sorted(map(int, os.listdir('/proc/self/fd')))[:-1]);"
        "masks = re.findall(r'Sig(?:Blk|Ign):\\s+(\\w+)', open('/proc/self/status').read());"
        # Signals 32 and 33 belong to the C library, and nobody can set them.
        "print([hex(int(mask, 16) & ~(3 << 31)) for mask in masks]);"
        "print(os.getsid(0) == os.getpid(), os.readlink('/proc/self/fd/0'))"
    )
    directory = await node.start(python(script))
    await node.outcome()
    descriptors, signals, rest = directory.stdout.read_text().splitlines()
    assert descriptors == "[0, 1, 2]"
    # Python itself ignores SIGPIPE (bit 12) and SIGXFSZ (bit 24) from its first moment.
    assert signals == "['0x0', '0x1001000']"
    assert rest == "True /dev/null"


async def test_the_worker_starts_in_its_working_directory(node: Node, tmp_path: Path) -> None:
    directory = await node.start(shell("pwd", cwd=str(tmp_path)))
    await node.outcome()
    assert directory.stdout.read_text() == f"{tmp_path}\n"


async def test_a_program_is_looked_up_in_the_path_of_the_worker(node: Node, tmp_path: Path) -> None:
    program = _script(tmp_path / "hello", "#!/bin/sh\necho hello")
    directory = await node.start(SpecRecord([program.name], {"PATH": f"/nowhere:{tmp_path}"}))
    assert (await node.outcome()).exit_code == 0
    assert directory.stdout.read_text() == "hello\n"


def _script(path: Path, text: str, mode: int = 0o755) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def _impossible(case: str, place: Path) -> SpecRecord:
    match case:
        case "missing":
            return SpecRecord([str(place / "python")], {})
        case "not in PATH":
            return SpecRecord(["dagster"], {"PATH": "/nowhere"})
        case "not executable":
            return SpecRecord([str(_script(place / "script", "#!/bin/sh", 0o644))], {})
        case "a directory":
            return SpecRecord([str(place)], {})
        case "bad first line":
            return SpecRecord([str(_script(place / "script", "#!/nowhere/python\n"))], {})
        case "no program":
            return SpecRecord([str(_script(place / "script", "\0\0\0\0"))], {})
        case "no cwd":
            return shell("true", cwd=str(place / "gone"))
        case "cwd is a file":
            return shell("true", cwd=str(_script(place / "file", "")))
        case "too long":
            return shell("true " + "x" * 200_000)
        case "null byte":
            return shell("true \0")
        case _:
            return SpecRecord([], {})


@pytest.mark.parametrize(
    ("case", "complaint"),
    [
        ("missing", "executable {place}/python does not exist on this node"),
        ("not in PATH", "executable 'dagster' is not in PATH (/nowhere) on this node"),
        ("not executable", "executable {place}/script is not executable by the agent's user"),
        ("a directory", "executable {place} is a directory"),
        ("bad first line", "executable {place}/script: the interpreter in its first line does not exist"),
        ("no program", "executable {place}/script is not a program for this machine"),
        ("no cwd", "working directory {place}/gone does not exist on this node"),
        ("cwd is a file", "working directory {place}/file is not a directory"),
        ("too long", "arguments and environment of /bin/sh are longer than this kernel allows"),
        ("null byte", "embedded null byte"),
        ("empty", "the command is empty"),
    ],
)
async def test_a_worker_that_cannot_start_tells_what_is_missing(
    node: Node, tmp_path: Path, case: str, complaint: str
) -> None:
    await node.start(_impossible(case, tmp_path))
    outcome = await node.outcome()
    assert (outcome.kind, outcome.exit_code) == (OutcomeKind.START_FAILED, None)
    assert complaint.format(place=tmp_path) in outcome.message


async def test_exit_code_127_of_the_worker_itself_is_no_failed_start(node: Node) -> None:
    await node.start(shell("exit 127"))
    outcome = await node.outcome()
    assert (outcome.kind, outcome.exit_code) == (OutcomeKind.FAILED, 127)


async def test_the_logs_are_closed_to_other_users(node: Node) -> None:
    directory = await node.start(shell("echo x"))
    await node.outcome()
    for log in (directory.stdout, directory.stderr):
        assert stat.S_IMODE(os.stat(log).st_mode) == 0o600


async def test_a_worker_that_fills_the_disk_is_recorded_with_its_exit_code(small_disk: Path) -> None:
    node = Node(RunDirectories(small_disk / "state"))
    await node.start(shell("head -c 2000000 /dev/zero; exit 3"))
    outcome = await node.outcome()
    assert (outcome.kind, outcome.exit_code) == (OutcomeKind.FAILED, 3)
    assert os.statvfs(small_disk).f_bavail == 0
    await node.driver.close()


@pytest.mark.parametrize("log_bytes", [1, 4096], ids=["complaint fits", "complaint does not fit either"])
async def test_an_exit_that_finds_no_room_is_written_when_there_is_some(
    small_disk: Path, log_bytes: int
) -> None:
    node = Node(RunDirectories(small_disk / "state"))
    script = "head -c 2000000 /dev/zero > $0/ballast; exit 3"
    spec = SpecRecord(["/bin/sh", "-c", script, str(small_disk)], {"PATH": os.environ["PATH"]})
    directory = node.directories.create(KEY, spec)
    (directory.path / ".exit-room").unlink()
    errors = node.directories.state / "forkserver.log"
    errors.write_text("x" * log_bytes)  # the rest of the page, of 4096 bytes, takes the complaint
    await node.driver.start(KEY)
    worker = await node.running()
    await await_until(lambda: procfs.read_stat(worker.pid) is None, "the worker lives")
    if log_bytes == 1:
        await await_until(lambda: "trying again" in errors.read_text(), errors.read_text)
    assert directory.read_exit() is None
    assert directory.is_locked()
    (small_disk / "ballast").unlink()
    assert (await node.outcome()).exit_code == 3
    await node.driver.close()


async def test_a_disk_that_fills_up_before_the_start_is_a_failed_start(small_disk: Path) -> None:
    node = Node(RunDirectories(small_disk / "state"))
    directory = node.directories.create(KEY, shell("echo started"))
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "ballast").write_bytes(bytes(2 << 20))
    await node.driver.start(KEY)
    outcome = await node.outcome()
    assert (outcome.kind, outcome.reason_code) == (OutcomeKind.START_FAILED, "disk_full")
    assert "No space left on device; free space on that disk" in outcome.message
    assert directory.stdout.read_text() == ""
    await node.driver.close()


async def test_a_worker_that_the_kernel_kills_for_want_of_memory_says_so(
    node: Node, small_memory: Path
) -> None:
    await node.start(shell(f"echo $$ > {small_memory}/cgroup.procs; exec {HOG}"))
    outcome = await node.outcome()
    assert (outcome.kind, outcome.signal) == (OutcomeKind.OOM_KILLED, signal.SIGKILL)
    assert "because it ran out of memory" in outcome.message
    assert outcome.peak_rss_bytes > 32 << 20


async def test_a_sigkill_while_others_run_out_of_memory_is_no_want_of_memory(
    node: Node, small_memory: Path
) -> None:
    await node.start(shell(f"sh -c 'echo $$ > {small_memory}/cgroup.procs; exec {HOG}'; kill -9 $$"))
    outcome = await node.outcome()
    assert (outcome.kind, outcome.signal) == (OutcomeKind.FAILED, signal.SIGKILL)


async def test_the_exit_tells_what_the_worker_used(node: Node) -> None:
    directory = await node.start(python("b = bytearray(64 << 20); sum(range(10**6))"))
    await node.outcome()
    found = directory.read_exit()
    assert isinstance(found, ExitRecord)
    assert found.peak_rss_bytes > 64 << 20
    assert found.user_seconds > 0
