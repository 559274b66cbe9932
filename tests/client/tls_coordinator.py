"""A coordinator with certificates, in a thread of its own: for blocking and asyncio clients alike."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coordinator.auth.secured import Secured, secured
from coordinator.fleet_building import make_hello
from harness.certificates import agent

from runyard.coordinator.grpc.listening import Options


@contextmanager
def tls_coordinator(folder: Path, options: Options = ()) -> Iterator[Secured]:
    """The coordinator, with one node, for the length of the block."""
    opened: list[Secured] = []
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    over = asyncio.Event()

    async def serve() -> None:
        async with secured(folder, options=options) as coordinator:
            await coordinator.as_(agent("node-a")).join(make_hello(slots=100))
            opened.append(coordinator)
            ready.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(30.0), "it does not start"
    try:
        yield opened[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()  # the loop stays open: gRPC may have a last word for it
