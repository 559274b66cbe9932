"""Takes certificates back: refused from now on, over restarts too, and their node's session is closed."""

import contextlib
import re
import time
from collections.abc import Callable
from typing import Final

import structlog

from runyard.common.names import NAME
from runyard.common.security.identity import parse_identity
from runyard.coordinator.auth.revocations import CertificateRevocation, NodeRevocation, Revocations
from runyard.coordinator.core.errors import InvalidField
from runyard.coordinator.core.events.on_operator import on_expulsion
from runyard.coordinator.runtime.runtime import Runtime
from runyard.coordinator.store.credentials import (
    NodeCertificate,
    all_revocations,
    put_revocation,
    unexpired_certificates,
)
from runyard.coordinator.store.store import Store, StoreFull

# RFC 5280, 4.1.2.2: twenty bytes at most.
_SERIAL: Final = re.compile(r"[0-9a-f]{1,40}")

LONGEST_REASON: Final = 500
"""Characters."""

log = structlog.get_logger("runyard.coordinator.auth")


def load_revocations(store: Store) -> Revocations:
    """All that was ever revoked."""
    revocations = Revocations()
    with store.transaction() as connection:
        for revocation in all_revocations(connection):
            revocations.take(revocation)
    return revocations


class Expulsion:
    """Takes certificates back, on the word of an admin."""

    def __init__(
        self, runtime: Runtime, revocations: Revocations, wall: Callable[[], float] = time.time
    ) -> None:
        """Takes what it needs.

        Args:
            runtime: Whose store the revocations are kept in, and who has the sessions.
            revocations: What counts; changed in the thread that owns the store.
            wall: Gives the time in seconds since 1970.
        """
        self._runtime = runtime
        self._revocations = revocations
        self._wall = wall

    async def of_node(self, node_id: str, reason: str) -> int:
        """Refuses every certificate that the node has, and closes its session.

        Args:
            node_id: The node, whether it is known here or not.
            reason: For people.

        Returns:
            How many certificates that were given out here and have not expired are refused by this.

        Raises:
            InvalidField: The name cannot be a node's.
            StoreFull: The disk is full, and nothing was revoked.
        """
        if not NAME.fullmatch(node_id):
            raise InvalidField("node_id", f"{node_id[:128]!r} is no name of a node")
        refused = await self._revoke_node(node_id, reason)
        log.warning("node_revoked", node=node_id, reason=reason[:LONGEST_REASON], certificates=refused)
        await self._close_session(node_id, reason)
        return refused

    async def of_certificate(self, serial: str, reason: str) -> None:
        """Refuses one certificate; if it is a node's, its session is closed.

        Args:
            serial: Hexadecimal, with or without colons.
            reason: For people.

        Raises:
            InvalidField: It is no serial number.
            StoreFull: The disk is full, and nothing was revoked.
        """
        digits = serial.lower().replace(":", "").lstrip("0")
        if not _SERIAL.fullmatch(digits):
            raise InvalidField("serial", f"{serial[:80]!r} is no serial number: write hexadecimal digits")

        def revoke() -> list[str]:
            revocation = CertificateRevocation(digits, self._wall(), reason[:LONGEST_REASON])
            with self._runtime.store.transaction() as connection:
                put_revocation(connection, revocation)
                held = unexpired_certificates(connection, self._wall())
            self._revocations.take(revocation)
            return [each.node_id for each in held if each.serial == digits]

        nodes = await self._runtime.in_writer(revoke)
        log.warning("certificate_revoked", serial=digits, reason=reason[:LONGEST_REASON])
        for node_id in nodes:
            await self._close_session(node_id, reason)

    async def certificates(self, node_id: str) -> list[tuple[NodeCertificate, bool]]:
        """The unexpired certificates of a node, or of all, each with whether it is refused; newest first."""

        def look() -> list[NodeCertificate]:
            with self._runtime.store.transaction() as connection:
                return unexpired_certificates(connection, self._wall(), node_id)

        return [(each, self._is_revoked(each)) for each in await self._runtime.in_writer(look)]

    async def _revoke_node(self, node_id: str, reason: str) -> int:
        def revoke() -> int:
            now = self._wall()
            revocation = NodeRevocation(node_id, now, reason[:LONGEST_REASON])
            with self._runtime.store.transaction() as connection:
                held = unexpired_certificates(connection, now, node_id)
                before = [each for each in held if not self._is_revoked(each)]
                put_revocation(connection, revocation)
            self._revocations.take(revocation)
            return len(before)

        return await self._runtime.in_writer(revoke)

    async def _close_session(self, node_id: str, reason: str) -> None:
        why = (
            f"its certificate was revoked: {reason[:LONGEST_REASON]}"
            if reason
            else "its certificate was revoked"
        )
        with contextlib.suppress(StoreFull):  # ending a session needs no disk
            await self._runtime.decide(lambda fleet, _: on_expulsion(fleet, node_id, why))

    def _is_revoked(self, held: NodeCertificate) -> bool:
        return self._revocations.is_revoked(parse_identity(held.uri), held.serial, held.not_before)
