"""Roles that may call each method. A method that is not in the table is denied to every role."""

from collections.abc import Mapping
from typing import Final

from runyard.common.security.identity import Role

ANYONE: Final = frozenset(Role) - {Role.COORDINATOR}
AGENTS: Final = frozenset({Role.AGENT, Role.LOCAL})
CLIENTS: Final = frozenset({Role.CLIENT, Role.LOCAL})
ADMINS: Final = frozenset({Role.ADMIN, Role.LOCAL})
OPERATORS: Final = ADMINS | {Role.OPERATOR}
CLIENTS_AND_OPERATORS: Final = CLIENTS | OPERATORS
NOBODY: Final[frozenset[Role]] = frozenset()

_LAUNCH: Final = "/runyard.v1.LaunchService/"
_FLEET: Final = "/runyard.v1.FleetService/"
_AGENT: Final = "/runyard.v1.AgentService/"
_SECURITY: Final = "/runyard.v1.SecurityService/"
_HEALTH: Final = "/grpc.health.v1.Health/"

ACCESS: Final[Mapping[str, frozenset[Role]]] = {
    f"{_LAUNCH}LaunchRun": CLIENTS,
    f"{_LAUNCH}StoreSnapshot": CLIENTS,
    f"{_LAUNCH}TerminateRun": CLIENTS_AND_OPERATORS,
    f"{_LAUNCH}GetRun": CLIENTS_AND_OPERATORS,
    f"{_LAUNCH}ExplainRun": CLIENTS_AND_OPERATORS,
    f"{_LAUNCH}ExplainLaunch": CLIENTS_AND_OPERATORS,
    f"{_LAUNCH}ListRuns": CLIENTS_AND_OPERATORS,
    f"{_LAUNCH}WatchRuns": CLIENTS_AND_OPERATORS,
    f"{_LAUNCH}ReadLogs": CLIENTS_AND_OPERATORS,
    f"{_LAUNCH}FollowReports": CLIENTS,
    f"{_FLEET}ListNodes": CLIENTS_AND_OPERATORS,
    f"{_FLEET}GetNode": CLIENTS_AND_OPERATORS,
    f"{_FLEET}ListClusters": CLIENTS_AND_OPERATORS,
    f"{_FLEET}CordonNode": OPERATORS,
    f"{_FLEET}UncordonNode": OPERATORS,
    f"{_FLEET}DrainNode": OPERATORS,
    f"{_FLEET}FenceNode": OPERATORS,
    f"{_FLEET}RefreshWarmServers": OPERATORS,
    f"{_AGENT}Session": AGENTS,
    f"{_AGENT}PushLogs": AGENTS,
    f"{_SECURITY}RenewCertificate": AGENTS,
    f"{_SECURITY}CreateToken": ADMINS,
    f"{_SECURITY}ListTokens": ADMINS,
    f"{_SECURITY}DeleteToken": ADMINS,
    f"{_SECURITY}RevokeNode": ADMINS,
    f"{_SECURITY}RevokeCertificate": ADMINS,
    f"{_SECURITY}ListCertificates": ADMINS,
    # Served on a separate address, where callers have no certificate yet and the join token decides.
    "/runyard.v1.JoinService/Join": NOBODY,
    f"{_HEALTH}Check": ANYONE,
    f"{_HEALTH}Watch": ANYONE,
    f"{_HEALTH}List": ANYONE,  # reveals no more than Check of each service; newer releases of gRPC have it
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": OPERATORS,
}
"""Roles by full method name. Local callers (unix socket, or plain text on loopback) may call every method."""


def may_call(role: Role, method: str) -> bool:
    """True if a role may call a method. The method is its full name with both slashes."""
    return role in ACCESS.get(method, NOBODY)
