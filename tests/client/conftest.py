"""Shared by the tests of the client: a fake coordinator (see `fake_coordinator.py`) on a loopback port."""

from collections.abc import Iterator

import pytest
from cli.commands import RUN, Command, Result
from client.fake_coordinator import FakeCoordinator

from runyard.cli.main import main
from runyard.client import Client
from runyard.v1 import launch_pb2, run_pb2


@pytest.fixture
def coordinator() -> Iterator[FakeCoordinator]:
    fake = FakeCoordinator().start()
    yield fake
    fake.stop()


@pytest.fixture
def client(coordinator: FakeCoordinator) -> Iterator[Client]:
    with Client(coordinator.address) as opened:
        yield opened


@pytest.fixture
def runyard(
    coordinator: FakeCoordinator, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Command:
    """Runs a command in this process, against the fake."""
    monkeypatch.setenv("RUNYARD_ADDRESS", coordinator.address)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)

    def run(*argv: str) -> Result:
        capfd.readouterr()
        code = main(list(argv))
        seen = capfd.readouterr()
        return Result(code, seen.out, seen.err)

    return run


@pytest.fixture
def orders(coordinator: FakeCoordinator) -> run_pb2.Run:
    """A finished run that was killed for want of memory."""
    run = run_pb2.Run(
        run_id=RUN,
        attempt=2,
        resume_number=1,
        deployment="shop",
        job="orders",
        location="shop.py",
        phase=run_pb2.PHASE_FINISHED,
        cluster="east",
        node="n1",
        pid=4711,
        outcome=run_pb2.Outcome(
            kind=run_pb2.OUTCOME_KIND_OOM_KILLED,
            signal=9,
            message="killed for want of memory",
            stderr_tail="loading [bold]\nKilled\n",
            peak_rss_bytes=3 * 1024**3,
        ),
    )
    run.launched_at.FromJsonString("2026-03-01T10:00:00Z")
    run.running_at.FromJsonString("2026-03-01T10:00:02.5Z")
    run.finished_at.FromJsonString("2026-03-01T10:05:00Z")
    event = launch_pb2.RunEvent(attempt=2, phase=run_pb2.PHASE_RUNNING, node="n1", message="worker started")
    event.at.FromJsonString("2026-03-01T10:00:02.5Z")
    coordinator.events[RUN] = [event]
    coordinator.put_run(run)
    return run
