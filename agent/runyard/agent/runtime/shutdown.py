"""Stops every run when the machine shuts down."""

import asyncio
import contextlib

import structlog

from runyard.agent.core.model import Accepted, AttemptKey, Finished
from runyard.agent.drivers.base import DriverError
from runyard.agent.runtime.driver_set import DriverSet
from runyard.agent.runtime.runtime import Runtime
from runyard.agent.supervisor.rundir import RunDirectoryError

GRACE_SHARE = 0.8
"""Largest share of the shutdown budget that workers get between SIGTERM and SIGKILL."""

log = structlog.get_logger("runyard.agent")


async def stop_all(runtime: Runtime, drivers: DriverSet, budget: float, reason: str) -> None:
    """Stop every worker, and accept no more assignments.

    Returns when all have ended and the coordinator has their outcomes, or when the budget is spent.

    Args:
        runtime: Holds the attempts.
        drivers: The agent's drivers.
        budget: Seconds that all of this may take.
        reason: Becomes part of the outcomes' messages.
    """
    runtime.stop_accepting()
    live = [held.key for held in runtime.attempts() if not isinstance(held.phase, Accepted | Finished)]
    log.info("stopping_runs", runs=len(live), reason=reason)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(budget):
            await asyncio.gather(*(_stop(drivers, key, budget, reason) for key in live))
            await runtime.until_settled(live)


async def _stop(drivers: DriverSet, key: AttemptKey, budget: float, reason: str) -> None:
    spec = await asyncio.to_thread(drivers.spec_of, key)
    grace = min(spec.grace_seconds if spec else 0.0, budget * GRACE_SHARE)
    try:
        await drivers.of(key).stop(key, grace, reason, "node_shutdown")
    except (DriverError, RunDirectoryError) as error:
        log.error("cannot_stop", attempt=str(key), error=str(error))
