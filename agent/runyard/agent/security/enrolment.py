"""Joining: exchanges a token for this node's first certificate."""

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc
import grpc.aio
import structlog

from runyard.agent.config.agent import AgentSettings
from runyard.agent.config.join import JoinSettings
from runyard.agent.security.credentials import (
    CredentialsDirectory,
    Held,
    UnusableCertificate,
    read_certificate,
    require_fitting,
)
from runyard.common.backoff import Backoff
from runyard.common.security.identity import Identity, Role
from runyard.common.security.join_token import InvalidToken, JoinToken, parse_join_token
from runyard.common.service.failpoints import failpoint
from runyard.common.transport.channel import open_aio_channel
from runyard.common.transport.tls import TlsMaterial
from runyard.v1 import security_pb2, security_pb2_grpc

if TYPE_CHECKING:  # this name exists in the type stubs only
    from runyard.v1.security_pb2_grpc import JoinServiceAsyncStub

ANSWER_WITHIN: Final = 10.0
"""Seconds for the coordinator to answer."""

RETRY: Final = Backoff(first=2.0, longest=32.0)
"""Pauses between attempts to join, in seconds."""

LARGEST_TOKEN_FILE: Final = 64 * 1024
"""Bytes that are read of a token file. A token has fewer than two thousand."""

_MAY_PASS: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)
"""Status codes after which a retry may succeed."""

log = structlog.get_logger("runyard.agent.security")


class JoinFailed(Exception):
    """This node cannot join; the message names the reason and the remedy."""


async def ensure_certificate(settings: AgentSettings) -> None:
    """Wait until this node has a valid certificate, or needs none.

    Retries for as long as the coordinator cannot be reached.

    Raises:
        JoinFailed: The token, its file, or the stored credentials cannot be used.
    """
    if not settings.renews_certificate:
        return
    try:
        directory = CredentialsDirectory(settings.state_directory)
        held = directory.held()
    except (OSError, UnusableCertificate) as error:
        raise JoinFailed(f"{settings.state_directory / 'tls'} cannot be used: {error}") from error
    if held is not None:
        require_own(settings, held.identity)
        if time.time() < held.not_after:
            return
    if settings.join is None:
        raise JoinFailed("the certificate of this node has expired; set `join` and give it a new token")
    if held is not None:
        log.error("certificate_expired", identity=held.identity.uri, remedy="joining again with the token")
    await _join_in_time(settings, settings.join, directory)


async def _join_in_time(settings: AgentSettings, join: JoinSettings, directory: CredentialsDirectory) -> None:
    failures = 0
    while True:
        token = read_token(join.token_file)
        try:
            await join_once(settings, join.address, token, directory)
            return
        except grpc.aio.AioRpcError as error:
            log.warning("cannot_join_yet", coordinator=join.address, reason=_describe(error))
        except OSError as error:
            log.error("cannot_keep_certificate", reason=str(error), remedy="free some space")
        failures += 1
        await asyncio.sleep(RETRY.pause(failures))


async def join_once(
    settings: AgentSettings, address: str, token: JoinToken, directory: CredentialsDirectory
) -> Held:
    """Request a certificate once, and install it.

    Args:
        settings: The agent's settings.
        address: Address where the coordinator accepts joining nodes.
        token: The token to present.
        directory: Holds the key and the certificate.

    Raises:
        JoinFailed: The coordinator refuses, and a retry would not help.
        grpc.aio.AioRpcError: There was no answer; a retry may succeed.
        OSError: The disk refuses.
    """
    mine = directory.joining()
    request = security_pb2.JoinRequest(
        token=token.credential.text, csr_pem=mine.request, node_id=settings.node_id, cluster=settings.cluster
    )
    try:
        async with open_aio_channel(address, TlsMaterial(token.authority_pem)) as channel:
            stub: JoinServiceAsyncStub = security_pb2_grpc.JoinServiceStub(channel)
            answer = await stub.Join(request, timeout=ANSWER_WITHIN)
    except grpc.aio.AioRpcError as error:
        if error.code() in _MAY_PASS:
            raise
        raise JoinFailed(f"join: {error.details() or error.code().name}") from error
    failpoint("agent.after_join_answer")
    certificate, authority = answer.certificate_pem.encode(), answer.authority_pem.encode()
    token_id = token.credential.token_id
    try:
        require_fitting(mine.key, certificate, authority)
        held = read_certificate(certificate, token_id)
    except UnusableCertificate as error:
        raise JoinFailed(f"join: {error}") from error
    require_own(settings, held.identity)
    await asyncio.to_thread(directory.install, mine.key, certificate, authority, token_id)
    log.info("joined", identity=held.identity.uri, until=held.not_after, token_id=token_id)
    return held


def read_token(path: Path) -> JoinToken:
    """Read the token file.

    Raises:
        JoinFailed: It cannot be read, or holds no token.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_TOKEN_FILE)
        return parse_join_token(content.decode("ascii", "replace"))
    except OSError as error:
        raise JoinFailed(
            f"join.token_file: {path} cannot be read ({error.strerror}); "
            "put what `runyard token create` prints there"
        ) from error
    except InvalidToken as error:
        raise JoinFailed(f"join.token_file: {path}: {error}") from error


def require_own(settings: AgentSettings, identity: Identity) -> None:
    """Check that a certificate belongs to this node.

    Raises:
        JoinFailed: It belongs to another one.
    """
    if (identity.role, identity.cluster, identity.name) != (Role.AGENT, settings.cluster, settings.node_id):
        raise JoinFailed(
            f"the certificate is for {identity.uri}, and the settings say cluster {settings.cluster!r}, "
            f"node_id {settings.node_id!r}; change the settings, or give this agent another state_directory"
        )


def _describe(error: grpc.aio.AioRpcError) -> str:
    return f"{error.code().name}: {error.details()}"
