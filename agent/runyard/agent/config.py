"""The agent's settings."""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from runyard.agent.admission.references import EnvironmentSetting, ReferenceRules
from runyard.agent.admission.trust.profiles import PolicySettings
from runyard.agent.admission.trust.sockets import holds_engine_socket
from runyard.agent.core.warmth import Limits
from runyard.agent.drivers.docker.plan.allow import mount_sources
from runyard.agent.drivers.docker.settings import DockerSettings
from runyard.agent.drivers.process.warm_plans import WarmMode
from runyard.agent.security.credentials import has_joined, joined_files
from runyard.common.errors import InvalidAddress
from runyard.common.names import LABEL_KEY, LABEL_VALUE, NAME
from runyard.common.quantities import parse_quantity
from runyard.common.security.signing import UnusableKey, read_public_key
from runyard.common.service.service_main import ServiceSettings
from runyard.common.service.settings import SettingsError
from runyard.common.transport.address import DEFAULT_ADDRESS, is_local, parse_address, require_local
from runyard.common.transport.tls import TlsFiles

RungName = Literal["cgroup2", "cgroup1", "systemd", "watchdog"]

SignatureMode = Literal["off", "warn", "require"]
"""What becomes of a launch that nobody signed whom the owner trusts: nothing is looked at, or it is marked
and runs, or it is refused."""

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
"""Of the agent's own environment, what workers get unless the settings say otherwise."""


class WarmSettings(BaseModel):
    """How runs are started from interpreters that have imported everything; times are in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: WarmMode = "framework"
    """What is imported ahead: nothing (`off`), Dagster (`framework`), or the user's code too (`location`)."""

    locations: dict[str, WarmMode] = Field(default_factory=dict)
    """By code location: its own mode."""

    steps: bool = True
    """Whether the multiprocess executor's steps start from the run's process, where that is safe."""

    max_servers: int = Field(default=4, ge=1, le=100)
    """How many environments may have an interpreter ready at once; each takes about 100 MB and up."""

    max_runs: int = Field(default=1_000, ge=1)
    """After how many runs an interpreter is replaced."""

    max_age: float = Field(default=6 * 3600.0, gt=0)
    """After how long an interpreter is replaced."""

    max_rss: int = Field(default=2 << 30, ge=64 << 20)
    """At how many bytes of resident memory an interpreter is replaced."""

    min_available: float = Field(default=0.1, ge=0, le=0.9)
    """Share of the machine's memory; with less available, interpreters are given up, unused ones first."""

    remember: float = Field(default=7 * 86400.0, ge=0)
    """For how long an environment is remembered on disk after its last run, to be readied when the agent
    starts. What is remembered holds the workers' variables. 0: nothing is."""

    @field_validator("mode", mode="before")
    @classmethod
    def _mode(cls, value: object) -> object:
        # YAML reads `off` as a truth value.
        return "off" if value is False else value

    @field_validator("locations", mode="before")
    @classmethod
    def _modes(cls, value: object) -> object:
        return {name: cls._mode(mode) for name, mode in value.items()} if isinstance(value, dict) else value

    def mode_of(self, location: str) -> WarmMode:
        """What is imported ahead for runs of a code location."""
        return self.locations.get(location, self.mode)

    def limits(self) -> Limits:
        """What the core has to know."""
        return Limits(self.max_servers, self.max_age, self.max_runs, self.max_rss, self.min_available)


class IsolationSettings(BaseModel):
    """What keeps workers apart from each other and from the machine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rungs: tuple[RungName, ...] = ("cgroup2", "cgroup1", "systemd", "watchdog")
    """By what limits may be enforced, the best first; the first that works here is taken."""

    cgroup: Path | None = None
    """Directory of a control group that is left to the agent. By default the one that it was started in."""

    run_as: dict[str, str] = Field(default_factory=dict)
    """By code location: the user that its workers run as; `*` for all others. By default the agent's own."""

    users: tuple[str, ...] = ()
    """The users that workers may run as; `run_as` may name no other, and nobody else can name one at all."""

    scratch_directory: Path | None = None
    """Under it each run gets a directory of its own as its TMPDIR, which is deleted when the run is over."""

    no_new_privs: bool = True
    """Whether workers are kept from getting more rights, such as by `sudo`."""

    core_dumps: bool = False
    """Whether workers that crash leave a core, with all that was in their memory."""

    @field_validator("cgroup", "scratch_directory")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_absolute():
            raise ValueError(f"{value} must be an absolute path")
        return value

    @model_validator(mode="after")
    def _allowed(self) -> Self:
        for location, user in self.run_as.items():
            if user not in self.users:
                raise ValueError(f"run_as names {user} for {location}; allow it by adding it to users")
        return self

    def user_of(self, location: str) -> str:
        """The user that workers of a code location run as; empty for the agent's own."""
        return self.run_as.get(location, self.run_as.get("*", ""))


class PressureSettings(BaseModel):
    """With how little left the node takes no new runs; see `core.pressure` for what holds by default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    memory: int | None = None
    """Bytes, also as in 512Mi. 0: never mind the memory."""

    disk: int | None = None
    """Bytes on the disk of the state directory, also as in 1Gi. 0: never mind the disk."""

    pids: int | None = None
    """Processes and threads. 0: never mind them."""

    calm: float = Field(default=30.0, ge=0)
    """Seconds for which there must be enough again before runs are taken again."""

    @field_validator("memory", "disk", "pids", mode="before")
    @classmethod
    def _amount(cls, value: object, info: ValidationInfo) -> object:
        name = "pids" if info.field_name == "pids" else "memory"
        return None if value is None else parse_quantity(name, value)


class JoinSettings(BaseModel):
    """How this node gets its certificate, which it then renews by itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str
    """`host:port` where the coordinator lets nodes join: its setting `join_listen`."""

    token_file: Path
    """Holds what `runyard token create` prints. Another token put there has the node join anew."""

    @field_validator("address")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        try:
            return str(parse_address(value, "join.address"))
        except InvalidAddress as error:
            raise ValueError(str(error)) from error


class AgentSettings(ServiceSettings):
    """Everything that can be set; times are in seconds."""

    coordinator: str = DEFAULT_ADDRESS
    """Where the coordinator is: `host:port` or `unix:/path`."""

    node_id: str = Field(default_factory=socket.gethostname)
    """Name of this node, unique in the fleet. The host's name by default."""

    join: JoinSettings | None = None
    """How this node gets its certificate. Not needed where `tls` names one."""

    cluster: str = "default"
    """The pool of nodes that this one belongs to."""

    labels: dict[str, str] = Field(default_factory=dict)
    """What runs may ask for."""

    slots: int | None = Field(default=None, ge=0, le=10_000)
    """How many runs may be live at once. By default one for each core, or what the node's cluster takes."""

    resources: dict[str, int] = Field(default_factory=dict)
    """What the node has, instead of what is found (`cpu`, `memory`, `gpu`), and further things to count."""

    gpus: tuple[str, ...] = ()
    """The GPUs that runs may have: UUIDs as `nvidia-smi -L` shows them, also of MIG. All by default."""

    reserved: dict[str, int] = Field(default_factory=dict)
    """What of that is kept back for the system. By default a twentieth of found memory, 1Gi at most."""

    taints: tuple[str, ...] = ()
    """Keep away runs that do not tolerate them: `key` or `key=value`."""

    state_directory: Path = Path("/var/lib/runyard/agent")
    """Where run directories are kept. One agent at a time."""

    python: str = ""
    """Interpreter of workers whose launch names none. The agent's own by default."""

    interpreters: dict[str, str] = Field(default_factory=dict)
    """By code location: the interpreter on this node, instead of the one that the launch names."""

    working_directory: str = ""
    """Where workers start whose launch names no directory. The agent's own by default."""

    environment: dict[str, EnvironmentSetting] = Field(default_factory=dict)
    """Given to every worker: texts, or `{env: NAME}` and `{file: /path}` for what this node has there."""

    references: ReferenceRules = ReferenceRules()
    """What launches and code locations may refer to on this node."""

    inherit_environment: tuple[str, ...] = INHERITED
    """Names of variables of the agent's own environment that workers get."""

    warm: WarmSettings = Field(default_factory=WarmSettings)
    """How runs are started from interpreters that have imported everything."""

    isolation: IsolationSettings = Field(default_factory=IsolationSettings)
    """What keeps workers apart from each other and from the machine."""

    max_concurrent_starts: int = Field(default_factory=lambda: len(os.sched_getaffinity(0)), ge=1, le=1_000)
    """How many workers may be starting up at once; others wait their turn. The number of cores by default."""

    pressure: PressureSettings = Field(default_factory=PressureSettings)
    """With how little left the node takes no new runs."""

    keep_logs: float = Field(default=7 * 86400.0, ge=0)
    """For how long run directories are kept after the coordinator has the outcome."""

    keep_runs: int = Field(default=1_000, ge=0)
    """How many such directories are kept at most."""

    expect_back: float = Field(default=120.0, ge=0)
    """In how long an agent that is stopped is expected back; its silence means nothing until then."""

    machine_state_command: tuple[str, ...] = ("systemctl", "is-system-running")
    """Prints `stopping` while the machine shuts down: an agent that is stopped then stops its runs too."""

    shutdown_budget: float = Field(default=60.0, ge=0)
    """How long runs may take to end when the machine shuts down; less than the service manager waits."""

    policy: PolicySettings = PolicySettings()
    """What the owner of this node lets others do with it."""

    docker: DockerSettings | None = None
    """How containers are started. Without this section none are."""

    signing_keys: tuple[str, ...] = ()
    """Public keys of the launchers that are trusted: each as text, or the path of its file."""

    signatures: SignatureMode = "off"
    """What becomes of launches that none of them signed."""

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
                raise ValueError(f"{gpu!r} is no UUID of a GPU; `nvidia-smi -L` shows them")
        if len(set(gpus)) < len(gpus):
            raise ValueError("names a GPU twice; two runs would get it at once")
        return gpus

    @field_validator("taints")
    @classmethod
    def _taints(cls, taints: tuple[str, ...]) -> tuple[str, ...]:
        for taint in taints:
            key, _, value = taint.partition("=")
            if not NAME.fullmatch(key) or not LABEL_VALUE.fullmatch(value):
                raise ValueError(f"{taint!r} must be `key` or `key=value`, of the letters that labels have")
        return tuple(sorted(set(taints)))

    @field_validator("docker")
    @classmethod
    def _within_policy(cls, docker: DockerSettings | None, info: ValidationInfo) -> DockerSettings | None:
        policy = info.data.get("policy")
        if docker is None or not isinstance(policy, PolicySettings):
            return docker
        if policy.profiles and "allow" in docker.model_fields_set:
            raise ValueError("allow: means nothing beside policy.profiles; move it into `containers` of one")
        own = [*mount_sources({"volumes": docker.volumes}), *mount_sources(docker.container_kwargs)]
        for source in own:
            if holds_engine_socket(source, docker.host) and not policy.allow_engine_socket:
                raise ValueError(
                    f"{source} holds the socket of a container engine, with which every run owns this "
                    "machine; if you mean that, set policy.allow_engine_socket: true"
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
        """The certificates to use: those that are named, or those of joining. None: plain text."""
        return joined_files(self.state_directory) if self.renews_certificate else super().tls_files()

    @property
    def renews_certificate(self) -> bool:
        """Whether this node's certificate comes from joining, now or once; then it renews it by itself."""
        if self.tls is not None:
            return False
        return self.join is not None or (not is_local(self.coordinator) and has_joined(self.state_directory))

    def check_files(self) -> None:
        """Raises `SettingsError` if the certificates or keys that the settings name cannot be used."""
        if self.tls is not None:
            super().check_files()
        for written in self.signing_keys:
            try:
                read_public_key(written)
            except UnusableKey as error:
                raise SettingsError(f"signing_keys: {error}") from error

    def require_safe(self) -> None:
        """Raises `InsecureAddress` if the coordinator is elsewhere and there are no certificates."""
        if self.tls_files() is None:
            require_local(self.coordinator, "dial")


def _amount(name: str, written: object) -> int:
    try:
        return parse_quantity(name, written)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
