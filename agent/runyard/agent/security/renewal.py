"""Renewal of the node's certificate, with a new key, long before the old one expires."""

import asyncio
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
from runyard.common.backoff import jittered
from runyard.common.errors import InvalidTlsFiles
from runyard.common.transport.channel import open_aio_channel
from runyard.v1 import security_pb2, security_pb2_grpc

if TYPE_CHECKING:  # this name exists in the type stubs only
    from runyard.v1.security_pb2_grpc import SecurityServiceAsyncStub

RENEW_AT: Final = 2 / 3
"""Share of the lifetime after which a certificate is renewed, as in kubelets; with a tenth of jitter."""

URGENT_AT: Final = 0.9
"""Share of the lifetime after which a failed renewal is logged as an error instead of a warning."""

CHECK_EVERY: Final = 60.0
"""Seconds between two checks of the clock, which may be adjusted, and of the token, which may be new."""

SHORTEST_PAUSE: Final = 0.5
"""Shortest pause between two attempts, in seconds. A tenth of the remaining lifetime if that is longer, up to
`CHECK_EVERY`."""

log = structlog.get_logger("runyard.agent.security")

Failure = grpc.aio.AioRpcError | JoinFailed | UnusableCertificate | InvalidTlsFiles | OSError
_FAILURES: Final = (grpc.aio.AioRpcError, JoinFailed, UnusableCertificate, InvalidTlsFiles, OSError)


async def keep_certificate(settings: AgentSettings) -> None:
    """Renew the certificate that this node got by joining. Never returns.

    Also joins again when the token file holds another token than the one that the node joined with. That is
    how a node returns whose certificate was revoked or has expired.
    """
    if settings.renews_certificate:
        await Renewal(settings).keep()
    await asyncio.Event().wait()


class Renewal:
    """Renewal of one node's certificate."""

    def __init__(self, settings: AgentSettings) -> None:
        """Read the current certificate.

        Args:
            settings: The agent's settings.
        """
        self._settings = settings
        self._directory = CredentialsDirectory(settings.state_directory)
        held = self._directory.held()
        assert held is not None, "ensure_certificate comes first"
        self._take(held)
        self._refused: set[str] = set()

    async def keep(self) -> None:
        """Renew and join again when it is time. Never returns."""
        while True:
            pause = max(0.0, self._renew_at - time.time())
            if not await self._joined_again() and not pause:
                pause = await self._renewed()
            await asyncio.sleep(min(pause, CHECK_EVERY))

    async def _joined_again(self) -> bool:
        """Join if the file holds a new token. True if the node has joined."""
        join = self._settings.join
        if join is None:
            return False
        try:
            token = read_token(join.token_file)
        except JoinFailed:
            return False  # the token was used, and its file may have been removed
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
            log.warning("cannot_join_anew_yet", token_id=token_id, reason=_describe(error))
            return False
        self._take(held)
        return True

    async def _renewed(self) -> float:
        """Renew once; return the seconds until the next check."""
        try:
            self._take(await self._ask())
        except _FAILURES as error:
            left = self._held.not_after - time.time()
            self._log_failure(error, left)
            return jittered(max(SHORTEST_PAUSE, min(CHECK_EVERY, left / 10)), spread=0.5)
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
        self._renew_at = held.not_before + jittered(held.lifetime * RENEW_AT)

    def _log_failure(self, error: Failure, left: float) -> None:
        """Log a failed renewal, with a level that depends on the remaining lifetime."""
        facts = {
            "reason": _describe(error),
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


def _describe(error: Failure) -> str:
    return (
        f"{error.code().name}: {error.details()}" if isinstance(error, grpc.aio.AioRpcError) else str(error)
    )
