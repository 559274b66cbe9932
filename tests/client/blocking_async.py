"""The asyncio client behind the face of the blocking one, so that one test speaks for both."""

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, TypeVar

from runyard.client import AsyncClient, AsyncReportFollower, Client, TlsFiles

T = TypeVar("T")

ClientFactory = Callable[..., Client]


class _Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def call(self, function: Callable[[], T]) -> T:
        async def called() -> T:
            return function()

        return self.run(called())

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        async def advance() -> T:
            return await anext(items)

        while True:
            try:
                yield self.run(advance())
            except StopAsyncIteration:
                return

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class BlockingAsyncClient:
    """Takes the calls of `Client` to an `AsyncClient`."""

    def __init__(self, address: str, *, timeout: float = 10.0, tls: TlsFiles | None = None) -> None:
        self._client = AsyncClient(address, timeout=timeout, tls=tls)
        self._loop = _Loop()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def call(*args: object, **kwargs: object) -> object:
            outcome = self._loop.call(lambda: method(*args, **kwargs))
            if inspect.iscoroutine(outcome):
                return self._loop.run(outcome)
            if isinstance(outcome, AsyncReportFollower):
                return BlockingAsyncFollower(self._loop, outcome)
            if isinstance(outcome, AsyncIterator):
                return self._loop.iterate(outcome)
            return outcome

        return call

    def __enter__(self) -> "BlockingAsyncClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run(self._client.close())
        self._loop.close()


class BlockingAsyncFollower:
    """Takes the calls of `ReportFollower` to an `AsyncReportFollower`."""

    def __init__(self, loop: _Loop, follower: AsyncReportFollower) -> None:
        self._loop = loop
        self._follower = follower

    def __iter__(self) -> Iterator[object]:
        return self._loop.iterate(aiter(self._follower))

    def acknowledge(self, keys: object) -> None:
        self._loop.call(lambda: self._follower.acknowledge(keys))  # type: ignore[arg-type]

    def close(self) -> None:
        self._loop.call(self._follower.close)

    def __enter__(self) -> "BlockingAsyncFollower":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
