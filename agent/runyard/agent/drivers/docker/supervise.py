"""Supervises one attempt in a container from its run directory to its end, across crashes of any part.

As for processes, it goes round one loop: look at the disk and at the engine, do what the situation calls for,
wait until something may have changed. What it cannot see, it does not presume: while the engine is away,
nothing is concluded.

The steps of a start, each of which may be the last before a crash:

    image, container, files    may be repeated: a container that was made and never started is made again
    `starting`                 from here on the container is never made again
    start                      may be repeated: in the container only one worker can claim the attempt
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from runyard.agent.config.docker import DockerSettings
from runyard.agent.core.model import AttemptKey, AttemptPhase, Finished, Running, Starting, Stopping
from runyard.agent.drivers.attempt_supervisor import AttemptSupervisor
from runyard.agent.drivers.docker.causes import (
    ENGINE_UNAVAILABLE,
    EXECUTABLE_MISSING,
    IMAGE_UNAVAILABLE,
    word_for,
)
from runyard.agent.drivers.docker.container import Container, Foreign
from runyard.agent.drivers.docker.copying import Copying
from runyard.agent.drivers.docker.engine.client import Engine, EngineError, NameTaken, Unreachable
from runyard.agent.drivers.docker.engine.images import PullFailed, PullInterrupted, ensure_image
from runyard.agent.drivers.docker.enter import NOT_MINE
from runyard.agent.drivers.docker.exit_records import (
    NOT_EXECUTABLE,
    ContainerState,
    container_ended,
    container_gone,
)
from runyard.agent.drivers.docker.output import note
from runyard.agent.drivers.docker.plan.plan import ENTER, TOOLS, ContainerPlan
from runyard.agent.drivers.docker.watchdog import WatchdogClient
from runyard.agent.drivers.outcomes import key_of, outcome_of, unreadable
from runyard.agent.supervisor import procfs
from runyard.agent.supervisor.contact import Fence
from runyard.agent.supervisor.exit_records import never_started, stopped_before_start
from runyard.agent.supervisor.records import (
    ContainerRecord,
    ExitRecord,
    SpecRecord,
    StopRequest,
    UnreadableRecord,
)
from runyard.agent.supervisor.rundir import RunDirectory, RunDirectoryError
from runyard.agent.supervisor.stop_deadline import StopDeadline
from runyard.common.backoff import Backoff
from runyard.common.service.failpoints import failpoint

START_PATIENCE = 120.0
"""Seconds for which a start is tried while the engine or a registry gives no answer."""

RELIST = 20.0
"""Seconds between two looks at a container that nothing was heard of; jittered."""

OOM_TOLD_WITHIN = 1.0
"""Seconds for the engine to report that memory was the cause of a SIGKILL; none on an idle machine."""

_KILL_AGAIN = 1.0
"""Seconds for the engine to report that a container which was killed is over."""

log = structlog.get_logger("runyard.agent.docker")


@dataclass(frozen=True)
class DriverContext:
    """Parts that all supervisors of a driver share."""

    engine: Engine
    settings: DockerSettings
    watchdog: WatchdogClient
    peak_of: Callable[[AttemptKey], int]
    """The most memory that an attempt was seen to use, in bytes."""


class ContainerSupervisor(AttemptSupervisor):
    """Supervise a container until its outcome, and start it if necessary.

    Args:
        directory: The attempt.
        container: Its container, whether it exists or not.
        context: What all supervisors of a driver share.
        on_phase: Called for each phase that the attempt enters.
    """

    retried = (EngineError, PullInterrupted, OSError, RunDirectoryError)
    backoff = Backoff(0.2, 5.0)

    def __init__(
        self,
        directory: RunDirectory,
        container: Container,
        context: DriverContext,
        on_phase: Callable[[AttemptPhase], None],
    ) -> None:
        super().__init__(directory, on_phase, log.bind(attempt=directory.mark, container=container.name))
        self.container = container
        self.is_running = False
        self._context = context
        self._copying = Copying(context.engine, container.name, directory, self.wake)
        self._delivered: StopRequest | None = None
        self._deadline: StopDeadline | None = None
        self._is_out_of_memory = False
        self._killing: asyncio.Task[None] | None = None
        self._fence: Fence | None = None
        self._trying_since: float | None = None

    def ran_out_of_memory(self) -> None:
        """Kill the rest of the container, of which the kernel killed a process: a run ends as a whole."""
        self._is_out_of_memory = True
        self._killing = asyncio.create_task(self._kill())  # at once: looks take their time
        self.wake()

    async def _release(self) -> None:
        await self._copying.end()

    async def _observe_and_act(self) -> bool:
        try:
            exit_record = await asyncio.to_thread(self._directory.read_exit)
            stop = await asyncio.to_thread(self._directory.read_stop)
            spec = await asyncio.to_thread(self._directory.read_spec)
        except UnreadableRecord as error:
            self._enter(Finished(unreadable(error)))
            return True
        if exit_record is not None:
            self._enter(Finished(await asyncio.to_thread(outcome_of, exit_record, self._directory)))
            return True
        if spec is None:
            raise RunDirectoryError(f"{self._directory.path / 'spec'} is missing")
        if self._directory.is_starting:
            await self._observe_container(spec, stop)
        elif stop is not None:
            await self._end_before_start(stop)
        else:
            await self._begin(spec)
        return False

    async def _may_be_alive(self) -> bool:
        try:
            state = await self.container.state()
        except Foreign:
            return False
        except EngineError:
            return True  # not proven over
        return state is not None and state.is_alive

    # Before the start

    async def _begin(self, spec: SpecRecord) -> None:
        """Makes and starts the container; a stop request ends the attempt at any step before the last."""
        if not isinstance(self._phase, Starting):
            self._enter(Starting())
        making = asyncio.create_task(self._make(spec))
        waiting = asyncio.create_task(self._stop_requested())
        try:
            await asyncio.wait({making, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if not making.done():
                return
            making.result()
        except PullFailed as failure:
            await self._conclude(never_started("start_failed", str(failure), failure.reason_code))
            return
        except (Foreign, TypeError) as failure:
            await self._conclude(never_started("start_failed", str(failure)))
            return
        except (Unreachable, NameTaken, PullInterrupted) as error:
            await self._try_again(error)
            return
        except EngineError as error:
            message = f"the engine cannot make the container: {error}"
            await self._conclude(never_started("start_failed", message, word_for(message)))
            return
        finally:
            for task in (making, waiting):
                task.cancel()
            await asyncio.gather(making, waiting, return_exceptions=True)
        fence = await asyncio.to_thread(self._guarded_fence_of, spec)
        if fence is not None and fence.seconds_left() <= 0:
            await asyncio.to_thread(self._directory.request_stop, fence.stop())
        elif not self._directory.is_starting and await asyncio.to_thread(self._directory.read_stop) is None:
            await asyncio.to_thread(self._directory.mark_starting)
            failpoint("docker.after_starting")
            await self._start()

    async def _make(self, spec: SpecRecord) -> None:
        plan = ContainerPlan.of_record(spec.container)
        found = await self.container.state()
        if found is not None and found.was_started:
            # The disk is older than the container: it was restored. The attempt is taken up as it is.
            await asyncio.to_thread(self._directory.mark_starting)
            return

        await ensure_image(self._context.engine, self._context.settings, plan, self._note, self._tell)
        failpoint("docker.before_make")
        await self.container.make(plan, spec)
        failpoint("docker.after_make")
        await asyncio.to_thread(self._copying.prepare)

    async def _note(self, line: str) -> None:
        await asyncio.to_thread(note, self._directory, line)
        self._log.info("image", news=line)

    async def _tell(self, line: str) -> None:
        await self._note(line)
        if isinstance(self._phase, Starting):
            self._enter(Starting(line))

    async def _stop_requested(self) -> None:
        while await asyncio.to_thread(self._directory.read_stop) is None:
            self._changed.clear()
            await self._changed.wait()

    async def _try_again(self, error: Exception) -> None:
        now = time.monotonic()
        self._trying_since = self._trying_since or now
        if now < self._trying_since + START_PATIENCE:
            raise error
        if isinstance(error, PullInterrupted):
            message, reason_code = f"tried for {START_PATIENCE:g} s: {error}", IMAGE_UNAVAILABLE
        else:
            message = f"the engine is not available: tried for {START_PATIENCE:g} s: {error}"
            reason_code = ENGINE_UNAVAILABLE
        await self._conclude(never_started("start_failed", message, reason_code))

    async def _start(self) -> None:
        try:
            await self.container.start()
            failpoint("docker.after_start")
        except Unreachable:
            raise
        except EngineError as error:
            # What was asked for cannot be started; unless an earlier request came through after all.
            state = await self.container.state()
            if state is not None and not state.was_started:
                message = f"the container cannot start: {error}"
                await self._conclude(never_started("start_failed", message, word_for(message)))

    async def _end_before_start(self, stop: StopRequest) -> None:
        self._enter(Stopping(None))
        await self._conclude(stopped_before_start(stop))
        with contextlib.suppress(EngineError):
            await self.container.remove()

    # After the start

    async def _observe_container(self, spec: SpecRecord, stop: StopRequest | None) -> None:
        if self._phase is None:
            self._enter(Starting())
        try:
            state = await self.container.state()
        except Foreign as error:
            await self._conclude(never_started("exit_unknown", str(error)))
            return
        if state is None:
            await self._conclude(container_gone(stop))
        elif state.is_alive:
            await self._on_alive(state, spec, stop)
        elif state.was_started:
            await self._on_ended(state, spec, stop)
        elif stop is not None:
            await self._end_unstarted(stop)
        else:
            await self._start()

    async def _end_unstarted(self, stop: StopRequest) -> None:
        """Once it is removed, a start that is still under way finds nothing."""
        await self.container.remove()
        await self._conclude(stopped_before_start(stop))

    async def _on_alive(self, state: ContainerState, spec: SpecRecord, stop: StopRequest | None) -> None:
        await asyncio.to_thread(self._record, state)
        self.is_running = True
        self._enter(Running(state.pid) if stop is None else Stopping(state.pid))
        self._copying.keep()
        if self._is_out_of_memory:
            await self._kill()
            await self._wait(_KILL_AGAIN)
        elif stop is not None:
            await self._stop(state, stop)
        elif fence := await asyncio.to_thread(self._guarded_fence_of, spec):
            if fence.seconds_left() > 0:
                await self._wait(min(fence.look_in(), _relist()))
            else:
                await asyncio.to_thread(self._directory.request_stop, fence.stop())
        else:
            await self._wait(_relist())

    async def _stop(self, state: ContainerState, stop: StopRequest) -> None:
        if self._delivered != stop:
            deadline = StopDeadline.from_request(stop, procfs.boottime(), time.time())
            self._deadline = deadline.or_earlier(self._deadline)
            if self._delivered is None:
                await self.container.signal(state.stop_signal)
                if state.status == "paused":
                    await self.container.unpause()
            self._delivered = stop
        assert self._deadline is not None, "set with the delivery"
        left = self._deadline.seconds_left(procfs.boottime())
        if left > 0:
            await self._wait(min(left, _relist()))
        else:
            await self._kill()
            await self._wait(_KILL_AGAIN)

    async def _kill(self) -> None:
        with contextlib.suppress(EngineError):  # the next look finds out whether it is over
            await self.container.signal("SIGKILL")

    async def _on_ended(self, state: ContainerState, spec: SpecRecord, stop: StopRequest | None) -> None:
        self.is_running = False
        recorded = await asyncio.to_thread(self._recorded)
        await self._copying.finish()
        if stop is not None and 0 < state.finished_at <= stop.requested_at:
            stop = None  # it was over when the stop was requested
        if state.may_be_out_of_memory and stop is None:
            state = replace(state, oom_killed=await self._hears_of_oom())
        if isinstance(self._phase, Starting):
            self._enter(Running(recorded.pid if recorded else 0))  # it was over before the first observation
        exit_record = container_ended(state, stop, recorded, self._context.peak_of(key_of(self._directory)))
        if spec.argv[1:2] == [ENTER] and stop is None:
            exit_record = await self._without_a_worker(exit_record, state, spec)
        await self._conclude(exit_record)

    async def _hears_of_oom(self) -> bool:
        """True if the kernel killed a process: the engine may report it after the end."""
        deadline = time.monotonic() + OOM_TOLD_WITHIN
        while not self._is_out_of_memory and (left := deadline - time.monotonic()) > 0:
            self._changed.clear()
            await self._wait(left)
        return self._is_out_of_memory

    async def _without_a_worker(
        self, exit_record: ExitRecord, state: ContainerState, spec: SpecRecord
    ) -> ExitRecord:
        """The exit record, unless the worker's program never began in this container."""
        if state.exit_code == NOT_MINE and await self._was_started_twice():
            message = "the container was started once more by another process, and its end was lost"
            return never_started("exit_unknown", message)
        if state.exit_code in NOT_EXECUTABLE and await self.container.has(f"{TOOLS}/args"):
            message = f"the image cannot execute {spec.argv[0]}: set docker.python to its interpreter"
            return never_started("start_failed", message, EXECUTABLE_MISSING)
        return exit_record

    async def _was_started_twice(self) -> bool:
        return not await self.container.has(f"{TOOLS}/args")

    # Small steps

    def _recorded(self) -> ContainerRecord | None:
        try:
            return self._directory.read_container()
        except UnreadableRecord:
            return None

    def _record(self, state: ContainerState) -> None:
        if self._recorded() is None:
            record = ContainerRecord(id=state.id, pid=state.pid, boot_id=procfs.boot_id())
            self._directory.write_container(record)

    def _guarded_fence_of(self, spec: SpecRecord) -> Fence | None:
        """The fence, which the watchdog watches too, in case that this agent dies."""
        if spec.stop_after is not None:
            self._context.watchdog.ensure()
        if self._fence is None:
            self._fence = Fence.of(self._directory, spec)
        return self._fence

    async def _conclude(self, exit_record: ExitRecord) -> None:
        """Write the exit record; the next look reads it."""
        failpoint("docker.before_exit")
        await asyncio.to_thread(self._directory.write_exit, exit_record)
        failpoint("docker.after_exit")


def _relist() -> float:
    return RELIST * random.uniform(0.75, 1.0)
