"""A coordinator that lets nodes join over TLS, on the test's event loop, with a clock that the test sets."""

import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from grpc_health.v1 import health, health_pb2

from runyard.common.security.identity import Identity, Role
from runyard.common.security.join_token import JoinToken
from runyard.common.transport.channel import open_aio_channel
from runyard.common.transport.tls import TlsFiles, TlsMaterial
from runyard.coordinator.audit.audit import UNAUDITED
from runyard.coordinator.auth.rates import Limit, Rate
from runyard.coordinator.auth.revocations import Revocations
from runyard.coordinator.auth.revoker import Revoker, load_revocations
from runyard.coordinator.auth.server_credentials import ClientCertificates, server_credentials
from runyard.coordinator.auth.throttle import Throttle
from runyard.coordinator.ca.authority_directory import AuthorityDirectory
from runyard.coordinator.ca.enrolment import Enrolment
from runyard.coordinator.core.events.on_tick import Retention
from runyard.coordinator.core.leases import LeaseSettings
from runyard.coordinator.grpc.join import join_server
from runyard.coordinator.runtime.runtime import Runtime
from runyard.coordinator.store.ca_records import Token
from runyard.coordinator.store.store import Store
from runyard.v1 import security_pb2, security_pb2_grpc

if TYPE_CHECKING:
    from runyard.v1.security_pb2_grpc import JoinServiceAsyncStub

UNTHROTTLED = Throttle({limit: Rate(per_second=1e6, burst=1_000_000) for limit in Limit})
SOON = 30.0
WEEK = 7 * 86_400.0

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


@dataclass
class Clock:
    """Seconds since 1970, as the test wants them."""

    now: float = field(default_factory=time.time)

    def __call__(self) -> float:
        return self.now


def make_request(key: PrivateKey | None = None, *names: x509.GeneralName) -> str:
    """A request for a certificate, signed with its key."""
    holder = key or ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    digest = None if isinstance(holder, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(holder, digest).public_bytes(Encoding.PEM).decode()


def make_authority(folder: Path) -> AuthorityDirectory:
    """An authority, and a certificate of a coordinator on this machine in `coordinator`."""
    directory = AuthorityDirectory(folder)
    directory.init("runyard")
    hosts = ("localhost", "127.0.0.1")
    directory.issue(Identity(Role.COORDINATOR, "main"), hosts, WEEK, folder / "coordinator")
    return directory


def coordinator_files(directory: AuthorityDirectory) -> TlsFiles:
    """Certificate files of the coordinator."""
    own = directory.path / "coordinator"
    return TlsFiles(directory.path / "authority.pem", own / "certificate.pem", own / "key.pem")


class JoinSide:
    """The parts of the coordinator that tests use."""

    def __init__(self, runtime: Runtime, directory: AuthorityDirectory, clock: Clock) -> None:
        files = coordinator_files(directory)
        self.runtime = runtime
        self.directory = directory
        self.clock = clock
        self.revocations: Revocations = load_revocations(runtime.store)
        self.revoker = Revoker(runtime, self.revocations, wall=clock)
        self.enrolment = Enrolment(
            runtime, directory, lambda: files.read().certificate or b"", self.revocations, WEEK, wall=clock
        )
        self.server = join_server(self.enrolment, health.aio.HealthServicer(), UNTHROTTLED, UNAUDITED)
        credentials = server_credentials(files, ClientCertificates.NOT_REQUESTED)
        port = self.server.add_secure_port("127.0.0.1:0", credentials)
        self.address = f"127.0.0.1:{port}"

    async def token(self, node_id: str = "", *, ttl: float = 900.0, uses: int = 1) -> JoinToken:
        """A new token for the cluster `east`."""
        return (await self.enrolment.create_token("east", node_id, ttl, uses, "local"))[1]

    async def record(self, token: JoinToken) -> Token:
        """The stored record of a token."""
        (found,) = [
            each for each in await self.enrolment.tokens() if each.token_id == token.credential.token_id
        ]
        return found

    async def join(
        self,
        token: JoinToken,
        request: str | None = None,
        *,
        node_id: str = "n1",
        cluster: str = "east",
        text: str | None = None,
    ) -> security_pb2.JoinResponse:
        """The answer to Join."""
        asked = security_pb2.JoinRequest(
            token=token.credential.text if text is None else text,
            csr_pem=make_request() if request is None else request,
            node_id=node_id,
            cluster=cluster,
        )
        async with open_aio_channel(self.address, TlsMaterial(token.authority_pem)) as channel:
            stub: JoinServiceAsyncStub = security_pb2_grpc.JoinServiceStub(channel)
            return await stub.Join(asked, timeout=SOON)

    async def refused(
        self, token: JoinToken, request: str | None = None, **said: str
    ) -> tuple[grpc.StatusCode, str]:
        """The status with which Join is refused."""
        try:
            await self.join(token, request, **said)
        except grpc.aio.AioRpcError as error:
            return error.code(), error.details() or ""
        raise AssertionError("the node has joined")

    async def health(self, authority: bytes) -> health_pb2.HealthCheckResponse:
        """Health status of the server."""
        async with open_aio_channel(self.address, TlsMaterial(authority)) as channel:
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
            answer: health_pb2.HealthCheckResponse = await check(
                health_pb2.HealthCheckRequest(), timeout=SOON
            )
            return answer


@contextlib.asynccontextmanager
async def joining(folder: Path, clock: Clock) -> AsyncIterator[JoinSide]:
    """A coordinator whose state is in that folder, and survives in it."""
    directory = AuthorityDirectory(folder / "ca")
    if not (folder / "ca").exists():
        directory = make_authority(folder / "ca")
    store = Store(folder / "state")
    runtime = Runtime(store, LeaseSettings(recovery=0.0), Retention())
    side = JoinSide(runtime, directory, clock)
    runtime.start()
    await side.server.start()
    try:
        yield side
    finally:
        await side.server.stop(0)
        await runtime.stop()
        store.close()


def subject_of(answer: security_pb2.JoinResponse) -> x509.SubjectAlternativeName:
    """The names in a certificate that was given."""
    certificate = x509.load_pem_x509_certificate(answer.certificate_pem.encode())
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
