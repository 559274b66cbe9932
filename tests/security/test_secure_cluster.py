"""All together on a network: joined by token, launched by Dagster, with certificates that hold for seconds.

    RUNYARD_TEST_LIFETIME=60 pytest tests/security/test_secure_cluster.py

makes them hold for a minute each, and takes seven.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import dagster as dg
import end_to_end
import pytest
from chaos.network import networked, why_no_network
from harness.dagster_site import DagsterSite
from harness.folders import remove
from harness.waiting import wait_until
from security.secure_cluster import (
    LONG,
    NODES,
    OUTSIDE,
    PORTS,
    Load,
    SecureCluster,
    open_secure_cluster,
    ports,
)

from runyard.client import Client

LIFETIME: Final = float(os.environ.get("RUNYARD_TEST_LIFETIME", "10"))
"""Of all certificates, in seconds."""

ROTATIONS: Final = 5
PROJECT: Final = Path(next(iter(end_to_end.__path__))) / "project" / "proving_ground.py"
NO_NETWORK: Final = why_no_network()

pytestmark = [
    pytest.mark.skipif(bool(NO_NETWORK), reason=NO_NETWORK),
    pytest.mark.timeout(300 + 10 * LIFETIME),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[SecureCluster]:
    folder = Path(tempfile.mkdtemp(prefix="ry-"))
    with networked() as network, open_secure_cluster(folder, network, LIFETIME) as made:
        yield made
    remove(folder)


@pytest.fixture(scope="module")
def site(cluster: SecureCluster) -> Iterator[DagsterSite]:
    ground = cluster.folder / "ground"
    ground.mkdir()
    shutil.copy(PROJECT, ground)
    with cluster.site(ground, PROJECT.stem) as made:
        yield made


@pytest.fixture
def client(cluster: SecureCluster) -> Iterator[Client]:
    with cluster.client() as made:
        yield made


def submit(site: DagsterSite, job: str, node: str) -> str:
    return site.submit(site.create_run(job, tags={"runyard/node": node}))


def wait_for(site: DagsterSite, run_id: str, status: dg.DagsterRunStatus) -> None:
    def describe() -> str:
        events = "\n".join(entry.message for entry in site.instance.all_logs(run_id))
        return f"{site.status(run_id)}\n{events}"

    wait_until(lambda: site.status(run_id) == status, describe, timeout=LONG)


def test_certificates_rotate_under_load_and_no_run_is_disturbed(
    cluster: SecureCluster, site: DagsterSite, client: Client
) -> None:
    load = Load(cluster, client)
    given: dict[str, set[str]] = {node: set() for node in NODES}

    def have_rotated() -> bool:
        for node, serials in given.items():
            serials.update(each["serial"] for each in cluster.certificates(node))
        return all(len(serials) > ROTATIONS for serials in given.values())

    with cluster.reissuing():
        waiting = submit(site, "wait", NODES[0])
        wait_for(site, waiting, dg.DagsterRunStatus.STARTED)
        for node in NODES:
            load.launch((ROTATIONS + 1) * LIFETIME, node)
        with load.flowing(per_second=2.0):
            wait_until(have_rotated, lambda: given, timeout=ROTATIONS * LIFETIME + LONG, poll=LIFETIME / 10)
            (cluster.folder / "ground" / f"release-{waiting}").touch()
            wait_for(site, waiting, dg.DagsterRunStatus.SUCCESS)
            quick = [submit(site, "succeed", node) for node in NODES[1:]]
            for run_id in quick:
                wait_for(site, run_id, dg.DagsterRunStatus.SUCCESS)
        load.assert_undisturbed()
    for trouble in ("session_ended", "call_refused", "certificate_expires_soon"):
        assert cluster.events(trouble) == []
    assert "Handshake failed" not in cluster.coordinator.output()
    launched_by = {run.launched_by for run in client.list_runs()}
    assert launched_by == {"spiffe://runyard/client/dagster"}


def test_nothing_listens_but_what_the_settings_ask_for(cluster: SecureCluster, site: DagsterSite) -> None:
    assert ports(cluster.listeners("hub")) == PORTS
    for name in (*NODES, "dagster", "ops", OUTSIDE):
        assert cluster.listeners(name) == set()


def test_who_has_no_certificate_gets_nowhere_and_is_logged(cluster: SecureCluster) -> None:
    address = cluster.wires[OUTSIDE].address
    authority = str(cluster.ca / "authority.pem")
    line = [*cluster.inside(OUTSIDE), sys.executable, "-m", "runyard.cli.main", "--address", address]
    done = subprocess.run(
        [*line, "--tls-authority", authority, "run", "list"], capture_output=True, text=True, timeout=LONG
    )
    assert done.returncode != 0
    wait_until(
        lambda: "PEER_DID_NOT_RETURN_A_CERTIFICATE" in cluster.coordinator.output(),
        lambda: f"{done.stderr}\n{cluster.coordinator.tail()}",
    )
    plain = subprocess.run([*line, "run", "list"], capture_output=True, text=True, timeout=LONG)
    assert plain.returncode != 0
    assert "runyard ca init" in plain.stderr + plain.stdout


def test_a_revoked_node_is_cut_off_at_once_and_its_run_goes_on(
    cluster: SecureCluster, client: Client
) -> None:
    node = NODES[2]
    load = Load(cluster, client)
    run_id = load.launch(5.0, node)
    wait_until(lambda: load.ledger.life(run_id).starts, "the run is not started")
    cluster.command("node", "revoke", node)
    refused = wait_until(
        lambda: [each for each in cluster.events("call_refused", cluster.coordinator) if node in str(each)],
        cluster.coordinator.tail,
    )
    assert "revoked" in str(refused[-1])
    wait_until(lambda: load.ledger.life(run_id).succeeded, "the worker was stopped")
