"""The doors of a coordinator: those that the settings ask for, and no other."""

import os
import stat
from collections.abc import Iterator

import psutil
import pytest
from harness.certificates import Authority, tls_settings
from harness.services import ProcessCluster, Service, open_cluster

from runyard.common.security.identity import Identity, Role
from runyard.coordinator.ca.authority_directory import AuthorityDirectory

DAY = 86_400.0


@pytest.fixture
def cluster() -> Iterator[ProcessCluster]:
    with open_cluster() as opened:
        yield opened


def doors(service: Service) -> set[str]:
    """Addresses and paths that a process listens on, with any protocol."""
    found = psutil.Process(service.process.pid).net_connections(kind="all")
    return {
        _written(each.laddr) for each in found if each.status == psutil.CONN_LISTEN or _is_socket_file(each)
    }


def _written(address: object) -> str:
    if not isinstance(address, tuple):
        return str(address)
    host = str(address[0]).removeprefix("::ffff:")  # as gRPC writes IPv4
    return f"{host}:{address[1]}"


def _is_socket_file(connection: object) -> bool:
    path = getattr(connection, "laddr", "")
    return isinstance(path, str) and path.startswith("/") and stat.S_ISSOCK(os.stat(path).st_mode)


def started(cluster: ProcessCluster, address: str, **settings: object) -> tuple[Service, str]:
    """A coordinator that serves, and the address that it got."""
    cluster.address = address
    service = cluster.coordinator(settings=settings)
    return service, str(service.wait_for_event("ready")["address"])


def test_without_settings_only_loopback_is_listened_on(cluster: ProcessCluster) -> None:
    service, address = started(cluster, "127.0.0.1:0")
    assert address.startswith("127.0.0.1:")
    assert doors(service) == {address}


def test_with_a_socket_there_is_no_port(cluster: ProcessCluster) -> None:
    service, address = started(cluster, f"unix:{cluster.folder / 'socket'}")
    assert doors(service) == {address.removeprefix("unix:")}


def test_with_certificates_there_is_one_port(cluster: ProcessCluster) -> None:
    tls = tls_settings(Authority().coordinator(cluster.folder / "tls"))
    service, address = started(cluster, "127.0.0.1:0", tls=tls)
    assert doors(service) == {address}


def test_nodes_join_at_a_port_of_its_own_where_the_settings_say_so(cluster: ProcessCluster) -> None:
    authority = AuthorityDirectory(cluster.folder / "ca")
    authority.init("runyard")
    own = authority.path / "coordinator"
    authority.issue(Identity(Role.COORDINATOR, "main"), ("127.0.0.1",), DAY, own)
    tls = {
        "authority": str(authority.path / "authority.pem"),
        "certificate": str(own / "certificate.pem"),
        "key": str(own / "key.pem"),
    }
    settings = {"tls": tls, "ca_directory": str(authority.path), "join_listen": "127.0.0.1:0"}
    service, address = started(cluster, "127.0.0.1:0", **settings)
    (joining,) = service.events("nodes_may_join")
    assert doors(service) == {address, joining["address"]}


def test_agent_listens_nowhere(cluster: ProcessCluster) -> None:
    started(cluster, f"unix:{cluster.folder / 'socket'}")
    agent = cluster.agent()
    agent.wait_for_event("ready")
    assert {door for door in doors(agent) if not door.startswith("/")} == set()
