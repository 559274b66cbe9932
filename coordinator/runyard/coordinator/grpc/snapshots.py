"""Job snapshots, and the requirements that their ops have."""

import asyncio
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from runyard.coordinator.core.errors import InvalidField
from runyard.coordinator.core.requirements.ops import ops_layer
from runyard.coordinator.core.requirements.requirements import RequirementLayer
from runyard.coordinator.core.requirements.snapshot import JobShape, job_shape
from runyard.coordinator.core.requirements.tags import PREFIX
from runyard.coordinator.grpc.errors import NotFound
from runyard.coordinator.grpc.snapshot_uploads import check_snapshot_id
from runyard.coordinator.runtime.lru_cache import LruCache
from runyard.coordinator.runtime.runtime import Runtime

OPS_CACHED = 200_000
"""Maximum number of ops, in all recently used snapshots, that stay in memory."""

LAYERS_CACHED = 1_000
"""Maximum number of cached results, by snapshot and execution config."""

LONGEST_CACHED = 4_096
"""Maximum characters of an execution config whose result is cached."""

_TAG_PREFIX = f'"{PREFIX}'.encode()
"""A snapshot without this text has no tags of Runyard."""


class Snapshots:
    """Job snapshots that launches refer to."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._shapes: LruCache[str, JobShape] = LruCache(OPS_CACHED, lambda shape: 1 + len(shape.ops))
        self._layers: LruCache[tuple[str, str], RequirementLayer | None] = LruCache(LAYERS_CACHED)
        # A decompressed snapshot may have half a gigabyte: one at a time.
        self._reading = asyncio.Lock()

    async def is_held(self, snapshot_id: str) -> bool:
        """True if the snapshot is stored, or `snapshot_id` is empty.

        Raises:
            InvalidField: `snapshot_id` is too long.
        """
        if not snapshot_id:
            return True
        check_snapshot_id("spec.job_snapshot_id", snapshot_id)
        return await self._runtime.in_writer(lambda: self._runtime.store.has_snapshot(snapshot_id))

    async def ops_layer(
        self, snapshot_id: str, step_keys: Sequence[str], execution_config_json: str
    ) -> RequirementLayer | None:
        """Return the requirement layer of a launch's ops; None if they have no requirements.

        Args:
            snapshot_id: ID of the job snapshot; empty: none.
            step_keys: Steps that will run; empty: all.
            execution_config_json: The `execution` part of the run config, or empty.

        Raises:
            InvalidField: A tag of an op is invalid, two ops contradict each other, or the snapshot cannot be
                parsed.
            NotFound: The snapshot is not stored.
        """
        if not snapshot_id:
            return None
        # Single steps hardly ever repeat.
        key = None if step_keys else (snapshot_id, execution_config_json)
        if key is not None and key in self._layers:
            return self._layers[key]
        shape = await self._shape(snapshot_id)
        layer = await asyncio.to_thread(_join, shape, step_keys, execution_config_json)
        if key is not None and key not in self._layers and len(execution_config_json) <= LONGEST_CACHED:
            self._layers.add(key, layer)
        return layer

    async def _shape(self, snapshot_id: str) -> JobShape:
        if snapshot_id not in self._shapes:
            async with self._reading:
                if snapshot_id not in self._shapes:
                    return self._shapes.add(snapshot_id, await self._load(snapshot_id))
        return self._shapes[snapshot_id]

    async def _load(self, snapshot_id: str) -> JobShape:
        data = await self._runtime.in_writer(lambda: self._runtime.store.snapshot(snapshot_id))
        if data is None:
            raise NotFound(f"the coordinator does not have the job snapshot {snapshot_id}")
        # Neither on the event loop nor in the writer's thread: both serve other calls.
        return await asyncio.to_thread(_read, snapshot_id, data)


def _read(snapshot_id: str, data: bytes) -> JobShape:
    plain = zlib.decompress(data)
    if _TAG_PREFIX not in plain:
        return JobShape()
    try:
        return job_shape(plain.decode())
    except ValueError as error:
        raise InvalidField(
            "spec.job_snapshot_id", f"the tags of the ops in snapshot {snapshot_id} cannot be read: {error}"
        ) from error


def _join(shape: JobShape, step_keys: Sequence[str], execution_config_json: str) -> RequirementLayer | None:
    if not shape.ops:
        return None
    return ops_layer(shape, step_keys, _execution_config(execution_config_json))


def _execution_config(text: str) -> Mapping[str, Any]:
    try:
        config = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        raise InvalidField("spec.execution_config_json", f"is not JSON ({error})") from None
    if not isinstance(config, Mapping):
        raise InvalidField("spec.execution_config_json", "is not a JSON object")
    return config
