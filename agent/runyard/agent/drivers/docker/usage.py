"""Usage of live containers, measured in the background; heartbeats use the last measurement."""

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from runyard.agent.core.model import AttemptKey
from runyard.agent.drivers.docker.engine.client import Engine, EngineError
from runyard.agent.drivers.docker.plan.labels import container_name
from runyard.agent.node.facts import WorkerUsage

SAMPLE_EVERY = 10.0
"""Seconds between two measurements; jittered."""


@dataclass(frozen=True)
class _Sample:
    usage: WorkerUsage
    cpu_seconds: float
    taken_at: float


class UsageWatch:
    """Measures containers again and again.

    Args:
        engine: Where they are.
        live: The attempts that have a live container.
        last_output: When an attempt last wrote something, in Unix time.
    """

    def __init__(
        self,
        engine: Engine,
        live: Callable[[], Iterable[AttemptKey]],
        last_output: Callable[[AttemptKey], float | None],
    ) -> None:
        self._engine = engine
        self._live = live
        self._last_output = last_output
        self._samples: dict[AttemptKey, _Sample] = {}

    def latest(self) -> dict[AttemptKey, WorkerUsage]:
        """The last measurement of each live container."""
        live = set(self._live())
        return {key: sample.usage for key, sample in self._samples.items() if key in live}

    def peak_of(self, key: AttemptKey) -> int:
        """Highest measured memory of an attempt, in bytes; 0 if it was not measured."""
        sample = self._samples.get(key)
        return sample.usage.peak_rss_bytes if sample else 0

    def forget(self, key: AttemptKey) -> None:
        """Drops what was measured of an attempt that is over."""
        self._samples.pop(key, None)

    async def keep(self) -> None:
        """Measure for ever."""
        while True:
            await asyncio.gather(*(self._measure(key) for key in self._live()))
            await asyncio.sleep(SAMPLE_EVERY * random.uniform(0.8, 1.0))

    async def _measure(self, key: AttemptKey) -> None:
        name = container_name(key)
        try:
            stats: Mapping[str, Any] = await self._engine.call(
                lambda client: client.api.stats(name, stream=False, one_shot=True)
            )
        except EngineError:
            return
        sample = _sample(stats, self._samples.get(key))
        usage = replace(sample.usage, last_output_at=self._last_output(key))
        self._samples[key] = replace(sample, usage=usage)


def _sample(stats: Mapping[str, Any], before: _Sample | None) -> _Sample:
    memory = stats.get("memory_stats") or {}
    details = memory.get("stats") or {}
    # Pages of files that are not in use are no burden; `docker stats` leaves them out too.
    idle = details.get("total_inactive_file") or details.get("inactive_file") or 0
    in_use = max(0, (memory.get("usage") or 0) - idle)
    cpu_seconds = ((stats.get("cpu_stats") or {}).get("cpu_usage") or {}).get("total_usage", 0) / 1e9
    now = time.monotonic()
    cores = (cpu_seconds - before.cpu_seconds) / max(now - before.taken_at, 1e-3) if before else 0.0
    # Only control groups of version 1 keep a mark of the most; with others it is the most that was seen.
    most = max(in_use, memory.get("max_usage") or 0)
    peak = max(most, before.usage.peak_rss_bytes if before else 0)
    return _Sample(WorkerUsage(max(0.0, cores), in_use, peak, None), cpu_seconds, now)
