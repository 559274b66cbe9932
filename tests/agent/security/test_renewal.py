"""Certificates over time: renewed under live runs, revoked under a live session, moved to a new authority."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import grpc
import pytest
from agent.node_side import is_alive
from agent.security.secured import SecuredPlant, files_in
from harness.services import Service, open_cluster
from harness.waiting import wait_until

from runyard.common.transport.channel import open_aio_channel
from runyard.v1 import fleet_pb2, run_pb2, security_pb2, security_pb2_grpc

READY = fleet_pb2.NODE_STATE_READY
SUCCEEDED = run_pb2.OUTCOME_KIND_SUCCEEDED
SHORT = 10.0
"""Seconds for which certificates hold in tests of renewal."""


# Renewal


@dataclass
class Renewed:
    """A node whose certificate was renewed six times, with runs on it all the while, that are over."""

    plant: SecuredPlant
    coordinator: Service
    agent: Service
    keys: set[bytes]
    runs: int


@pytest.fixture(scope="module")
def renewed() -> Iterator[Renewed]:
    with open_cluster() as cluster:
        plant = SecuredPlant(cluster)
        coordinator = plant.start_coordinator(certificate_lifetime=SHORT)
        made = Renewed(plant, coordinator, plant.start_agent(), set(), 1)
        plant.launch_busy(1)
        while len(plant.until_serials(made.runs)) < 6:
            made.runs += 1
            plant.launch_busy(made.runs)
            plant.until_serials(made.runs)
            made.keys.add((plant.credentials() / "key.pem").read_bytes())
            plant.open_gate(made.runs)
            assert plant.outcome(made.runs).kind == SUCCEEDED
        plant.open_gate(1)
        assert plant.outcome(1).kind == SUCCEEDED
        yield made
        plant.close()


def test_certificates_are_renewed_again_and_again_and_no_run_notices(renewed: Renewed) -> None:
    for each in range(1, renewed.runs + 1):
        assert len(renewed.plant.starts(each)) == 1, renewed.plant.describe(each)
    assert len(renewed.coordinator.events("certificate_renewed")) >= 5
    assert renewed.agent.events("certificate_expired") == []
    assert renewed.agent.events("certificate_expires_soon") == []
    assert renewed.coordinator.events("call_refused") == []


def test_each_certificate_is_for_a_new_key(renewed: Renewed) -> None:
    assert len(renewed.keys) >= 2  # looked at now and then: on a busy machine, hardly ever


def test_sets_that_were_replaced_are_cleared_away(renewed: Renewed) -> None:
    tls = renewed.plant.cluster.folder / "node-a" / "tls"
    assert len([path for path in tls.iterdir() if path.name.isdecimal()]) <= 3  # one may be coming


def test_token_that_was_used_before_is_not_tried_again(renewed: Renewed) -> None:
    assert renewed.coordinator.events("join_refused") == []


def test_failing_renewals_are_told_the_louder_the_less_time_is_left_and_a_new_token_mends_all(
    plant: SecuredPlant,
) -> None:
    coordinator = plant.start_coordinator(certificate_lifetime=SHORT)
    agent = plant.start_agent()
    plant.launch_busy(1)
    coordinator.kill()
    for event, level in (
        ("certificate_not_renewed", "warning"),
        ("certificate_expires_soon", "error"),
        ("certificate_expired", "critical"),
    ):
        assert agent.wait_for_event(event)["level"] == level
    assert "runyard token create" in agent.events("certificate_expired")[-1]["remedy"]
    assert is_alive(plant.starts(1)[0])

    plant.start_coordinator(certificate_lifetime=SHORT)
    (plant.cluster.folder / "node-a.token").write_text(plant.token("node-a"))
    agent.wait_for_event("ready", times=2)
    plant.open_gate(1)
    assert plant.outcome(1).kind == SUCCEEDED
    assert len(plant.starts(1)) == 1


def test_agent_that_starts_with_an_expired_certificate_joins_anew(plant: SecuredPlant) -> None:
    plant.start_coordinator(certificate_lifetime=SHORT)
    agent = plant.start_agent()
    agent.kill()
    expiry = plant.certificate().not_valid_after_utc.timestamp()
    wait_until(lambda: time.time() > expiry, "the certificate has not expired")
    plant.agent("node-a", plant.token("node-a")).wait_for_event("ready")
    assert plant.certificate().not_valid_after_utc.timestamp() > expiry


@pytest.mark.parametrize("point", ["agent.before_certificate_switch", "agent.after_certificate_switch"])
def test_agent_that_is_killed_while_it_renews_goes_on_with_one_set_or_the_other(
    plant: SecuredPlant, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    plant.start_coordinator(certificate_lifetime=1.5 * SHORT)  # or it may expire before the agent is back
    plant.start_agent().kill()
    monkeypatch.setenv("RUNYARD_FAILPOINT", point)
    assert plant.agent().exit_code() == -9
    monkeypatch.delenv("RUNYARD_FAILPOINT")
    files_in(plant.credentials()).read()
    plant.agent().wait_for_event("ready")
    plant.launch_busy(1)


# Revocation


def test_revoked_node_loses_its_session_at_once_and_for_good_but_not_its_runs(plant: SecuredPlant) -> None:
    coordinator = plant.start_coordinator()
    agent = plant.start_agent()
    run = plant.launch_busy(1)
    revoked = plant.command("node", "revoke", "node-a", "--reason", "stolen")
    assert (revoked.returncode, revoked.stderr) == (0, "")
    assert "node node-a is refused from now on (1 certificate)" in revoked.stdout
    said = agent.wait_for_event("session_ended")
    assert "was revoked" in said["how"]
    (noted,) = coordinator.events("node_revoked")
    waited = datetime.fromisoformat(said["timestamp"]) - datetime.fromisoformat(noted["timestamp"])
    assert waited.total_seconds() < 5
    coordinator.wait_for_event("call_refused")
    coordinator.kill()
    coordinator = plant.start_coordinator()
    refused = coordinator.wait_for_event("call_refused", times=2)
    assert "was revoked" in refused["reason"]
    assert len(agent.events("ready")) == 1
    assert is_alive(run.pid)
    with plant.client() as client:
        assert client.get_node("node-a").state != READY


def test_revoked_node_comes_back_with_a_new_token_and_its_run_goes_on(
    plant: SecuredPlant,
) -> None:
    plant.start_coordinator()
    agent = plant.start_agent()
    plant.launch_busy(1)
    stolen = plant.cluster.folder / "stolen"
    stolen.mkdir()
    for name in ("key.pem", "certificate.pem", "authority.pem"):
        (stolen / name).write_bytes((plant.credentials() / name).read_bytes())
        (stolen / name).chmod(0o600)
    with plant.admin() as admin:
        assert admin.security.revoke_node("node-a") == 1
    agent.kill()
    agent = plant.agent("node-a", plant.token("node-a"))
    agent.wait_for_event("joined")
    agent.wait_for_event("ready")
    plant.open_gate(1)
    assert plant.outcome(1).kind == SUCCEEDED
    assert len(plant.starts(1)) == 1
    code, details = asyncio.run(renewal_by_thief(plant, files_in(stolen).read()))
    assert code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
    assert "was revoked" in details


async def renewal_by_thief(plant: SecuredPlant, material: object) -> tuple[grpc.StatusCode, str]:
    """The answer to somebody who has the certificate from before."""
    async with open_aio_channel(plant.cluster.address, material) as channel:  # type: ignore[arg-type]
        stub = security_pb2_grpc.SecurityServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await stub.RenewCertificate(security_pb2.RenewCertificateRequest(csr_pem=""), timeout=10)
    return refusal.value.code(), refusal.value.details() or ""


def test_revoked_admin_gives_no_more_orders(plant: SecuredPlant) -> None:
    plant.start_coordinator()
    (entry,) = [each for each in plant.authority.issued() if each.uri.endswith("/admin/ada")]
    revoked = plant.command("ca", "revoke", entry.serial, "--reason", "left the company")
    assert (revoked.returncode, revoked.stderr) == (0, "")
    again = plant.command("token", "list")
    assert again.returncode == 1
    assert "was revoked" in again.stderr


# Rotation


def test_everybody_moves_to_a_new_authority_without_losing_a_run(plant: SecuredPlant) -> None:
    coordinator = plant.start_coordinator(certificate_lifetime=SHORT)
    agents = [plant.start_agent(node) for node in ("node-a", "node-b")]
    plant.launch_busy(1)
    old = plant.authority.signing.name
    ca = str(plant.authority.path)
    begun = plant.command("ca", "rotate", "--ca", ca)
    assert (begun.returncode, begun.stderr) == (0, "")

    early = plant.command("ca", "rotate", "--ca", ca, "--finish")
    assert early.returncode == 2
    assert "spiffe://runyard/client/dagster" in early.stderr
    renewed = plant.command(
        *("ca", "issue", "--ca", ca, "--client", "dagster", "--out", str(plant.cluster.folder / "dagster"))
    )
    assert (renewed.returncode, renewed.stderr) == (0, "")

    def all_moved() -> bool:
        with plant.admin() as admin:
            newest = {each.node_id: each.authority for each in reversed(admin.security.list_certificates())}
        trusted = [(plant.credentials(node) / "authority.pem").read_bytes() for node in ("node-a", "node-b")]
        return old not in newest.values() and all(each.count(b"BEGIN CERTIFICATE") == 2 for each in trusted)

    wait_until(all_moved, "not all have moved over", timeout=60)
    done = plant.command("ca", "rotate", "--ca", ca, "--finish")
    assert (done.returncode, done.stderr) == (0, "")

    plant.launch_busy(2)
    wait_until(
        lambda: (plant.credentials() / "authority.pem").read_bytes().count(b"BEGIN CERTIFICATE") == 1,
        "the old authority is still trusted",
        timeout=60,
    )
    newcomer = plant.agent("node-c", plant.token())
    newcomer.wait_for_event("ready")
    for number in (1, 2):
        plant.open_gate(number)
        assert plant.outcome(number).kind == SUCCEEDED
        assert len(plant.starts(number)) == 1
    for agent in agents:
        assert agent.events("certificate_expired") == []
    assert coordinator.events("certificates_renewed")
