"""The agent's settings."""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from runyard.agent.config.docker import DockerSettings
from runyard.agent.config.docker_kwargs import mount_sources
from runyard.agent.config.engine_sockets import holds_engine_socket
from runyard.agent.config.isolation import IsolationSettings
from runyard.agent.config.join import JoinSettings, has_joined, joined_files
from runyard.agent.config.policy import PolicySettings
from runyard.agent.config.pressure import PressureSettings
from runyard.agent.config.references import EnvironmentSetting, ReferenceRules
from runyard.agent.config.warm import WarmSettings
from runyard.common.errors import InvalidAddress
from runyard.common.names import LABEL_KEY, LABEL_VALUE, NAME
from runyard.common.quantities import parse_quantity
from runyard.common.security.signing import UnusableKey, read_public_key
from runyard.common.service.service_main import ServiceSettings
from runyard.common.service.settings import SettingsError
from runyard.common.transport.address import DEFAULT_ADDRESS, is_local, parse_address, require_local
from runyard.common.transport.tls import TlsFiles

SignatureMode = Literal["off", "warn", "require"]
"""Handling of launches without a trusted signature: not checked, or marked and run, or refused."""

INHERITED = (
    "DAGSTER_HOME",
    "HOME",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "LOGNAME",
    "PATH",
    "PYTHONPATH",
    "SHELL",
    "SSL_CERT_FILE",
    "TMPDIR",
    "TZ",
    "USER",
    "VIRTUAL_ENV",
)
"""Variables of the agent's own environment that workers get by default."""


class AgentSettings(ServiceSettings):
    """All settings of the agent. Times are in seconds."""

    renamed: ClassVar[Mapping[str, str]] = {"expect_back": "restart_grace"}

    coordinator: str = DEFAULT_ADDRESS
    """Address of the coordinator: `host:port` or `unix:/path`."""

    node_id: str = Field(default_factory=socket.gethostname)
    """Name of this node, unique in the fleet. Default: the host's name."""

    join: JoinSettings | None = None
    """Source of this node's certificate. Not needed if `tls` names one."""

    cluster: str = "default"
    """Pool of nodes that this node belongs to."""

    labels: dict[str, str] = Field(default_factory=dict)
    """Labels of this node that runs can require."""

    slots: int | None = Field(default=None, ge=0, le=10_000)
    """Maximum number of live runs. Default: one for each core, or the capacity of the node's cluster."""

    resources: dict[str, int] = Field(default_factory=dict)
    """Amounts that override what is detected (`cpu`, `memory`, `gpu`), and further countable resources."""

    gpus: tuple[str, ...] = ()
    """UUIDs of the GPUs that runs may use, as `nvidia-smi -L` prints them; MIG devices too. Default: all."""

    reserved: dict[str, int] = Field(default_factory=dict)
    """Amounts of resources reserved for the system. Default: a twentieth of detected memory, at most 1Gi."""

    taints: tuple[str, ...] = ()
    """Taints of this node: `key` or `key=value`. Runs that do not tolerate them are not placed here."""

    state_directory: Path = Path("/var/lib/runyard/agent")
    """Directory of run directories and the agent's state. Only one agent can use it at a time."""

    python: str = ""
    """Interpreter of workers whose launch names none. Default: the agent's own."""

    interpreters: dict[str, str] = Field(default_factory=dict)
    """Interpreters on this node, by code location. They override the interpreter that the launch names."""

    working_directory: str = ""
    """Working directory of workers whose launch names none. Default: the agent's own."""

    environment: dict[str, EnvironmentSetting] = Field(default_factory=dict)
    """Variables of every worker: texts, or `{env: NAME}` and `{file: /path}` for values on this node."""

    references: ReferenceRules = ReferenceRules()
    """Values on this node that launches and code locations may refer to."""

    inherit_environment: tuple[str, ...] = INHERITED
    """Names of variables in the agent's own environment that workers inherit."""

    warm: WarmSettings = Field(default_factory=WarmSettings)
    """Starting runs from interpreters that have already imported their code."""

    isolation: IsolationSettings = Field(default_factory=IsolationSettings)
    """Separation of workers from each other and from the machine."""

    max_concurrent_starts: int = Field(default_factory=lambda: len(os.sched_getaffinity(0)), ge=1, le=1_000)
    """Maximum number of workers that start at the same time; others wait. Default: the number of cores."""

    pressure: PressureSettings = Field(default_factory=PressureSettings)
    """Thresholds below which the node accepts no new runs."""

    keep_logs: float = Field(default=7 * 86400.0, ge=0)
    """Seconds for which a run directory is kept after the coordinator has stored the outcome."""

    keep_runs: int = Field(default=1_000, ge=0)
    """Maximum number of such directories."""

    restart_grace: float = Field(default=120.0, ge=0)
    """Seconds within which an agent that was stopped is expected to return. Until then the coordinator does
    not treat its silence as a failure."""

    machine_state_command: tuple[str, ...] = ("systemctl", "is-system-running")
    """Command that prints `stopping` while the machine shuts down. An agent that is stopped then also stops
    its runs. Empty: it never does."""

    shutdown_budget: float = Field(default=60.0, ge=0)
    """Seconds that runs may take to end when the machine shuts down. Keep it below the service manager's
    stop timeout."""

    policy: PolicySettings = PolicySettings()
    """Launches that the owner of this node allows."""

    docker: DockerSettings | None = None
    """Containers as workers. Without this section the agent starts none."""

    signing_keys: tuple[str, ...] = ()
    """Public keys of trusted launchers: each as text, or as the path of its file."""

    signatures: SignatureMode = "off"
    """Handling of launches that none of `signing_keys` has signed: `off` does not check, `warn` marks such a
    run and starts it, `require` refuses it."""

    @field_validator("coordinator")
    @classmethod
    def _address(cls, value: str) -> str:
        try:
            return str(parse_address(value, "coordinator"))
        except InvalidAddress as error:
            raise ValueError(str(error)) from error

    @field_validator("node_id", "cluster")
    @classmethod
    def _name(cls, value: str) -> str:
        if not NAME.fullmatch(value):
            raise ValueError(f"{value!r} must be letters, digits, '.', '_' and '-', 128 at most")
        return value

    @field_validator("labels", mode="before")
    @classmethod
    def _texts(cls, value: object) -> object:
        # YAML reads `gpu: 4` as a number and `spot: true` as a truth value; labels are texts.
        if not isinstance(value, dict):
            return value
        return {
            str(key): str(item).lower() if isinstance(item, bool) else str(item)
            for key, item in value.items()
        }

    @field_validator("labels")
    @classmethod
    def _labels(cls, labels: dict[str, str]) -> dict[str, str]:
        for key, value in labels.items():
            if not LABEL_KEY.fullmatch(key):
                raise ValueError(f"key {key!r} must be letters, digits, '.', '_', '-' and at most one '/'")
            if not LABEL_VALUE.fullmatch(value):
                raise ValueError(
                    f"value {value!r} of {key!r} must be letters, digits and ._:/+@=-, 128 at most"
                )
        return labels

    @field_validator("resources", "reserved", mode="before")
    @classmethod
    def _amounts(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        if "slots" in value:
            raise ValueError("slots have a setting of their own: write `slots: 4` beside this one")
        return {str(name): _amount(str(name), amount) for name, amount in value.items()}

    @field_validator("gpus")
    @classmethod
    def _devices(cls, gpus: tuple[str, ...]) -> tuple[str, ...]:
        for gpu in gpus:
            if not LABEL_VALUE.fullmatch(gpu) or not gpu:
                raise ValueError(f"{gpu!r} is not a UUID of a GPU; `nvidia-smi -L` prints them")
        if len(set(gpus)) < len(gpus):
            raise ValueError("names a GPU twice; two runs would get it at once")
        return gpus

    @field_validator("taints")
    @classmethod
    def _taints(cls, taints: tuple[str, ...]) -> tuple[str, ...]:
        for taint in taints:
            key, _, value = taint.partition("=")
            if not NAME.fullmatch(key) or not LABEL_VALUE.fullmatch(value):
                raise ValueError(f"{taint!r} must be `key` or `key=value`, in characters that labels allow")
        return tuple(sorted(set(taints)))

    @field_validator("docker")
    @classmethod
    def _within_policy(cls, docker: DockerSettings | None, info: ValidationInfo) -> DockerSettings | None:
        policy = info.data.get("policy")
        if docker is None or not isinstance(policy, PolicySettings):
            return docker
        if policy.profiles and "allow" in docker.model_fields_set:
            raise ValueError(
                "allow: has no effect with policy.profiles; move it into a profile's `containers`"
            )
        own = [*mount_sources({"volumes": docker.volumes}), *mount_sources(docker.container_kwargs)]
        for source in own:
            if holds_engine_socket(source, docker.host) and not policy.allow_engine_socket:
                raise ValueError(
                    f"{source} holds the socket of a container engine, which gives every run root access "
                    "to this machine; if that is intended, set policy.allow_engine_socket: true"
                )
        return docker

    @field_validator("signatures", mode="before")
    @classmethod
    def _mode(cls, value: object) -> object:
        # YAML reads `off` as a truth value.
        return "off" if value is False else value

    @field_validator("signatures")
    @classmethod
    def _with_keys(cls, value: SignatureMode, info: ValidationInfo) -> SignatureMode:
        if value != "off" and not info.data.get("signing_keys", True):
            raise ValueError(f"{value} needs signing_keys; `runyard signing-key create` makes one")
        return value

    def tls_files(self) -> TlsFiles | None:
        """Return the TLS files that the settings name, or those of a joined node; None for plain text."""
        return joined_files(self.state_directory) if self.renews_certificate else super().tls_files()

    @property
    def renews_certificate(self) -> bool:
        """True if this node got its certificate by joining, or will. The agent then renews it."""
        if self.tls is not None:
            return False
        return self.join is not None or (not is_local(self.coordinator) and has_joined(self.state_directory))

    def check_files(self) -> None:
        """Read the certificates and keys that the settings name.

        Raises:
            SettingsError: One of them cannot be used.
        """
        if self.tls is not None:
            super().check_files()
        for written in self.signing_keys:
            try:
                read_public_key(written)
            except UnusableKey as error:
                raise SettingsError(f"signing_keys: {error}") from error

    def require_safe(self) -> None:
        """Check that the connection to the coordinator is local or encrypted.

        Raises:
            InsecureAddress: The coordinator is on another machine, and there are no certificates.
        """
        if self.tls_files() is None:
            require_local(self.coordinator, "dial")


def _amount(name: str, written: object) -> int:
    try:
        return parse_quantity(name, written)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
