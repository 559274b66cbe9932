"""Enrolment of nodes: they get their first certificate for a join token, later ones for the current one."""

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
from runyard.common.security.join_token import InvalidToken, JoinCredential, JoinToken, parse_join_credential
from runyard.common.service.failpoints import failpoint
from runyard.coordinator.auth.callers import Caller
from runyard.coordinator.auth.revocations import Revocations
from runyard.coordinator.ca.authority import Validity, serial_of, to_der, to_pem
from runyard.coordinator.ca.authority_directory import AuthorityDirectory, AuthorityError
from runyard.coordinator.ca.signing_requests import SigningRequest, read_request
from runyard.coordinator.ca.tokens import has_secret, make_token, reason_unusable
from runyard.coordinator.core.errors import InvalidField
from runyard.coordinator.runtime.runtime import Runtime
from runyard.coordinator.store.ca_records import (
    NodeCertificate,
    Token,
    certificate_issued_for,
    count_token_use,
    delete_expired,
    delete_token,
    find_token,
    insert_certificate,
    insert_token,
    read_tokens,
    unexpired_certificates,
)
from runyard.coordinator.store.store import StoreFull

REPEATED_WITHIN: Final = 60.0
"""Seconds for which a repeated request with the same token gets the same answer."""

KEPT: Final = 24 * 3600.0
"""Seconds for which expired tokens and certificates are still listed and recognised."""

CLEAN_UP: Final = 3600.0
"""Seconds between two clean-ups of expired records."""

NOT_VALID: Final = "the join token is unknown, expired or used up; make a new one with `runyard token create`"
"""Message to the caller for every invalid token; only the log has the exact reason."""

log = structlog.get_logger("runyard.coordinator.auth")
T = TypeVar("T")


class JoinRefused(Exception):
    """The node may not have a certificate.

    Args:
        message: Message to the caller.
        reason: Text for the log and the audit log; by default the message.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message


class NodeIdTaken(Exception):
    """A valid certificate for the node ID exists, with another key."""


@dataclass(frozen=True)
class GrantedCertificate:
    """A certificate for a node, and the authorities that the node is to trust.

    Attributes:
        certificate: The certificate in PEM.
        authority: Certificates of the trusted authorities in PEM.
        serial: Serial number of the certificate.
        token_id: ID of the join token; empty for a renewal.
    """

    certificate: str
    authority: str
    serial: str = ""
    token_id: str = ""


@dataclass(frozen=True)
class Applicant:
    """A request of a node to join.

    Attributes:
        credential: The token as it was sent.
        csr_pem: The certificate request.
        node_id: Node ID in the agent's settings.
        cluster: Cluster in the agent's settings.
        peer: Address of the caller, for the log.
    """

    credential: str
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
        own_certificate: Callable[[], bytes],
        revocations: Revocations,
        lifetime: float,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Initialize.

        Args:
            runtime: Owner of the store with the records.
            authority: The authority that signs.
            own_certificate: Returns the certificate that the coordinator presents, in PEM.
            revocations: Revocations in memory; changed in the same thread.
            lifetime: Validity of certificates in seconds.
            wall: Returns the time in seconds since 1970.
        """
        self._runtime = runtime
        self._authority = authority
        self._own_certificate = own_certificate
        self._revocations = revocations
        self._lifetime = lifetime
        self._wall = wall

    # Tokens

    async def create_token(
        self, cluster: str, node_id: str, ttl: float, uses: int, created_by: str
    ) -> tuple[Token, JoinToken]:
        """Create a token; see `make_token`.

        Raises:
            InvalidField: A name or number is not valid.
            AuthorityError: The authority's directory cannot be used.
            StoreFull: The disk is full.
        """
        token, credential = make_token(cluster, node_id, ttl, uses, created_by=created_by, now=self._wall())
        pin = self._authority.issuer_of(self._own_certificate())
        await self._in_transaction(lambda connection: insert_token(connection, token))
        log.info("token_created", token_id=token.token_id, cluster=cluster, node=node_id, by=created_by)
        return token, JoinToken(credential, to_der(pin))

    async def tokens(self) -> list[Token]:
        """Return all stored tokens, newest first."""
        return await self._in_transaction(read_tokens)

    async def delete_token(self, token_id: str) -> bool:
        """Delete a token. Return False if there is none with that ID."""
        deleted = await self._in_transaction(lambda connection: delete_token(connection, token_id))
        if deleted:
            log.info("token_deleted", token_id=token_id)
        return deleted

    # Certificates

    async def join(self, applicant: Applicant) -> GrantedCertificate:
        """Issue the first certificate of a node. It is on disk before the node gets it.

        Raises:
            JoinRefused: The token is not valid, or not for this node.
            NodeIdTaken: A valid certificate for the node ID exists, with another key.
            InvalidField: The certificate request or the node ID is not valid.
            AuthorityError: The authority's directory cannot be used.
            StoreFull: The disk is full.
        """
        try:
            credential = _credential(applicant.credential)
            certificate = await self._in_transaction(lambda inside: self._join(inside, credential, applicant))
        except (JoinRefused, NodeIdTaken, InvalidField) as refusal:
            reason = refusal.reason if isinstance(refusal, JoinRefused) else str(refusal)
            # The caller may have put anything into the name.
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
        return self._grant(certificate)

    async def renew(self, caller: Caller, csr_pem: str) -> GrantedCertificate:
        """Issue the next certificate of an agent, for the same identity.

        Raises:
            JoinRefused: The caller is not an agent, or its certificate was revoked.
            InvalidField: The certificate request is not valid.
            AuthorityError: The authority's directory cannot be used.
            StoreFull: The disk is full.
        """
        if caller.identity.role is not Role.AGENT:
            raise JoinRefused("only agents renew their certificates here")
        certificate = await self._in_transaction(lambda inside: self._renew(inside, caller, csr_pem))
        log.info("certificate_renewed", identity=certificate.uri, serial=certificate.serial, peer=caller.peer)
        return self._grant(certificate)

    def _grant(self, given: NodeCertificate) -> GrantedCertificate:
        return GrantedCertificate(given.pem, self._authority.trusted_pem, given.serial, given.token_id)

    async def clean_up(self) -> None:
        """Loop: delete records that expired long ago, and renew the coordinator's own certificate."""
        while True:
            try:
                await asyncio.to_thread(self._authority.renew_coordinator, self._wall())
            except AuthorityError as error:
                log.error("own_certificate_not_renewed", error=str(error))
            forget = functools.partial(delete_expired, before=self._wall() - KEPT)
            with contextlib.suppress(StoreFull):
                await self._in_transaction(forget)
            await asyncio.sleep(CLEAN_UP)

    # In the thread that owns the store

    async def _in_transaction(self, work: Callable[[Connection], T]) -> T:
        def transaction() -> T:
            with self._runtime.store.transaction() as connection:
                return work(connection)

        return await self._runtime.in_writer(transaction)

    def _join(
        self, connection: Connection, credential: JoinCredential, applicant: Applicant
    ) -> NodeCertificate:
        token = _token_for(connection, credential)
        request = read_request(applicant.csr_pem)
        now = self._wall()
        given = certificate_issued_for(
            connection, token.token_id, request.digest, since=now - REPEATED_WITHIN
        )
        if given is not None and not self._is_revoked(given):
            return given
        if reason := reason_unusable(token, now):
            raise JoinRefused(NOT_VALID, f"{reason}: {token.token_id}")
        identity = _identity(token, applicant, self._authority.signing.trust_domain)
        if not token.node_id:
            self._require_free(connection, identity, request, now)
        count_token_use(connection, token.token_id)
        return self._sign(connection, identity, request, token.token_id, now)

    def _renew(self, connection: Connection, caller: Caller, csr_pem: str) -> NodeCertificate:
        if self._revocations.is_revoked(caller.identity, caller.serial, caller.not_before):
            raise JoinRefused("this certificate was revoked")
        return self._sign(connection, caller.identity, read_request(csr_pem), "", self._wall())

    def _require_free(
        self, connection: Connection, identity: Identity, request: SigningRequest, now: float
    ) -> None:
        """Raise `NodeIdTaken` if another key has a valid certificate for the node ID."""
        for held in unexpired_certificates(connection, now, identity.name):
            if held.key_digest != request.key_digest and not self._is_revoked(held):
                raise NodeIdTaken(
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
        insert_certificate(connection, record)
        return record

    def _is_revoked(self, held: NodeCertificate) -> bool:
        return self._revocations.is_revoked(parse_identity(held.uri), held.serial, held.not_before)


def _credential(text: str) -> JoinCredential:
    try:
        return parse_join_credential(text)
    except InvalidToken as error:
        raise JoinRefused(NOT_VALID, str(error)) from error


def _token_for(connection: Connection, credential: JoinCredential) -> Token:
    """Return the token of a credential, if the credential has its secret."""
    token = find_token(connection, credential.token_id)
    if not has_secret(token, credential.secret) or token is None:
        known = "its secret is wrong" if token else "there is no such token"
        raise JoinRefused(NOT_VALID, f"{known}: {credential.token_id}")
    return token


def _identity(token: Token, applicant: Applicant, trust_domain: str) -> Identity:
    """Return the identity of the joining node. The applicant's settings may not contradict the token."""
    for field, required, given in (
        ("cluster", token.cluster, applicant.cluster),
        ("node_id", token.node_id, applicant.node_id),
    ):
        if required and given and given != required:
            raise JoinRefused(
                f"the join token is for {field} {required!r}, and this agent's settings say {given[:128]!r}; "
                "change its settings, or use another token"
            )
    try:
        return Identity(Role.AGENT, token.node_id or applicant.node_id, token.cluster, trust_domain)
    except InvalidIdentity as error:
        raise InvalidField("node_id", str(error)) from error
