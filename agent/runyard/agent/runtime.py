"""Carries out what the core decides, one event after the other, and never loses one."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine, Iterator, Mapping
from functools import partial
from typing import Any, Protocol

import structlog

from runyard.agent.admission.confinement import confined
from runyard.agent.admission.preflight import DISK_FULL, Preflight, Unfit
from runyard.agent.admission.secrets_on_disk import SecretsOnDisk
from runyard.agent.admission.specs import UnusableLaunch, spec_record
from runyard.agent.admission.trust.authorizer import Gatekeeper, note_doubt
from runyard.agent.config.agent import AgentSettings
from runyard.agent.core.effects import Accept, Bury, Effect, Forget, Reject, Report, Start, StopWorker
from runyard.agent.core.gpu_allotment import allot, taken
from runyard.agent.core.model import (
    Accepted,
    AttemptKey,
    AttemptPhase,
    Finished,
    HeldAttempt,
    LaunchIdentity,
    Outcome,
    OutcomeKind,
)
from runyard.agent.core.reconcile import Holdings
from runyard.agent.drivers.absent import AbsentDriver
from runyard.agent.drivers.base import Driver, DriverError, WarmDriver
from runyard.agent.drivers.outcomes import held_attempt
from runyard.agent.drivers.process.orphans import sweep, sweep_belongings
from runyard.agent.node.facts import WorkerUsage
from runyard.agent.node.gpus import asked_for, devices_of, given, given_none
from runyard.agent.node.isolation_backends import JUST_WATCHED, Rung
from runyard.agent.node.pressure import PressureWatch
from runyard.agent.session.conversions import identity_of, rejection_of, status_of, warm_server_of
from runyard.agent.supervisor.exit_records import never_started
from runyard.agent.supervisor.procfs import boottime
from runyard.agent.supervisor.records import SpecRecord, UnreadableRecord
from runyard.agent.supervisor.rundir import AttemptExists, NoRoom, RunDirectories, RunDirectoryError
from runyard.common.service.failpoints import failpoint
from runyard.v1 import agent_pb2, fleet_pb2, run_pb2

COMMANDS_WAITING = 1_000
"""Commands of the coordinator that may wait for the disk before the session is read no further."""

RETRY_STOP = 5.0
"""Seconds at most between two tries to write a stop request to a disk that refuses it."""

SHUTDOWN_GRACE_SHARE = 0.8
"""Of the budget for a shutdown, what workers get at most between SIGTERM and SIGKILL."""

WARM_SERVERS_TOLD = 64
"""Warm servers that are told of at most, as the protocol says."""

TIDY = 60.0
"""Seconds between two clean-ups of old run directories."""

log = structlog.get_logger("runyard.agent")

Event = Callable[[], list[Effect]]
"""Something that happened, as a call of the core."""


class Outgoing(Protocol):
    """Where reports go while there is a session."""

    def put(self, message: agent_pb2.SessionRequest) -> None:
        """Queues a message without waiting."""
        ...


class Runtime:
    """Owns the holdings. Events come from the session and from the drivers and are taken one by one.

    Args:
        settings: The agent's settings.
        directories: The attempts on this disk.
        drivers: By name. Filled by the caller before `open`.
        rung: The means by which limits are enforced here.

    Raises:
        UnusableKey: One of the signing keys cannot be read.

    Attributes:
        gpus: The devices that runs may have. Filled by the caller before there is a session.
        pressures: What the node is short of.
    """

    def __init__(
        self,
        settings: AgentSettings,
        directories: RunDirectories,
        drivers: Mapping[str, Driver],
        rung: Rung = JUST_WATCHED,
    ) -> None:
        self._rung = rung
        self.holdings = Holdings()
        self.directories = directories
        self.drivers = drivers
        self._absent = AbsentDriver(directories, self.on_change, drivers)
        self._settings = settings
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._room = asyncio.Semaphore(COMMANDS_WAITING)
        self._outgoing: Outgoing | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._secrets = SecretsOnDisk(directories)
        self._start_by = 0.0
        self.gpus: tuple[str, ...] = ()
        self.pressures = PressureWatch(settings.pressure, directories.state)
        self._preflight = Preflight(self.pressures)
        self._gatekeeper = Gatekeeper(settings)
        self._moved = asyncio.Event()
        self.is_closing = False

    async def open(self) -> None:
        """Readies the drivers and takes up what the disk holds, before the coordinator hears of this agent.

        Raises:
            DriverError: A driver cannot work on this machine.
        """
        self._gatekeeper.announce()
        found: list[HeldAttempt] = []
        for driver in (*self.drivers.values(), self._absent):
            await driver.open()
            found += await driver.recover()
        for pid, directory in (await asyncio.to_thread(sweep, self.directories)).items():
            log.warning("orphan_killed", pid=pid, attempt=directory.mark)
        await asyncio.to_thread(
            sweep_belongings, self.directories, self._rung, self._settings.isolation.scratch_directory
        )
        log.info("recovered", attempts=len(found))
        for held in found:
            await self._secrets.forget(held)
        await self.pressures.look()
        await self._carry_out(self.holdings.on_recovered(found))

    async def run(self) -> None:
        """Takes events for ever."""
        while True:
            event = await self._events.get()
            await self._carry_out(event())
            self._moved.set()

    async def tidy(self) -> None:
        """Deletes old run directories for ever, now and then."""
        while True:
            try:
                await asyncio.to_thread(
                    self.directories.prune, self._settings.keep_runs, self._settings.keep_logs
                )
            except OSError as error:
                log.warning("tidying_failed", error=str(error))
            await asyncio.sleep(random.uniform(TIDY / 2, TIDY))

    async def close(self) -> None:
        """Lets go of the workers; they go on."""
        for task in self._tasks:
            task.cancel()
        for driver in self.drivers.values():
            await driver.close()

    async def command(self, event: Event) -> None:
        """For the session: has a command taken in its turn, and waits while too many do."""
        await self._room.acquire()

        def take() -> list[Effect]:
            self._room.release()
            return event()

        self._events.put_nowait(take)

    async def offer(self, key: AttemptKey, spec: run_pb2.LaunchSpec, start_by: float) -> None:
        """For the session: has an offered attempt taken in its turn, unless the offer is over by then.

        Args:
            key: The attempt.
            spec: Its launch.
            start_by: When the offer ends, in seconds of CLOCK_BOOTTIME.
        """

        def take() -> list[Effect]:
            if self.is_closing or boottime() > start_by:
                # It is repeated with a fresh deadline for as long as the coordinator wants it here.
                log.info("offer_not_taken", attempt=str(key), late=boottime() - start_by)
                return []
            self._start_by = start_by
            return self.holdings.on_assign(key, identity_of(spec), spec)

        await self.command(take)

    async def stop_all(self, budget: float, reason: str) -> None:
        """Stops every worker because the machine shuts down, and takes no more.

        Args:
            budget: Seconds that all of this may take.
            reason: Becomes part of the outcomes' messages.
        """
        self.is_closing = True
        live = [held.key for held in self.holdings.all() if not isinstance(held.phase, Accepted | Finished)]
        log.info("stopping_runs", runs=len(live), reason=reason)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(budget):
                await asyncio.gather(*(self._stop_for_shutdown(key, budget, reason) for key in live))
                while any(self._is_unsettled(key) for key in live):
                    self._moved.clear()
                    await self._moved.wait()

    def on_change(self, key: AttemptKey, phase: AttemptPhase) -> None:
        """For the drivers: an attempt entered a phase. There are only so many phases, so none waits."""
        self._events.put_nowait(lambda: self.holdings.on_change(key, phase))

    @contextlib.contextmanager
    def reporting_to(self, outgoing: Outgoing) -> Iterator[None]:
        """Sends reports there for the length of the block."""
        self._outgoing = outgoing
        try:
            yield
        finally:
            self._outgoing = None

    async def usages(self) -> dict[AttemptKey, WorkerUsage]:
        """What the live workers use now."""
        usages: dict[AttemptKey, WorkerUsage] = {}
        for driver in self.drivers.values():
            usages |= await driver.usage()
        return usages

    def statuses(self, usages: Mapping[AttemptKey, WorkerUsage]) -> list[agent_pb2.AttemptStatus]:
        """The full set of attempts as they are at this moment."""
        return [status_of(held, usages.get(held.key)) for held in self.holdings.all()]

    def warm_servers(self) -> list[fleet_pb2.WarmServer]:
        """What runs can be forks of at this moment."""
        servers = [each for driver in self._warm_drivers() for each in driver.warm_servers.snapshot()]
        return [warm_server_of(each) for each in servers[:WARM_SERVERS_TOLD]]

    def refresh_warm_servers(self, name: str) -> None:
        """Has a warm server made anew; an empty name means all that are not resting."""
        for driver in self._warm_drivers():
            driver.warm_servers.refresh(name or None)

    def _warm_drivers(self) -> list[WarmDriver]:
        return [driver for driver in self.drivers.values() if isinstance(driver, WarmDriver)]

    async def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            await self._carry_out(await self._do(effect))

    async def _do(self, effect: Effect) -> list[Effect]:
        match effect:
            case Accept():
                return await self._accept(effect)
            case Bury():
                return await self._bury(effect)
            case Start(key=key):
                return await self._start(key)
            case StopWorker(key=key):
                self._in_background(self._stop(effect))
            case Forget(key=key):
                await self._forget(key)
            case Report(attempt=held):
                failpoint(f"agent.before_report_{type(held.phase).__name__.lower()}")
                log.info("attempt", attempt=str(held.key), phase=type(held.phase).__name__.lower())
                self._send(agent_pb2.AttemptReport(status=status_of(held)))
                self._in_background(self._secrets.forget(held))
            case Reject(key=key, reason=reason):
                log.warning("rejected", attempt=str(key), reason=reason)
                self._send(agent_pb2.AttemptReport(rejection=rejection_of(effect)))
        return []

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _send(self, report: agent_pb2.AttemptReport) -> None:
        if self._outgoing is not None:
            self._outgoing.put(agent_pb2.SessionRequest(report=report))

    async def _accept(self, effect: Accept) -> list[Effect]:
        key = effect.key
        try:
            if self.directories.open(key) is not None:
                return await self._found(key)  # refused it must not be: it may have run
            admission = self._gatekeeper.admit(key, effect.spec)
            spec, identity = admission.spec, identity_of(admission.spec)
            make = partial(spec_record, self._settings, identity, spec)
            record = await self._preflight.in_time(make, "what the run refers to")
            if record.driver not in self.drivers:
                raise UnusableLaunch(f"this agent has no driver {record.driver!r}")
            admission = self._gatekeeper.require_allowed(admission)
            if record.driver == "process":
                record = confined(record, key, spec, self._settings.isolation, self._rung)
            await self._preflight.check(self.drivers[record.driver], record)
            record = self._with_gpus(record, identity)
            failpoint("agent.before_accept")
            directory = await asyncio.to_thread(self.directories.create, key, record)
            failpoint("agent.after_accept")
        except AttemptExists:
            return await self._found(key)
        except Unfit as unfit:
            return self.holdings.on_not_accepted(key, str(unfit), unfit.why)
        except NoRoom as full:
            return self.holdings.on_not_accepted(key, str(full), DISK_FULL)
        except (RunDirectoryError, UnusableLaunch) as error:
            return self.holdings.on_not_accepted(key, str(error))
        if admission.doubt:
            await asyncio.to_thread(note_doubt, directory, admission.doubt)
        if self.is_closing or boottime() > self._start_by:
            return self.holdings.on_postponed(key, identity, devices_of(record))
        return self.holdings.on_accepted(key, identity, devices_of(record))

    def _with_gpus(self, record: SpecRecord, identity: LaunchIdentity) -> SpecRecord:
        """The record with devices that no other attempt has. Attempts are taken one by one."""
        if not self.gpus:
            return record
        count = asked_for(identity.requirements.resources)
        if count == 0:
            # A container sees only what it is given anyway, also by its owner's own arguments.
            return given_none(record) if record.driver != "docker" else record
        devices = allot(self.gpus, self.holdings.all(), count)
        if devices is None:
            free = len(self.gpus) - len(taken(self.holdings.all()))
            raise Unfit(f"the run asks for {count} GPUs, and {free} of {len(self.gpus)} are free")
        return given(record, devices)

    async def _bury(self, effect: Bury) -> list[Effect]:
        failpoint("agent.before_bury")
        verdict = never_started("stopped", f"stopped before it started: {effect.reason}")
        try:
            await asyncio.to_thread(self.directories.create_refused, effect.key, verdict)
        except AttemptExists:
            pass
        except RunDirectoryError as error:
            # Nothing is promised to the coordinator, so it will ask again.
            log.error("cannot_bury", attempt=str(effect.key), error=str(error))
            return []
        return await self._found(effect.key)

    async def _found(self, key: AttemptKey) -> list[Effect]:
        directory = self.directories.open(key)
        if directory is None:
            return self.holdings.on_not_accepted(key, "its run directory is gone")
        return self.holdings.on_found(await asyncio.to_thread(held_attempt, directory))

    async def _start(self, key: AttemptKey) -> list[Effect]:
        try:
            await self._driver_of(key).start(key)
            failpoint("agent.after_start")
        except DriverError as error:
            return self.holdings.on_change(key, Finished(Outcome(OutcomeKind.START_FAILED, str(error))))
        return []

    async def _stop(self, effect: StopWorker) -> None:
        while True:
            try:
                failpoint("agent.before_stop")
                await self._driver_of(effect.key).stop(effect.key, effect.grace, effect.reason)
                failpoint("agent.after_stop")
            except RunDirectoryError as error:
                log.error("cannot_stop_yet", attempt=str(effect.key), error=str(error))
                await asyncio.sleep(random.uniform(0, RETRY_STOP))
            except DriverError as error:
                log.error("cannot_stop", attempt=str(effect.key), error=str(error))
                return
            else:
                return

    async def _stop_for_shutdown(self, key: AttemptKey, budget: float, reason: str) -> None:
        grace = min(await asyncio.to_thread(self._grace_of, key), budget * SHUTDOWN_GRACE_SHARE)
        try:
            await self._driver_of(key).stop(key, grace, reason, "node_shutdown")
        except (DriverError, RunDirectoryError) as error:
            log.error("cannot_stop", attempt=str(key), error=str(error))

    def _grace_of(self, key: AttemptKey) -> float:
        spec = self._spec_of(key)
        return spec.grace_seconds if spec else 0.0

    def _is_unsettled(self, key: AttemptKey) -> bool:
        """Whether a worker may live, or its end is still to be heard by a coordinator that listens."""
        held = self.holdings.get(key)
        return held is not None and (not isinstance(held.phase, Finished) or self._outgoing is not None)

    async def _forget(self, key: AttemptKey) -> None:
        directory = self.directories.open(key)
        if directory is None:
            return
        try:
            failpoint("agent.before_forget")
            await self._secrets.acknowledge(directory)
            failpoint("agent.after_forget")
        except RunDirectoryError as error:
            # It will be reported once more after the next start, and acknowledged again.
            log.warning("cannot_mark_acknowledged", attempt=str(key), error=str(error))

    def _spec_of(self, key: AttemptKey) -> SpecRecord | None:
        directory = self.directories.open(key)
        try:
            return directory.read_spec() if directory else None
        except UnreadableRecord:
            return None

    def _driver_of(self, key: AttemptKey) -> Driver:
        spec = self._spec_of(key)
        # What has no spec, or none that can be read, is the process driver's to explain.
        return self.drivers.get(spec.driver, self._absent) if spec else self.drivers["process"]
