"""Revoked certificates, in memory for a lookup at every call. The store keeps them too."""

import math

from runyard.common.security.identity import Identity, Role
from runyard.coordinator.store.ca_records import CertificateRevocation, NodeRevocation


class Revocations:
    """All revocations. Each call looks up two dictionaries."""

    def __init__(self) -> None:
        self._nodes: dict[str, NodeRevocation] = {}
        self._serials: dict[str, CertificateRevocation] = {}

    def add(self, revocation: NodeRevocation | CertificateRevocation) -> None:
        """Apply a revocation from now on."""
        match revocation:
            case NodeRevocation():
                self._nodes[revocation.node_id] = revocation
            case CertificateRevocation():
                self._serials[revocation.serial] = revocation

    def is_revoked(self, identity: Identity, serial: str, not_before: float) -> bool:
        """True if a certificate is revoked.

        Args:
            identity: Identity in the certificate.
            serial: Serial number in lower-case hexadecimal digits.
            not_before: Start of its validity, in seconds since 1970.
        """
        if serial in self._serials:
            return True
        node = self._nodes.get(identity.name) if identity.role is Role.AGENT else None
        return node is not None and not_before <= node.at

    def earliest_begin(self, node_id: str) -> float:
        """Return the earliest start of validity that is not revoked, in whole seconds since 1970."""
        node = self._nodes.get(node_id)
        return -math.inf if node is None else math.floor(node.at) + 1.0
