"""Identities: role and name of a certificate's holder, as a URI in the certificate."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from runyard.common.names import NAME

DEFAULT_TRUST_DOMAIN: Final = "runyard"

# SPIFFE-ID.md, section 2.1: lower-case letters, digits, dots, dashes and underscores, 255 bytes at most.
TRUST_DOMAIN: Final = re.compile(r"[a-z0-9._-]{1,255}")

_SCHEME: Final = "spiffe://"


class Role(StrEnum):
    """Role of a party, which decides its permissions."""

    COORDINATOR = "coordinator"
    AGENT = "agent"
    CLIENT = "client"
    """Launches runs: Dagster's daemon and web server."""
    OPERATOR = "operator"
    """Inspects runs and nodes, and takes nodes out of service."""
    ADMIN = "admin"
    """Has the permissions of operators, and issues and revokes identities."""
    LOCAL = "local"
    """Connected over a unix socket or plain-text loopback, which gives every permission."""


class InvalidIdentity(ValueError):
    """The text is not an identity; the message says why."""


@dataclass(frozen=True)
class Identity:
    """Role and name of a party. Its URI is a SPIFFE ID, so that other authorities can issue it too.

    Attributes:
        role: The role.
        name: Name of the coordinator, client, operator or admin; for an agent its node ID.
        cluster: Cluster of an agent; empty for other roles.
        trust_domain: Name of the fleet that shares one authority.

    Raises:
        InvalidIdentity: A name is not valid, or the cluster does not fit the role.
    """

    role: Role
    name: str
    cluster: str = ""
    trust_domain: str = DEFAULT_TRUST_DOMAIN

    def __post_init__(self) -> None:
        _check_name("name", self.name)
        if self.role is Role.AGENT:
            _check_name("cluster", self.cluster)
        elif self.cluster:
            raise InvalidIdentity(f"a {self.role} belongs to no cluster, but {self.cluster!r} is named")
        if not TRUST_DOMAIN.fullmatch(self.trust_domain):
            raise InvalidIdentity(
                f"trust domain {self.trust_domain!r} must be lower-case letters, digits and ._-"
            )

    @property
    def uri(self) -> str:
        """Its URI in a certificate: `spiffe://<trust domain>/<role>/[<cluster>/]<name>`."""
        place = f"{self.cluster}/" if self.cluster else ""
        return f"{_SCHEME}{self.trust_domain}/{self.role}/{place}{self.name}"

    def __str__(self) -> str:
        return "local" if self.role is Role.LOCAL else self.uri


def parse_identity(uri: str, trust_domain: str | None = None) -> Identity:
    """Parse an identity.

    Args:
        uri: As `Identity.uri` writes it.
        trust_domain: Required trust domain. None: any; the caller must check it.

    Raises:
        InvalidIdentity: The text is not an identity, or is of another trust domain.
    """
    if not uri.startswith(_SCHEME):
        raise InvalidIdentity(f"{uri!r} does not begin with {_SCHEME}")
    domain, *path = uri.removeprefix(_SCHEME).split("/")
    if trust_domain is not None and domain != trust_domain:
        raise InvalidIdentity(f"{uri} is of the trust domain {domain!r}, not {trust_domain!r}")
    match path:
        case [Role.AGENT, cluster, node]:
            return Identity(Role.AGENT, node, cluster, domain)
        case [Role.COORDINATOR | Role.CLIENT | Role.OPERATOR | Role.ADMIN as role, name]:
            return Identity(Role(role), name, "", domain)
        case _:
            raise InvalidIdentity(
                f"{uri} names no role: write agent/CLUSTER/NODE, or client/NAME, operator/NAME, "
                "admin/NAME or coordinator/NAME"
            )


def _check_name(what: str, name: str) -> None:
    if not NAME.fullmatch(name):
        raise InvalidIdentity(f"{what} {name!r} must be letters, digits and ._-, 128 at most")


LOCAL: Final = Identity(Role.LOCAL, "local")
"""Identity of any caller without a certificate, which must be on this machine."""
