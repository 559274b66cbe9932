"""Whether a caller is who the certificate says, and still may speak at all."""

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
    """Knows which certificates were revoked."""

    def is_revoked(self, identity: Identity, serial: str, not_before: float) -> bool:
        """Whether a certificate is refused although it has not expired."""


class NoneRevoked:
    """Where nothing can be revoked."""

    def is_revoked(self, identity: Identity, serial: str, not_before: float) -> bool:
        """Never."""
        return False


class Admission:
    """Looks at callers, at the start of each call and again at each message of a long one."""

    def __init__(
        self, trust_domain: str, revoked: Revoked | None = None, wall: Callable[[], float] = time.time
    ) -> None:
        """Takes what it decides by.

        Args:
            trust_domain: The one that certificates must be of.
            revoked: Knows the revoked ones.
            wall: Gives the time in seconds since 1970.
        """
        self._trust_domain = trust_domain
        self._revoked = revoked or NoneRevoked()
        self._wall = wall
        self._expiring = ExpiringCertificates()

    def admit(self, context: grpc.aio.ServicerContext[Any, Any]) -> Caller:
        """Who calls.

        Raises:
            NotIdentified: It cannot be told, or the caller may not speak (any more).
        """
        caller = caller_of(context)
        self.require(caller)
        if self._expiring.is_to_be_told(caller, now := self._wall()):
            log.warning(
                "certificate_expires_soon",
                identity=str(caller.identity),
                serial=caller.serial,
                peer=caller.peer,
                hours_left=round((caller.not_after - now) / 3600, 1),
                remedy="have it issued anew (`runyard ca issue`), and put the files in place of the old ones",
            )
        return caller

    def require(self, caller: Caller) -> None:
        """Raises `NotIdentified` if the caller may not speak (any more)."""
        if caller.role is Role.LOCAL:
            return
        identity = caller.identity
        if identity.trust_domain != self._trust_domain:
            raise NotIdentified(
                f"{identity} is of the trust domain {identity.trust_domain!r}, not {self._trust_domain!r}"
            )
        if self._wall() >= caller.not_after:
            raise NotIdentified(f"the certificate of {identity} has expired; renew it")
        if self._revoked.is_revoked(identity, caller.serial, caller.not_before):
            raise NotIdentified(f"the certificate of {identity} was revoked")
