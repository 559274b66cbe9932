"""The `docker` section of the agent's settings."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from runyard.agent.config.docker_kwargs import conflicting_kwargs
from runyard.common.service.settings import Settings

PullPolicy = Literal["always", "if-not-present", "never"]
"""When an image is pulled: before every start, if this engine does not have it, or not at all."""


class Allow(Settings):
    """What a launch or a code location may ask for beyond the rest of this section, which is the owner's own.

    Each entry is a pattern: `*` stands for any text.
    """

    images: tuple[str, ...] = ("*",)
    """Images as they are written, such as `registry.example/etl:*`."""

    mounts: tuple[str, ...] = ()
    """Folders of this machine, such as `/data/*`, and names of volumes."""

    networks: tuple[str, ...] = ()
    """Networks, and network modes such as `host`."""

    users: tuple[str, ...] = ()
    """Users in the container, such as `1000` or `1000:1000`."""

    env_vars: tuple[str, ...] = ()
    """Variables of the agent's own environment that a code location may pass on by name alone."""

    privileged: bool = False
    """Everything that reaches beyond the container: `privileged`, `cap_add`, `devices`, `pid_mode`..."""


class Registry(Settings):
    """The credentials for one registry."""

    username: str
    """User name at the registry."""

    password: SecretStr | None = None
    """Password in the settings. `password_file` keeps it out of them."""

    password_file: Path | None = None
    """Read before every pull, so that it may be changed at any time."""

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        if (self.password is None) == (self.password_file is None):
            raise ValueError("needs either password or password_file")
        return self

    def read_password(self) -> str:
        """The password as it is now.

        Raises:
            OSError: The file cannot be read.
        """
        if self.password_file is not None:
            return self.password_file.read_text().strip()
        return self.password.get_secret_value() if self.password else ""


class DockerSettings(Settings):
    """How this agent starts containers. Without this section it starts none."""

    host: str = Field(default_factory=lambda: os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"))
    """The engine: `unix:///path`, or `tcp://host:port`. By default what DOCKER_HOST says, as for `docker`."""

    tls_directory: Path | None = None
    """Holds `ca.pem`, `cert.pem` and `key.pem` for an engine that is reached by TCP."""

    image: str = ""
    """Of runs that name none, and whose code location names none."""

    pull: PullPolicy = "if-not-present"
    """When an image is pulled: before every start, if this engine does not have it, or never."""

    pull_timeout: float = Field(default=1800.0, gt=0)
    """Seconds that one pull may take."""

    python: str = ""
    """Interpreter in the image. By default the one that the code location names, else `python`."""

    env_vars: tuple[str, ...] = Field(default=(), repr=False)
    """`KEY=VALUE`, or just `KEY` for the value that the agent's own environment has."""

    networks: tuple[str, ...] = ()
    """Networks to which every container is connected."""

    volumes: tuple[str, ...] = ()
    """`/on/this/machine:/in/the/container`, or `name:/in/the/container`; with `:ro` to make it read-only."""

    labels: dict[str, str] = Field(default_factory=dict)
    """Labels of every container."""

    container_kwargs: dict[str, Any] = Field(default_factory=dict, repr=False)
    """Further arguments of `containers.create` of the `docker` package, as in Dagster's DockerRunLauncher."""

    registries: dict[str, Registry] = Field(default_factory=dict)
    """By host name, as it begins an image's name; `docker.io` for images that begin with none."""

    allow: Allow = Allow()
    """Limits on what a launch or a code location may request beyond the rest of this section."""

    keep_containers: int = Field(default=100, ge=0)
    """How many containers stay after the coordinator has their outcome."""

    keep_for: float = Field(default=3600.0, ge=0)
    """For how many seconds they stay at most."""

    @field_validator("host")
    @classmethod
    def _address(cls, host: str) -> str:
        if not host.startswith(("unix://", "tcp://")):
            raise ValueError(f"{host!r} must be unix:///path or tcp://host:port")
        return host

    @field_validator("container_kwargs")
    @classmethod
    def _kwargs(cls, kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        for name, remedy in conflicting_kwargs(kwargs).items():
            raise ValueError(f"{name}: {remedy}")
        return kwargs

    @model_validator(mode="after")
    def _safe_host(self) -> Self:
        # Whoever reaches an engine is root on its machine: also by loopback, which all users of one share.
        if self.host.startswith("tcp://") and self.tls_directory is None:
            raise ValueError(
                f"host {self.host} is open to all who reach it: set tls_directory, or use unix:///path"
            )
        return self
