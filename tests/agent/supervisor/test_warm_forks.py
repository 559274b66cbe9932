"""The fork of a warm server is to its program a new interpreter, and to its node a worker like any."""

import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from agent.node_side import is_alive, text_in
from agent.warm_side import NAME, WarmBench
from harness.waiting import await_until

from runyard.agent.drivers.process.orphans import sweep
from runyard.agent.supervisor import procfs
from runyard.agent.supervisor.records import StopRequest
from runyard.agent.supervisor.rundir import RunDirectories

SELF_PORTRAIT = """
import json, os, re, signal, subprocess, sys, __main__
import multiprocessing.spawn
descriptors = {int(name): os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")
               if os.path.exists(f"/proc/self/fd/{name}")}
masks = re.findall(r"Sig(?:Blk|Ign|Cgt):\\s+(\\w+)", open("/proc/self/status").read())
print(json.dumps({
    "argv": sys.argv, "orig_argv": sys.orig_argv, "path": sys.path, "executable": sys.executable,
    "environment": {k: v for k, v in sorted(os.environ.items()) if not k.startswith("RUNYARD_")},
    "main": [__main__.__file__, __main__.__name__, repr(__main__.__spec__), "END" in vars(__main__)],
    "spawn": sorted(multiprocessing.spawn.get_preparation_data("x")),
    "cwd": os.getcwd(), "descriptors": sorted(descriptors), "stdin": descriptors[0],
    "masks": masks,
    "handlers": {n: repr(signal.getsignal(n)).split(" at ")[0] for n in signal.valid_signals()},
    "leader": os.getsid(0) == os.getpid() == os.getpgid(0),
    "ours": [m for m in sys.modules if "runyard" in m],
    "handed on": sorted(line for line in subprocess.check_output(["env"], text=True).split("\\n")
                        if not line.startswith("RUNYARD_")),
    "umask": os.umask(0o22), "threads": len(os.listdir("/proc/self/task")),
    "name": open("/proc/self/comm").read(), "command": open("/proc/self/cmdline").read().rstrip("\\0"),
    "bytecode": sys.dont_write_bytecode, "orphan_of": os.getppid() > 1,
    "encoding": [sys.stdout.encoding, sys.stdout.errors, sys.stdin.encoding],
}))
"""


@pytest.fixture
async def bench(directories: RunDirectories, tmp_path: Path) -> AsyncIterator[WarmBench]:
    project = tmp_path / "project"
    project.mkdir()
    made = WarmBench(directories, project)
    await made.link.open()
    yield made
    made.link.close()


async def test_a_fork_cannot_be_told_from_a_new_interpreter(bench: WarmBench) -> None:
    plan = bench.plan(SELF_PORTRAIT, "json", GREETING="good morning")
    await bench.open(plan)
    cold, warm = [json.loads(await bench.output(plan, "one", "two", warm=warm)) for warm in (False, True)]
    assert warm == cold
    assert warm["argv"] == [plan.script, "one", "two"]


async def test_a_fork_has_the_environment_of_its_run_and_what_imports_added(bench: WarmBench) -> None:
    (bench.project / "setter.py").write_text("import os; os.environ['SET'] = '1'; del os.environ['GONE']")
    plan = bench.plan("import os, json; print(json.dumps(dict(os.environ)))", "setter", GONE="1")
    await bench.open(plan)
    environment = json.loads(await bench.output(plan, env={**plan.env, "DAGSTER_RUN_JOB_NAME": "daily"}))
    assert (environment["SET"], environment["DAGSTER_RUN_JOB_NAME"]) == ("1", "daily")
    assert "GONE" not in environment
    assert "RUNYARD_WARM_ROOM" not in environment


async def test_a_fork_reads_its_arguments_as_any_worker(bench: WarmBench) -> None:
    plan = bench.plan("import os; print(os.fdopen(int(os.environ['RUNYARD_ARGS_FD'])).read())")
    await bench.open(plan)
    assert await bench.output(plan, worker_args="secret") == "secret\n"


async def test_everybody_finds_the_processes_of_a_fork_by_their_mark(bench: WarmBench) -> None:
    script = "import os, time; pid = os.fork(); print(pid, flush=True); pid or os.setsid(); time.sleep(60)"
    plan = bench.plan(script)
    await bench.open(plan)
    directory = await bench.start(plan)
    child = int((await text_in(directory.stdout)).split()[0])
    worker = directory.read_worker()
    assert worker is not None
    for pid in (worker.pid, child):
        assert procfs.variable_of(pid, "RUNYARD_RUN_DIRECTORY") == str(directory.path)
        assert procfs.variable_of(pid, "RUNYARD_ATTEMPT") == directory.mark
    with open(f"/proc/{worker.pid}/cmdline") as shown:  # noqa: ASYNC230
        assert shown.read().rstrip("\0").split("\0") == [plan.python, plan.script]
    os.kill(worker.pid, signal.SIGKILL)
    await bench.ended(directory)
    assert not is_alive(child)
    assert sweep(bench.directories) == {}


async def test_a_command_that_the_server_was_not_made_for_is_executed(bench: WarmBench) -> None:
    await bench.open(plan := bench.plan("print('forked')"))
    output = await bench.output(plan, argv=[plan.python, "-c", "print('executed')"])
    assert output == "executed\n"


async def test_a_fork_that_cannot_become_the_program_executes_it(bench: WarmBench) -> None:
    (bench.project / "trap.py").write_text("import importlib; importlib.invalidate_caches = None")
    plan = bench.plan("import sys; print('trap' in sys.modules)", "trap")
    await bench.open(plan)
    assert await bench.output(plan) == "False\n"


async def test_its_shim_stops_it_with_grace_and_records_the_end(bench: WarmBench) -> None:
    plan = bench.plan("import time; print('up', flush=True); time.sleep(60)")
    await bench.open(plan)
    directory = await bench.start(plan)
    await text_in(directory.stdout)
    directory.request_stop(StopRequest(20.0, "by alice", 0.0))
    worker = directory.read_worker()
    assert worker is not None
    os.kill(worker.shim_pid, signal.SIGTERM)
    ended = await bench.ended(directory)
    assert (ended.cause, ended.signal) == ("stopped", signal.SIGTERM)


async def test_shim_and_worker_outlive_their_server(bench: WarmBench) -> None:
    plan = bench.plan("import os, sys; print('up', flush=True); open(sys.argv[1]).read(); os._exit(7)")
    ready = await bench.open(plan)
    gate = bench.project / "gate"
    os.mkfifo(gate)
    directory = await bench.start(plan, str(gate))
    await text_in(directory.stdout)
    os.kill(ready["ready"]["pid"], signal.SIGKILL)
    assert "SIGKILL" in (await bench.news_with("gone"))["gone"]
    worker = directory.read_worker()
    assert worker is not None
    assert is_alive(worker.shim_pid)
    gate.write_text("")
    assert (await bench.ended(directory)).code == 7


@pytest.mark.parametrize("server_dies", [False, True])
async def test_the_fork_server_stands_in_for_the_shim_of_a_fork(bench: WarmBench, server_dies: bool) -> None:
    plan = bench.plan("import os, time; print('up', flush=True); time.sleep(0.5); os._exit(9)")
    ready = await bench.open(plan)
    directory = await bench.start(plan)
    await text_in(directory.stdout)
    worker = directory.read_worker()
    assert worker is not None
    if server_dies:
        os.kill(ready["ready"]["pid"], signal.SIGKILL)
        await bench.news_with("gone")
    os.kill(worker.shim_pid, signal.SIGKILL)
    ended = await bench.ended(directory)
    assert (ended.cause, ended.code) == ("exited", 9)


async def test_a_server_that_does_not_answer_is_killed_and_its_runs_start_cold_and_once(
    bench: WarmBench,
) -> None:
    plan = bench.plan("import os; print(os.getpid())")
    ready = await bench.open(plan)
    os.kill(ready["ready"]["pid"], signal.SIGSTOP)
    output = await bench.output(plan)
    assert len(output.split()) == 1
    assert (await bench.news_with("refused"))["reason"] == "the warm server died"
    assert not is_alive(ready["ready"]["pid"])


async def test_without_its_server_a_run_starts_cold(bench: WarmBench) -> None:
    plan = bench.plan("print('here')")
    assert await bench.output(plan) == "here\n"
    assert (await bench.news_with("refused"))["warm"] == NAME


async def test_servers_end_with_their_fork_server(bench: WarmBench) -> None:
    ready = await bench.open(bench.plan(""))
    assert bench.link.pid is not None
    os.kill(bench.link.pid, signal.SIGKILL)
    await await_until(lambda: not is_alive(ready["ready"]["pid"]), "the server lives on")


async def test_a_server_that_is_let_go_ends(bench: WarmBench) -> None:
    ready = await bench.open(bench.plan(""))
    bench.link.close_warm(NAME)
    await bench.news_with("gone")
    assert not is_alive(ready["ready"]["pid"])


async def test_forks_leave_no_zombies_no_descriptors_and_no_growth(bench: WarmBench) -> None:
    plan = bench.plan("pass", "json")
    server = (await bench.open(plan))["ready"]["pid"]
    for _ in range(3):
        await bench.output(plan)

    def as_before() -> bool:
        family = procfs.descendants(bench.link.pid or 0, procfs.all_processes())
        return [each.identity.pid for each in family] == [server]

    await await_until(as_before, "processes are left")
    before = _possessions(server)
    assert bench.link.pid is not None
    parent_before = _possessions(bench.link.pid)
    for _ in range(int(os.environ.get("RUNYARD_TEST_FORKS", "50"))):
        await bench.output(plan)
    await await_until(as_before, "processes are left")
    assert _possessions(server)[0] == before[0]
    # /proc/pid/stat counts memory per processor, and is off by up to 64 pages for each (mm_counter).
    assert _possessions(server)[1] <= before[1] + (1 << 20)
    assert _possessions(bench.link.pid)[0] == parent_before[0]


def _possessions(pid: int) -> tuple[int, int]:
    stat = procfs.read_stat(pid)
    assert stat is not None
    return len(os.listdir(f"/proc/{pid}/fd")), stat.rss_bytes


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
async def test_multiprocessing_works_in_a_fork(bench: WarmBench, method: str) -> None:
    (bench.project / "tasks.py").write_text("def double(n): return 2 * n")
    script = bench.project / "script.py"
    plan = bench.plan("", "json")
    script.write_text(
        "import multiprocessing, os, sys, tasks\n"
        "if __name__ == '__main__':\n"
        f"    with multiprocessing.get_context('{method}').Pool(2) as pool:\n"
        "        print(pool.map(tasks.double, range(3)))\n"
        "    sys.stdout.flush(); os._exit(0)\n"
    )
    await bench.open(plan)
    assert await bench.output(plan) == "[0, 2, 4]\n"
