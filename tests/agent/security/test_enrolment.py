"""How an agent gets its first certificate: real processes, killed at every step, refused, kept waiting."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from agent.security.secured import SecuredPlant
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from harness.services import open_cluster

from runyard.v1 import run_pb2

SUCCEEDED = run_pb2.OUTCOME_KIND_SUCCEEDED


def key_of(folder: Path) -> bytes:
    return (folder / "key.pem").read_bytes()


# In order


def test_node_joins_by_token_and_runs_what_it_is_given(plant: SecuredPlant) -> None:
    coordinator = plant.start_coordinator()
    agent = plant.agent("node-a", plant.token())
    agent.wait_for_event("ready")
    plant.launch_busy(1)
    plant.open_gate(1)
    assert plant.outcome(1).kind == SUCCEEDED
    assert plant.run(1).node == "node-a"  # type: ignore[union-attr]
    (joined,) = coordinator.events("node_joined")
    assert joined["identity"] == "spiffe://runyard/agent/east/node-a"
    assert coordinator.events("join_refused") == []


def test_key_is_the_nodes_alone(plant: SecuredPlant) -> None:
    plant.start_coordinator()
    plant.start_agent()
    key = load_pem_private_key(key_of(plant.credentials()), None)
    assert plant.certificate().public_key() == key.public_key()
    tls = plant.cluster.folder / "node-a" / "tls"
    for path in (tls, *tls.rglob("*")):
        if not path.is_symlink():
            assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
    assert not (tls / "joining").exists()
    assert key_of(plant.credentials()) not in (plant.cluster.folder / "coordinator-0.log").read_bytes()


def test_agent_that_has_joined_needs_no_token_when_it_starts_again(
    plant: SecuredPlant,
) -> None:
    coordinator = plant.start_coordinator()
    plant.start_agent().kill()
    serial = plant.certificate().serial_number
    (plant.cluster.folder / "node-a.token").unlink()
    plant.agent().wait_for_event("ready")
    assert plant.certificate().serial_number == serial
    assert len(coordinator.events("node_joined")) == 1


def test_secret_of_the_token_is_in_no_log_and_not_in_the_state_of_either_side(plant: SecuredPlant) -> None:
    plant.start_coordinator()
    token = plant.token()
    plant.agent("node-a", token).wait_for_event("ready")
    secret = token.split(".")[2].encode()
    (plant.cluster.folder / "node-a.token").unlink()
    for path in plant.cluster.folder.rglob("*"):
        if path.is_file():
            assert secret not in path.read_bytes(), path


# Killed at every step


@pytest.mark.parametrize(
    "point",
    [
        "agent.after_joining_key",
        "agent.after_joining_request",
        "agent.after_join_answer",
        "agent.before_certificate_switch",
        "agent.after_certificate_switch",
    ],
)
def test_agent_that_is_killed_while_it_joins_has_joined_when_it_is_back(
    plant: SecuredPlant, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    coordinator = plant.start_coordinator()
    token = plant.token()
    monkeypatch.setenv("RUNYARD_FAILPOINT", point)
    assert plant.agent("node-a", token).exit_code() == -9
    monkeypatch.delenv("RUNYARD_FAILPOINT")
    plant.agent("node-a", token).wait_for_event("ready")
    assert coordinator.events("join_refused") == []
    assert plant.until_serials(1) == {format(plant.certificate().serial_number, "x")}
    tls = plant.cluster.folder / "node-a" / "tls"
    assert not (tls / "joining").exists() or point == "agent.after_certificate_switch"


def test_coordinator_that_is_killed_after_it_signed_gives_the_same_certificate_when_it_is_back(
    plant: SecuredPlant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNYARD_FAILPOINT", "coordinator.after_join")
    coordinator = plant.start_coordinator()
    token = plant.token()
    agent = plant.agent("node-a", token)
    assert coordinator.exit_code() == -9
    monkeypatch.delenv("RUNYARD_FAILPOINT")
    plant.start_coordinator()
    agent.wait_for_event("ready")
    assert len(plant.until_serials(1)) == 1


def test_agent_waits_for_a_coordinator_that_is_not_there_yet(plant: SecuredPlant) -> None:
    coordinator = plant.start_coordinator()
    token = plant.token()
    coordinator.kill()
    agent = plant.agent("node-a", token)
    agent.wait_for_event("cannot_join_yet", times=2)
    plant.start_coordinator()
    agent.wait_for_event("ready")


def test_agent_that_waits_to_join_leaves_when_it_is_told_to(plant: SecuredPlant) -> None:
    coordinator = plant.start_coordinator()
    token = plant.token()
    coordinator.kill()
    agent = plant.agent("node-a", token)
    agent.wait_for_event("cannot_join_yet")
    assert agent.terminate(10) == 0


# Refused


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "there is no join token"),
        ("hello", "a join token begins with `ryj1.`"),
        ("ryj1.0.0.0", "the join token's last part is not a certificate"),
        ("\0\xff\n" * 5000, "one line of at most 16384 letters and digits"),
    ],
)
def test_file_without_a_token_ends_the_agent_with_the_reason(
    plant: SecuredPlant, content: str, said: str
) -> None:
    (plant.cluster.folder / "node-a.token").write_text(content)
    agent = plant.agent()
    assert agent.exit_code() == 1
    assert "join.token_file: " in agent.output()
    assert said in agent.output()
    assert "Traceback" not in agent.output()


def test_file_that_is_missing_ends_the_agent_with_the_remedy(plant: SecuredPlant) -> None:
    agent = plant.agent()
    assert agent.exit_code() == 1
    assert (
        "cannot be read (No such file or directory); put what `runyard token create` prints there"
        in agent.output()
    )


def test_token_that_is_used_up_ends_the_agent_with_the_reason(plant: SecuredPlant) -> None:
    coordinator = plant.start_coordinator()
    token = plant.token()
    plant.agent("node-a", token).wait_for_event("ready")
    thief = plant.agent("node-b", token)
    assert thief.exit_code() == 1
    assert "the join token is unknown, expired or used up" in thief.output()
    refused = coordinator.wait_for_event("join_refused")
    assert refused["reason"].startswith("the token is used up: ")
    assert refused["node"] == "node-b"
    assert not (plant.cluster.folder / "node-b" / "tls" / "current").exists()


def test_token_for_another_cluster_ends_the_agent_with_the_reason(plant: SecuredPlant) -> None:
    plant.start_coordinator()
    agent = plant.agent("node-a", plant.token(cluster="west"))
    assert agent.exit_code() == 1
    assert "the join token is for cluster 'west', and this agent's settings say 'east'" in agent.output()


def test_token_for_another_node_ends_the_agent_with_the_reason(plant: SecuredPlant) -> None:
    plant.start_coordinator()
    agent = plant.agent("node-a", plant.token("node-b"))
    assert agent.exit_code() == 1
    assert "the join token is for node_id 'node-b', and this agent's settings say 'node-a'" in agent.output()


def test_agent_does_not_join_a_coordinator_of_another_authority(plant: SecuredPlant) -> None:
    plant.start_coordinator()
    token = plant.token()
    with open_cluster() as other_cluster:
        other = SecuredPlant(other_cluster)
        other.start_coordinator()
        join = {"address": other.join_address, "token_file": str(plant.cluster.folder / "node-a.token")}
        agent = plant.agent("node-a", token, join=join)
        refused = agent.wait_for_event("cannot_join_yet")
        assert "CERTIFICATE_VERIFY_FAILED" in refused["reason"]
        assert not (plant.cluster.folder / "node-a" / "tls" / "current").exists()


def test_certificate_of_another_node_in_the_state_directory_is_not_used_silently(plant: SecuredPlant) -> None:
    plant.start_coordinator()
    plant.start_agent("node-a").kill()
    (plant.cluster.folder / "node-a").rename(plant.cluster.folder / "node-b")
    agent = plant.agent("node-b", "")
    assert agent.exit_code() == 1
    assert "the certificate is for spiffe://runyard/agent/east/node-a, and the settings say" in agent.output()


# Settings of the coordinator


def test_authority_of_another_trust_domain_is_refused_at_the_start(plant: SecuredPlant) -> None:
    with pytest.raises(AssertionError, match="trust_domain is 'elsewhere', but the authority in"):
        plant.start_coordinator(trust_domain="elsewhere")


def test_coordinator_whose_certificate_its_authority_did_not_sign_is_refused_at_the_start(
    plant: SecuredPlant,
) -> None:
    with open_cluster() as other_cluster:
        stranger = SecuredPlant(other_cluster)
        with pytest.raises(AssertionError, match="was not signed by the authority in"):
            plant.start_coordinator(ca_directory=str(stranger.authority.path))


def test_check_of_the_settings_looks_at_the_authority(plant: SecuredPlant) -> None:
    own = plant.authority.path / "coordinator"
    settings = plant.cluster.folder / "coordinator.yaml"
    settings.write_text(
        f"ca_directory: {plant.authority.path}\n"
        f"tls:\n  authority: {plant.authority.path}/authority.pem\n"
        f"  certificate: {own}/certificate.pem\n  key: {own}/key.pem\n"
    )
    check = [sys.executable, "-m", "runyard.coordinator", "--config", str(settings), "--check"]
    good = subprocess.run(check, capture_output=True, text=True, timeout=60, check=False)
    assert (good.returncode, good.stdout) == (0, "the settings are fine\n")
    plant.authority.path.chmod(0o755)
    bad = subprocess.run(check, capture_output=True, text=True, timeout=60, check=False)
    assert bad.returncode == 2
    assert f"ca_directory: others may read or change {plant.authority.path}" in bad.stderr


def test_directory_of_the_authority_that_others_may_read_is_refused_at_the_start(plant: SecuredPlant) -> None:
    plant.authority.path.chmod(0o750)
    with pytest.raises(AssertionError, match=f"run: chmod 700 {plant.authority.path}"):
        plant.start_coordinator()


def test_nodes_are_refused_with_a_calm_answer_while_the_authority_cannot_sign(plant: SecuredPlant) -> None:
    coordinator = plant.start_coordinator()
    token = plant.token()
    keys = plant.authority.path / "keys"
    keys.rename(plant.cluster.folder / "away")
    (plant.authority.path / "authority.pem").touch()
    agent = plant.agent("node-a", token)
    reason = agent.wait_for_event("cannot_join_yet")["reason"]
    assert "the coordinator cannot sign now; its log has the reason" in reason
    assert str(plant.cluster.folder) not in reason
    assert "cannot be read" in coordinator.wait_for_event("authority_unusable")["error"]
    (plant.cluster.folder / "away").rename(keys)
    agent.wait_for_event("ready")
