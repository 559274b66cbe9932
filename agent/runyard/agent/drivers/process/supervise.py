"""Supervises one process from its run directory to its end, across crashes of any part.

The supervisor goes round one loop: look at the disk and the process table, do what the observed calls for,
wait until something may have changed. It believes nothing but what it sees, so it does not matter whether it
started the worker itself or found it after a restart of the agent.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable

import structlog

from runyard.agent.core.model import AttemptPhase, Finished, Running, Starting, Stopping
from runyard.agent.drivers.attempt_supervisor import AttemptSupervisor
from runyard.agent.drivers.observed_state import (
    Ended,
    NeverRan,
    ObservedState,
    Orphaned,
    Rebooted,
    Untouched,
    Vanished,
    Watched,
    inspect,
)
from runyard.agent.drivers.outcomes import key_of, outcome_of, unreadable
from runyard.agent.drivers.process.fork_server_client import NoShim
from runyard.agent.drivers.process.start_limiter import NotYet, StartLimiter
from runyard.agent.node.facts import UsageTarget
from runyard.agent.supervisor import procfs
from runyard.agent.supervisor.attempt_resources import AttemptResources, attempt_resources_of
from runyard.agent.supervisor.contact import Fence
from runyard.agent.supervisor.exit_records import (
    ended,
    kill_all,
    killed_before_it_began,
    never_started,
    rebooted,
    remaining_processes,
    running,
    stopped_before_start,
)
from runyard.agent.supervisor.limits.enforcement import Unlimited
from runyard.agent.supervisor.procfs import ProcessIdentity
from runyard.agent.supervisor.records import ExitRecord, StopRequest, UnreadableRecord, WorkerRecord
from runyard.agent.supervisor.rundir import RunDirectory, RunDirectoryError
from runyard.agent.supervisor.stop_deadline import StopDeadline
from runyard.common.backoff import Backoff

EXIT_WAIT_SECONDS = 2.0
"""For how long an old fork server may take to write the exit of a worker whose shim is dead."""

_UNSURE_SECONDS = 0.2
"""Between two looks while a hint may have been lost."""

_LONGEST_RETRY = 5.0
"""Seconds; the longest pause after a failure."""

_SHIMS_TRIED = 3
"""How many shims may die before they have done anything, until the attempt is given up."""

_STUCK_SECONDS = 20.0
"""How long a shim may live without having noted `starting`, which takes it milliseconds."""

log = structlog.get_logger("runyard.agent.drivers")


class ProcessSupervisor(AttemptSupervisor):
    """Supervise a process until its outcome, and start it if necessary.

    Args:
        directory: The attempt.
        starts: Where shims come from.
        on_phase: Called for each phase that the attempt enters.
    """

    retried = (OSError, RunDirectoryError, UnreadableRecord, NoShim, TimeoutError)
    backoff = Backoff(0.1, _LONGEST_RETRY)

    def __init__(
        self, directory: RunDirectory, starts: StartLimiter, on_phase: Callable[[AttemptPhase], None]
    ) -> None:
        super().__init__(directory, on_phase, log.bind(attempt=str(key_of(directory))))
        self._starts = starts
        self._watched: dict[ProcessIdentity, int] = {}
        self._shim: ProcessIdentity | None = None
        self._shims_tried = 0
        self._shim_since = 0.0
        self._has_begun = False
        self._signalled: tuple[ProcessIdentity, StopRequest] | None = None
        self._deadline: StopDeadline | None = None
        self._fence: Fence | None = None
        self._resources: AttemptResources | None = None
        self._vanished_at: float | None = None
        self._wait_status: int | None = None
        self.usage_target: UsageTarget | None = None

    def on_running(self) -> None:
        """Called when the shim reports that the worker's program has begun."""
        self._has_begun = True
        self._changed.set()

    async def _release(self) -> None:
        self._starts.over(self._directory)
        for pidfd in list(self._watched.values()):
            self._unwatch(pidfd)

    async def _observe_and_act(self) -> bool:
        try:
            observed = await asyncio.to_thread(inspect, self._directory)
            stop = await asyncio.to_thread(self._directory.read_stop)
        except UnreadableRecord as error:
            return await self._on_unreadable(error)
        if isinstance(observed, Ended):
            exit_record = await asyncio.to_thread(outcome_of, observed.exit, self._directory)
            self._catch_up(await asyncio.to_thread(self._directory.read_worker), observed.exit)
            self._enter(Finished(exit_record))
            return True
        await self._act(observed, stop)
        return False

    async def _may_be_alive(self) -> bool:
        known = set(self._watched)
        if self._shim is not None:
            known.add(self._shim)
        if self.usage_target is not None:
            known.add(self.usage_target.worker)
        if any(procfs.is_alive(process) for process in known):
            return True
        return bool(await asyncio.to_thread(remaining_processes, self._directory, None))

    def _catch_up(self, worker: WorkerRecord | None, exit_record: ExitRecord) -> None:
        """Report a worker that was over before the first observation, so that its PID is known."""
        if worker is not None and isinstance(self._phase, Starting) and exit_record.cause != "start_failed":
            self._enter(Running(worker.pid))

    async def _act(self, observed: ObservedState, stop: StopRequest | None) -> None:
        match observed:
            case Untouched() if stop is not None:
                self._enter(Stopping(None))
                await self._end_before_start(stopped_before_start(stop))
            case Untouched():
                await self._start()
            case Watched(worker):
                await self._watch_shim(worker, stop)
            case Orphaned(worker):
                await self._watch_worker(worker, stop)
            case Vanished(worker):
                await self._on_vanished(worker, stop)
            case NeverRan():
                await self._conclude(killed_before_it_began())
            case Rebooted():
                await self._conclude(rebooted(stop))

    async def _start(self) -> None:
        self._enter(Starting())
        if self._shim is not None and self._watch(self._shim):
            if time.monotonic() > self._shim_since + _STUCK_SECONDS:
                procfs.send_signal(self._shim, signal.SIGKILL)
            await self._wait(_UNSURE_SECONDS)
            return
        if self._shims_tried == _SHIMS_TRIED:
            message = f"{_SHIMS_TRIED} shims in a row died before they could start the worker"
            await self._end_before_start(never_started("start_failed", message))
            return
        shim = await self._starts.start(self._directory, self.wake, may_be_warm=self._shims_tried == 0)
        if isinstance(shim, NotYet):
            await self._wait(shim.seconds)
            return
        self._shim = shim
        self._shim_since = time.monotonic()
        self._shims_tried += 1
        if self._watch(self._shim):
            await self._wait(_UNSURE_SECONDS)

    async def _end_before_start(self, exit_record: ExitRecord) -> None:
        if not await asyncio.to_thread(_end_unstarted, self._directory, exit_record):
            await self._wait(_UNSURE_SECONDS)  # a shim came first; the next look finds it

    async def _watch_shim(self, worker: WorkerRecord | None, stop: StopRequest | None) -> None:
        shim = worker.shim if worker else self._shim
        lives = shim is not None and self._watch(shim)
        if lives and shim is not None and stop is not None:
            self._signal_shim(shim, stop)
        is_known = worker is not None and self._has_surely_begun(worker)
        if stop is not None:
            self._enter(Stopping(worker.pid if worker else None))
        elif is_known and worker is not None:
            self._enter(Running(worker.pid))
        else:
            self._enter(Starting())
        if worker is not None:
            self.usage_target = self._target(worker)
        await self._wait(None if lives and is_known else _UNSURE_SECONDS)

    def _has_surely_begun(self, worker: WorkerRecord) -> bool:
        # The record is older than the program by the blink of an eye; normally the shim's hint shows it.
        return self._has_begun or abs(time.time() - worker.started_at) > _UNSURE_SECONDS

    def _signal_shim(self, shim: ProcessIdentity, stop: StopRequest) -> None:
        if self._signalled != (shim, stop):
            procfs.send_signal(shim, signal.SIGTERM)
            self._signalled = (shim, stop)

    async def _watch_worker(self, worker: WorkerRecord, stop: StopRequest | None) -> None:
        self._enter(Running(worker.pid) if stop is None else Stopping(worker.pid))
        self.usage_target = self._target(worker)
        if not self._watch(worker.process):
            return
        limits = (await self._attempt_resources_of(worker)).limits
        if limits.look_in() is not None and await asyncio.to_thread(limits.is_exceeded):
            await self._kill_orphan(worker)
        elif stop is not None:
            await self._stop_orphan(worker, stop)
        else:
            await self._watch_fence(limits.look_in())

    async def _watch_fence(self, longest: float | None) -> None:
        if self._fence is None:
            self._fence = Fence.of(self._directory, await asyncio.to_thread(self._directory.read_spec))
        if self._fence is not None and self._fence.seconds_left() <= 0:
            await asyncio.to_thread(self._directory.request_stop, self._fence.stop())
            return
        looks = [longest, None if self._fence is None else self._fence.look_in()]
        await self._wait(min((look for look in looks if look is not None), default=None))

    async def _attempt_resources_of(self, worker: WorkerRecord | None) -> AttemptResources:
        if self._resources is None:
            pid = worker.pid if worker else None
            self._resources = await asyncio.to_thread(attempt_resources_of, self._directory, pid)
        return self._resources

    async def _stop_orphan(self, worker: WorkerRecord, stop: StopRequest) -> None:
        """Do for a worker without a shim what the shim would have done."""
        if self._signalled != (worker.process, stop):
            self._signalled = (worker.process, stop)
            procfs.send_signal(worker.process, signal.SIGTERM)
            procfs.send_signal(worker.process, signal.SIGCONT)
            deadline = StopDeadline.from_request(stop, procfs.boottime(), time.time())
            self._deadline = deadline.or_earlier(self._deadline)
        assert self._deadline is not None, "set with the signal"
        left = self._deadline.seconds_left(procfs.boottime())
        if left > 0:
            look_in = (await self._attempt_resources_of(worker)).limits.look_in()
            await self._wait(left if look_in is None else min(left, look_in))
            return
        await self._kill_orphan(worker)

    async def _kill_orphan(self, worker: WorkerRecord) -> None:
        family = await asyncio.to_thread(remaining_processes, self._directory, worker.pid)
        procfs.send_signal(worker.process, signal.SIGKILL)
        await asyncio.to_thread(kill_all, family)
        await self._wait(_UNSURE_SECONDS)

    async def _on_vanished(self, worker: WorkerRecord, stop: StopRequest | None) -> None:
        """Gives an old fork server time to write the exit, and then uses what the kernel still knows."""
        if self._wait_status is None:
            pidfd = self._watched.get(worker.process)
            self._wait_status = procfs.wait_status(worker.process, pidfd)
        now = time.monotonic()
        self._vanished_at = self._vanished_at or now
        if now < self._vanished_at + EXIT_WAIT_SECONDS:
            await self._wait(_UNSURE_SECONDS / 4)
        elif self._wait_status is not None:
            await self._conclude(ended(self._wait_status, None, stop))
        else:
            message = "the worker is over, and no process is left that observed its end"
            await self._conclude(never_started("exit_unknown", message))

    async def _conclude(self, exit_record: ExitRecord) -> None:
        """Clears away what is left of the attempt, then writes the exit record; the next look reads it."""
        worker = await asyncio.to_thread(self._directory.read_worker)
        resources = await self._attempt_resources_of(worker)
        limits = resources.limits
        if await asyncio.to_thread(_kill_remaining, self._directory, limits):
            await self._wait(_UNSURE_SECONDS)
            return
        await asyncio.to_thread(self._directory.write_exit, limits.classify(exit_record))
        await asyncio.to_thread(resources.release)

    async def _on_unreadable(self, error: UnreadableRecord) -> bool:
        if await asyncio.to_thread(self._directory.is_locked):
            await self._wait(_LONGEST_RETRY)  # a shim is in charge, and will write an exit
            return False
        self._enter(Finished(unreadable(error)))
        return True

    def _target(self, worker: WorkerRecord) -> UsageTarget:
        return UsageTarget(worker.process, worker.shim, (self._directory.stdout, self._directory.stderr))

    def _enter(self, phase: AttemptPhase) -> None:
        if phase != self._phase and not isinstance(phase, Starting):
            self._starts.begun(self._directory)
        super()._enter(phase)

    def _watch(self, process: ProcessIdentity) -> bool:
        """Wake the supervisor when a process ends; false if it has ended."""
        if process not in self._watched:
            pidfd = procfs.open_pidfd(process)
            if pidfd is None:
                return False
            self._watched[process] = pidfd
            asyncio.get_running_loop().add_reader(pidfd, self._on_process_end, pidfd)
        return procfs.is_alive(process)

    def _on_process_end(self, pidfd: int) -> None:
        # It stays readable for ever; the descriptor itself is kept to ask for the exit status.
        asyncio.get_running_loop().remove_reader(pidfd)
        self._changed.set()

    def _unwatch(self, pidfd: int) -> None:
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)


def _kill_remaining(directory: RunDirectory, limits: Unlimited) -> bool:
    return kill_all([*remaining_processes(directory, None), *running(limits.members())])


def _end_unstarted(directory: RunDirectory, exit_record: ExitRecord) -> bool:
    """Write the exit record under the lock, so that no shim can start the worker meanwhile."""
    lock = directory.try_lock()
    if lock is None:
        return False
    try:
        return not directory.is_starting and directory.write_exit(exit_record)
    finally:
        os.close(lock)
