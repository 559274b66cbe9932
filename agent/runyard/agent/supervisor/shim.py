"""The shim: one small process per attempt, which starts the worker, watches it and writes down how it ended.

It depends on no other process: with the agent and the fork server dead it still obeys stop requests, enforces
the grace period, ends what the worker left behind and records the exit. It is forked by the fork server or by
a warm server, has its own session, and holds the lock of the run directory for as long as it lives.

The worker is forked first and then waits at a gate until `worker` is on disk. So a worker whose program has
begun is always on record, and an attempt without that record has provably run nothing. Beyond the gate the
program is executed; the fork of a warm server runs the program itself, without executing it, if it can.

Standard library only, for any Python from 3.10 on: a warm server runs this in the interpreter of its workers.
"""

import contextlib
import errno
import gc
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from runyard.agent.supervisor import privileges, procfs
from runyard.agent.supervisor.attempt_resources import NO_RESOURCES, AttemptResources, make_scratch
from runyard.agent.supervisor.contact import Fence
from runyard.agent.supervisor.exit_records import (
    killed_before_it_began,
    never_started,
    ran_out_of_memory,
    stopped_before_start,
)
from runyard.agent.supervisor.limits.enforcement import Unlimited, confine
from runyard.agent.supervisor.limits.plan import plan_of
from runyard.agent.supervisor.oom import OomWitness
from runyard.agent.supervisor.records import ExitRecord, SpecRecord, UnreadableRecord, WorkerRecord
from runyard.agent.supervisor.retry import Retry, complain
from runyard.agent.supervisor.rundir import (
    DIRECTORY_NAME,
    MARK_NAME,
    READY_ROOM_NAME,
    NoRoom,
    RunDirectory,
    RunDirectoryError,
)
from runyard.agent.supervisor.watch import WATCHED_SIGNALS, Watch

PROCESS = "runyard shim"

ARGS_FD_NAME = "RUNYARD_ARGS_FD"
"""Environment variable that names the descriptor from which the worker reads its arguments."""

READY_FD_NAME = "RUNYARD_READY_FD"
"""The same for the file in which a worker of another user reports that it is ready."""

EXIT_NOT_MINE = os.EX_TEMPFAIL
"""Exit code of a shim whose attempt belongs to another shim or is over."""

ReplaceProgram = Callable[[SpecRecord, Mapping[str, str]], None]
"""Turns a fork into the worker's program without executing it; returns if that is not possible.

Called with the spec and the whole environment. The process has its session, directory and standard streams.
"""

_GATE_OPEN, _GATE_SHUT, _GATEKEEPER_DEAD = b"1", b"0", b""
_NO_PROGRAM, _NO_DIRECTORY = "executable_missing", "working_directory_missing"
_PROTECTED_OOM_SCORE = "-900"  # as slurmstepd and containerd's shims have it


def never_replace(spec: SpecRecord, environment: Mapping[str, str]) -> None:
    """The `ReplaceProgram` of a fork without imports: return at once, so that the program is executed."""


def run(path: Path, on_running: Callable[[], None], replace_program: ReplaceProgram = never_replace) -> int:
    """Execute one attempt, from its spec to its exit record. Called in a fresh fork, which then exits.

    Args:
        path: The run directory.
        on_running: Called once when the worker's program has begun.
        replace_program: Tried in the worker before its program is executed.

    Returns:
        The exit code of the shim. The outcome of the attempt is on disk.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED_SIGNALS | {signal.SIGINT, signal.SIGHUP})
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    procfs.become_subreaper()
    procfs.rename_process("runyard-shim")
    protect_from_oom_killer()
    gc.disable()
    directory = RunDirectory(path)
    lock = directory.try_lock()
    if lock is None or directory.is_starting or directory.read_exit() is not None:
        return EXIT_NOT_MINE
    exit_record, resources = _attempt(directory, on_running, replace_program)
    _write_exit_persistently(directory, exit_record)
    resources.release()
    return os.EX_OK


def protect_from_oom_killer() -> None:
    """Make the kernel prefer other processes when memory runs out, if this user may do that."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_PROTECTED_OOM_SCORE)


def restore_oom_score() -> None:
    """Undo `protect_from_oom_killer` in a fork that needs no protection."""
    path = Path("/proc/self/oom_score_adj")
    with contextlib.suppress(OSError):
        if int(path.read_text()) < 0:
            path.write_text("0")


def _attempt(
    directory: RunDirectory, on_running: Callable[[], None], replace_program: ReplaceProgram
) -> tuple[ExitRecord, AttemptResources]:
    stop = directory.read_stop()
    if stop is not None:
        return stopped_before_start(stop), NO_RESOURCES
    try:
        directory.mark_starting()
        spec = directory.read_spec()
        if spec is None:
            raise StartFailure(f"{directory.path / 'spec'} is missing")
        executable = find_executable(spec)
        witness = OomWitness()
        fence = Fence.of(directory, spec)
        if fence is not None and fence.seconds_left() <= 0:
            return stopped_before_start(fence.stop()), NO_RESOURCES
        worker_pid, limits = _start_worker(directory, spec, executable, replace_program)
    except StartFailure as failure:
        return never_started("start_failed", str(failure), failure.reason_code), NO_RESOURCES
    except (RunDirectoryError, UnreadableRecord, OSError) as error:
        reason_code = "disk_full" if isinstance(error, NoRoom) or _is_no_room(error) else ""
        message = f"the node could not start the worker: {error}"
        return never_started("start_failed", message, reason_code), NO_RESOURCES
    on_running()
    exit_record = limits.classify(Watch(directory, worker_pid, fence, limits).until_over())
    if (
        exit_record.cause == "signaled"
        and exit_record.signal == signal.SIGKILL
        and witness.saw_kill_of(worker_pid)
    ):
        exit_record = ran_out_of_memory(exit_record)
    return exit_record, AttemptResources(limits, spec.scratch)


def _is_no_room(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _write_exit_persistently(directory: RunDirectory, exit_record: ExitRecord) -> None:
    # The lock is held meanwhile, so that everyone else waits: this is the only record there will be.
    retry = Retry(PROCESS)
    while True:
        try:
            directory.write_exit(exit_record)
        except RunDirectoryError as error:
            if directory.is_deleted:
                complain(PROCESS, error, "giving up, as it was deleted")
                return
            time.sleep(retry.failed(error))
        else:
            return


class StartFailure(Exception):
    """The worker cannot start; the message names what is missing.

    Args:
        message: One sentence for people.
        reason_code: See `ExitRecord.why`.
    """

    def __init__(self, message: str, reason_code: str = "") -> None:
        super().__init__(message)
        self.reason_code = reason_code


def find_executable(spec: SpecRecord) -> str:
    """The path of the program to execute, after a look at everything that can be missing.

    Raises:
        StartFailure: The command is empty, the working directory or the program is missing or refused.
    """
    if not spec.argv:
        raise StartFailure("the command is empty")
    if spec.cwd:
        _check_working_directory(spec.cwd)
    program = spec.argv[0]
    if "/" in program:
        _check_executable(os.path.join(spec.cwd, program), program)
        return program
    search = spec.env.get("PATH", os.defpath)
    for folder in search.split(os.pathsep):
        path = os.path.join(spec.cwd, folder, program)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise StartFailure(f"executable {program!r} is not in PATH ({search}) on this node", _NO_PROGRAM)


def _check_working_directory(cwd: str) -> None:
    if not os.path.exists(cwd):
        raise StartFailure(f"working directory {cwd} does not exist on this node", _NO_DIRECTORY)
    if not os.path.isdir(cwd):
        raise StartFailure(f"working directory {cwd} is not a directory", _NO_DIRECTORY)
    if not os.access(cwd, os.X_OK):
        raise StartFailure(f"working directory {cwd}: permission denied to the agent's user", _NO_DIRECTORY)


def _check_executable(path: str, shown: str) -> None:
    if not os.path.exists(path):
        raise StartFailure(f"executable {shown} does not exist on this node", _NO_PROGRAM)
    if os.path.isdir(path):
        raise StartFailure(f"executable {shown} is a directory", _NO_PROGRAM)
    if not os.access(path, os.X_OK):
        raise StartFailure(f"executable {shown} is not executable by the agent's user", _NO_PROGRAM)


def _start_worker(
    directory: RunDirectory, spec: SpecRecord, executable: str, replace_program: ReplaceProgram
) -> tuple[int, Unlimited]:
    """Forks the worker, confines it, puts it on record, and only then lets its program begin."""
    environment = _environment(directory, spec)
    channels = _open_channels(directory, spec)
    limits = Unlimited()
    pid = os.fork()
    if pid == 0:
        _become_worker(directory, spec, executable, channels, environment, replace_program)
    channels.close_workers_ends()
    try:
        limits = _confine(spec, pid)
        directory.write_worker(_worker_record(pid))
    except (RunDirectoryError, StartFailure):
        os.write(channels.gate_in, _GATE_SHUT)
        os.waitpid(pid, 0)
        AttemptResources(limits, spec.scratch).release()
        raise
    with contextlib.suppress(BrokenPipeError):  # killed at the gate: the wait status shows it
        os.write(channels.gate_in, _GATE_OPEN)
    os.close(channels.gate_in)
    with os.fdopen(channels.failure_out) as failures:
        failure = failures.read()
    if failure:
        os.waitpid(pid, 0)
        AttemptResources(limits, spec.scratch).release()
        raise StartFailure(failure, _NO_PROGRAM)
    return pid, limits


def _environment(directory: RunDirectory, spec: SpecRecord) -> dict[str, str]:
    try:
        scratch = make_scratch(spec)
    except (OSError, privileges.UnknownUser) as error:
        reason_code = "disk_full" if _is_no_room(error) else ""
        raise StartFailure(f"the scratch directory cannot be made: {error}", reason_code) from error
    return {**spec.env, **scratch, MARK_NAME: directory.mark, DIRECTORY_NAME: str(directory.path)}


def _confine(spec: SpecRecord, pid: int) -> Unlimited:
    try:
        return confine(plan_of(spec.limits), pid)
    except OSError as error:
        reason = f"isolation is required, and this node cannot confine the worker: {error}"
        raise StartFailure(reason, "isolation_failed") from error


def _worker_record(pid: int) -> WorkerRecord:
    worker = procfs.identify(pid)
    shim = procfs.identify(os.getpid())
    assert worker is not None, "a child stays in /proc until it is waited for"
    assert shim is not None
    return WorkerRecord(
        pid=pid,
        start_time=worker.start_time,
        boot_id=procfs.boot_id(),
        shim_pid=shim.pid,
        shim_start_time=shim.start_time,
        started_at=time.time(),
    )


def _explain(error: Exception, spec: SpecRecord) -> str:
    program = spec.argv[0]
    code = error.errno if isinstance(error, OSError) else None
    if isinstance(error, privileges.UnknownUser):
        return str(error)
    if isinstance(error, OSError) and spec.cwd and error.filename == spec.cwd:
        return f"working directory {spec.cwd}: {error.strerror} for user {spec.run_as or 'of the agent'}"
    if code == errno.ENOENT:
        return f"executable {program}: the interpreter in its first line does not exist on this node"
    if code == errno.ENOEXEC:
        return (
            f"executable {program} is not a program for this machine, or its first line names no interpreter"
        )
    if code == errno.E2BIG:
        return f"arguments and environment of {program} are longer than this kernel allows"
    return f"executable {program}: {error}"


@dataclass(frozen=True)
class _Channels:
    """The descriptors between shim and worker. Exec closes all but 0, 1, 2, `arguments` and `ready`."""

    stdin: int
    stdout: int
    stderr: int
    arguments: int | None
    ready: int | None
    gate_out: int
    gate_in: int
    failure_out: int
    failure_in: int

    def close_workers_ends(self) -> None:
        """For the shim, after the fork."""
        for descriptor in (self.stdin, self.stdout, self.stderr, self.gate_out, self.failure_in):
            os.close(descriptor)
        for given in (self.arguments, self.ready):
            if given is not None:
                os.close(given)


def _open_channels(directory: RunDirectory, spec: SpecRecord) -> _Channels:
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    gate_out, gate_in = os.pipe()
    failure_out, failure_in = os.pipe()
    return _Channels(
        stdin=os.open(os.devnull, os.O_RDONLY),
        stdout=os.open(directory.stdout, append, 0o600),
        stderr=os.open(directory.stderr, append, 0o600),
        arguments=_in_memory(spec.worker_args) if spec.worker_args else None,
        ready=os.open(directory.path / READY_ROOM_NAME, append, 0o600) if spec.run_as else None,
        gate_out=gate_out,
        gate_in=gate_in,
        failure_out=failure_out,
        failure_in=failure_in,
    )


def _in_memory(text: str) -> int:
    descriptor = os.memfd_create("runyard-args")
    with os.fdopen(descriptor, "wb", closefd=False) as file:
        file.write(text.encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _become_worker(
    directory: RunDirectory,
    spec: SpecRecord,
    executable: str,
    channels: _Channels,
    environment: dict[str, str],
    replace_program: ReplaceProgram,
) -> NoReturn:
    """In the fork: waits at the gate, then turns into the worker's program."""
    try:
        os.close(channels.gate_in)
        os.setsid()
        for number, descriptor in enumerate((channels.stdin, channels.stdout, channels.stderr)):
            os.dup2(descriptor, number)
        for name, given in ((ARGS_FD_NAME, channels.arguments), (READY_FD_NAME, channels.ready)):
            if given is not None:
                os.set_inheritable(given, True)
                environment[name] = str(given)
        restore_signals()
        restore_oom_score()
        word = os.read(channels.gate_out, 1)
        if word == _GATE_OPEN:
            privileges.settle(spec)
            if spec.cwd:
                os.chdir(spec.cwd)
            replace_program(spec, environment)
            os.execve(executable, spec.argv, environment)
        elif word == _GATEKEEPER_DEAD:
            directory.write_exit(killed_before_it_began())
    except (OSError, ValueError, TypeError, privileges.UnknownUser) as error:
        os.write(channels.failure_in, _explain(error, spec).encode())
    finally:
        os._exit(127)


def restore_signals() -> None:
    """Give a fork the signals that a program expects to find: nothing ignored, nothing blocked."""
    # Python ignores some signals, and `nohup` others; ignoring survives exec.
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
