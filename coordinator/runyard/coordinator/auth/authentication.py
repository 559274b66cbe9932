"""Authentication of the caller of a connection."""

import time
from collections.abc import Callable
from typing import Any, Protocol

import grpc
import structlog

from runyard.common.security.identity import Identity, Role
from runyard.coordinator.auth.callers import Caller, NotIdentified, caller_of
from runyard.coordinator.auth.expiring_certificates import ExpiringCertificates

log = structlog.get_logger("runyard.coordinator.auth")


class Revoked(Protocol):
    """Lookup of revoked certificates."""

    def is_revoked(self, identity: Identity, serial: str, not_before: float) -> bool:
        """True if a certificate is refused although it has not expired."""


class NoneRevoked:
    """Lookup for deployments that revoke nothing."""

    def is_revoked(self, identity: Identity, serial: str, not_before: float) -> bool:
        """Return False."""
        return False


class Authenticator:
    """Authenticates callers at the start of each call, and again at each message of a long one."""

    def __init__(
        self, trust_domain: str, revoked: Revoked | None = None, wall: Callable[[], float] = time.time
    ) -> None:
        """Initialize.

        Args:
            trust_domain: Trust domain that all certificates must belong to.
            revoked: Lookup of revoked certificates; by default none is revoked.
            wall: Returns the time in seconds since 1970.
        """
        self._trust_domain = trust_domain
        self._revoked = revoked or NoneRevoked()
        self._wall = wall
        self._expiring = ExpiringCertificates()

    def authenticate(self, context: grpc.aio.ServicerContext[Any, Any]) -> Caller:
        """Return the caller of a new call.

        Raises:
            NotIdentified: The caller has no identity, or its certificate is not valid (any more).
        """
        caller = caller_of(context)
        self.require_valid(caller)
        if self._expiring.is_due(caller, now := self._wall()):
            log.warning(
                "certificate_expires_soon",
                identity=str(caller.identity),
                serial=caller.serial,
                peer=caller.peer,
                hours_left=round((caller.not_after - now) / 3600, 1),
                remedy="issue it again (`runyard ca issue`), and replace the old files with the new ones",
            )
        return caller

    def require_valid(self, caller: Caller) -> None:
        """Raise `NotIdentified` if the caller's certificate is not valid (any more)."""
        if caller.role is Role.LOCAL:
            return
        identity = caller.identity
        if identity.trust_domain != self._trust_domain:
            raise NotIdentified(
                f"{identity} belongs to trust domain {identity.trust_domain!r}, not {self._trust_domain!r}"
            )
        if self._wall() >= caller.not_after:
            raise NotIdentified(f"the certificate of {identity} has expired; renew it")
        if self._revoked.is_revoked(identity, caller.serial, caller.not_before):
            raise NotIdentified(f"the certificate of {identity} was revoked")
