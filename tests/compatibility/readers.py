"""Readers of the files of version 0.1.0, which return plain values under the names of 0.1.0.

The only module here that imports the product's modules. When one is renamed, its import changes; when a class
or a field is renamed, `OLD_NAMES` and `KINDS` give the new one the name that it had.
"""

import dataclasses
import enum
import importlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import (
    Descriptor,
    EnumDescriptor,
    FieldDescriptor,
    FileDescriptor,
    ServiceDescriptor,
)
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from pydantic import BaseModel, SecretStr

from runyard.agent.admission.trust.signatures import Genuine, examine
from runyard.agent.config.agent import AgentSettings
from runyard.agent.config.isolation import IsolationSettings
from runyard.agent.config.pressure import PressureSettings
from runyard.agent.config.warm import WarmSettings
from runyard.agent.core.model import Accepted, AttemptKey, HeldAttempt, Outcome
from runyard.agent.core.model import Finished as AgentFinished
from runyard.agent.core.model import Running as AgentRunning
from runyard.agent.core.model import Starting as AgentStarting
from runyard.agent.core.model import Stopping as AgentStopping
from runyard.agent.drivers.docker.output import _read as read_positions
from runyard.agent.drivers.observed_state import inspect
from runyard.agent.drivers.outcomes import held_attempt
from runyard.agent.node.installation import Installation
from runyard.agent.supervisor.contact import ContactFile
from runyard.agent.supervisor.rundir import RunDirectories, RunDirectory
from runyard.common.secrets import Secret
from runyard.common.security.signing import public_key_of
from runyard.common.service.settings_sources import load_settings
from runyard.coordinator.config import CoordinatorSettings
from runyard.coordinator.core.model import (
    Assigned,
    Cordoned,
    Draining,
    Finished,
    Launch,
    Node,
    Open,
    Queued,
    Running,
    Starting,
    Stopping,
    Suspect,
)
from runyard.coordinator.core.requirements.requirements import Keep, RequirementLayer, StopAfter
from runyard.coordinator.core.routing.rules import Rule
from runyard.coordinator.core.scheduling.config import Quota, SchedulingConfig
from runyard.coordinator.grpc.messages.requests import launch_of
from runyard.coordinator.routing_config.reading import load_routing
from runyard.coordinator.store.ca_records import read_revocations, read_tokens, unexpired_certificates
from runyard.coordinator.store.store import Store
from runyard.launcher.config import SCHEMA, resolve_settings
from runyard.v1 import run_pb2

COORDINATOR_COMMAND = ("-m", "runyard.coordinator")
"""Arguments of Python that start a coordinator, before `--config FILE`."""

COMMAND_LINE = ("-m", "runyard.cli.main")
"""Arguments of Python that make it the command `runyard`."""

PROTOCOL = tuple(
    f"runyard.v1.{name}_pb2" for name in ("agent", "fleet", "launch", "placement", "run", "security")
)
"""The modules with the messages and services of the protocol."""

PACKAGE = "runyard.v1"

KINDS: Mapping[type, str] = {
    Accepted: "accepted",
    AgentStarting: "starting",
    AgentRunning: "running",
    AgentStopping: "stopping",
    AgentFinished: "finished",
    Queued: "queued",
    Assigned: "assigned",
    Starting: "starting",
    Running: "running",
    Stopping: "stopping",
    Finished: "finished",
    Open: "open",
    Cordoned: "cordoned",
    Draining: "draining",
    Suspect: "suspect",
    Keep: "keep",
    StopAfter: "stop_after",
}
"""Names of the classes that distinguish the variants of a value."""

OLD_NAMES: Mapping[type, Mapping[str, str]] = {
    Node: {"capacity": "offer"},
    Launch: {"time_limits": "policies"},
    Rule: {"requirements": "wants"},
    Outcome: {"reason_code": "cause"},
    AgentSettings: {"restart_grace": "expect_back"},
    IsolationSettings: {"backends": "rungs"},
    PressureSettings: {"recovery_period": "calm"},
    WarmSettings: {"retention": "remember"},
    SchedulingConfig: {
        "client_clusters": "confinement",
        "on_no_eligible_node": "impossible",
        "on_no_matching_rule": "unmatched",
        "max_placement_attempts": "most_places",
    },
    Quota: {"guaranteed": "least", "limit": "most"},
}
"""Names in 0.1.0 of renamed fields, by class and present name."""


def plain(value: Any) -> Any:
    """Convert a value to JSON values, with all names as in 0.1.0."""
    match value:
        case Message():
            return json_format.MessageToDict(value, preserving_proto_field_name=True)
        case Secret():
            return {"secret": value.reveal()}
        case SecretStr():
            return {"secret": value.get_secret_value()}
        case enum.Enum():
            return value.value
        case bytes():
            return value.hex()
        case Path():
            return str(value)
        case RequirementLayer():
            return _layer(value)
        case BaseModel():
            return _named(value, {name: getattr(value, name) for name in type(value).model_fields})
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case set() | frozenset():
            return sorted(map(plain, value))
        case list() | tuple():
            return [plain(item) for item in value]
        case _ if dataclasses.is_dataclass(value):
            return _named(value, {each.name: getattr(value, each.name) for each in dataclasses.fields(value)})
        case None | bool() | int() | float() | str():
            return value
    raise TypeError(f"{type(value)} has no conversion to plain values")


def _layer(layer: RequirementLayer) -> dict[str, Any]:
    """A layer as in 0.1.0, which kept its source apart; the rule of a routing file had none."""
    fields = {each.name: plain(getattr(layer, each.name)) for each in dataclasses.fields(layer)}
    source = fields.pop("source")
    return {"source": source, "wants": fields, **fields}


def _named(value: object, fields: Mapping[str, Any]) -> dict[str, Any]:
    old = OLD_NAMES.get(type(value), {})
    named = {old.get(name, name): plain(item) for name, item in fields.items()}
    return {"is": KINDS[type(value)], **named} if type(value) in KINDS else named


# Run directories


def read_run_directories(state: Path) -> dict[str, Any]:
    """All attempts in an agent's state directory, by run ID and number."""
    return {found.mark: _attempt(found) for found in RunDirectories(state).scan()}


def read_run_directory(state: Path, run_id: str, attempt: int) -> dict[str, Any]:
    """One attempt in an agent's state directory."""
    found = RunDirectories(state).open(AttemptKey(run_id, attempt))
    assert found is not None
    return _attempt(found)


def _attempt(directory: RunDirectory) -> dict[str, Any]:
    positions = directory.path / "output"
    return {
        "spec": plain(directory.read_spec()),
        "worker": plain(directory.read_worker()),
        "container": plain(directory.read_container()),
        "stop": plain(directory.read_stop()),
        "exit": plain(directory.read_exit()),
        "is_starting": directory.is_starting,
        "is_ready": directory.is_ready,
        "is_acknowledged": directory.acknowledged_at is not None,
        "stdout": directory.stdout.read_text() if directory.stdout.exists() else None,
        "stderr": directory.stderr.read_text() if directory.stderr.exists() else None,
        "output": plain(read_positions(positions)) if positions.exists() else None,
        "situation": type(inspect(directory)).__name__.lower(),
        "held": _held(held_attempt(directory)),
    }


def _held(held: HeldAttempt) -> dict[str, Any]:
    return {
        "identity": plain(held.identity),
        "phase": plain(held.phase),
        "devices": plain(held.devices),
    }


def read_installation(state: Path) -> dict[str, Any]:
    """Read the installation ID and the epoch of an agent from its state directory."""
    installation = Installation(state)
    try:
        return {"id": installation.id, "last_epoch": installation.last_epoch}
    finally:
        installation.release()


def read_contact(state: Path) -> float | None:
    """Return the time of the last contact on the clock of this boot; None without one in this boot."""
    return ContactFile(state).read()


# The database


def read_database(directory: Path, now: float) -> dict[str, Any]:
    """Read everything in a coordinator's state directory.

    Args:
        directory: The state directory. Opening it may change it.
        now: Seconds since 1970. Certificates that expired earlier are left out.
    """
    store = Store(directory)
    try:
        state = store.load(0.0)
        used = sorted({run.launch.spec.job_snapshot_id for run in state.runs} - {""})
        with store.transaction() as connection:
            security = {
                "tokens": plain(read_tokens(connection)),
                "certificates": plain(unexpired_certificates(connection, now)),
                "revocations": plain(read_revocations(connection)),
            }
        return {
            "runs": {run.run_id: plain(run) for run in state.runs},
            "nodes": {node.node_id: plain(node) for node in state.nodes},
            "tombstones": plain(state.tombstones),
            "events": {run.run_id: plain(store.events(run.run_id)) for run in state.runs},
            "snapshots": {name: plain(store.snapshot(name)) for name in used},
            **security,
        }
    finally:
        store.close()


# Messages


def message_class(name: str) -> type[Message]:
    """The class of a message by the name that it has in the protocol, without its package."""
    _load_protocol()
    return GetMessageClass(Default().FindMessageTypeByName(f"{PACKAGE}.{name}"))


def read_message(name: str, data: bytes) -> Message:
    """A message of this type."""
    message = message_class(name)()
    message.ParseFromString(data)
    return message


def read_protocol() -> dict[str, Any]:
    """Return the numbers and types of all fields, the enum values, and the methods of all services."""
    messages: dict[str, Any] = {}
    enums: dict[str, Any] = {}
    services: dict[str, Any] = {}
    for file in _load_protocol():
        for message in file.message_types_by_name.values():
            _describe(message, messages)
        for each in file.enum_types_by_name.values():
            enums[each.name] = _words(each)
        for service in file.services_by_name.values():
            services[service.full_name] = _calls(service)
    return {"messages": messages, "enums": enums, "services": services}


def _load_protocol() -> list[FileDescriptor]:
    return [importlib.import_module(name).DESCRIPTOR for name in PROTOCOL]


def _describe(message: Descriptor, into: dict[str, Any]) -> None:
    into[message.full_name] = {
        str(field.number): {
            "name": field.name,
            "type": field.type,
            "repeated": field.is_repeated,
            "presence": field.has_presence,
            "of": _type_of(field),
        }
        for field in message.fields
    }
    for nested in message.nested_types:
        _describe(nested, into)


def _type_of(field: FieldDescriptor) -> str:
    of = field.message_type or field.enum_type
    return of.full_name if of is not None else ""


def _words(words: EnumDescriptor) -> dict[str, str]:
    return {str(value.number): value.name for value in words.values}


def _calls(service: ServiceDescriptor) -> dict[str, list[Any]]:
    return {
        method.name: [
            method.input_type.full_name,
            method.output_type.full_name,
            method.client_streaming,
            method.server_streaming,
        ]
        for method in service.methods
    }


def digest_of(spec: bytes) -> str:
    """Return the digest by which a coordinator recognizes a repeated launch."""
    return launch_of(run_pb2.LaunchSpec.FromString(spec), None).digest


def is_genuine(spec: bytes, public_key: str, now: float) -> bool:
    """True if an agent that trusts this key accepts the launch as signed by its launcher."""
    launch, key = run_pb2.LaunchSpec.FromString(spec), public_key_of(public_key)
    return isinstance(examine(AttemptKey(launch.run_id, 1), launch, {key.key_id: key}, now), Genuine)


# Settings


def read_agent_settings(file: Path) -> dict[str, Any]:
    """Read an agent's settings from this file only."""
    found = load_settings(AgentSettings, file=file, prefix="RUNYARD_AGENT", flags={}, environment={})
    return dict(plain(found))


def read_coordinator_settings(file: Path) -> dict[str, Any]:
    """A coordinator's settings."""
    prefix = "RUNYARD_COORDINATOR"
    found = load_settings(CoordinatorSettings, file=file, prefix=prefix, flags={}, environment={})
    return dict(plain(found))


def read_routing(file: Path) -> dict[str, Any]:
    """Read a routing file."""
    return dict(plain(load_routing(file).config))


def read_launcher_settings(section: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """The `config` of the run launcher in `dagster.yaml`, as Dagster gives it to the launcher.

    Raises:
        AssertionError: Dagster does not accept it.
    """
    from dagster._config import Shape, process_config

    processed = process_config(Shape(SCHEMA), dict(section))  # type: ignore[no-untyped-call]
    assert processed.success, processed.errors
    assert processed.value is not None
    return dict(plain(resolve_settings(processed.value, environ)))


def wall_clock() -> float:
    """Seconds since 1970."""
    return time.time()
