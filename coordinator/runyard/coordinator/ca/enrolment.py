"""Gives nodes their certificates: for a token the first time, for their present one from then on."""

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import structlog
from sqlalchemy import Connection

from runyard.common.security.identity import Identity, InvalidIdentity, Role, parse_identity
from runyard.common.security.join_token import InvalidToken, JoinToken, Ticket, parse_ticket
from runyard.common.service.failpoints import failpoint
from runyard.coordinator.auth.callers import Caller
from runyard.coordinator.auth.revocations import Revocations
from runyard.coordinator.ca.authority import Validity, serial_of, to_der, to_pem
from runyard.coordinator.ca.authority_directory import AuthorityDirectory, AuthorityError
from runyard.coordinator.ca.signing_requests import SigningRequest, read_request
from runyard.coordinator.ca.tokens import Token, is_of, make_token, why_unusable
from runyard.coordinator.core.errors import InvalidField
from runyard.coordinator.runtime.runtime import Runtime
from runyard.coordinator.store.credentials import (
    NodeCertificate,
    all_tokens,
    answer_given,
    drop_expired,
    drop_token,
    put_certificate,
    put_token,
    token_of,
    unexpired_certificates,
    use_token,
)
from runyard.coordinator.store.store import StoreFull

REPEATED_WITHIN: Final = 60.0
"""Seconds for which the same request with the same token gets the same answer: it may have been lost."""

KEPT: Final = 24 * 3600.0
"""Seconds for which tokens and certificates that expired are still shown or recognised."""

TIDY: Final = 3600.0
"""Seconds between two clean-ups."""

NOT_VALID: Final = "the join token is unknown, expired or used up; make a new one with `runyard token create`"
"""What is told of a token that is not good, whatever is wrong with it."""

log = structlog.get_logger("runyard.coordinator.auth")
T = TypeVar("T")


class JoinRefused(Exception):
    """The token is not good for this.

    Args:
        told: What the caller is told.
        reason: What is logged; the same if it is not given.
    """

    def __init__(self, told: str, reason: str = "") -> None:
        super().__init__(told)
        self.reason = reason or told


class NodeIsTaken(Exception):
    """Another key holds a live certificate for the node."""


@dataclass(frozen=True)
class Credentials:
    """What a node gets, in PEM.

    Attributes:
        certificate: Its certificate.
        authority: Whom it is to trust.
        serial: Of its certificate.
        token_id: Of the token that it came with; empty if it came with a certificate.
    """

    certificate: str
    authority: str
    serial: str = ""
    token_id: str = ""


@dataclass(frozen=True)
class Applicant:
    """Who wants to join.

    Attributes:
        ticket: The token as it was sent.
        csr_pem: The certificate request.
        node_id: What it wants to be called.
        cluster: The cluster that its settings name.
        peer: Where it calls from, for the log.
    """

    ticket: str
    csr_pem: str
    node_id: str
    cluster: str
    peer: str


class Enrolment:
    """Tokens and certificates of nodes. Each decision is a transaction in the thread that owns the store."""

    def __init__(
        self,
        runtime: Runtime,
        authority: AuthorityDirectory,
        shown: Callable[[], bytes],
        revocations: Revocations,
        lifetime: float,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Takes what it needs.

        Args:
            runtime: Whose store the records are kept in.
            authority: Who signs.
            shown: Gives the certificate that the coordinator itself shows, in PEM.
            revocations: What was revoked; changed in the same thread.
            lifetime: Of certificates, in seconds.
            wall: Gives the time in seconds since 1970.
        """
        self._runtime = runtime
        self._authority = authority
        self._shown = shown
        self._revocations = revocations
        self._lifetime = lifetime
        self._wall = wall

    # Tokens

    async def create_token(
        self, cluster: str, node_id: str, ttl: float, uses: int, created_by: str
    ) -> tuple[Token, JoinToken]:
        """Makes a token; see `make_token`.

        Raises:
            InvalidField: A name or number cannot be used.
            AuthorityError: The authority's directory cannot be used.
            StoreFull: The disk is full.
        """
        token, ticket = make_token(cluster, node_id, ttl, uses, created_by=created_by, now=self._wall())
        pin = self._authority.issuer_of(self._shown())
        await self._in_transaction(lambda connection: put_token(connection, token))
        log.info("token_created", token_id=token.token_id, cluster=cluster, node=node_id, by=created_by)
        return token, JoinToken(ticket, to_der(pin))

    async def tokens(self) -> list[Token]:
        """All tokens that are kept, the newest first."""
        return await self._in_transaction(all_tokens)

    async def delete_token(self, token_id: str) -> bool:
        """Makes a token worthless. False if there is none of that ID."""
        deleted = await self._in_transaction(lambda connection: drop_token(connection, token_id))
        if deleted:
            log.info("token_deleted", token_id=token_id)
        return deleted

    # Certificates

    async def join(self, applicant: Applicant) -> Credentials:
        """Gives a node its first certificate; on disk before it is told.

        Raises:
            JoinRefused: The token is not good for this.
            NodeIsTaken: Another key holds a live certificate for the node.
            InvalidField: The request for a certificate, or the node's name, cannot be used.
            AuthorityError: The authority's directory cannot be used.
            StoreFull: The disk is full.
        """
        try:
            ticket = _ticket(applicant.ticket)
            certificate = await self._in_transaction(lambda inside: self._join(inside, ticket, applicant))
        except (JoinRefused, NodeIsTaken, InvalidField) as refusal:
            reason = refusal.reason if isinstance(refusal, JoinRefused) else str(refusal)
            # Whoever calls may have put anything into the name.
            name = ascii(applicant.node_id[:128])[1:-1]
            log.warning("join_refused", node=name, peer=applicant.peer, reason=reason)
            raise
        failpoint("coordinator.after_join")
        log.info(
            "node_joined",
            identity=certificate.uri,
            token_id=certificate.token_id,
            serial=certificate.serial,
            peer=applicant.peer,
        )
        return self._credentials(certificate)

    async def renew(self, caller: Caller, csr_pem: str) -> Credentials:
        """Gives an agent another certificate for the identity that it has.

        Raises:
            JoinRefused: The caller is no agent, or its certificate was revoked.
            InvalidField: The request for a certificate cannot be used.
            AuthorityError: The authority's directory cannot be used.
            StoreFull: The disk is full.
        """
        if caller.identity.role is not Role.AGENT:
            raise JoinRefused("only agents have certificates that are renewed here")
        certificate = await self._in_transaction(lambda inside: self._renew(inside, caller, csr_pem))
        log.info("certificate_renewed", identity=certificate.uri, serial=certificate.serial, peer=caller.peer)
        return self._credentials(certificate)

    def _credentials(self, given: NodeCertificate) -> Credentials:
        return Credentials(given.pem, self._authority.trusted_pem, given.serial, given.token_id)

    async def tidy(self) -> None:
        """Forgets what expired long ago, and renews the coordinator's own certificate, for good."""
        while True:
            try:
                await asyncio.to_thread(self._authority.renew_coordinator, self._wall())
            except AuthorityError as error:
                log.error("own_certificate_not_renewed", error=str(error))
            forget = functools.partial(drop_expired, before=self._wall() - KEPT)
            with contextlib.suppress(StoreFull):
                await self._in_transaction(forget)
            await asyncio.sleep(TIDY)

    # In the thread that owns the store

    async def _in_transaction(self, work: Callable[[Connection], T]) -> T:
        def transaction() -> T:
            with self._runtime.store.transaction() as connection:
                return work(connection)

        return await self._runtime.in_writer(transaction)

    def _join(self, connection: Connection, ticket: Ticket, applicant: Applicant) -> NodeCertificate:
        token = _token_for(connection, ticket)
        request = read_request(applicant.csr_pem)
        now = self._wall()
        given = answer_given(connection, token.token_id, request.digest, since=now - REPEATED_WITHIN)
        if given is not None and not self._is_revoked(given):
            return given
        if reason := why_unusable(token, now):
            raise JoinRefused(NOT_VALID, f"{reason}: {token.token_id}")
        identity = _identity(token, applicant, self._authority.signing.trust_domain)
        if not token.node_id:
            self._require_free(connection, identity, request, now)
        use_token(connection, token.token_id)
        return self._sign(connection, identity, request, token.token_id, now)

    def _renew(self, connection: Connection, caller: Caller, csr_pem: str) -> NodeCertificate:
        if self._revocations.is_revoked(caller.identity, caller.serial, caller.not_before):
            raise JoinRefused("this certificate was revoked")
        return self._sign(connection, caller.identity, read_request(csr_pem), "", self._wall())

    def _require_free(
        self, connection: Connection, identity: Identity, request: SigningRequest, now: float
    ) -> None:
        """Whoever may choose a name must not choose that of another."""
        for held in unexpired_certificates(connection, now, identity.name):
            if held.key_digest != request.key_digest and not self._is_revoked(held):
                raise NodeIsTaken(
                    f"node ID {identity.name!r} is taken: another key has a certificate for it. Give this "
                    f"node another node_id; or, if it is the same node with a new disk, make a token for it "
                    f"alone with `runyard token create --node {identity.name}`"
                )

    def _sign(
        self, connection: Connection, identity: Identity, request: SigningRequest, token_id: str, now: float
    ) -> NodeCertificate:
        authority = self._authority.signing
        validity = Validity.lasting(self._lifetime, now, self._revocations.earliest_begin(identity.name))
        certificate = authority.sign(request.key, identity, validity)
        record = NodeCertificate(
            serial=serial_of(certificate),
            uri=identity.uri,
            cluster=identity.cluster,
            node_id=identity.name,
            key_digest=request.key_digest,
            request_digest=request.digest,
            token_id=token_id,
            issued_at=now,
            not_before=certificate.not_valid_before_utc.timestamp(),
            not_after=certificate.not_valid_after_utc.timestamp(),
            authority=authority.name,
            pem=to_pem(certificate),
        )
        put_certificate(connection, record)
        return record

    def _is_revoked(self, held: NodeCertificate) -> bool:
        return self._revocations.is_revoked(parse_identity(held.uri), held.serial, held.not_before)


def _ticket(text: str) -> Ticket:
    try:
        return parse_ticket(text)
    except InvalidToken as error:
        raise JoinRefused(NOT_VALID, str(error)) from error


def _token_for(connection: Connection, ticket: Ticket) -> Token:
    """The token whose secret somebody knows."""
    token = token_of(connection, ticket.token_id)
    if not is_of(token, ticket.secret) or token is None:
        known = "its secret is wrong" if token else "there is no such token"
        raise JoinRefused(NOT_VALID, f"{known}: {ticket.token_id}")
    return token


def _identity(token: Token, applicant: Applicant, trust_domain: str) -> Identity:
    """Who will have joined. What the applicant says of itself may not contradict the token."""
    for what, meant, said in (
        ("cluster", token.cluster, applicant.cluster),
        ("node_id", token.node_id, applicant.node_id),
    ):
        if meant and said and said != meant:
            raise JoinRefused(
                f"the join token is for {what} {meant!r}, and this agent's settings say {said[:128]!r}; "
                "change its settings, or use another token"
            )
    try:
        return Identity(Role.AGENT, token.node_id or applicant.node_id, token.cluster, trust_domain)
    except InvalidIdentity as error:
        raise InvalidField("node_id", str(error)) from error
