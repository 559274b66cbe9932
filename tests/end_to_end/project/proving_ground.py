"""Jobs whose course the tests decide, through files beside this module.

    ledger          a line for every start of an op: run ID and process ID
    release-<run>   lets the run's `wait` go on
    hold-import     while it is there, importing this module blocks
    break-import    while it is there, importing this module fails
    importing       appears when an import has been held

The code server imports the module before any of these files exists; the run workers import it anew.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg

HERE = Path(__file__).parent
POLL = 0.05  # seconds

while (HERE / "hold-import").exists():
    (HERE / "importing").touch()
    time.sleep(POLL)

if (HERE / "break-import").exists():
    raise ImportError("the flux capacitor is not installed")


def enter(context: dg.OpExecutionContext) -> None:
    """Says so on stderr, and writes a start into the ledger; one write, so that lines do not mix."""
    print(f"{context.run_id} begins", file=sys.stderr, flush=True)
    with (HERE / "ledger").open("a") as ledger:
        ledger.write(f"{context.run_id} {os.getpid()}\n")


def linger(context: dg.OpExecutionContext) -> None:
    """Returns when the test lets the run go on."""
    while not (HERE / f"release-{context.run_id}").exists():
        time.sleep(POLL)


@dg.op
def pass_through(context: dg.OpExecutionContext) -> None:
    enter(context)


@dg.op
def break_down(context: dg.OpExecutionContext) -> None:
    enter(context)
    raise dg.Failure("broke down as planned")


@dg.op
def wait_for_release(context: dg.OpExecutionContext) -> None:
    enter(context)
    linger(context)


@dg.op
def wait_stubbornly(context: dg.OpExecutionContext) -> None:
    enter(context)
    while True:
        try:
            linger(context)
            return
        except dg.DagsterExecutionInterruptedError:
            print("not now", file=sys.stderr, flush=True)


@dg.op
def take_all_memory(context: dg.OpExecutionContext) -> None:
    enter(context)
    hoard = []
    while True:
        hoard.append(b"x" * (16 << 20))


@dg.job
def succeed() -> None:
    """Ends by itself."""
    pass_through()


@dg.op(tags={"runyard/labels": "zone=a"})
def go_to_zone_a(context: dg.OpExecutionContext) -> None:
    enter(context)


@dg.op(tags={"runyard/labels": "zone=b"})
def go_to_zone_b(context: dg.OpExecutionContext) -> None:
    enter(context)


@dg.job
def disagree() -> None:
    """No node can take it: its ops contradict each other."""
    go_to_zone_a()
    go_to_zone_b()


@dg.job
def fail() -> None:
    """Fails in user code."""
    break_down()


@dg.job
def wait() -> None:
    """Runs until it is released or interrupted."""
    wait_for_release()


@dg.job
def resist() -> None:
    """Runs until it is released; swallows every interrupt."""
    wait_stubbornly()


@dg.job
def devour() -> None:
    """Takes memory until it is killed."""
    take_all_memory()


@dg.job(executor_def=dg.multiprocess_executor)
def wait_in_child() -> None:
    """As `wait`, in a child of the run worker."""
    wait_for_release()


@dg.op
def eat_memory(context: dg.OpExecutionContext) -> None:
    enter(context)
    eaten = []
    while True:
        eaten.append(bytes(range(256)) * 4096 * 4)
        time.sleep(0.001)


@dg.job
def eat() -> None:
    """Takes ever more memory."""
    eat_memory()


@dg.job(executor_def=dg.multiprocess_executor)
def eat_in_child() -> None:
    """As `eat`, in a child of the run worker."""
    eat_memory()


@dg.op
def scatter_processes(context: dg.OpExecutionContext) -> None:
    """Starts what is hard to find and to end: deaf to all but SIGKILL, in other sessions, orphaned."""
    name = f"scattered-{context.run_id}"
    deaf = "trap '' TERM INT HUP; while :; do sleep 0.2; done"
    subprocess.Popen(["/bin/sh", "-c", deaf, name])
    environments: list[dict[str, str] | None] = [None, {}]
    for environment in environments:
        daemon = ["/bin/sh", "-c", f"({deaf}) >/dev/null 2>&1 &", name]
        subprocess.run(daemon, start_new_session=True, env=environment, check=True)
    enter(context)
    linger(context)


@dg.job(executor_def=dg.multiprocess_executor)
def scatter() -> None:
    """As `wait_in_child`, with processes of its own."""
    scatter_processes()


@dg.op
def crash_hard() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


@dg.op
def leave_early() -> None:
    os._exit(3)


@dg.job
def crash() -> None:
    """Ends by a signal."""
    crash_hard()


@dg.job
def leave() -> None:
    """Ends with an exit code of its own."""
    leave_early()


defs = dg.Definitions(
    jobs=[
        *(succeed, disagree, fail, wait, resist, devour, wait_in_child),
        *(eat, eat_in_child, scatter, crash, leave),
    ],
    executor=dg.in_process_executor,
)
