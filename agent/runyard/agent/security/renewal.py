"""Keeps the node's certificate valid: another one, for a new key, long before the old one expires."""

import asyncio
import random
import time
from typing import TYPE_CHECKING, Final

import grpc
import grpc.aio
import structlog

from runyard.agent.config.agent import AgentSettings
from runyard.agent.config.join import joined_files
from runyard.agent.security.credentials import (
    CredentialsDirectory,
    Held,
    KeyAndRequest,
    UnusableCertificate,
    read_certificate,
    require_fitting,
)
from runyard.agent.security.enrolment import ANSWER_WITHIN, JoinFailed, join_once, read_token, require_own
from runyard.common.errors import InvalidTlsFiles
from runyard.common.transport.channel import open_aio_channel
from runyard.v1 import security_pb2, security_pb2_grpc

if TYPE_CHECKING:  # this name exists in the type stubs only
    from runyard.v1.security_pb2_grpc import SecurityServiceAsyncStub

RENEW_AT: Final = 2 / 3
"""Share of the lifetime after which a certificate is renewed, as kubelets do; give or take a tenth of it."""

URGENT_AT: Final = 0.9
"""Share of the lifetime from which on a failed renewal is an error, and no longer a warning."""

LOOK_AFTER: Final = 60.0
"""Seconds between two looks at the clock, which may be set, and at the token, which may be new."""

SHORTEST_PAUSE: Final = 0.5
"""Seconds between two tries; a tenth of what is left of the lifetime where that is more, up to LOOK_AFTER."""

log = structlog.get_logger("runyard.agent.security")

Failure = grpc.aio.AioRpcError | JoinFailed | UnusableCertificate | InvalidTlsFiles | OSError
_FAILURES: Final = (grpc.aio.AioRpcError, JoinFailed, UnusableCertificate, InvalidTlsFiles, OSError)


async def keep_certificate(settings: AgentSettings) -> None:
    """Renews the certificate that this node joined for, for as long as the agent lives. Never ends.

    Also joins anew when another token is put in place of the one that the node joined with: that is how a
    node whose certificate was revoked, or has expired, comes back.
    """
    if settings.renews_certificate:
        await Renewal(settings).keep()
    await asyncio.Event().wait()


class Renewal:
    """One node's certificate over time."""

    def __init__(self, settings: AgentSettings) -> None:
        """Reads what the node holds.

        Args:
            settings: Who this node is, and where it may join anew.
        """
        self._settings = settings
        self._directory = CredentialsDirectory(settings.state_directory)
        held = self._directory.held()
        assert held is not None, "ensure_certificate comes first"
        self._take(held)
        self._refused: set[str] = set()

    async def keep(self) -> None:
        """Renews and joins anew, whenever it is time. Never ends."""
        while True:
            pause = max(0.0, self._renew_at - time.time())
            if not await self._joined_anew() and not pause:
                pause = await self._renewed()
            await asyncio.sleep(min(pause, LOOK_AFTER))

    async def _joined_anew(self) -> bool:
        """Joins with the token in the file, if that is another one than before. True if the node did."""
        join = self._settings.join
        if join is None:
            return False
        try:
            token = read_token(join.token_file)
        except JoinFailed:
            return False  # it is not needed any more, and may well be gone
        token_id = token.credential.token_id
        if token_id == self._held.token_id or token_id in self._refused:
            return False
        try:
            held = await join_once(self._settings, join.address, token, self._directory)
        except JoinFailed as error:
            self._refused.add(token_id)
            log.warning("new_token_refused", token_id=token_id, reason=str(error))
            return False
        except _FAILURES as error:
            log.warning("cannot_join_anew_yet", token_id=token_id, reason=_why(error))
            return False
        self._take(held)
        return True

    async def _renewed(self) -> float:
        """Renews; gives the seconds until the next look."""
        try:
            self._take(await self._ask())
        except _FAILURES as error:
            left = self._held.not_after - time.time()
            self._complain(error, left)
            return max(SHORTEST_PAUSE, min(LOOK_AFTER, left / 10)) * random.uniform(0.5, 1.5)
        log.info("certificate_renewed", identity=self._held.identity.uri, until=self._held.not_after)
        return max(0.0, self._renew_at - time.time())

    async def _ask(self) -> Held:
        mine = KeyAndRequest.make()
        request = security_pb2.RenewCertificateRequest(csr_pem=mine.request)
        material = joined_files(self._settings.state_directory).read()
        async with open_aio_channel(self._settings.coordinator, material) as channel:
            stub: SecurityServiceAsyncStub = security_pb2_grpc.SecurityServiceStub(channel)
            answer = await stub.RenewCertificate(request, timeout=ANSWER_WITHIN)
        certificate, authority = answer.certificate_pem.encode(), answer.authority_pem.encode()
        require_fitting(mine.key, certificate, authority)
        held = read_certificate(certificate, self._held.token_id)
        require_own(self._settings, held.identity)
        await asyncio.to_thread(self._directory.install, mine.key, certificate, authority, held.token_id)
        return held

    def _take(self, held: Held) -> None:
        self._held = held
        self._renew_at = held.not_before + held.lifetime * RENEW_AT * random.uniform(0.9, 1.1)

    def _complain(self, error: Failure, left: float) -> None:
        """Says that the renewal failed, the louder the less time is left."""
        facts = {
            "reason": _why(error),
            "coordinator": self._settings.coordinator,
            "seconds_left": round(left),
        }
        if left <= 0:
            remedy = "put a new token (`runyard token create`) into the file that join.token_file names"
            log.critical("certificate_expired", **facts, remedy=remedy)
        elif left < self._held.lifetime * (1 - URGENT_AT):
            log.error("certificate_expires_soon", **facts)
        else:
            log.warning("certificate_not_renewed", **facts)


def _why(error: Failure) -> str:
    return (
        f"{error.code().name}: {error.details()}" if isinstance(error, grpc.aio.AioRpcError) else str(error)
    )
