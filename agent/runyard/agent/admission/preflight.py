"""A look at what a worker needs, before its attempt is taken: what is missing is a refusal, no failure."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from runyard.agent.core.pressure import Scarce
from runyard.agent.drivers.base import Driver, LookingDriver
from runyard.agent.node.pressure import PressureWatch, in_words
from runyard.agent.supervisor.records import SpecRecord

LOOK_WITHIN = 5.0
"""Seconds; on a local disk it takes well under one of their thousandths."""

MOST_HANGING = 2
"""How many looks may hang at a dead network disk; more are not tried until one of them comes back."""


T = TypeVar("T")

DISK_FULL = "disk_full"
"""`Unfit.why` of everything on a node whose disk is nearly full."""


class Unfit(Exception):
    """This node cannot start the worker at the moment.

    Args:
        message: Why, in one sentence for people.
        why: One word for programs, as in `ExitRecord`.
    """

    def __init__(self, message: str, why: str = "") -> None:
        super().__init__(message)
        self.why = why


class Preflight:
    """Looks before the agent takes an attempt.

    Args:
        pressures: What the node is short of.
    """

    def __init__(self, pressures: PressureWatch) -> None:
        self._pressures = pressures
        self._threads = ThreadPoolExecutor(MOST_HANGING, "preflight")
        self._looks: set[Future[Any]] = set()

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
                raise Unfit(f"disk pressure: {in_words(pressure)}", DISK_FULL)
        if isinstance(driver, LookingDriver):
            where = f"{spec.argv[0]} and {spec.cwd or 'its directory'}"
            lack = await self.in_time(partial(driver.missing, spec), where)
            if lack is not None:
                raise Unfit(lack.reason, lack.why)

    async def in_time(self, look: Callable[[], T], at: str) -> T:
        """What a look gives that may hang, since it may be at a disk in the network.

        Args:
            look: Blocks, and is called in a thread.
            at: What is looked at, for people.

        Raises:
            Unfit: It takes too long, or too many looks hang already.
        """
        self._looks = {each for each in self._looks if not each.done()}
        if len(self._looks) >= MOST_HANGING:
            raise Unfit("looks at the disks of this node hang; is a network disk gone?")
        future = self._threads.submit(look)
        self._looks.add(future)
        try:
            async with asyncio.timeout(LOOK_WITHIN):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise Unfit(f"a look at {at} took over {LOOK_WITHIN:g} s") from None
