"""Calls are recorded in the audit log with their outcome."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from coordinator.serving import RUN_ID, Serving, make_spec, refusal, serving

from runyard.coordinator.audit.events import Done, Event, Refused
from runyard.v1 import fleet_pb2, launch_pb2


class Heard:
    """An audit log in memory."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def note(self, event: Event) -> None:
        self.events.append(event)


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def coordinator(tmp_path: Path, heard: Heard) -> AsyncIterator[Serving]:
    async with serving(tmp_path / "state", audit=heard) as client:
        yield client


def recorded(heard: Heard) -> list[tuple[str, str, type]]:
    """Action, object and outcome of each event."""
    seen = []
    for event in heard.events:
        assert event.by.who == "local"
        assert event.by.peer.startswith("unix:")
        named: Any = event
        seen.append((event.action, getattr(event, "run", "") or named.node, type(event.outcome)))
    return seen


async def test_a_launch_its_repeat_and_its_end_are_noted(coordinator: Serving, heard: Heard) -> None:
    await coordinator.join()
    await coordinator.launched()
    await coordinator.launched()
    await coordinator.terminated(reason="enough")
    assert recorded(heard) == [
        ("run.launch", RUN_ID, Done),
        ("run.launch", RUN_ID, Done),
        ("run.terminate", RUN_ID, Done),
    ]


async def test_a_refused_launch_is_recorded_with_the_reason_and_without_its_content(
    coordinator: Serving, heard: Heard
) -> None:
    spec = make_spec(tags={"runyard/memory": "plenty"}, environment={"API_TOKEN": "canary-token"})
    await refusal(coordinator.launched(spec))
    (event,) = heard.events
    assert isinstance(event.outcome, Refused)
    assert "runyard/memory" in event.outcome.message
    assert "canary-token" not in repr(event)


async def test_a_launch_that_has_to_come_again_with_its_snapshot_is_no_decision(
    coordinator: Serving, heard: Heard
) -> None:
    spec = make_spec(job_snapshot_id="0" * 40)
    answer = await coordinator.launch.LaunchRun(launch_pb2.LaunchRunRequest(spec=spec))
    assert answer.snapshot_needed
    assert heard.events == []


VERBS: dict[str, Callable[[Serving, str], Awaitable[Any]]] = {
    "node.cordon": lambda it, node: it.fleet.CordonNode(fleet_pb2.CordonNodeRequest(node_id=node)),
    "node.uncordon": lambda it, node: it.fleet.UncordonNode(fleet_pb2.UncordonNodeRequest(node_id=node)),
    "node.drain": lambda it, node: it.fleet.DrainNode(fleet_pb2.DrainNodeRequest(node_id=node)),
    "node.fence": lambda it, node: it.fleet.FenceNode(fleet_pb2.FenceNodeRequest(node_id=node, reason="off")),
    "node.refresh_warm_servers": lambda it, node: it.fleet.RefreshWarmServers(
        fleet_pb2.RefreshWarmServersRequest(node_id=node)
    ),
}


@pytest.mark.parametrize("action", VERBS)
async def test_commands_to_nodes_are_recorded_even_if_refused(
    coordinator: Serving, heard: Heard, action: str
) -> None:
    await refusal(VERBS[action](coordinator, "nobody"))
    assert recorded(heard) == [(action, "nobody", Refused)]


async def test_commands_to_nodes_are_recorded_when_done(coordinator: Serving, heard: Heard) -> None:
    agent = await coordinator.join()
    node = agent.hello.node_id
    for action in ("node.cordon", "node.uncordon", "node.drain", "node.refresh_warm_servers"):
        await VERBS[action](coordinator, node)
        assert recorded(heard)[-1] == (action, node, Done)
