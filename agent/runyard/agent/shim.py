"""The shim: one small process per attempt, which starts the worker, watches it and writes down how it ended.

It needs nobody: with the agent and the fork server dead it still obeys stop requests, enforces the grace
period, ends what the worker left behind and records the exit. It is forked by the fork server, or by a warm
server, has a session of its own, and holds the lock of the run directory for as long as it lives.

The worker is forked first and then waits at a gate until `worker` is on disk. So a worker whose program has
begun is always on record, and an attempt without that record has provably run nothing. Beyond the gate the
program is executed; the fork of a warm server rather goes on as the program, if it can.

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

from runyard.agent import procfs
from runyard.agent.contact import Fence
from runyard.agent.endings import (
    complain,
    ended,
    kill_all,
    killed_before_it_began,
    never_started,
    ran_out_of_memory,
    remaining_processes,
    stopped_before_start,
)
from runyard.agent.oom import OomWitness
from runyard.agent.records import ExitRecord, SpecRecord, StopRequest, UnreadableRecord, WorkerRecord
from runyard.agent.rundir import DIRECTORY_NAME, MARK_NAME, RunDirectory, RunDirectoryError

ARGS_FD_NAME = "RUNYARD_ARGS_FD"
"""Environment variable that tells the worker where to read its arguments."""

EXIT_NOT_MINE = os.EX_TEMPFAIL
"""Exit code of a shim that found the attempt in other hands, or over."""

GoOn = Callable[[SpecRecord, Mapping[str, str]], None]
"""Turns a fork into the worker's program without executing it; returns if that is not possible.

Called with the spec and the whole environment. The process has its session, directory and standard streams.
"""

_WATCHED_SIGNALS = {signal.SIGCHLD, signal.SIGTERM}
_GATE_OPEN, _GATE_SHUT, _GATEKEEPER_DEAD = b"1", b"0", b""
_SWEEP_PAUSES_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_WRITE_PAUSES_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_PROTECTED_OOM_SCORE = "-900"  # as slurmstepd and containerd's shims have it


def impossible(spec: SpecRecord, environment: Mapping[str, str]) -> None:
    """The `GoOn` of a fork that has nothing imported: its worker is executed."""


def run(path: Path, on_running: Callable[[], None], go_on: GoOn = impossible) -> int:
    """Sees one attempt through, from its spec to its exit. Called in a fresh fork, which then exits.

    Args:
        path: The run directory.
        on_running: Called once when the worker's program has begun.
        go_on: Tried in the worker before its program is executed.

    Returns:
        The exit code of the shim. The outcome of the attempt is on disk.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED_SIGNALS | {signal.SIGINT, signal.SIGHUP})
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
    _write_exit_whatever_it_takes(directory, _attempt(directory, on_running, go_on))
    return os.EX_OK


def protect_from_oom_killer() -> None:
    """Has the kernel end others first when memory runs out, if this user may ask for that."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_PROTECTED_OOM_SCORE)


def restore_oom_score() -> None:
    """Undoes `protect_from_oom_killer` in a fork that is to be as mortal as any process."""
    path = Path("/proc/self/oom_score_adj")
    with contextlib.suppress(OSError):
        if int(path.read_text()) < 0:
            path.write_text("0")


def _attempt(directory: RunDirectory, on_running: Callable[[], None], go_on: GoOn) -> ExitRecord:
    stop = directory.read_stop()
    if stop is not None:
        return stopped_before_start(stop)
    try:
        directory.mark_starting()
        spec = directory.read_spec()
        if spec is None:
            raise StartFailure(f"{directory.path / 'spec'} is missing")
        executable = find_executable(spec)
        witness = OomWitness()
        fence = Fence.of(directory, spec)
        if fence is not None and fence.seconds_left() <= 0:
            return stopped_before_start(fence.stop())
        worker_pid = _start_worker(directory, spec, executable, go_on)
    except StartFailure as failure:
        return never_started("start_failed", str(failure))
    except (RunDirectoryError, UnreadableRecord, OSError) as error:
        return never_started("start_failed", f"the node could not start the worker: {error}")
    on_running()
    verdict = _Watch(directory, worker_pid, fence).until_over()
    if verdict.cause == "signaled" and verdict.signal == signal.SIGKILL and witness.saw_kill_of(worker_pid):
        return ran_out_of_memory(verdict)
    return verdict


def _write_exit_whatever_it_takes(directory: RunDirectory, verdict: ExitRecord) -> None:
    # The lock is held meanwhile, so everybody else goes on waiting: this is the only record there will be.
    pauses = iter(_WRITE_PAUSES_SECONDS)
    while True:
        try:
            directory.write_exit(verdict)
        except RunDirectoryError as error:
            complain("runyard shim", error)
            time.sleep(next(pauses, _WRITE_PAUSES_SECONDS[-1]))
        else:
            return


class StartFailure(Exception):
    """The worker cannot start; the message names what is missing."""


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
    raise StartFailure(f"executable {program!r} is not in PATH ({search}) on this node")


def _check_working_directory(cwd: str) -> None:
    if not os.path.exists(cwd):
        raise StartFailure(f"working directory {cwd} does not exist on this node")
    if not os.path.isdir(cwd):
        raise StartFailure(f"working directory {cwd} is not a directory")
    if not os.access(cwd, os.X_OK):
        raise StartFailure(f"working directory {cwd}: permission denied to the agent's user")


def _check_executable(path: str, shown: str) -> None:
    if not os.path.exists(path):
        raise StartFailure(f"executable {shown} does not exist on this node")
    if os.path.isdir(path):
        raise StartFailure(f"executable {shown} is a directory")
    if not os.access(path, os.X_OK):
        raise StartFailure(f"executable {shown} is not executable by the agent's user")


def _start_worker(directory: RunDirectory, spec: SpecRecord, executable: str, go_on: GoOn) -> int:
    """Forks the worker, puts it on record, and only then lets its program begin."""
    channels = _open_channels(directory, spec)
    pid = os.fork()
    if pid == 0:
        _become_worker(directory, spec, executable, channels, go_on)
    channels.close_workers_ends()
    try:
        directory.write_worker(_worker_record(pid))
    except RunDirectoryError:
        os.write(channels.gate_in, _GATE_SHUT)
        os.waitpid(pid, 0)
        raise
    with contextlib.suppress(BrokenPipeError):  # killed at the gate: its wait status tells
        os.write(channels.gate_in, _GATE_OPEN)
    os.close(channels.gate_in)
    with os.fdopen(channels.failure_out) as failures:
        failure = failures.read()
    if failure:
        os.waitpid(pid, 0)
        raise StartFailure(failure)
    return pid


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


def _explain(error: Exception, program: str) -> str:
    code = error.errno if isinstance(error, OSError) else None
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
    """The descriptors between shim and worker. All are closed by exec, except 0, 1, 2 and `arguments`."""

    stdin: int
    stdout: int
    stderr: int
    arguments: int | None
    gate_out: int
    gate_in: int
    failure_out: int
    failure_in: int

    def close_workers_ends(self) -> None:
        """For the shim, after the fork."""
        for descriptor in (self.stdin, self.stdout, self.stderr, self.gate_out, self.failure_in):
            os.close(descriptor)
        if self.arguments is not None:
            os.close(self.arguments)


def _open_channels(directory: RunDirectory, spec: SpecRecord) -> _Channels:
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    gate_out, gate_in = os.pipe()
    failure_out, failure_in = os.pipe()
    return _Channels(
        stdin=os.open(os.devnull, os.O_RDONLY),
        stdout=os.open(directory.stdout, append, 0o600),
        stderr=os.open(directory.stderr, append, 0o600),
        arguments=_in_memory(spec.worker_args) if spec.worker_args else None,
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
    directory: RunDirectory, spec: SpecRecord, executable: str, channels: _Channels, go_on: GoOn
) -> NoReturn:
    """In the fork: waits at the gate, then turns into the worker's program."""
    try:
        os.close(channels.gate_in)
        os.setsid()
        for number, descriptor in enumerate((channels.stdin, channels.stdout, channels.stderr)):
            os.dup2(descriptor, number)
        environment = {**spec.env, MARK_NAME: directory.mark, DIRECTORY_NAME: str(directory.path)}
        if channels.arguments is not None:
            os.set_inheritable(channels.arguments, True)
            environment[ARGS_FD_NAME] = str(channels.arguments)
        restore_signals()
        restore_oom_score()
        word = os.read(channels.gate_out, 1)
        if word == _GATE_OPEN:
            if spec.cwd:
                os.chdir(spec.cwd)
            go_on(spec, environment)
            os.execve(executable, spec.argv, environment)
        elif word == _GATEKEEPER_DEAD:
            directory.write_exit(killed_before_it_began())
    except (OSError, ValueError, TypeError) as error:
        os.write(channels.failure_in, _explain(error, spec.argv[0]).encode())
    finally:
        os._exit(127)


def restore_signals() -> None:
    """Gives a fork the signals that a program expects to find: nothing ignored, nothing blocked."""
    # Python ignores some signals, and `nohup` others; ignoring survives exec.
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


class _Watch:
    """Waits for the worker, obeys stop requests, and leaves no descendant behind."""

    def __init__(self, directory: RunDirectory, worker_pid: int, fence: Fence | None) -> None:
        self._directory = directory
        self._worker_pid = worker_pid
        self._fence = fence
        self._worker_end: ExitRecord | None = None
        self._stop: StopRequest | None = None
        self._kill_at: float | None = None

    def until_over(self) -> ExitRecord:
        """Returns when the worker and all its descendants are gone."""
        while self._worker_end is None and not self._is_out_of_grace():
            self._obey_stop()
            self._obey_fence()
            self._wait_for_signal(self._time_left())
            self._reap()
        return self._sweep()

    def _is_out_of_grace(self) -> bool:
        return self._kill_at is not None and procfs.boottime() >= self._kill_at

    def _time_left(self) -> float | None:
        limits = [] if self._fence is None else [self._fence.look_in()]
        if self._kill_at is not None:
            limits.append(max(0.0, self._kill_at - procfs.boottime()))
        return min(limits, default=None)

    def _wait_for_signal(self, seconds: float | None) -> None:
        if seconds is None:
            signal.sigwaitinfo(_WATCHED_SIGNALS)
        else:
            signal.sigtimedwait(_WATCHED_SIGNALS, seconds)

    def _obey_stop(self) -> None:
        stop = self._directory.read_stop()
        if stop is not None and stop != self._stop:
            self._heed(stop)

    def _obey_fence(self) -> None:
        if self._fence is None or self._fence.seconds_left() > 0:
            return
        stop = self._fence.stop()
        with contextlib.suppress(RunDirectoryError):  # a full disk must not keep the worker alive
            self._directory.request_stop(stop)
        self._heed(stop)
        self._fence = None

    def _heed(self, stop: StopRequest) -> None:
        if self._stop is None:
            os.kill(self._worker_pid, signal.SIGTERM)
            os.kill(self._worker_pid, signal.SIGCONT)  # a suspended worker could not even hear it
        self._stop = stop
        kill_at = procfs.boottime() + stop.grace_seconds
        self._kill_at = min(kill_at, self._kill_at or kill_at)

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._worker_pid:
                self._worker_end = ended(status, usage, self._stop)

    def _sweep(self) -> ExitRecord:
        pauses = iter(_SWEEP_PAUSES_SECONDS)
        while True:
            more = kill_all(remaining_processes(self._directory, os.getpid()))
            self._reap()
            if self._worker_end is not None and not more:
                return self._worker_end
            self._wait_for_signal(next(pauses, _SWEEP_PAUSES_SECONDS[-1]))
