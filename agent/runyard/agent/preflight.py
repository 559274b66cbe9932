"""A look at what a worker needs, before its attempt is taken: what is missing is a refusal, no failure."""

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor

from runyard.agent.core.pressure import Scarce
from runyard.agent.drivers.base import Driver, LookingDriver
from runyard.agent.pressure import PressureWatch, in_words
from runyard.agent.records import SpecRecord

LOOK_WITHIN = 5.0
"""Seconds; on a local disk it takes well under one of their thousandths."""

MOST_HANGING = 2
"""How many looks may hang at a dead network disk; more are not tried until one of them comes back."""


class Unfit(Exception):
    """This node cannot start the worker at the moment; the message says why."""


class Preflight:
    """Looks before the agent takes an attempt.

    Args:
        pressures: What the node is short of.
    """

    def __init__(self, pressures: PressureWatch) -> None:
        self._pressures = pressures
        self._threads = ThreadPoolExecutor(MOST_HANGING, "preflight")
        self._looks: set[Future[str]] = set()

    async def check(self, driver: Driver, spec: SpecRecord) -> None:
        """Looks once. A start may still fail: what is there now may be gone by then.

        Args:
            driver: The one that would start the worker.
            spec: What it would start.

        Raises:
            Unfit: The disk is nearly full, or the driver misses something.
        """
        for pressure in self._pressures.all():
            if pressure.scarce is Scarce.DISK:
                raise Unfit(f"disk pressure: {in_words(pressure)}")
        if isinstance(driver, LookingDriver) and (missing := await self._look(driver, spec)):
            raise Unfit(missing)

    async def _look(self, driver: LookingDriver, spec: SpecRecord) -> str:
        self._looks = {look for look in self._looks if not look.done()}
        if len(self._looks) >= MOST_HANGING:
            return "looks at the disks of this node hang; is a network disk gone?"
        look = self._threads.submit(driver.missing, spec)
        self._looks.add(look)
        try:
            async with asyncio.timeout(LOOK_WITHIN):
                return await asyncio.wrap_future(look)
        except TimeoutError:
            return f"a look at {spec.argv[0]} and {spec.cwd or 'its directory'} took over {LOOK_WITHIN:g} s"
