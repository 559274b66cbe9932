"""Which certificates are refused although they have not expired: kept on disk, looked up in memory."""

import math
from dataclasses import dataclass

from runyard.common.security.identity import Identity, Role


@dataclass(frozen=True)
class NodeRevocation:
    """Every certificate of the node that began before `at` is refused."""

    node_id: str
    at: float
    reason: str


@dataclass(frozen=True)
class CertificateRevocation:
    """The certificate with this serial number is refused."""

    serial: str
    at: float
    reason: str


class Revocations:
    """All revocations. Asked at every call, so it is a lookup in two dictionaries."""

    def __init__(self) -> None:
        self._nodes: dict[str, NodeRevocation] = {}
        self._serials: dict[str, CertificateRevocation] = {}

    def take(self, revocation: NodeRevocation | CertificateRevocation) -> None:
        """Has it count from now on."""
        match revocation:
            case NodeRevocation():
                self._nodes[revocation.node_id] = revocation
            case CertificateRevocation():
                self._serials[revocation.serial] = revocation

    def is_revoked(self, identity: Identity, serial: str, not_before: float) -> bool:
        """Whether a certificate is refused.

        Args:
            identity: Whom it names.
            serial: In lower-case hexadecimal digits.
            not_before: When it became valid, in seconds since 1970.
        """
        if serial in self._serials:
            return True
        node = self._nodes.get(identity.name) if identity.role is Role.AGENT else None
        return node is not None and not_before <= node.at

    def earliest_begin(self, node_id: str) -> float:
        """The earliest begin of a certificate that is not refused, in whole seconds since 1970."""
        node = self._nodes.get(node_id)
        return -math.inf if node is None else math.floor(node.at) + 1.0
