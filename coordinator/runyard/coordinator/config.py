"""The coordinator's settings."""

from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator

from runyard.common.errors import InvalidAddress
from runyard.common.names import NAME
from runyard.common.security.identity import DEFAULT_TRUST_DOMAIN, TRUST_DOMAIN, Identity, Role
from runyard.common.service.service_main import ServiceSettings
from runyard.common.service.settings import Settings, SettingsError
from runyard.common.service.yaml_document import InvalidYamlFile
from runyard.common.transport.address import DEFAULT_ADDRESS, HostPort, parse_address, require_local
from runyard.coordinator.auth.rates import RateSettings
from runyard.coordinator.ca.authority_directory import AuthorityDirectory, AuthorityError
from runyard.coordinator.core.events.on_tick import Retention
from runyard.coordinator.core.leases import LeaseSettings
from runyard.coordinator.routing_config.reading import load_routing

_LEASES = LeaseSettings()
_RETENTION = Retention()


class ClientAccess(Settings):
    """Restrictions of one client."""

    clusters: tuple[str, ...] | None = None
    """Clusters that its runs may use; it then sees only its own runs. By default all clusters."""

    @field_validator("clusters")
    @classmethod
    def _names(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for name in value or ():
            if not NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not a valid cluster name")
        return value


class AccessSettings(Settings):
    """Restrictions beyond those of the roles."""

    clients: dict[str, ClientAccess] = Field(default_factory=dict)
    """Restrictions by the name in the client's certificate."""

    @field_validator("clients")
    @classmethod
    def _names(cls, value: dict[str, ClientAccess]) -> dict[str, ClientAccess]:
        for name in value:
            if not NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not a valid client name; give the last part of its identity")
        return value


class CoordinatorSettings(ServiceSettings):
    """All settings; times are in seconds."""

    listen: str = DEFAULT_ADDRESS
    """Address for clients and agents: `host:port` or `unix:/path`."""

    state_directory: Path = Path("/var/lib/runyard/coordinator")
    """Directory of the database. Only one coordinator can use it at a time."""

    routing: Path | None = None
    """Routing file with the rules for placing runs; read again whenever it changes."""

    trust_domain: str = DEFAULT_TRUST_DOMAIN
    """Trust domain in all certificates of this fleet."""

    access: AccessSettings = AccessSettings()
    """Clients that are bound to clusters."""

    ca_directory: Path | None = None
    """Directory that `runyard ca init` created. Without it nodes cannot join by token."""

    join_listen: str | None = None
    """`host:port` where nodes join by token. It serves nothing else."""

    certificate_lifetime: float = Field(default=7 * 86400.0, ge=5.0, le=90 * 86400.0)
    """Lifetime of the certificates of nodes, which renew them in time."""

    reflection: bool = False
    """True to serve gRPC reflection to operators."""

    audit: Path | None = None
    """The audit log; by default `audit.jsonl` in the state directory."""

    heartbeat_interval: float = Field(default=_LEASES.shortest_interval, gt=0)
    """Interval between heartbeats of a node; longer in large fleets."""

    lease: float = Field(default=_LEASES.shortest_lease, gt=0)
    """Time without heartbeats after which a node is unreachable; at least three heartbeats."""

    lost_after: float = Field(default=_LEASES.lost_after, gt=0)
    """Time without heartbeats after which a node is lost. Its runs are not presumed dead."""

    recovery: float = Field(default=_LEASES.recovery, ge=0)
    """Time after a start during which missed heartbeats are ignored."""

    keep_finished: float = Field(default=_RETENTION.seconds, gt=0)
    """Retention of finished runs."""

    rates: RateSettings = RateSettings()
    """Rate limits."""

    shutdown_grace: float = Field(default=5.0, ge=0)
    """Time for open calls to finish when the coordinator shuts down."""

    @field_validator("listen")
    @classmethod
    def _address(cls, value: str) -> str:
        try:
            return str(parse_address(value, "listen"))
        except InvalidAddress as error:
            raise ValueError(str(error)) from error

    def audit_path(self) -> Path:
        """Return the path of the audit log."""
        return self.audit or self.state_directory / "audit.jsonl"

    @field_validator("join_listen")
    @classmethod
    def _join_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            address = parse_address(value, "join_listen")
        except InvalidAddress as error:
            raise ValueError(str(error)) from error
        if not isinstance(address, HostPort):
            raise ValueError(f"{value!r} must be host:port; nodes join over the network")
        return str(address)

    @field_validator("trust_domain")
    @classmethod
    def _trust_domain(cls, value: str) -> str:
        if not TRUST_DOMAIN.fullmatch(value):
            raise ValueError(f"{value!r} must be lower-case letters, digits and ._-, 255 at most")
        return value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.join_listen is not None and (self.tls is None or self.ca_directory is None):
            raise ValueError("join_listen needs tls and ca_directory: `runyard ca init` creates both")
        return self

    def require_safe(self) -> None:
        """Raise `InsecureAddress` if other machines can reach the address and there are no certificates."""
        if self.tls is None:
            require_local(self.listen, "listen on")

    def check_files(self) -> None:
        """Raise `SettingsError` if certificates, authority or routing file cannot be used."""
        super().check_files()
        if self.ca_directory is not None and self.tls is not None:
            try:
                authority = AuthorityDirectory(self.ca_directory)
                authority.require_fit(self.trust_domain, self.tls.certificate.read_bytes())
            except AuthorityError as error:
                raise SettingsError(f"ca_directory: {error}") from error
        if self.routing is not None:
            try:
                load_routing(self.routing)
            except InvalidYamlFile as error:
                raise SettingsError(str(error)) from error

    def client_clusters(self) -> dict[str, frozenset[str]]:
        """Return the clusters of each bound client, by the client's identity."""
        return {
            Identity(Role.CLIENT, name, trust_domain=self.trust_domain).uri: frozenset(access.clusters)
            for name, access in self.access.clients.items()
            if access.clusters is not None
        }

    def lease_settings(self) -> LeaseSettings:
        """Return the intervals of heartbeats and leases."""
        return LeaseSettings(
            shortest_interval=self.heartbeat_interval,
            shortest_lease=self.lease,
            lost_after=self.lost_after,
            recovery=self.recovery,
        )

    def retention(self) -> Retention:
        """Return the retention of finished runs."""
        return Retention(seconds=self.keep_finished)
