"""Waiting for a condition in tests: never a bare sleep, and a message that shows what was last seen."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(
    condition: Callable[[], T | None],
    describe: Callable[[], object] | str,
    timeout: float = 60.0,
    poll: float = 0.05,
) -> T:
    """Polls until `condition` gives something true, and returns it.

    Args:
        condition: Called every `poll` seconds; must not have side effects.
        describe: What is awaited, or a function that tells what was last seen.
        timeout: Seconds until the wait fails.
        poll: Seconds between two looks.

    Raises:
        AssertionError: The condition did not come true in time.
    """
    deadline = time.monotonic() + timeout
    while True:
        seen = condition()
        if seen:
            return seen
        if time.monotonic() >= deadline:
            raise AssertionError(_message(describe, timeout))
        time.sleep(poll)


async def await_until(
    condition: Callable[[], T | Awaitable[T | None] | None],
    describe: Callable[[], object] | str,
    timeout: float = 60.0,
    poll: float = 0.05,
) -> T:
    """As `wait_until`, without blocking the event loop; the condition may be a coroutine function."""
    deadline = time.monotonic() + timeout
    while True:
        seen = condition()
        if isinstance(seen, Awaitable):
            seen = await seen
        if seen:
            return seen
        if time.monotonic() >= deadline:
            raise AssertionError(_message(describe, timeout))
        await asyncio.sleep(poll)


def _message(describe: Callable[[], object] | str, timeout: float) -> str:
    seen = describe if isinstance(describe, str) else describe()
    return f"waited {timeout:g} s in vain; last seen: {seen}"
