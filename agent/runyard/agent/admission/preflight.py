"""Checks of a worker's prerequisites, so that its attempt is rejected instead of failing later."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from runyard.agent.admission.errors import DISK_FULL, Unfit
from runyard.agent.core.pressure import Scarce
from runyard.agent.drivers.base import CheckingDriver, Driver
from runyard.agent.node.pressure import PressureMonitor, in_words
from runyard.agent.supervisor.records import SpecRecord

CHECK_WITHIN = 5.0
"""Seconds for one check. On a local disk it takes well under a millisecond."""

MOST_HANGING = 2
"""Number of checks that may hang on a dead network disk. No more are tried until one of them returns."""


T = TypeVar("T")


class Preflight:
    """Checks a worker's prerequisites.

    Args:
        pressures: Current shortages of the node.
    """

    def __init__(self, pressures: PressureMonitor) -> None:
        self._pressures = pressures
        self._threads = ThreadPoolExecutor(MOST_HANGING, "preflight")
        self._checks: set[Future[Any]] = set()

    async def check(self, driver: Driver, spec: SpecRecord) -> None:
        """Check once. The start may still fail if something is removed in between.

        Args:
            driver: The driver of the attempt.
            spec: The record of the worker.

        Raises:
            Unfit: The disk is nearly full, or the driver reports something missing.
        """
        for pressure in self._pressures.all():
            if pressure.scarce is Scarce.DISK:
                raise Unfit(f"disk pressure: {in_words(pressure)}", DISK_FULL)
        if isinstance(driver, CheckingDriver):
            subject = f"{spec.argv[0]} and {spec.cwd or 'its directory'}"
            lack = await self.in_time(partial(driver.missing, spec), subject)
            if lack is not None:
                raise Unfit(lack.message, lack.reason_code)

    async def in_time(self, check: Callable[[], T], subject: str) -> T:
        """Return the result of a check that may hang, for example on a network disk.

        Args:
            check: Blocks; called in a thread.
            subject: Name of the checked things, for messages.

        Raises:
            Unfit: It takes too long, or too many checks hang already.
        """
        self._checks = {each for each in self._checks if not each.done()}
        if len(self._checks) >= MOST_HANGING:
            raise Unfit("checks of this node's disks hang; is a network disk unreachable?")
        future = self._threads.submit(check)
        self._checks.add(future)
        try:
            async with asyncio.timeout(CHECK_WITHIN):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise Unfit(f"checking {subject} took over {CHECK_WITHIN:g} s") from None
