"""Threads for calls that block: a bounded number, and none that keeps the process from ending."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class DaemonThreads:
    """Runs blocking calls beside the event loop.

    A pool of the standard library would be waited for when the process ends, and a call to an engine that
    hangs may take as long as it likes.

    Args:
        limit: How many calls may run at the same time; further ones wait.
    """

    def __init__(self, limit: int) -> None:
        self._free = asyncio.Semaphore(limit)

    async def run(self, work: Callable[[], T]) -> T:
        """Calls it in a thread, and gives what it gives or raises.

        A caller that is cancelled leaves the thread to itself; until it ends, it counts.
        """
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(settle_future: Callable[[], None]) -> None:
            self._free.release()
            if not future.done():
                settle_future()

        def call() -> None:
            try:
                result = work()
            except BaseException as error:
                raised = error
                tell(lambda: future.set_exception(raised))
            else:
                tell(lambda: future.set_result(result))

        def tell(settle_future: Callable[[], None]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(settle, settle_future)

        threading.Thread(target=call, name="docker", daemon=True).start()
        return await future
