"""Sessions in the core: who may join, what both sides then know, and what a broken one leaves behind."""

import pytest
from coordinator.fleet_building import (
    NODE,
    RUN,
    FleetTrial,
    finished,
    make_hello,
    make_launch,
    running,
    starting,
    status,
    stopping,
)

from runyard.coordinator.core.errors import NodeIdInUse, NodeRefused
from runyard.coordinator.core.events.on_session import on_heartbeat
from runyard.coordinator.core.explain.wording import situation
from runyard.coordinator.core.leases import LeaseSettings
from runyard.coordinator.core.model import Ready, Suspect
from runyard.coordinator.grpc.messages.agent_reports import heartbeat_of
from runyard.v1 import agent_pb2, fleet_pb2, run_pb2


@pytest.fixture
def trial() -> FleetTrial:
    return FleetTrial()


def with_a_running_worker() -> FleetTrial:
    trial = FleetTrial()
    trial.join()
    trial.launch()
    trial.report(1, running())
    trial.asked.clear()
    return trial


# Who may join


def test_agent_is_welcomed_once_its_epoch_is_to_be_saved(trial: FleetTrial) -> None:
    trial.join()
    assert trial.asked.order() == ["SaveNode", f"send {NODE} welcome"]


def test_welcome_gives_the_rhythm_of_the_fleet() -> None:
    trial = FleetTrial(LeaseSettings(shortest_interval=0.5, shortest_lease=2.5))
    trial.join()
    ((_, message),) = trial.asked.messages()
    assert message.welcome.heartbeat_interval.ToMilliseconds() == 500
    assert message.welcome.lease.ToMilliseconds() == 2_500
    assert message.welcome.protocol == 1


def test_epoch_counts_the_sessions_over_restarts(trial: FleetTrial) -> None:
    trial.join()
    trial.join()
    trial.restart()
    trial.join()
    assert [message.welcome.node_epoch for _, message in trial.asked.messages()] == [1, 2, 3]


def test_what_the_agent_offers_now_counts_not_what_it_offered_before(trial: FleetTrial) -> None:
    trial.join(make_hello(slots=1, labels={"zone": "1"}))
    trial.join(make_hello(slots=4, labels={"zone": "2"}, cluster="east"))
    node = trial.fleet.nodes[NODE]
    assert (node.capacity.slots, node.capacity.labels, node.cluster) == (4, (("zone", "2"),), "east")


@pytest.mark.parametrize("spoken", [(2, 3), (0, 0)], ids=["newer", "older"])
def test_agent_without_a_common_protocol_is_refused_with_the_remedy(
    trial: FleetTrial, spoken: tuple[int, int]
) -> None:
    low, high = spoken
    expected = rf"speaks protocol 1, the agent {low} to {high}; upgrade the older"
    with pytest.raises(NodeRefused, match=expected):
        trial.join(make_hello(protocol=spoken))
    assert trial.fleet.nodes == {}


def test_agent_of_a_newer_version_that_still_speaks_ours_is_welcome(trial: FleetTrial) -> None:
    trial.join(make_hello(protocol=(1, 4)))
    assert trial.asked.sent() == ["welcome"]


def test_second_agent_under_a_node_id_is_refused_while_the_first_lives(trial: FleetTrial) -> None:
    trial.join()
    trial.asked.clear()
    with pytest.raises(NodeIdInUse, match=r"in use by a live agent on node-a\.example; give this agent"):
        trial.join(make_hello(installation="another"))
    assert isinstance(trial.fleet.nodes[NODE].liveness, Ready)
    trial.asked.assert_nothing_else()


def test_second_agent_is_refused_while_the_first_left_live_runs() -> None:
    trial = with_a_running_worker()
    trial.leave(1)
    trial.tick(after=10_000.0)
    with pytest.raises(NodeIdInUse, match=r"another installation on node-a\.example .* 1 unfinished run"):
        trial.join(make_hello(installation="another"))


def test_second_agent_may_take_over_a_node_id_that_holds_nothing() -> None:
    trial = with_a_running_worker()
    trial.report(1, finished())
    trial.leave(1)
    trial.join(make_hello(installation="another"))
    assert trial.fleet.nodes[NODE].installation == "another"


def test_new_session_of_the_same_agent_supersedes_the_old(trial: FleetTrial) -> None:
    first = trial.join()
    trial.asked.clear()
    second = trial.join()
    assert trial.asked.ended_sessions() == [(NODE, first)]
    assert trial.fleet.nodes[NODE].liveness == Ready(second, trial.clock)


# What is left of an old session


@pytest.mark.parametrize("what", ["heartbeat", "report", "rejection", "disconnect"])
def test_message_of_a_superseded_session_changes_nothing(trial: FleetTrial, what: str) -> None:
    old = trial.join()
    trial.launch()
    trial.join()
    trial.asked.clear()
    before = (trial.run(), trial.fleet.nodes[NODE])
    trial.clock += 3.0
    match what:
        case "heartbeat":
            trial.beat(old, running())
        case "report":
            trial.report(old, finished())
        case "rejection":
            trial.reject(old)
        case _:
            trial.leave(old)
    assert (trial.run(), trial.fleet.nodes[NODE]) == before
    trial.asked.assert_nothing_else()


@pytest.mark.parametrize("what", ["heartbeat", "report", "rejection", "disconnect"])
def test_message_of_a_node_that_never_joined_changes_nothing(trial: FleetTrial, what: str) -> None:
    match what:
        case "heartbeat":
            trial.beat(9, running())
        case "report":
            trial.report(9, running())
        case "rejection":
            trial.reject(9)
        case _:
            trial.leave(9)
    assert (trial.fleet.runs, trial.fleet.nodes) == ({}, {})
    trial.asked.assert_nothing_else()


def test_broken_session_makes_the_node_suspect_at_once_and_presumes_nothing_of_its_runs() -> None:
    trial = with_a_running_worker()
    trial.leave(1)
    assert isinstance(trial.fleet.nodes[NODE].liveness, Suspect)
    assert trial.phase() == "running"
    assert trial.fleet.unreachable(trial.run())
    assert situation(trial.fleet, trial.run()) == f"node {NODE} is silent; the worker is not presumed dead"
    trial.asked.assert_nothing_else()


# Both accounts are brought together


@pytest.mark.parametrize("reached", ["starting", "running"])
def test_reboot_proves_that_the_workers_of_the_node_are_gone(reached: str) -> None:
    trial = FleetTrial()
    trial.join()
    trial.launch()
    trial.report(1, starting() if reached == "starting" else running())
    trial.join(make_hello(boot_id="boot-2"))
    assert trial.outcome().kind == run_pb2.OUTCOME_KIND_NODE_LOST
    assert trial.outcome().message == "the node rebooted and its worker is gone"


def test_reboot_proves_nothing_of_an_attempt_that_the_agent_still_lists() -> None:
    trial = with_a_running_worker()
    trial.join(make_hello(boot_id="boot-2", attempts=[finished(kind=run_pb2.OUTCOME_KIND_FAILED)]))
    assert trial.outcome().kind == run_pb2.OUTCOME_KIND_FAILED


@pytest.mark.parametrize("reached", ["starting", "running"])
def test_agent_that_lost_its_disk_leaves_the_end_of_its_runs_unknown(reached: str) -> None:
    trial = FleetTrial()
    trial.join()
    trial.launch()
    trial.report(1, starting() if reached == "starting" else running())
    trial.join(make_hello())
    assert trial.outcome().kind == run_pb2.OUTCOME_KIND_EXIT_UNKNOWN
    assert "was its state directory lost?" in trial.outcome().message


def test_lost_run_frees_its_slot_for_one_that_waits() -> None:
    trial = FleetTrial()
    trial.join(make_hello(slots=1))
    trial.launch(make_launch("first"))
    trial.report(1, running("first"))
    trial.launch()
    trial.join(make_hello(slots=1, boot_id="boot-2"))
    assert (trial.phase("first"), trial.phase()) == ("finished", "assigned")


@pytest.mark.parametrize("boot_id", ["boot-1", "boot-2"], ids=["same boot", "rebooted"])
def test_assignment_that_the_agent_does_not_list_is_sent_again_not_lost(boot_id: str) -> None:
    trial = FleetTrial()
    trial.join()
    trial.launch()
    trial.asked.clear()
    trial.join(make_hello(boot_id=boot_id))
    assert trial.asked.sent() == ["welcome", "assign"]
    assert (trial.phase(), trial.run().attempt) == ("assigned", 0)


def test_assignment_that_the_agent_lists_is_not_sent_again() -> None:
    trial = FleetTrial()
    trial.join()
    trial.launch()
    trial.asked.clear()
    trial.join(make_hello(attempts=[starting()]))
    assert trial.asked.sent() == ["welcome"]
    assert trial.phase() == "starting"


def test_stop_that_the_agent_does_not_reflect_is_sent_again() -> None:
    trial = with_a_running_worker()
    trial.terminate()
    trial.asked.clear()
    trial.join(make_hello(attempts=[running()]))
    assert trial.asked.sent() == ["welcome", "stop"]


def test_stop_is_sent_again_to_an_agent_that_does_not_list_the_attempt_so_that_it_never_starts() -> None:
    trial = FleetTrial()
    trial.join()
    trial.launch()
    trial.terminate()
    trial.asked.clear()
    trial.join()
    assert trial.asked.sent() == ["welcome", "stop"]
    assert trial.phase() == "stopping"


def test_welcome_comes_before_everything_else_of_the_session() -> None:
    trial = with_a_running_worker()
    trial.launch(make_launch("second"))
    trial.asked.clear()
    trial.join(make_hello(attempts=[finished()]))
    assert trial.asked.sent() == ["welcome", "report_ack", "assign"]


# Heartbeats


def test_heartbeat_is_acknowledged_by_its_number_and_saves_nothing() -> None:
    trial = with_a_running_worker()
    trial.beat(1, running())
    ((name, message),) = trial.asked.messages()
    assert (name, message.heartbeat_ack.sequence) == ("heartbeat_ack", 7)
    trial.asked.assert_nothing_else()


def test_heartbeat_brings_the_load_of_the_node_and_the_use_of_its_workers() -> None:
    trial = with_a_running_worker()
    usage = run_pb2.WorkerUsage(cpu_cores=0.5, rss_bytes=1_000)
    beat = agent_pb2.Heartbeat(
        sequence=1,
        load=fleet_pb2.NodeLoad(cpu_fraction=0.75),
        attempts=[status(run_pb2.PHASE_RUNNING, pid=41, usage=usage)],
    )
    trial.step(lambda fleet, at: on_heartbeat(fleet, at, NODE, 1, heartbeat_of(beat)))
    assert trial.fleet.nodes[NODE].load.cpu_fraction == 0.75
    assert trial.fleet.usage[RUN] == usage
    trial.report(1, finished())
    assert trial.fleet.usage == {}


def test_heartbeat_repeats_an_assignment_only_when_there_was_time_to_answer_it() -> None:
    trial = FleetTrial()
    trial.join()
    trial.launch()
    trial.asked.clear()
    trial.clock += 1.9
    trial.beat(1)
    assert trial.asked.sent() == ["heartbeat_ack"]
    trial.clock += 0.1
    trial.beat(1)
    assert trial.asked.sent() == ["heartbeat_ack", "assign"]


def test_heartbeat_repeats_a_stop_until_the_agent_reflects_it() -> None:
    trial = with_a_running_worker()
    trial.terminate()
    trial.asked.clear()
    trial.clock += 2.0
    trial.beat(1, running())
    assert trial.asked.sent() == ["heartbeat_ack", "stop"]
    trial.beat(1, stopping(pid=41))
    assert trial.asked.sent() == ["heartbeat_ack"]


def test_heartbeat_that_lacks_a_running_attempt_proves_nothing() -> None:
    trial = with_a_running_worker()
    trial.clock += 100.0
    trial.beat(1)
    assert trial.phase() == "running"
    assert trial.asked.sent() == ["heartbeat_ack"]


def test_heartbeat_catches_up_on_news_that_were_lost() -> None:
    trial = with_a_running_worker()
    trial.beat(1, finished(kind=run_pb2.OUTCOME_KIND_FAILED))
    assert trial.outcome().kind == run_pb2.OUTCOME_KIND_FAILED
    assert trial.asked.sent() == ["heartbeat_ack", "report_ack"]
