"""Job snapshots: asked for once, and read for what their ops ask for."""

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
from runyard.coordinator.grpc.uploads import check_snapshot_id
from runyard.coordinator.runtime.recent import Recent
from runyard.coordinator.runtime.runtime import Runtime

OPS_HELD = 200_000
"""So many ops, of all snapshots read last, are held in memory."""

LAYERS_HELD = 1_000
"""So many launches, by snapshot and execution config, are remembered for what their ops ask for."""

LONGEST_HELD = 4_096
"""Execution configs of more characters are not remembered."""

_MENTIONED = f'"{PREFIX}'.encode()
"""A snapshot without it has no tag of ours."""


class Snapshots:
    """The job snapshots that launches refer to."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._shapes: Recent[str, JobShape] = Recent(OPS_HELD, lambda shape: 1 + len(shape.ops))
        self._layers: Recent[tuple[str, str], RequirementLayer | None] = Recent(LAYERS_HELD)
        # A plain snapshot may have half a gigabyte: one at a time.
        self._reading = asyncio.Lock()

    async def is_held(self, snapshot_id: str) -> bool:
        """Whether a launch may refer to it: it is stored, or none is named.

        Raises:
            InvalidField: The name is too long.
        """
        if not snapshot_id:
            return True
        check_snapshot_id("spec.job_snapshot_id", snapshot_id)
        return await self._runtime.in_writer(lambda: self._runtime.store.has_snapshot(snapshot_id))

    async def ops_layer(
        self, snapshot_id: str, step_keys: Sequence[str], execution_config_json: str
    ) -> RequirementLayer | None:
        """What the ops of a launch ask for; None if nothing.

        Args:
            snapshot_id: Names the job snapshot. Empty: there is none.
            step_keys: The steps that will run. Empty: all.
            execution_config_json: The `execution` part of the run config, or empty.

        Raises:
            InvalidField: A tag of an op makes no sense, two ops contradict each other, or nobody can read the
                snapshot.
            NotFound: The snapshot is not held.
        """
        if not snapshot_id:
            return None
        # Single steps hardly come twice.
        key = None if step_keys else (snapshot_id, execution_config_json)
        if key is not None and key in self._layers:
            return self._layers[key]
        shape = await self._shape(snapshot_id)
        layer = await asyncio.to_thread(_join, shape, step_keys, execution_config_json)
        if key is not None and key not in self._layers and len(execution_config_json) <= LONGEST_HELD:
            self._layers.keep(key, layer)
        return layer

    async def _shape(self, snapshot_id: str) -> JobShape:
        if snapshot_id not in self._shapes:
            async with self._reading:
                if snapshot_id not in self._shapes:
                    return self._shapes.keep(snapshot_id, await self._load(snapshot_id))
        return self._shapes[snapshot_id]

    async def _load(self, snapshot_id: str) -> JobShape:
        data = await self._runtime.in_writer(lambda: self._runtime.store.snapshot(snapshot_id))
        if data is None:
            raise NotFound(f"the coordinator does not hold the job snapshot {snapshot_id}")
        # Neither on the event loop nor in the writer's thread: both have others waiting.
        return await asyncio.to_thread(_read, snapshot_id, data)


def _read(snapshot_id: str, data: bytes) -> JobShape:
    plain = zlib.decompress(data)
    if _MENTIONED not in plain:
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
        raise InvalidField("spec.execution_config_json", "is no JSON object")
    return config
