"""Carries out what the core decides, always in one order: persist, send, answer."""

import asyncio
import contextlib
import functools
import itertools
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeVar

import structlog

from runyard.common.service.failpoints import failpoint
from runyard.coordinator.core.effects import (
    DropRun,
    Effect,
    EndSession,
    SaveNode,
    SaveRun,
    SaveTombstone,
    Send,
)
from runyard.coordinator.core.events.on_tick import Retention, forget_old, on_tick
from runyard.coordinator.core.fleet import Fleet
from runyard.coordinator.core.leases import LeasePolicy, suspect
from runyard.coordinator.core.model import Instant
from runyard.coordinator.core.scheduling.policy import WITHOUT_RULES
from runyard.coordinator.runtime.clock import now
from runyard.coordinator.runtime.outbox import Outbox
from runyard.coordinator.runtime.watchers import Watchers
from runyard.coordinator.store.rows import phase_name
from runyard.coordinator.store.store import Store, StoreFull

T = TypeVar("T")

TICK = 0.5
"""Seconds between two looks at the deadlines."""

TIDY = 60.0
"""Seconds between two clean-ups of old records."""

LAST_WRITE = 5.0
"""Seconds for the disk to take what was decided before a shutdown."""

WIPE = 5.0
"""Seconds at most for which the secrets of a run that is over stay in the database's files."""

SNAPSHOT_KEPT = 86_400.0
"""Seconds for which a snapshot without a run is kept, since the next launch may need it again."""

log = structlog.get_logger("runyard.coordinator")


@dataclass(frozen=True)
class _Batch:
    """The effects of one decision, and the caller who waits for them to be durable."""

    effects: list[Effect]
    durable: asyncio.Future[None]


class Runtime:
    """Owns the fleet. All decisions run on the event loop, one at a time; all writes in one thread.

    Effects of decisions that arrive while the disk is busy are written as one group: many launches share one
    fsync.
    """

    def __init__(
        self,
        store: Store,
        leases: LeasePolicy,
        retention: Retention,
        confinement: Mapping[str, frozenset[str]] = MappingProxyType({}),
    ) -> None:
        """Takes the account up where the store has it.

        Args:
            store: Where it is kept.
            leases: The rhythm of heartbeats.
            retention: How long finished runs are kept.
            confinement: The clients that are bound to clusters; see `PlacementPolicy`.
        """
        self.store = store
        self.watchers = Watchers()
        self.fatal: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self._retention = retention
        started = now()
        self.fleet = Fleet(leases, started, replace(WITHOUT_RULES, confinement=confinement))
        account = store.load(started.monotonic)
        self.fleet.restore(account.runs, account.nodes, account.tombstones)
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._batches: asyncio.Queue[_Batch] = asyncio.Queue()
        self._outboxes: dict[int, Outbox] = {}
        self._session_numbers = itertools.count(1)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begins to write and to look at deadlines."""
        for loop in (self._write_groups, self._watch_deadlines, self._tidy, self._wipe):
            self.attend(loop)

    def attend(self, loop: Callable[[], Awaitable[None]]) -> None:
        """Runs a loop for as long as the coordinator lives; if it fails, so does the coordinator."""
        self._tasks.append(asyncio.create_task(self._guard(loop), name=loop.__name__))

    def say_goodbye(self) -> None:
        """Ends all sessions and watches; whoever is left should call again later."""
        for outbox in self._outboxes.values():
            outbox.close("the coordinator is shutting down")
        self.watchers.close()

    async def stop(self) -> None:
        """Ends all work, once what was decided is on disk. Nobody asks for a decision any more."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WRITE):
                await self.decided()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._writer.shutdown()

    async def decide(self, decision: Callable[[Fleet, Instant], T]) -> T:
        """Lets the core decide, and returns its answer when everything that it asked for is durable.

        Raises:
            FleetError: What the core refused; nothing was changed.
            StoreFull: The disk is full; nothing was changed.
        """
        answer = decision(self.fleet, now())
        await self._durable(self.fleet.take_effects())
        return answer

    async def decided(self) -> None:
        """Returns when all that was decided so far is durable: what is read then, was never unsaid."""
        with contextlib.suppress(StoreFull):  # what did not fit on the disk was taken back
            await self._durable([])

    async def in_writer(self, work: Callable[[], T]) -> T:
        """Runs blocking work on the store in the thread that owns it."""
        return await asyncio.get_running_loop().run_in_executor(self._writer, work)

    @contextlib.contextmanager
    def session(self, outbox: Outbox) -> Iterator[int]:
        """Registers the outgoing half of a session for the length of the block, and numbers it."""
        number = next(self._session_numbers)
        self._outboxes[number] = outbox
        try:
            yield number
        finally:
            del self._outboxes[number]

    async def _durable(self, effects: list[Effect]) -> None:
        batch = _Batch(effects, asyncio.get_running_loop().create_future())
        self._batches.put_nowait(batch)
        await batch.durable

    async def _write_groups(self) -> None:
        while True:
            group = [await self._batches.get()]
            while not self._batches.empty():
                group.append(self._batches.get_nowait())
            effects = [effect for batch in group for effect in batch.effects]
            if any(isinstance(effect, SaveRun | DropRun | SaveNode | SaveTombstone) for effect in effects):
                touches_run = any(isinstance(effect, SaveRun) for effect in effects)
                failpoint("coordinator.before_commit" if touches_run else "")
                try:
                    await self.in_writer(functools.partial(self.store.write, effects))
                except StoreFull as full:
                    await self._take_back(group, full)
                    continue
                failpoint("coordinator.after_commit" if touches_run else "")
            for effect in effects:
                self.carry_out(effect)
            failpoint("coordinator.after_send" if any(isinstance(each, SaveRun) for each in effects) else "")
            for batch in group:
                if not batch.durable.done():
                    batch.durable.set_result(None)

    async def _take_back(self, group: list[_Batch], cause: StoreFull) -> None:
        """Goes back to what the disk holds, since nothing decided after it was sent or answered."""
        log.error("disk_full", remedy="free some space; the coordinator goes on by itself")
        account = await self.in_writer(lambda: self.store.load(now().monotonic))
        self.fleet.take_effects()
        self.fleet.restore_runs(account.runs, account.tombstones)
        while not self._batches.empty():
            group.append(self._batches.get_nowait())
        for batch in group:
            for effect in batch.effects:
                if isinstance(effect, SaveNode):
                    node = self.fleet.nodes[effect.node.node_id]
                    self.fleet.end_session(node, str(cause))
                    self.fleet.put_node(suspect(node))
            if not batch.durable.done():
                batch.durable.set_exception(cause)
        for effect in self.fleet.take_effects():
            self.carry_out(effect)

    def carry_out(self, effect: Effect) -> None:
        """Does what an effect asks for beyond the disk."""
        match effect:
            case Send(session=session, message=message):
                if outbox := self._outboxes.get(session):
                    outbox.put(message)
            case EndSession(session=session, reason=reason):
                if outbox := self._outboxes.get(session):
                    outbox.close(reason)
            case SaveRun(run=run, event=event):
                place = run.place
                log.info(
                    "run_changed",
                    run_id=run.run_id,
                    attempt=run.attempt,
                    phase=phase_name(run.phase),
                    node=place.node if place else None,
                    change=event,
                )
                self.watchers.publish(run)
            case _:
                pass

    async def _watch_deadlines(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            with contextlib.suppress(StoreFull):
                await self.decide(on_tick)

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY)
            with contextlib.suppress(StoreFull):
                await self.decide(lambda fleet, at: forget_old(fleet, at, self._retention))
                await self.in_writer(self._drop_old_rows)

    async def _wipe(self) -> None:
        while True:
            await asyncio.sleep(WIPE)
            if self.store.has_old_secrets:
                with contextlib.suppress(StoreFull):
                    await self.in_writer(self.store.drop_old_secrets)

    def _drop_old_rows(self) -> None:
        wall = now().wall
        self.store.drop_unused_snapshots(wall - SNAPSHOT_KEPT)
        self.store.drop_tombstones(wall - self._retention.tombstone_seconds)

    async def _guard(self, loop: Callable[[], Awaitable[None]]) -> None:
        """A coordinator that cannot write or look at its deadlines must not go on as if it could."""
        try:
            await loop()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            if not self.fatal.done():
                self.fatal.set_result(error)
