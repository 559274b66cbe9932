"""The `docker` section of the agent's settings."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from runyard.agent.config.docker_kwargs import conflicting_kwargs
from runyard.common.service.settings import Settings

PullPolicy = Literal["always", "if-not-present", "never"]
"""Time of pulling an image: before every start, if the engine does not have it, or never."""


class Allow(Settings):
    """Options that a launch or a code location may add to those of this section.

    Each entry is a pattern: `*` matches any text.
    """

    images: tuple[str, ...] = ("*",)
    """Images, such as `registry.example/etl:*`."""

    mounts: tuple[str, ...] = ()
    """Directories of this machine, such as `/data/*`, and names of volumes."""

    networks: tuple[str, ...] = ()
    """Networks, and network modes such as `host`."""

    users: tuple[str, ...] = ()
    """Users in the container, such as `1000` or `1000:1000`."""

    env_vars: tuple[str, ...] = ()
    """Variables of the agent's own environment that a code location may pass on by name alone."""

    privileged: bool = False
    """Options that reach beyond the container: `privileged`, `cap_add`, `devices`, `pid_mode`..."""


class Registry(Settings):
    """Credentials for one registry."""

    username: str
    """User name at the registry."""

    password: SecretStr | None = None
    """Password in the settings. `password_file` keeps it out of them."""

    password_file: Path | None = None
    """File with the password. It is read before every pull, so it can be changed at any time."""

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        if (self.password is None) == (self.password_file is None):
            raise ValueError("needs either password or password_file")
        return self

    def read_password(self) -> str:
        """Return the current password.

        Raises:
            OSError: The file cannot be read.
        """
        if self.password_file is not None:
            return self.password_file.read_text().strip()
        return self.password.get_secret_value() if self.password else ""


class DockerSettings(Settings):
    """Containers as workers. Without this section the agent starts none."""

    host: str = Field(default_factory=lambda: os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"))
    """Address of the engine: `unix:///path` or `tcp://host:port`. Default: the variable DOCKER_HOST."""

    tls_directory: Path | None = None
    """Directory with `ca.pem`, `cert.pem` and `key.pem` for an engine with a TCP address."""

    image: str = ""
    """Image of runs if neither the run nor its code location names one."""

    pull: PullPolicy = "if-not-present"
    """Pull policy of the image: before every start, if this engine does not have it, or never."""

    pull_timeout: float = Field(default=1800.0, gt=0)
    """Longest duration of one pull in seconds."""

    python: str = ""
    """Interpreter in the image. Default: the one that the code location names, or `python`."""

    env_vars: tuple[str, ...] = Field(default=(), repr=False)
    """Variables of every container: `KEY=VALUE`, or `KEY` for the value in the agent's own environment."""

    networks: tuple[str, ...] = ()
    """Networks of every container."""

    volumes: tuple[str, ...] = ()
    """Volumes: `/on/this/machine:/in/the/container` or `name:/in/the/container`; `:ro` makes it read-only."""

    labels: dict[str, str] = Field(default_factory=dict)
    """Labels of every container."""

    container_kwargs: dict[str, Any] = Field(default_factory=dict, repr=False)
    """Further arguments of `containers.create` of the `docker` package, as in Dagster's DockerRunLauncher."""

    registries: dict[str, Registry] = Field(default_factory=dict)
    """Credentials by the host name in an image's name; `docker.io` for images without one."""

    allow: Allow = Allow()
    """Limits on what a launch or a code location may request beyond the rest of this section."""

    keep_containers: int = Field(default=100, ge=0)
    """Maximum number of containers that are kept after the coordinator has stored their outcome."""

    keep_for: float = Field(default=3600.0, ge=0)
    """Seconds for which such containers are kept."""

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
        # Access to an engine is root access to its machine, and all local users share the loopback interface.
        if self.host.startswith("tcp://") and self.tls_directory is None:
            raise ValueError(
                f"host {self.host} is open to everyone who can reach it: set tls_directory, or use unix:///path"
            )
        return self
