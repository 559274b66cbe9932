"""The part of a code location's `container_context` that is about Docker, as dagster-docker defines it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_KEYS = ("registry", "env_vars", "networks", "container_kwargs")


class BadContext(ValueError):
    """The code location's container_context cannot be used; the message names the key and what to write."""


@dataclass(frozen=True)
class DockerContext:
    """Settings of a code location for its containers."""

    env_vars: Sequence[str] = ()
    networks: Sequence[str] = ()
    container_kwargs: Mapping[str, Any] = field(default_factory=dict)


def read_context(text: str) -> DockerContext:
    """Read `env_vars` and the `docker` section of a container_context.

    The credentials in `registry` are left out: an agent uses none but its owner's.

    Args:
        text: The whole context as a JSON object; empty for none.

    Raises:
        BadContext: It has another form.
    """
    try:
        context = json.loads(text) if text else {}
    except ValueError as error:
        raise BadContext(f"container_context: is not JSON ({error})") from error
    if not isinstance(context, dict):
        raise BadContext("container_context: must be a mapping")
    docker = context.get("docker") or {}
    if not isinstance(docker, dict):
        raise BadContext("container_context: docker: must be a mapping")
    for key in docker:
        if key not in _KEYS:
            raise BadContext(f"container_context: docker: there is no {key!r}; known: {', '.join(_KEYS)}")
    kwargs = docker.get("container_kwargs") or {}
    if not isinstance(kwargs, dict):
        raise BadContext("container_context: docker: container_kwargs: must be a mapping")
    shared = _texts(context.get("env_vars"), "env_vars")
    return DockerContext(
        env_vars=(*shared, *_texts(docker.get("env_vars"), "docker: env_vars")),
        networks=_texts(docker.get("networks"), "docker: networks"),
        container_kwargs=kwargs,
    )


def _texts(value: object, key: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BadContext(f"container_context: {key}: must be a list of texts")
    return tuple(value)
