"""The short form of `make chaos`: a few faults, once each. No run may be lost, and none doubled."""

from functools import partial

import pytest
from chaos import machine_faults, network_faults, process_faults
from chaos.scene import Fault, try_out
from chaos.table import details


def short(fault: Fault) -> None:
    """Inflicts a fault once, or leaves it out where it cannot be made."""
    if reason := fault.why_not_here():
        pytest.skip(reason)
    report = try_out(fault, tries=1)
    assert not details(report), details(report)
    assert report.verdict.accepted


def test_killed_worker_is_noticed_at_once() -> None:
    short(Fault("worker", "run failed", process_faults.kill_worker))


def test_killed_agent_and_its_runs_are_taken_up_again() -> None:
    short(Fault("agent", "node suspect", process_faults.kill_agent))


def test_nothing_is_lost_or_doubled_while_every_part_is_killed_at_random() -> None:
    short(Fault("random", "", partial(process_faults.kill_at_random, launches=40), slots=16))


def test_partition_leaves_runs_alone() -> None:
    silence = partial(network_faults.partition, seconds=4.0)
    short(Fault("partition", "node unreachable", silence, needs_network=True))


def test_runs_of_a_fenced_node_go_on_elsewhere() -> None:
    nodes = (machine_faults.NODE, machine_faults.OTHER)
    fenced = machine_faults.power_off_and_fence
    short(Fault("fence", "runs over", fenced, needs_network=True, nodes=nodes))
