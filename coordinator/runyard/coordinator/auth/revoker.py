"""Revocation of certificates. They stay revoked after a restart; the session of the node is closed."""

import contextlib
import re
import time
from collections.abc import Callable
from typing import Final

import structlog

from runyard.common.names import NAME
from runyard.common.security.identity import parse_identity
from runyard.coordinator.auth.revocations import Revocations
from runyard.coordinator.core.errors import InvalidField
from runyard.coordinator.core.events.on_operator import on_revocation
from runyard.coordinator.runtime.runtime import Runtime
from runyard.coordinator.store.ca_records import (
    CertificateRevocation,
    NodeCertificate,
    NodeRevocation,
    read_revocations,
    unexpired_certificates,
    upsert_revocation,
)
from runyard.coordinator.store.store import Store, StoreFull

# RFC 5280, 4.1.2.2: twenty bytes at most.
_SERIAL: Final = re.compile(r"[0-9a-f]{1,40}")

LONGEST_REASON: Final = 500
"""Characters."""

log = structlog.get_logger("runyard.coordinator.auth")


def load_revocations(store: Store) -> Revocations:
    """Return all revocations of the store."""
    revocations = Revocations()
    with store.transaction() as connection:
        for revocation in read_revocations(connection):
            revocations.add(revocation)
    return revocations


class Revoker:
    """Commands of admins that revoke certificates."""

    def __init__(
        self, runtime: Runtime, revocations: Revocations, wall: Callable[[], float] = time.time
    ) -> None:
        """Initialize.

        Args:
            runtime: Owner of the store and of the sessions.
            revocations: Revocations in memory; changed in the thread that owns the store.
            wall: Returns the time in seconds since 1970.
        """
        self._runtime = runtime
        self._revocations = revocations
        self._wall = wall

    async def revoke_node(self, node_id: str, reason: str) -> int:
        """Revoke every certificate of a node, and close its session.

        Args:
            node_id: The node; this coordinator need not know it.
            reason: Text for people.

        Returns:
            Number of unexpired certificates, issued by this coordinator, that this call revoked.

        Raises:
            InvalidField: `node_id` is not a valid name.
            StoreFull: The disk is full; nothing was revoked.
        """
        if not NAME.fullmatch(node_id):
            raise InvalidField("node_id", f"{node_id[:128]!r} is not a valid node ID")
        refused = await self._revoke_node(node_id, reason)
        log.warning("node_revoked", node=node_id, reason=reason[:LONGEST_REASON], certificates=refused)
        await self._close_session(node_id, reason)
        return refused

    async def revoke_certificate(self, serial: str, reason: str) -> None:
        """Revoke one certificate; if a node holds it, close the session of that node.

        Args:
            serial: Hexadecimal, with or without colons.
            reason: Text for people.

        Raises:
            InvalidField: `serial` is not a serial number.
            StoreFull: The disk is full; nothing was revoked.
        """
        digits = serial.lower().replace(":", "").lstrip("0")
        if not _SERIAL.fullmatch(digits):
            raise InvalidField("serial", f"{serial[:80]!r} is not a serial number; give hexadecimal digits")

        def revoke() -> list[str]:
            revocation = CertificateRevocation(digits, self._wall(), reason[:LONGEST_REASON])
            with self._runtime.store.transaction() as connection:
                upsert_revocation(connection, revocation)
                held = unexpired_certificates(connection, self._wall())
            self._revocations.add(revocation)
            return [each.node_id for each in held if each.serial == digits]

        nodes = await self._runtime.in_writer(revoke)
        log.warning("certificate_revoked", serial=digits, reason=reason[:LONGEST_REASON])
        for node_id in nodes:
            await self._close_session(node_id, reason)

    async def certificates(self, node_id: str) -> list[tuple[NodeCertificate, bool]]:
        """Return the unexpired certificates of a node (empty: of all nodes), newest first.

        Each comes with True if it is revoked.
        """

        def read() -> list[NodeCertificate]:
            with self._runtime.store.transaction() as connection:
                return unexpired_certificates(connection, self._wall(), node_id)

        return [(each, self._is_revoked(each)) for each in await self._runtime.in_writer(read)]

    async def _revoke_node(self, node_id: str, reason: str) -> int:
        def revoke() -> int:
            now = self._wall()
            revocation = NodeRevocation(node_id, now, reason[:LONGEST_REASON])
            with self._runtime.store.transaction() as connection:
                held = unexpired_certificates(connection, now, node_id)
                before = [each for each in held if not self._is_revoked(each)]
                upsert_revocation(connection, revocation)
            self._revocations.add(revocation)
            return len(before)

        return await self._runtime.in_writer(revoke)

    async def _close_session(self, node_id: str, reason: str) -> None:
        message = (
            f"its certificate was revoked: {reason[:LONGEST_REASON]}"
            if reason
            else "its certificate was revoked"
        )
        with contextlib.suppress(StoreFull):  # ending a session needs no disk
            await self._runtime.decide(lambda fleet, _: on_revocation(fleet, node_id, message))

    def _is_revoked(self, held: NodeCertificate) -> bool:
        return self._revocations.is_revoked(parse_identity(held.uri), held.serial, held.not_before)
