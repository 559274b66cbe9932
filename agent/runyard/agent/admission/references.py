"""References to values on this node, resolved here so that the values are neither sent nor stored elsewhere.

The agent's settings may contain any reference. Launches and code locations may use only those that the owner
allows, by default none: otherwise any launcher could read everything that the agent can read.
"""

import json
import os
import stat
from collections.abc import Mapping
from typing import Final

from runyard.agent.config.references import ReferenceRules
from runyard.agent.spec_record.environment import ResolvedEnvironment
from runyard.common.defaults import CONTEXT_KEY
from runyard.common.references import (
    FromEnvironment,
    FromFile,
    Reference,
    from_environment,
    from_file,
    is_reference,
    parse_reference,
)
from runyard.common.secrets import Secret
from runyard.v1 import run_pb2

LARGEST_FILE: Final = 64 * 1024
"""Largest file that can be a variable, in bytes. The kernel limits name and value to 128 KiB: execve(2)."""


class UnresolvedReference(Exception):
    """A variable has no value on this node; the message names variable, node and remedy."""


def variables_of(spec: run_pb2.LaunchSpec) -> dict[str, str | Reference]:
    """Return the variables that a launch and its code location set, unresolved.

    Raises:
        UnresolvedReference: One of them is written in a form that this agent does not know.
    """
    referred = sorted(spec.environment_references.items())
    return {
        **_of_location(spec.code_origin.container_context_json),
        **spec.environment,
        **{name: _of_message(name, each) for name, each in referred},
    }


class Lookup:
    """Resolves references on this node.

    Args:
        node: Name of the node, for messages.
        rules: References that launches may use.
        own: The agent's own environment.
    """

    def __init__(self, node: str, rules: ReferenceRules, own: Mapping[str, str]) -> None:
        self._node = node
        self._rules = rules
        self._own = own

    def resolve(
        self, settings: Mapping[str, Secret | Reference], spec: run_pb2.LaunchSpec
    ) -> ResolvedEnvironment:
        """Return the variables of a launch's worker. Reads files, and so blocks.

        Args:
            settings: Setting `environment` of the agent.
            spec: The launch.

        Raises:
            UnresolvedReference: A value does not exist, or the reference is not allowed.
        """
        by_owner = {
            name: value.reveal() if isinstance(value, Secret) else self._value(name, value)
            for name, value in settings.items()
        }
        asked = variables_of(spec)
        by_launch = {
            name: value if isinstance(value, str) else self._allowed_value(name, value)
            for name, value in asked.items()
        }
        referred = {name for name, value in {**settings, **asked}.items() if isinstance(value, Reference)}
        return ResolvedEnvironment(by_owner, by_launch, frozenset(referred))

    def _allowed_value(self, name: str, reference: Reference) -> str:
        if not self._rules.allow(reference):
            kind = "env" if isinstance(reference, FromEnvironment) else "files"
            raise UnresolvedReference(
                f"environment variable {name} refers to {reference}, which the owner of node {self._node} "
                f"does not allow; it would have to be among references.{kind} in the settings of its agent"
            )
        return self._value(name, reference)

    def _value(self, name: str, reference: Reference) -> str:
        try:
            value = self._found(reference)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise UnresolvedReference(
                f"environment variable {name} refers to {reference}, which node {self._node} lacks: {why}"
            ) from None  # the original error may quote the content
        return value

    def _found(self, reference: Reference) -> str:
        match reference:
            case FromEnvironment(name):
                if name not in self._own:
                    raise ValueError("it is not in the environment of its agent")
                return self._own[name]
            case FromFile(path):
                return _text_of(path)


def _text_of(path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe must not block the agent
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is not a regular file")
        content = file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise ValueError(f"it is larger than {LARGEST_FILE // 1024} KiB")
    if b"\0" in content:
        raise ValueError("it holds a zero byte, which no variable can")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
    return text.removesuffix("\n").removesuffix("\r")


def _of_message(name: str, message: run_pb2.EnvironmentReference) -> Reference:
    try:
        match message.WhichOneof("source"):
            case "env":
                return from_environment(message.env)
            case "file":
                return from_file(message.file)
    except ValueError as error:
        raise UnresolvedReference(f"environment variable {name}: {error}") from None
    raise UnresolvedReference(
        f"environment variable {name} refers to something that this agent does not know; upgrade it"
    )


def _of_location(context_json: str) -> dict[str, str | Reference]:
    """Return `env_vars` from Runyard's part of a code location's context."""
    try:
        context = json.loads(context_json) if context_json else {}
        entries = (context.get(CONTEXT_KEY) or {}).get("env_vars") or []
        return dict(_entry(str(entry)) for entry in entries)
    except (ValueError, AttributeError, TypeError) as error:
        raise UnresolvedReference(f"container_context: runyard: env_vars: {error}") from None


def _entry(entry: str) -> tuple[str, str | Reference]:
    if is_reference(entry):
        return parse_reference(entry)
    name, equals, value = entry.partition("=")
    if not equals or not name:
        raise ValueError(f"write {name}=VALUE, or {name}@env:{name} for the value that the node has")
    return name, value
