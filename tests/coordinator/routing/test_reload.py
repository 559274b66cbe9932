"""A coordinator and its routing file: refused at the start, reloaded while it runs."""

import os
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from coordinator.serving import make_spec
from harness.services import ProcessCluster, Service, open_cluster

from runyard.client import Client, LaunchRefused
from runyard.v1 import run_pb2

NEEDS_RULE = "on_no_matching_rule: fail\nrules: [{name: sales, match: {job: sales}}]\n"
FOR_ORDERS = NEEDS_RULE + "default_cluster: rack1\n"


@pytest.fixture
def cluster() -> Iterator[ProcessCluster]:
    with open_cluster() as opened:
        yield opened


@pytest.fixture
def file(cluster: ProcessCluster) -> Path:
    """A routing file with a rule that does not match the job `orders`."""
    file = cluster.folder / "routing.yaml"
    file.write_text(NEEDS_RULE)
    return file


def serve(cluster: ProcessCluster, file: Path) -> Service:
    coordinator = cluster.coordinator("--routing", str(file), settings={"recovery": 0})
    coordinator.wait_for_event("ready")
    return coordinator


def replace_file(file: Path, text: str) -> None:
    """As careful editors do it."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


def change(coordinator: Service, file: Path, text: str, times: int = 1) -> dict[str, Any]:
    replace_file(file, text)
    return coordinator.wait_for_event("routing_file_loaded", times)


def test_file_that_cannot_be_used_refuses_the_start_and_says_why(cluster: ProcessCluster, file: Path) -> None:
    file.write_text("on_no_matching_rule: drop\n")
    coordinator = cluster.coordinator("--routing", str(file))
    assert coordinator.exit_code() == 2
    assert (
        f"runyard coordinator: {file}: line 1, on_no_matching_rule: 'drop' is none of anywhere, queue, fail"
        in coordinator.output()
    )
    assert not (cluster.folder / "coordinator").exists()


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("on_no_matching_rule: drop\n", 2, "line 1, on_no_matching_rule: 'drop'"),
        (NEEDS_RULE, 0, "the settings are fine"),
    ],
    ids=["bad", "good"],
)
def test_check_of_the_settings_reads_the_file_too(
    cluster: ProcessCluster, file: Path, text: str, code: int, says: str
) -> None:
    file.write_text(text)
    coordinator = cluster.coordinator("--routing", str(file), "--check")
    assert coordinator.exit_code() == code
    assert says in coordinator.output()


def test_file_that_is_not_there_refuses_the_start(cluster: ProcessCluster) -> None:
    coordinator = cluster.coordinator(settings={"routing": str(cluster.folder / "none.yaml")})
    assert coordinator.exit_code() == 2
    assert "none.yaml: cannot be read (No such file or directory)" in coordinator.output()


def test_warnings_are_logged_at_the_start(cluster: ProcessCluster, file: Path) -> None:
    file.write_text("quotas: {a: {}}")
    assert serve(cluster, file).wait_for_event("routing_file_suspicious")["setting"] == "quotas.a"


@pytest.mark.parametrize("way", ["replaced", "overwritten"])
def test_changed_file_applies_to_the_next_launch(cluster: ProcessCluster, file: Path, way: str) -> None:
    coordinator = serve(cluster, file)
    with Client(cluster.address) as client:
        with pytest.raises(LaunchRefused, match="no routing rule matches job 'orders'"):
            client.launch_run(make_spec())
        if way == "replaced":
            replace_file(file, NEEDS_RULE.replace("sales}", "ord*}"))
        else:
            file.write_text(NEEDS_RULE.replace("sales}", "ord*}"))
        loaded = coordinator.wait_for_event("routing_file_loaded")
        assert loaded["changed"] == ["rule sales changed"]
        with pytest.raises(LaunchRefused, match="no node has joined"):
            client.launch_run(make_spec())


def test_mistake_in_the_file_keeps_the_previous_rules_until_it_is_corrected(
    cluster: ProcessCluster, file: Path
) -> None:
    coordinator = serve(cluster, file)
    replace_file(file, "rules: [{name: sales, match: {jbo: sales}}]")
    refused = coordinator.wait_for_event("routing_file_refused")
    assert "line 1, rules[0].match.jbo: there is no such key" in refused["error"]
    with Client(cluster.address) as client, pytest.raises(LaunchRefused, match="no routing rule matches"):
        client.launch_run(make_spec())
    assert change(coordinator, file, FOR_ORDERS)["changed"] == ["default_cluster changed"]
    assert len(coordinator.events("routing_file_refused")) == 1


def test_file_that_is_deleted_keeps_its_rules_in_force_and_may_come_back(
    cluster: ProcessCluster, file: Path
) -> None:
    coordinator = serve(cluster, file)
    file.unlink()
    assert "No such file" in coordinator.wait_for_event("routing_file_refused")["error"]
    with Client(cluster.address) as client, pytest.raises(LaunchRefused, match="no routing rule matches"):
        client.launch_run(make_spec())
    assert change(coordinator, file, NEEDS_RULE)["changed"] == []


def test_hangup_signal_reloads_the_file_though_it_looks_unchanged(
    cluster: ProcessCluster, file: Path
) -> None:
    coordinator = serve(cluster, file)
    before = file.stat()
    file.write_text(NEEDS_RULE.replace("sales", "sells"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    coordinator.signal(signal.SIGHUP)
    loaded = coordinator.wait_for_event("routing_file_loaded")
    assert loaded["changed"] == ["rule sales removed", "rule sells added"]


def test_runs_that_wait_over_a_restart_wait_by_the_rules_of_the_new_start(
    cluster: ProcessCluster, file: Path
) -> None:
    replace_file(file, "rules: [{name: old, clusters: [rack1]}]")
    coordinator = serve(cluster, file)
    agent = cluster.agent(settings={"cluster": "rack1"})
    coordinator.wait_for_event("agent_joined")
    agent.kill()
    coordinator.wait_for_event("agent_left")
    with Client(cluster.address) as client:
        assert client.launch_run(make_spec()).phase == run_pb2.PHASE_QUEUED
    assert coordinator.terminate() == 0
    replace_file(file, "rules: [{name: new, clusters: [rack2]}]")
    serve(cluster, file)
    with sqlite3.connect(cluster.folder / "coordinator" / "coordinator.db") as connection:
        ((route,),) = connection.execute("SELECT route FROM runs").fetchall()
    connection.close()
    assert '"new"' in route
    assert '"rack2"' in route
