"""Removal of containers whose outcome the coordinator has: by number and by age."""

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from runyard.agent.config.docker import DockerSettings
from runyard.agent.drivers.docker.engine.client import Engine, EngineError
from runyard.agent.drivers.docker.plan.labels import AGENT, key_of_labels
from runyard.agent.supervisor.rundir import RunDirectories

CLEAN_EVERY = 60.0
"""Seconds between two rounds; jittered."""

_OVER = ("created", "exited", "dead")

log = structlog.get_logger("runyard.agent.docker")


class Cleaner:
    """Removes what is no longer needed of one agent's containers.

    Args:
        engine: Where they are.
        settings: How many may stay, and for how long.
        directories: Whose acknowledged attempts may lose their containers.
        agent: ID of the agent's installation.
    """

    def __init__(
        self, engine: Engine, settings: DockerSettings, directories: RunDirectories, agent: str
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._directories = directories
        self._agent = agent

    async def keep(self) -> None:
        """Cleans up for ever."""
        while True:
            await asyncio.sleep(CLEAN_EVERY * random.uniform(0.5, 1.0))
            try:
                await self.clean()
            except EngineError as error:
                log.debug("cleaning_failed", error=str(error))

    async def clean(self) -> list[str]:
        """One round.

        Returns:
            The names of the containers that were removed.

        Raises:
            EngineError: The engine does not answer.
        """
        filters = {"label": f"{AGENT}={self._agent}"}
        found = await self._engine.call(lambda client: client.api.containers(all=True, filters=filters))
        doomed = await asyncio.to_thread(self._doomed, found)
        for container in doomed:
            try:
                await self._engine.call(lambda client, c=container: client.api.remove_container(c, v=True))  # type: ignore[misc]
            except EngineError as error:
                log.debug("not_removed", container=container, error=str(error))
        if doomed:
            log.info("containers_removed", count=len(doomed))
        return doomed

    def _doomed(self, found: Sequence[Mapping[str, Any]]) -> list[str]:
        settled: list[tuple[float, str]] = []
        for container in found:
            settled_at = self._settled_at(container)
            if settled_at is not None:
                settled.append((settled_at, str(container["Names"][0]).lstrip("/")))
        settled.sort(reverse=True)
        oldest_kept = time.time() - self._settings.keep_for
        return [
            name
            for rank, (at, name) in enumerate(settled)
            if rank >= self._settings.keep_containers or at < oldest_kept
        ]

    def _settled_at(self, container: Mapping[str, Any]) -> float | None:
        """When the coordinator had the outcome, in Unix time; None if it has not, or the container lives."""
        key = key_of_labels(container["Labels"])
        if key is None or container["State"] not in _OVER:
            return None
        directory = self._directories.open(key)
        # Run directories are deleted only after the coordinator had the outcome.
        return directory.acknowledged_at if directory is not None else float(container["Created"])
