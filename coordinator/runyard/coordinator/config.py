"""The coordinator's settings."""

from pathlib import Path

from pydantic import Field, field_validator

from runyard.client.address import DEFAULT_ADDRESS, parse_address, require_local_unless_insecure
from runyard.client.errors import InvalidAddress
from runyard.client.service.command import ServiceSettings
from runyard.client.service.settings import SettingsError
from runyard.coordinator.core.deadlines import Retention
from runyard.coordinator.core.leases import LeasePolicy
from runyard.coordinator.routing_file.document import RoutingFileError
from runyard.coordinator.routing_file.reading import load_routing
from runyard.coordinator.security.rates import RateSettings

_LEASES = LeasePolicy()
_RETENTION = Retention()


class CoordinatorSettings(ServiceSettings):
    """Everything that can be set; times are in seconds."""

    listen: str = DEFAULT_ADDRESS
    """Where clients and agents find the coordinator: `host:port` or `unix:/path`."""

    state_directory: Path = Path("/var/lib/runyard/coordinator")
    """Where the account is kept. One coordinator at a time."""

    routing: Path | None = None
    """The file with the rules on which run goes where; read again whenever it changes."""

    heartbeat_interval: float = Field(default=_LEASES.shortest_interval, gt=0)
    """Between two heartbeats of a node; stretched by itself in large fleets."""

    lease: float = Field(default=_LEASES.shortest_lease, gt=0)
    """Silence after which a node counts as unreachable; at least three heartbeats."""

    lost_after: float = Field(default=_LEASES.lost_after, gt=0)
    """Silence after which a node counts as lost: a reason to look, not a verdict on its runs."""

    recovery: float = Field(default=_LEASES.recovery, ge=0)
    """After a start, for how long silence means nothing."""

    keep_finished: float = Field(default=_RETENTION.seconds, gt=0)
    """For how long finished runs are shown."""

    audit: Path | None = None
    """The file that tells who did what. By default `audit.jsonl` in the state directory."""

    rates: RateSettings = RateSettings()
    """How often somebody may do something."""

    shutdown_grace: float = Field(default=5.0, ge=0)
    """For how long open calls may go on when the coordinator shuts down."""

    @field_validator("listen")
    @classmethod
    def _address(cls, value: str) -> str:
        try:
            return str(parse_address(value, "listen"))
        except InvalidAddress as error:
            raise ValueError(str(error)) from error

    def audit_path(self) -> Path:
        """Where the audit log is."""
        return self.audit or self.state_directory / "audit.jsonl"

    def require_safe(self) -> None:
        """Raises `InsecureAddress` if the address leaves this machine without the user's consent."""
        require_local_unless_insecure(self.listen, self.insecure, "listen on")

    def check_files(self) -> None:
        """Raises `SettingsError` if the routing file cannot be used."""
        if self.routing is not None:
            try:
                load_routing(self.routing)
            except RoutingFileError as error:
                raise SettingsError(str(error)) from error

    def lease_policy(self) -> LeasePolicy:
        """The rhythm of heartbeats."""
        return LeasePolicy(
            shortest_interval=self.heartbeat_interval,
            shortest_lease=self.lease,
            lost_after=self.lost_after,
            recovery=self.recovery,
        )

    def retention(self) -> Retention:
        """How long finished runs are kept."""
        return Retention(seconds=self.keep_finished)
