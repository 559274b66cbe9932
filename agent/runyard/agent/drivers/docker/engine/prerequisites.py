"""A look at what a container needs of its engine, before the attempt is taken."""

import time
from collections.abc import Iterator

from runyard.agent.drivers.base import MissingPrerequisite
from runyard.agent.drivers.docker.causes import ENGINE_UNAVAILABLE, IMAGE_NOT_FOUND, NETWORK_MISSING
from runyard.agent.drivers.docker.engine.client import Engine, NoAnswer, NotThere, Unreachable
from runyard.agent.drivers.docker.engine.images import not_there
from runyard.agent.drivers.docker.plan.plan import ContainerPlan
from runyard.agent.supervisor.records import SpecRecord

LOOK_WITHIN = 2.0
"""Seconds for all questions together; each takes an engine some milliseconds."""


def missing_in_engine(engine: Engine, spec: SpecRecord) -> MissingPrerequisite | None:
    """The missing prerequisite of a container in this engine; None if none is known. Blocks.

    What a registry has is not asked: pulling is part of the start. An engine that is merely slow is no
    reason, for a start is patient.

    Args:
        engine: The engine.
        spec: Of the worker.
    """
    until = time.monotonic() + LOOK_WITHIN
    try:
        plan = ContainerPlan.of_record(spec.container)
        for path, lack in _needed(engine, plan):
            try:
                engine.look(path, within=max(0.1, until - time.monotonic()))
            except NotThere:
                return lack
    except NoAnswer:
        return None
    except Unreachable as error:
        return unreachable(str(error))
    return None


def unreachable(trouble: str) -> MissingPrerequisite:
    """The prerequisite that the engine cannot be reached."""
    return MissingPrerequisite(f"the engine cannot be reached: {trouble}", ENGINE_UNAVAILABLE)


def _needed(engine: Engine, plan: ContainerPlan) -> Iterator[tuple[str, MissingPrerequisite]]:
    """Objects that must exist in the engine: the API path, and the message if it is missing."""
    if plan.pull == "never":
        yield f"images/{plan.image}/json", MissingPrerequisite(not_there(engine, plan.image), IMAGE_NOT_FOUND)
    for network in plan.networks:
        reason = f"network {network} is not in the engine at {engine.host}; create it there"
        yield f"networks/{network}", MissingPrerequisite(reason, NETWORK_MISSING)
