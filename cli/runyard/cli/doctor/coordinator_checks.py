"""The checks of `runyard doctor`: the coordinator and its nodes. `doctor_dagster.py` has Dagster's side."""

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from runyard.cli.doctor.dagster_checks import examine_dagster
from runyard.cli.doctor.findings import Finding, Level, ok, problem, warning
from runyard.cli.doctor.tls_checks import examine_tls, speaks_tls
from runyard.cli.options import Settings
from runyard.client.client import Client
from runyard.client.errors import AccessDenied, InvalidTlsFiles, RunyardError
from runyard.client.health import Health
from runyard.common.transport.address import Address, parse_address
from runyard.common.transport.tls import TlsFiles
from runyard.v1 import fleet_pb2, run_pb2

_DEADLINE_SECONDS = 5.0


def examine(settings: Settings, dagster_home: Path | None) -> Iterator[Finding]:
    """Makes all checks that make sense, in the order in which to mend what they find.

    Args:
        settings: How to reach the coordinator.
        dagster_home: Directory of dagster.yaml. None: Dagster's side is not checked.
    """
    yield ok("runyard", f"version {version('runyard')}")
    yield from _examine_coordinator(settings)
    if dagster_home is not None:
        yield from examine_dagster(dagster_home, settings.address)


def _examine_coordinator(settings: Settings) -> Iterator[Finding]:
    try:
        client = Client(settings.address, tls=settings.tls, timeout=_DEADLINE_SECONDS)
    except InvalidTlsFiles as error:
        yield problem("certificates", str(error), "Mend what it names, and ask again")
        return
    except RunyardError as error:
        yield problem("address", str(error), "Give --address or set RUNYARD_ADDRESS")
        return
    with client:
        yield ok("address", client.address)
        shut = False
        for finding in _examine_door(parse_address(client.address), settings.tls):
            shut = shut or finding.level is Level.PROBLEM
            yield finding
        if not shut:
            yield from _ask_coordinator(client)


def _examine_door(address: Address, tls: TlsFiles | None) -> Iterator[Finding]:
    if tls is not None:
        yield from examine_tls(address, tls)
    elif speaks_tls(address):
        yield problem(
            "certificates",
            f"{address} speaks TLS, and no certificates were given for it",
            "Give --tls-authority, --tls-certificate and --tls-key, or set RUNYARD_TLS_AUTHORITY and so on",
        )


def _ask_coordinator(client: Client) -> Iterator[Finding]:
    try:
        yield _coordinator_health(client)
        yield from _examine_fleet(client)
    except AccessDenied as error:
        yield problem(
            "role",
            str(error),
            "Use a certificate whose role may look: a client's, an operator's or an admin's",
        )
    except RunyardError as error:
        yield problem(
            "coordinator", str(error), f"Start it with: runyard coordinator --listen {client.address}"
        )


def _coordinator_health(client: Client) -> Finding:
    health = client.check_health()
    if health is Health.SERVING:
        return ok("coordinator", f"serving at {client.address}")
    return problem(
        "coordinator",
        f"answers at {client.address}, but says {health.name}",
        "It may be starting or stopping: look at its log",
    )


def _examine_fleet(client: Client) -> Iterator[Finding]:
    nodes = client.list_nodes()
    ready = [node for node in nodes if node.state == fleet_pb2.NODE_STATE_READY]
    if not nodes:
        yield problem(
            "nodes",
            "none has ever joined: every run will wait",
            f"Start one with: runyard agent --coordinator {client.address}",
        )
        return
    for cluster in client.list_clusters():
        yield _cluster_state(cluster)
    for node in nodes:
        if node not in ready:
            yield warning(
                f"node {node.node_id}",
                "is silent; its runs are not presumed dead, but nothing new is placed there",
                "Look at its agent, and at the network between it and the coordinator",
            )
    yield from _version_skew(ready)
    waiting = list(client.list_runs(phases=[run_pb2.PHASE_QUEUED], limit=1000))
    if waiting:
        yield warning(
            "queue",
            f"{len(waiting)} runs wait for a node",
            "`runyard run list --phase queued` says why, and `runyard run explain RUN` says more",
        )


def _cluster_state(cluster: fleet_pb2.Cluster) -> Finding:
    subject = f"cluster {cluster.name}"
    slots = cluster.resources.get("slots", 0)
    free = max(0, slots - cluster.allocated.get("slots", 0))
    text = f"{cluster.nodes_ready} of {cluster.nodes} nodes ready, {free} of {slots} slots free"
    if cluster.nodes_ready == 0:
        return problem(subject, text, "Start an agent there: runs for this cluster wait")
    if free == 0:
        return warning(subject, text, "Further runs wait; add nodes, or raise an agent's --slots")
    return ok(subject, text)


def _version_skew(nodes: list[fleet_pb2.Node]) -> Iterator[Finding]:
    ours = version("runyard")
    others = {node.node_id: node.facts.agent_version for node in nodes}
    differing = sorted(f"{node} has {theirs}" for node, theirs in others.items() if theirs not in ("", ours))
    if differing:
        yield warning(
            "versions",
            f"agents differ from this command's {ours}: {', '.join(differing)}",
            "Upgrade the coordinator first, then the agents; their workers go on meanwhile",
        )
