"""Agents that move to another connection: certificates change, or the coordinator wants it made anew."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent.security.secured import free_port
from agent.small_workers import Plant
from coordinator.auth.secured import secured
from harness.certificates import CLIENT, COORDINATOR, HOSTS, Authority, agent, files_in, replace, tls_settings
from harness.services import ProcessCluster, Service, open_cluster

from runyard.client import Client, CoordinatorUnreachable
from runyard.v1 import fleet_pb2, run_pb2

NODE = "node-a"
READY = fleet_pb2.NODE_STATE_READY
SUCCEEDED = run_pb2.OUTCOME_KIND_SUCCEEDED


class TlsPlant(Plant):
    """As `Plant`, on a loopback port, with certificates of an authority that the test has."""

    def __init__(self, cluster: ProcessCluster) -> None:
        super().__init__(cluster)
        cluster.address = f"127.0.0.1:{free_port()}"
        self.authority = Authority()
        self.authority.coordinator(self.tls("coordinator"))
        self.authority.agent(self.tls(NODE), NODE)
        self.authority.holder(self.tls("client"), CLIENT)

    def tls(self, whose: str) -> Path:
        """Where somebody's files are."""
        return self.cluster.folder / "tls" / whose

    def client(self) -> Client:
        """A client with a certificate."""
        return Client(self.cluster.address, tls=files_in(self.tls("client")))

    def start_both(self) -> tuple[Service, Service]:
        """A coordinator and an agent, in session."""
        coordinator = self.start_coordinator(tls=tls_settings(files_in(self.tls("coordinator"))))
        return coordinator, self.start_agent(tls=tls_settings(files_in(self.tls(NODE))))

    def end_well(self) -> None:
        """The one worker ends, and was only started once."""
        self.open_gate()
        assert self.outcome().kind == SUCCEEDED
        assert len(self.starts()) == 1


@pytest.fixture
def plant() -> Iterator[TlsPlant]:
    with open_cluster() as cluster:
        made = TlsPlant(cluster)
        yield made
        made.close()


def test_agent_moves_when_its_certificate_changes_and_its_run_does_not_notice(plant: TlsPlant) -> None:
    coordinator, node = plant.start_both()
    plant.launch_busy()
    for moves in (1, 2, 3):
        plant.authority.agent(plant.tls(NODE), NODE)
        assert node.wait_for_event("session_moves", moves)["reason"] == "the certificates have changed"
        node.wait_for_event("ready", 1 + moves)
        plant.until_node(READY)
    plant.end_well()
    assert node.events("session_ended") == []
    assert coordinator.events("call_refused") == []
    assert "Handshake failed" not in coordinator.output()


def test_bad_certificates_change_nothing_but_the_log(plant: TlsPlant) -> None:
    _, node = plant.start_both()
    plant.launch_busy()
    key = plant.tls(NODE) / "key.pem"
    good = key.read_bytes()
    replace(key, plant.authority.issue(agent(NODE).uri).key)
    assert "is not the key of" in node.wait_for_event("certificates_not_renewed")["problem"]
    replace(key, good)
    plant.until_node(READY)
    plant.end_well()
    assert (node.events("session_moves"), node.events("session_ended")) == ([], [])


def test_coordinator_shows_its_new_certificate_without_a_restart(plant: TlsPlant) -> None:
    coordinator, node = plant.start_both()
    plant.launch_busy()
    plant.authority.coordinator(plant.tls("coordinator"), "runyard.example")
    with plant.client() as client:
        client.list_nodes()
    coordinator.wait_for_event("certificates_renewed")
    plant.end_well()
    assert (node.events("session_moves"), node.events("session_ended")) == ([], [])


def test_fleet_changes_to_another_authority_step_by_step(plant: TlsPlant) -> None:
    coordinator, node = plant.start_both()
    plant.launch_busy()
    old, new = plant.authority, Authority("the next authority")
    everybody = ("coordinator", NODE, "client")
    for who in everybody:  # everybody trusts both
        replace(plant.tls(who) / "authority.pem", old.pem + new.pem)
    node.wait_for_event("session_moves", 1)
    leaves = {
        "coordinator": new.issue(COORDINATOR.uri, hosts=HOSTS),
        NODE: new.issue(agent(NODE).uri),
        "client": new.issue(CLIENT.uri),
    }
    for who, leaf in leaves.items():  # everybody gets a certificate of the new one
        replace(plant.tls(who) / "key.pem", leaf.key)
        replace(plant.tls(who) / "certificate.pem", leaf.certificate)
    node.wait_for_event("session_moves", 2)
    for who in everybody:  # nobody trusts the old one
        replace(plant.tls(who) / "authority.pem", new.pem)
    node.wait_for_event("session_moves", 3)
    plant.until_node(READY)
    plant.end_well()
    assert node.events("session_ended") == []
    told = pytest.raises(CoordinatorUnreachable, match="no secure connection to the coordinator")
    with Client(plant.cluster.address, tls=old.holder(plant.tls("late"), CLIENT)) as late, told:
        late.list_nodes()
    assert coordinator.events("call_refused") == []


async def test_connection_that_the_coordinator_wants_made_anew_costs_no_session(tmp_path: Path) -> None:
    """As `grpc.max_connection_age` has it, here every second or so instead of every hour."""
    aging = (("grpc.max_connection_age_ms", 1_000), ("grpc.max_connection_age_grace_ms", 5_000))
    async with secured(tmp_path, options=aging) as coordinator:
        files = coordinator.authority.agent(tmp_path / "node", NODE)
        with open_cluster() as cluster:
            cluster.address = coordinator.address
            node = cluster.agent(NODE, settings={"tls": tls_settings(files)})
            await asyncio.to_thread(node.wait_for_event, "session_moves", 3)
            await asyncio.to_thread(node.wait_for_event, "ready", 4)
            assert node.events("session_ended") == []
            reasons = {event["reason"] for event in node.events("session_moves")}
            assert reasons == {"the coordinator requests a new connection"}
