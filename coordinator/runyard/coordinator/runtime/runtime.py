"""Execution of the core's decisions, always in one order: persist, send, answer."""

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
from runyard.coordinator.core.leases import LeaseSettings, suspect
from runyard.coordinator.core.model import Instant
from runyard.coordinator.core.scheduling.config import DEFAULT_CONFIG
from runyard.coordinator.runtime.clock import now
from runyard.coordinator.runtime.outbox import Outbox
from runyard.coordinator.runtime.watchers import Watchers
from runyard.coordinator.store.rows import phase_name
from runyard.coordinator.store.store import Store, StoreFull

T = TypeVar("T")

TICK = 0.5
"""Seconds between two checks of the deadlines."""

TIDY = 60.0
"""Seconds between two clean-ups of old records."""

LAST_WRITE = 5.0
"""Seconds to write pending decisions at a shutdown."""

WIPE = 5.0
"""Maximum seconds for which the secrets of a finished run stay in the database's files."""

SNAPSHOT_KEPT = 86_400.0
"""Seconds for which a snapshot without a run is kept: the next launch may need it."""

log = structlog.get_logger("runyard.coordinator")


@dataclass(frozen=True)
class _Batch:
    """Effects of one decision, and the future of the caller that waits until they are durable."""

    effects: list[Effect]
    durable: asyncio.Future[None]


class Runtime:
    """Owner of the fleet's state. Decisions run on the event loop, one at a time; writes run in one thread.

    Effects of decisions that arrive while the disk is busy are written as one group, so many launches
    share one fsync.
    """

    def __init__(
        self,
        store: Store,
        leases: LeaseSettings,
        retention: Retention,
        client_clusters: Mapping[str, frozenset[str]] = MappingProxyType({}),
    ) -> None:
        """Load the state from the store.

        Args:
            store: The database.
            leases: Intervals of heartbeats and leases.
            retention: Retention of finished runs.
            client_clusters: Clusters of the clients that are bound to some; see `SchedulingConfig`.
        """
        self.store = store
        self.watchers = Watchers()
        self.fatal: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self._retention = retention
        started = now()
        self.fleet = Fleet(leases, started, replace(DEFAULT_CONFIG, client_clusters=client_clusters))
        state = store.load(started.monotonic)
        self.fleet.restore(state.runs, state.nodes, state.tombstones)
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._batches: asyncio.Queue[_Batch] = asyncio.Queue()
        self._outboxes: dict[int, Outbox] = {}
        self._session_numbers = itertools.count(1)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start the loops that write and check deadlines."""
        for loop in (self._write_groups, self._watch_deadlines, self._clean_up, self._wipe_secrets):
            self.run_in_background(loop)

    def run_in_background(self, loop: Callable[[], Awaitable[None]]) -> None:
        """Run a loop in the background until `stop`; if it fails, the coordinator ends."""
        self._tasks.append(asyncio.create_task(self._guard(loop), name=loop.__name__))

    def end_sessions(self) -> None:
        """End all sessions and watchers; peers may reconnect later."""
        for outbox in self._outboxes.values():
            outbox.close("the coordinator is shutting down")
        self.watchers.close()

    async def stop(self) -> None:
        """Write pending decisions and stop all work. Callers must not call `decide` any more."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WRITE):
                await self.until_durable()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._writer.shutdown()

    async def decide(self, decision: Callable[[Fleet, Instant], T]) -> T:
        """Run a decision of the core, and return its answer when all its effects are durable and sent.

        Raises:
            FleetError: The core refused; nothing was changed.
            StoreFull: The disk is full; nothing was changed.
        """
        answer = decision(self.fleet, now())
        await self._durable(self.fleet.take_effects())
        return answer

    async def until_durable(self) -> None:
        """Wait until all decisions so far are durable. What a caller reads then cannot be rolled back."""
        with contextlib.suppress(StoreFull):  # decisions that did not fit on the disk were rolled back
            await self._durable([])

    async def in_writer(self, work: Callable[[], T]) -> T:
        """Run blocking work in the thread that owns the store."""
        return await asyncio.get_running_loop().run_in_executor(self._writer, work)

    @contextlib.contextmanager
    def session(self, outbox: Outbox) -> Iterator[int]:
        """Context manager that registers a session's outbox for the block, and returns the session number."""
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
                    await self._roll_back(group, full)
                    continue
                failpoint("coordinator.after_commit" if touches_run else "")
            for effect in effects:
                self.execute(effect)
            failpoint("coordinator.after_send" if any(isinstance(each, SaveRun) for each in effects) else "")
            for batch in group:
                if not batch.durable.done():
                    batch.durable.set_result(None)

    async def _roll_back(self, group: list[_Batch], error: StoreFull) -> None:
        """Restore the state on disk. No later decision was sent or answered yet."""
        log.error("disk_full", remedy="free some space; the coordinator recovers without intervention")
        state = await self.in_writer(lambda: self.store.load(now().monotonic))
        self.fleet.take_effects()
        self.fleet.restore_runs(state.runs, state.tombstones)
        while not self._batches.empty():
            group.append(self._batches.get_nowait())
        for batch in group:
            for effect in batch.effects:
                if isinstance(effect, SaveNode):
                    node = self.fleet.nodes[effect.node.node_id]
                    self.fleet.end_session(node, str(error))
                    self.fleet.put_node(suspect(node))
            if not batch.durable.done():
                batch.durable.set_exception(error)
        for effect in self.fleet.take_effects():
            self.execute(effect)

    def execute(self, effect: Effect) -> None:
        """Execute the part of an effect that is not on disk."""
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

    async def _clean_up(self) -> None:
        while True:
            await asyncio.sleep(TIDY)
            with contextlib.suppress(StoreFull):
                await self.decide(lambda fleet, at: forget_old(fleet, at, self._retention))
                await self.in_writer(self._drop_old_rows)

    async def _wipe_secrets(self) -> None:
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
        """Run a loop; if it fails, set `fatal`: without its writer or deadlines the coordinator must end."""
        try:
            await loop()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            if not self.fatal.done():
                self.fatal.set_result(error)
