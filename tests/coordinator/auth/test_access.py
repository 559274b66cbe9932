"""The access table: every method has a rule, and every rule is in force on a real server."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from coordinator.auth.secured import ENDLESS, code_of, secured
from coordinator.serving import SOON
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from harness.certificates import ADMIN, CLIENT, COORDINATOR, OPERATOR, agent

from runyard.common.security.identity import Identity, Role
from runyard.coordinator.auth.access_table import ACCESS, may_call
from runyard.v1 import agent_pb2, fleet_pb2, launch_pb2, security_pb2

FILES = (agent_pb2, fleet_pb2, launch_pb2, security_pb2, health_pb2, reflection_pb2)

CLIENT_ONLY = {"LaunchRun", "StoreSnapshot", "FollowReports"}
LOOKING = {
    *("TerminateRun", "GetRun", "ExplainRun", "ExplainLaunch", "ListRuns", "WatchRuns", "ReadLogs"),
    *("ListNodes", "GetNode", "ListClusters"),
}
OPERATING = {"CordonNode", "UncordonNode", "DrainNode", "FenceNode", "RefreshWarmServers"}
REFLECTION = {"ServerReflectionInfo"}
ADMINISTRATION = {
    *("CreateToken", "ListTokens", "DeleteToken", "RevokeNode", "RevokeCertificate", "ListCertificates"),
}
HEALTH = {"Check", "Watch", "List"}
AGENTS = {"Session", "PushLogs", "RenewCertificate"}

MAY = {
    Role.CLIENT: CLIENT_ONLY | LOOKING | HEALTH,
    Role.OPERATOR: LOOKING | OPERATING | REFLECTION | HEALTH,
    Role.ADMIN: LOOKING | OPERATING | REFLECTION | ADMINISTRATION | HEALTH,
    Role.AGENT: AGENTS | HEALTH,
    Role.COORDINATOR: set[str](),
    Role.LOCAL: CLIENT_ONLY | LOOKING | OPERATING | REFLECTION | ADMINISTRATION | AGENTS | HEALTH,
}
"""Methods by role, written independently of the table."""

DENIED = (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)


def methods(file: FileDescriptor) -> Iterator[str]:
    for service in file.services_by_name.values():
        for method in service.methods:
            yield f"/{service.full_name}/{method.name}"


NEWER = "/grpc.health.v1.Health/List"
"""Not known to each release of gRPC that Runyard takes; has a rule all the same."""

ALL = sorted({NEWER, *(method for file in FILES for method in methods(file.DESCRIPTOR))})


def test_every_method_has_a_rule_and_every_rule_a_method() -> None:
    assert sorted(ACCESS) == ALL


@pytest.mark.parametrize("role", Role)
def test_roles_may_call_what_they_are_for_and_nothing_else(role: Role) -> None:
    assert {method.rpartition("/")[2] for method in ALL if may_call(role, method)} == MAY[role]


@pytest.mark.parametrize("role", Role)
def test_method_that_is_not_in_the_table_is_denied_to_every_role(role: Role) -> None:
    assert not may_call(role, "/runyard.v1.LaunchService/Conjure")


@pytest.mark.parametrize("identity", [CLIENT, OPERATOR, ADMIN, agent("n1")], ids=str)
async def test_the_server_goes_by_the_table(tmp_path: Path, identity: Identity) -> None:
    async with secured(tmp_path) as coordinator:
        channel = coordinator.as_(identity).channel
        for method in ALL:
            if "JoinService" in method:
                continue  # not served here
            allowed = may_call(identity.role, method)
            code = await code_of(channel, method, ENDLESS if allowed else SOON)
            assert (code in DENIED) != allowed, f"{method}: {code}"


async def test_methods_that_are_not_served_are_unimplemented_for_every_role(tmp_path: Path) -> None:
    async with secured(tmp_path) as coordinator:
        for identity in (CLIENT, ADMIN):
            code = await code_of(coordinator.as_(identity).channel, "/runyard.v1.JoinService/Join")
            assert code == grpc.StatusCode.UNIMPLEMENTED


def test_the_coordinators_own_certificate_opens_no_door() -> None:
    assert not any(may_call(COORDINATOR.role, method) for method in ALL)
