"""`runyard run ...`"""

import enum
import getpass
import queue
import socket
import sys
import threading
import time
from collections.abc import Iterable
from typing import Annotated

import typer

from runyard.cli.exit_codes import CommandFailed
from runyard.cli.options import AddressOption, Output, OutputOption, Settings
from runyard.cli.output.explanation import print_explanation
from runyard.cli.output.json_output import to_json
from runyard.cli.output.run_logs import AttemptLog
from runyard.cli.output.tables import print_run, print_runs
from runyard.cli.output.words import state_word
from runyard.cli.run_ids import SHORTEST_PREFIX, resolve_run_id
from runyard.client.client import Client
from runyard.client.errors import CoordinatorUnreachable, ResourceExhausted, RunNotFound
from runyard.v1 import launch_pb2, run_pb2

app = typer.Typer(
    help="List, show, explain, read and stop runs.", no_args_is_help=True, rich_markup_mode=None
)

RunArgument = Annotated[
    str,
    typer.Argument(metavar="RUN", help=f"Run ID, or its beginning of {SHORTEST_PREFIX} characters or more."),
]


class PhaseName(enum.StrEnum):
    """The phases, as they are written on the command line."""

    QUEUED = "queued"
    ASSIGNED = "assigned"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    FINISHED = "finished"

    @property
    def phase(self) -> run_pb2.Phase.ValueType:
        return run_pb2.Phase.Value(f"PHASE_{self.name}")


class StreamName(enum.StrEnum):
    """The worker's outputs, as they are written on the command line."""

    STDOUT = "stdout"
    STDERR = "stderr"
    BOTH = "both"

    @property
    def streams(self) -> list[launch_pb2.LogStream.ValueType]:
        match self:
            case StreamName.STDOUT:
                return [launch_pb2.LOG_STREAM_STDOUT]
            case StreamName.STDERR:
                return [launch_pb2.LOG_STREAM_STDERR]
        return [launch_pb2.LOG_STREAM_STDOUT, launch_pb2.LOG_STREAM_STDERR]


@app.command("list")
def list_runs(
    context: typer.Context,
    phase: Annotated[
        list[PhaseName] | None,
        typer.Option(metavar="PHASE", help=f"Only this phase: {', '.join(PhaseName)}. May be repeated."),
    ] = None,
    cluster: Annotated[str, typer.Option(metavar="NAME", help="Only runs in this cluster.")] = "",
    node: Annotated[str, typer.Option(metavar="NODE", help="Only runs on this node.")] = "",
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Most runs to list, newest first.")] = 50,
    output: OutputOption = None,
    address: AddressOption = None,
) -> None:
    """List runs, newest first."""
    settings = Settings.of(context, address, output)
    phases = [name.phase for name in phase or []]
    with settings.client() as client:
        runs = list(client.list_runs(phases=phases, cluster=cluster, node=node, limit=limit))
    if settings.output is Output.JSON:
        typer.echo(to_json(runs))
    else:
        print_runs(runs)


@app.command("show")
def show_run(
    context: typer.Context,
    run: RunArgument,
    output: OutputOption = None,
    address: AddressOption = None,
) -> None:
    """Show one run: where it is, what happened, and the end of its stderr."""
    settings = Settings.of(context, address, output)
    with settings.client() as client:
        response = client.get_run(resolve_run_id(client, run))
    if settings.output is Output.JSON:
        typer.echo(to_json(response))
    else:
        print_run(response)


@app.command("explain")
def explain_run(
    context: typer.Context,
    run: RunArgument,
    output: OutputOption = None,
    address: AddressOption = None,
) -> None:
    """Say why a run is where it is, or what it waits for."""
    settings = Settings.of(context, address, output)
    with settings.client() as client:
        explanation = client.explain_run(resolve_run_id(client, run))
    if settings.output is Output.JSON:
        typer.echo(to_json(explanation))
    else:
        print_explanation(explanation)


@app.command("logs")
def read_logs(
    context: typer.Context,
    run: RunArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run is over.")] = False,
    stream: Annotated[
        StreamName, typer.Option(help="Which output; each goes to the same one of ours.")
    ] = StreamName.BOTH,
    tail: Annotated[
        int | None, typer.Option(min=0, metavar="LINES", help="Only the last lines of each.")
    ] = None,
    attempt: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Which attempt; default: the latest.")
    ] = None,
    address: AddressOption = None,
) -> None:
    """Print the worker's output, during the run and after it."""
    with Settings.of(context, address).client() as client:
        run_id = resolve_run_id(client, run)
        number = client.get_run(run_id).run.attempt if attempt is None else attempt
        logs = [AttemptLog(client, run_id, number, which) for which in stream.streams]
        if follow:
            _follow(logs, tail)
        else:
            for log in logs:
                _write(log, [log.last_lines(tail)[0]] if tail is not None else log.read())


@app.command("stop")
def stop_run(
    context: typer.Context,
    run: RunArgument,
    wait: Annotated[bool, typer.Option("--wait", help="Return when the worker has ended.")] = False,
    timeout: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="How long to wait with --wait.")
    ] = 300.0,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Why, in one sentence; shown as the cause.")
    ] = "",
    address: AddressOption = None,
) -> None:
    """Stop a run: SIGTERM to its worker, and SIGKILL after its grace."""
    with Settings.of(context, address).client() as client:
        run_id = resolve_run_id(client, run)
        response = client.terminate_run(run_id, reason=reason or _who_asks())
        if not response.HasField("run"):
            raise RunNotFound(f"run {run_id} is not known; should it still be launched, it ends at once")
        last = _until_finished(client, response.run, timeout) if wait else response.run
    finished = last.phase == run_pb2.PHASE_FINISHED
    typer.echo(f"run {run_id} {'is over: ' + state_word(last) if finished else 'is being stopped'}")


def _who_asks() -> str:
    return f"stopped from the command line by {getpass.getuser()} on {socket.gethostname()}"


def _until_finished(client: Client, run: run_pb2.Run, timeout: float) -> run_pb2.Run:
    """Watches until the run is over, also over a restart of the coordinator."""
    deadline = time.monotonic() + timeout
    while run.phase != run_pb2.PHASE_FINISHED:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise CommandFailed(
                f"run {run.run_id} is still {state_word(run)} after {timeout:g} s; the stop stays in force"
            )
        try:
            for change in client.watch_runs(run_ids=[run.run_id], timeout=remaining):
                run = change
                if run.phase == run_pb2.PHASE_FINISHED:
                    break
        except (CoordinatorUnreachable, ResourceExhausted):
            time.sleep(min(1.0, max(0.0, deadline - time.monotonic())))
    return run


def _follow(logs: list[AttemptLog], tail: int | None) -> None:
    """Follow each log in its own thread; the first error ends the command."""
    ends: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def copy(log: AttemptLog) -> None:
        try:
            offset = 0
            if tail is not None:
                lines, offset = log.last_lines(tail)
                _write(log, [lines])
            _write(log, log.follow(offset, lambda news: print(f"runyard: {news}", file=sys.stderr)))
        except Exception as error:
            ends.put(error)
        else:
            ends.put(None)

    for log in logs:
        threading.Thread(target=copy, args=(log,), daemon=True).start()
    for _ in logs:
        if (error := ends.get()) is not None:
            raise error


def _write(log: AttemptLog, chunks: Iterable[bytes]) -> None:
    """Bytes go out as the worker wrote them: a terminal or a pipe decides what they are."""
    to_stdout = log.stream == launch_pb2.LOG_STREAM_STDOUT
    target = sys.stdout.buffer if to_stdout else sys.stderr.buffer
    for chunk in chunks:
        target.write(chunk)
        target.flush()
