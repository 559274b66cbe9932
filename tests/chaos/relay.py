"""`relay.py LISTEN PORT [DELAY JITTER]`: hands on what comes to a Unix socket or a port of this machine.

Files are seen from every network namespace, so with a Unix socket it is a door into one: a client outside
reaches the coordinator inside. With a delay it is a slow network: each piece arrives that many seconds later,
or later still by up to `JITTER`, in order.
"""

import asyncio
import contextlib
import random
import sys
import time


async def hand_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float, jitter: float
) -> None:
    """Copies one direction until it ends."""
    due: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=1_000)

    async def deliver() -> None:
        while True:
            at, data = await due.get()
            await asyncio.sleep(at - time.monotonic())
            if not data:
                return
            writer.write(data)
            await writer.drain()

    delivery = asyncio.create_task(deliver())
    data = b"something"
    with contextlib.suppress(OSError):
        while data:
            data = await reader.read(65_536)
            await due.put((time.monotonic() + delay + random.uniform(0, jitter), data))
        await delivery
    delivery.cancel()
    writer.close()


async def serve(listen: str, port: int, delay: float = 0.0, jitter: float = 0.0) -> None:
    """Serves for ever."""

    async def enter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(
            hand_on(reader, inner_writer, delay, jitter), hand_on(inner_reader, writer, delay, jitter)
        )

    if listen.isdigit():
        server = await asyncio.start_server(enter, "127.0.0.1", int(listen))
    else:
        server = await asyncio.start_unix_server(enter, listen)
    print("open", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), *map(float, sys.argv[3:])))
