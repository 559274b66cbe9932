"""What both clients promise of lists and streams, against a fake coordinator (see `fake_coordinator.py`)."""

import threading
from collections.abc import Iterator

import pytest
from client.fake_coordinator import STDERR, STDOUT, FakeCoordinator
from harness.waiting import wait_until

from runyard.client import Client, RunyardError
from runyard.v1 import launch_pb2, run_pb2

# Listing and watching


def test_a_listing_goes_through_all_pages_newest_first(coordinator: FakeCoordinator, client: Client) -> None:
    for number in range(2500):
        coordinator.put_run(run_pb2.Run(run_id=f"r{number}"))
    assert [run.run_id for run in client.list_runs()] == [f"r{number}" for number in reversed(range(2500))]
    assert len(coordinator.requests("ListRuns")) == 3


def test_a_limited_listing_asks_for_no_more_than_it_gives(
    coordinator: FakeCoordinator, client: Client
) -> None:
    for number in range(30):
        coordinator.put_run(run_pb2.Run(run_id=f"r{number}"))
    assert len(list(client.list_runs(limit=7))) == 7
    assert list(client.list_runs(limit=0)) == []
    (request,) = coordinator.requests("ListRuns")
    assert isinstance(request, launch_pb2.ListRunsRequest)
    assert request.page_size == 7


def test_a_negative_limit_is_refused(client: Client) -> None:
    with pytest.raises(ValueError, match="limit: -1"):
        list(client.list_runs(limit=-1))


def test_a_listing_gives_only_what_matches(coordinator: FakeCoordinator, client: Client) -> None:
    coordinator.put_run(run_pb2.Run(run_id="r1", cluster="east", node="n1", phase=run_pb2.PHASE_RUNNING))
    coordinator.put_run(run_pb2.Run(run_id="r2", cluster="west", node="n2", phase=run_pb2.PHASE_RUNNING))
    coordinator.put_run(run_pb2.Run(run_id="r3", cluster="east", node="n1", phase=run_pb2.PHASE_FINISHED))
    found = client.list_runs(phases=[run_pb2.PHASE_RUNNING], cluster="east", node="n1")
    assert [run.run_id for run in found] == ["r1"]
    assert [run.run_id for run in client.list_runs(run_ids=["r2", "r3"])] == ["r3", "r2"]


def test_a_watch_gives_what_is_and_then_what_changes(coordinator: FakeCoordinator, client: Client) -> None:
    coordinator.put_run(run_pb2.Run(run_id="r1", phase=run_pb2.PHASE_QUEUED))
    watch = client.watch_runs(run_ids=["r1"], timeout=30)
    assert next(watch).phase == run_pb2.PHASE_QUEUED
    coordinator.move(run_pb2.Run(run_id="r1", phase=run_pb2.PHASE_RUNNING))
    assert next(watch).phase == run_pb2.PHASE_RUNNING


def test_a_watch_ends_loudly_when_the_coordinator_goes(coordinator: FakeCoordinator, client: Client) -> None:
    coordinator.put_run(run_pb2.Run(run_id="r1"))
    watch = client.watch_runs(timeout=30)
    next(watch)
    coordinator.stop()
    with pytest.raises(RunyardError):
        next(watch)


# Logs


def test_a_log_is_read_in_pieces_from_any_offset(coordinator: FakeCoordinator, client: Client) -> None:
    coordinator.put_run(run_pb2.Run(run_id="r1", phase=run_pb2.PHASE_FINISHED))
    coordinator.logs["r1", STDOUT] = bytes(range(256)) * 1024
    pieces = list(client.read_logs("r1", stream=STDOUT))
    assert b"".join(piece.data for piece in pieces) == coordinator.logs["r1", STDOUT]
    assert [piece.offset for piece in pieces] == [0, 65_536, 131_072, 196_608]
    (tail,) = client.read_logs("r1", stream=STDOUT, offset=-10, limit=4)
    assert tail == launch_pb2.ReadLogsResponse(offset=262_134, data=bytes([246, 247, 248, 249]))


def test_a_followed_log_goes_on_until_the_run_is_over(coordinator: FakeCoordinator, client: Client) -> None:
    coordinator.put_run(run_pb2.Run(run_id="r1", phase=run_pb2.PHASE_RUNNING))
    coordinator.logs["r1", STDERR] = b"one\n"
    pieces = client.read_logs("r1", stream=STDERR, follow=True)
    assert next(pieces).data == b"one\n"
    coordinator.logs["r1", STDERR] += b"two\n"
    assert next(pieces).data == b"two\n"
    coordinator.move(run_pb2.Run(run_id="r1", phase=run_pb2.PHASE_FINISHED))
    assert list(pieces) == []


def test_the_attempt_is_sent_only_when_named(coordinator: FakeCoordinator, client: Client) -> None:
    coordinator.put_run(run_pb2.Run(run_id="r1"))
    list(client.read_logs("r1", stream=STDOUT))
    list(client.read_logs("r1", stream=STDOUT, attempt=0))
    asked = [r for r in coordinator.requests("ReadLogs") if isinstance(r, launch_pb2.ReadLogsRequest)]
    assert [request.HasField("attempt") for request in asked] == [False, True]


# Reports


def finished(run_id: str) -> run_pb2.Run:
    return run_pb2.Run(run_id=run_id, attempt=1, deployment="shop", phase=run_pb2.PHASE_FINISHED)


def test_reports_come_until_they_are_acknowledged(coordinator: FakeCoordinator, client: Client) -> None:
    coordinator.put_run(finished("r1"))
    with client.follow_reports("shop", "host:1") as follower:
        assert next(iter(follower)).run_id == "r1"
    with client.follow_reports("shop", "host:1") as follower:
        assert next(iter(follower)).run_id == "r1"
        follower.acknowledge([launch_pb2.AttemptKey(run_id="r1", attempt=1)])
        wait_until(lambda: coordinator.acknowledged == [("r1", 1)], lambda: coordinator.acknowledged)
        coordinator.put_run(finished("r2"))
    with client.follow_reports("shop", "host:1") as follower:
        assert next(iter(follower)).run_id == "r2"


def test_a_quiet_reporter_shows_that_it_lives(
    coordinator: FakeCoordinator, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runyard.client.reports.KEEPALIVE_SECONDS", 0.05)
    with client.follow_reports("shop", "host:1"):
        wait_until(
            lambda: len(coordinator.requests("FollowReports")) >= 4,
            lambda: coordinator.requests("FollowReports"),
        )
    opening, *keepalives = coordinator.requests("FollowReports")
    assert opening == launch_pb2.FollowReportsRequest(deployment="shop", reporter="host:1")
    assert set(map(str, keepalives)) == {""}


def test_the_next_reporter_gets_its_turn_when_the_first_closes(
    coordinator: FakeCoordinator, client: Client
) -> None:
    coordinator.put_run(finished("r1"))
    first = client.follow_reports("shop", "host:1")
    assert next(iter(first)).run_id == "r1"
    with client.follow_reports("shop", "host:2") as second:
        wait_until(lambda: len(coordinator.requests("FollowReports")) == 2, "the second stands in line")
        assert coordinator.reporters == ["host:1"]
        first.close()
        assert next(iter(second)).run_id == "r1"
    assert coordinator.reporters == ["host:1", "host:2"]


def test_closing_a_follower_ends_its_iteration_quietly(coordinator: FakeCoordinator, client: Client) -> None:
    follower = client.follow_reports("shop", "host:1")
    seen: list[object] = []
    reading = threading.Thread(target=lambda: seen.extend([*list(follower), "end"]))
    reading.start()
    wait_until(lambda: coordinator.reporters, "the reporter has its turn")
    follower.close()
    reading.join(10)
    assert seen == ["end"]


def test_a_follower_ends_loudly_when_the_coordinator_goes(
    coordinator: FakeCoordinator, client: Client
) -> None:
    coordinator.put_run(finished("r1"))
    with client.follow_reports("shop", "host:1") as follower:
        runs: Iterator[run_pb2.Run] = iter(follower)
        next(runs)
        coordinator.stop()
        with pytest.raises(RunyardError):
            next(runs)


def test_reports_need_the_name_of_a_deployment(client: Client) -> None:
    with pytest.raises(ValueError, match="deployment: is empty"):
        client.follow_reports("", "host:1")
