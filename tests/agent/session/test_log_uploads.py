"""Logs on their way to readers: so many at once, and each in its turn."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
from harness.waiting import await_until

from runyard.agent.core.model import AttemptKey
from runyard.agent.session import log_uploads as uploads_module
from runyard.agent.session.log_uploads import LogUploads
from runyard.agent.supervisor.records import SpecRecord
from runyard.agent.supervisor.rundir import RunDirectories
from runyard.v1 import agent_pb2, launch_pb2

KEY = AttemptKey("run-1", 0)
SOON = 30.0


class Coordinator:
    """The receiving end: takes what is pushed, and keeps each push open until the test lets it go."""

    def __init__(self) -> None:
        self.pushed: dict[str, list[agent_pb2.PushLogsRequest]] = {}
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def PushLogs(self, pieces: AsyncIterator[agent_pb2.PushLogsRequest]) -> None:
        async for piece in pieces:
            self.pushed.setdefault(piece.transfer_id, []).append(piece)
        await self.go_on.wait()

    def content(self, transfer_id: str) -> bytes:
        """Return the received bytes."""
        return b"".join(piece.data for piece in self.pushed[transfer_id])


@pytest.fixture
def coordinator() -> Coordinator:
    return Coordinator()


@pytest.fixture
def uploads(tmp_path: Path, coordinator: Coordinator) -> LogUploads:
    """Log uploads of an agent that has an attempt with "0123456789" on its stdout."""
    directories = RunDirectories(tmp_path)
    directory = directories.create(KEY, SpecRecord(argv=["true"], env={}))
    directory.stdout.write_bytes(b"0123456789")
    return LogUploads(directories, lambda key: True, cast(Any, coordinator))


def wanted(transfer_id: str, **fields: Any) -> agent_pb2.SendLogs:
    return agent_pb2.SendLogs(
        transfer_id=transfer_id, run_id=KEY.run_id, stream=launch_pb2.LOG_STREAM_STDOUT, **fields
    )


async def until_pushed(coordinator: Coordinator, count: int) -> None:
    await await_until(lambda: len(coordinator.pushed) >= count, lambda: coordinator.pushed, SOON)


@pytest.mark.parametrize(
    ("fields", "offset", "content"),
    [
        ({}, 0, b"0123456789"),
        ({"offset": 7}, 7, b"789"),
        ({"offset": -4, "limit": 2}, 6, b"67"),
        ({"offset": -100}, 0, b"0123456789"),
        ({"offset": 50}, 50, b""),
        ({"follow": True}, 0, b"0123456789"),
    ],
    ids=[
        "whole",
        "offset",
        "from the end",
        "before the beginning",
        "beyond the end",
        "supervised after the end",
    ],
)
async def test_first_piece_says_where_the_log_begins(
    uploads: LogUploads, coordinator: Coordinator, fields: dict[str, Any], offset: int, content: bytes
) -> None:
    uploads.begin(wanted("a", **fields))
    await until_pushed(coordinator, 1)
    await await_until(lambda: coordinator.content("a") == content, lambda: coordinator.pushed, SOON)
    assert coordinator.pushed["a"][0].offset == offset
    await uploads.close()


@pytest.mark.parametrize(
    ("run", "attempt"), [(KEY.run_id, 5), ("../..", 0)], ids=["another attempt", "a path"]
)
async def test_log_that_is_not_there_is_told_as_an_error(
    uploads: LogUploads, coordinator: Coordinator, run: str, attempt: int
) -> None:
    uploads.begin(agent_pb2.SendLogs(transfer_id="a", run_id=run, attempt=attempt))
    await until_pushed(coordinator, 1)
    assert coordinator.pushed["a"][0].error
    await uploads.close()


async def test_only_so_many_logs_are_sent_at_once_and_the_others_in_their_turn(
    tmp_path: Path, uploads: LogUploads, coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "_turns", asyncio.Semaphore(2))
    coordinator.go_on.clear()
    for name in ("a", "b", "c"):
        uploads.begin(wanted(name))
    await until_pushed(coordinator, 2)
    assert set(coordinator.pushed) == {"a", "b"}
    coordinator.go_on.set()
    await until_pushed(coordinator, 3)
    await uploads.close()


async def test_log_whose_turn_does_not_come_is_not_sent_long_after_its_reader_has_left(
    uploads: LogUploads, coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "_turns", asyncio.Semaphore(1))
    monkeypatch.setattr(uploads_module, "TURN_WITHIN", 0.05)
    coordinator.go_on.clear()
    uploads.begin(wanted("a"))
    await until_pushed(coordinator, 1)
    uploads.begin(wanted("b"))
    await await_until(lambda: len(uploads._tasks) == 1, "still waiting", SOON)
    coordinator.go_on.set()
    uploads.begin(wanted("c"))
    await until_pushed(coordinator, 2)
    assert set(coordinator.pushed) == {"a", "c"}
    await uploads.close()
