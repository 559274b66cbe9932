"""Checks requests at the edge and turns them into what the core understands."""

import hashlib
import uuid
import zlib

from google.protobuf.duration_pb2 import Duration

from runyard.client.service.names import NAME
from runyard.coordinator.core.asks.requirements import Layer, Policies, Requirements
from runyard.coordinator.core.errors import InvalidField
from runyard.coordinator.core.model import Launch
from runyard.coordinator.core.offers import offer_of, wants_of
from runyard.coordinator.rpc.errors import TooLarge
from runyard.v1 import agent_pb2, launch_pb2, run_pb2

DEFAULT_GRACE = 30.0
"""Seconds between SIGTERM and SIGKILL where the launch names none; Kubernetes' own default."""

MAX_SNAPSHOT = 32 * 1024 * 1024
"""Largest compressed job snapshot, in bytes. A job of two ops has 30 kB, uncompressed."""

MAX_SNAPSHOT_PLAIN = 512 * 1024 * 1024
"""Largest job snapshot after decompression, in bytes."""

MAX_SPEC = 8 * 1024 * 1024
"""Largest launch spec in bytes; it travels to the agent in one message."""


def check_run_id(text: str, field: str = "run_id") -> str:
    """A run ID, if it is one.

    Raises:
        InvalidField: It is empty or no UUID.
    """
    if not text:
        raise InvalidField(field, "is empty; give Dagster's run ID")
    try:
        canonical = str(uuid.UUID(text))
    except ValueError:
        canonical = ""
    if canonical != text.lower():
        raise InvalidField(field, f"{text[:80]!r} is not a run ID; Dagster's run IDs are UUIDs")
    return text


def launch_of(spec: run_pb2.LaunchSpec) -> Launch:
    """A launch from its spec.

    Raises:
        InvalidField: A field is missing or malformed; the message names it.
        TooLarge: The spec exceeds `MAX_SPEC`.
    """
    check_run_id(spec.run_id, "spec.run_id")
    if spec.ByteSize() > MAX_SPEC:
        raise TooLarge(
            f"the launch spec has {spec.ByteSize()} bytes, more than the {MAX_SPEC} that are allowed"
        )
    if spec.kind not in (run_pb2.LAUNCH_KIND_EXECUTE, run_pb2.LAUNCH_KIND_RESUME):
        raise InvalidField("spec.kind", "is not set; give EXECUTE or RESUME")
    if (spec.kind == run_pb2.LAUNCH_KIND_RESUME) != (spec.resume_number > 0):
        raise InvalidField("spec.resume_number", "must be 0 for EXECUTE and at least 1 for RESUME")
    if not spec.worker_args:
        raise InvalidField(
            "spec.worker_args", "is empty; give the serialized ExecuteRunArgs or ResumeRunArgs"
        )
    if not spec.deployment:
        raise InvalidField("spec.deployment", "is empty; name the Dagster deployment that launches")
    _check_environment(spec)
    return Launch(
        run_id=spec.run_id,
        resume_number=spec.resume_number,
        deployment=spec.deployment,
        job=spec.code_origin.job,
        location=spec.code_origin.location,
        requirements=Requirements(),
        policies=_policies(spec.policies),
        digest=hashlib.sha256(spec.SerializeToString(deterministic=True)).hexdigest(),
        spec=spec,
        repository=spec.code_origin.repository,
        layers=(Layer("deployment", wants_of(spec.requirements, "spec.requirements")),),
    )


def _check_environment(spec: run_pb2.LaunchSpec) -> None:
    for name, value in spec.environment.items():
        if not name or "=" in name or "\0" in name + value:
            raise InvalidField("spec.environment", f"{name!r} is no name of an environment variable")


def _policies(asked: run_pb2.Policies) -> Policies:
    def seconds(field: str) -> float | None:
        if not asked.HasField(field):  # type: ignore[arg-type]
            return None
        given: Duration = getattr(asked, field)
        value = given.ToNanoseconds() / 1e9
        if value < 0:
            raise InvalidField(f"spec.policies.{field}", f"is {value:g} s; it cannot be negative")
        return value

    grace = seconds("grace")
    return Policies(
        grace=DEFAULT_GRACE if grace is None else grace,
        max_queue_time=seconds("max_queue_time"),
        start_timeout=seconds("start_timeout"),
        stop_after=seconds("stop_after"),
    )


def check_snapshot(snapshot: launch_pb2.Snapshot) -> None:
    """Checks that a snapshot arrived whole and is of bearable size.

    Raises:
        TooLarge: It exceeds `MAX_SNAPSHOT` or, decompressed, `MAX_SNAPSHOT_PLAIN`.
        InvalidField: It is corrupt.
    """
    if len(snapshot.data) > MAX_SNAPSHOT:
        raise TooLarge(f"snapshot.data has {len(snapshot.data)} bytes, more than the {MAX_SNAPSHOT} allowed")
    inflater = zlib.decompressobj()
    digest, size, rest = hashlib.sha256(), 0, snapshot.data
    try:
        while rest and not inflater.eof:
            piece = inflater.decompress(rest, 1 << 20)
            digest.update(piece)
            size += len(piece)
            if size > MAX_SNAPSHOT_PLAIN:
                raise TooLarge(f"snapshot.data decompresses to more than {MAX_SNAPSHOT_PLAIN} bytes")
            rest = inflater.unconsumed_tail
    except zlib.error as error:
        raise InvalidField("snapshot.data", f"is not zlib data ({error}); send it again") from error
    if not inflater.eof or digest.hexdigest() != snapshot.sha256:
        raise InvalidField("snapshot.sha256", "does not fit snapshot.data: it arrived damaged; send it again")


def check_hello(hello: agent_pb2.Hello) -> None:
    """Checks what an agent says of itself.

    Raises:
        InvalidField: A field is missing or malformed; the message names it.
    """
    for field, value in (("node_id", hello.node_id), ("cluster", hello.cluster)):
        if not NAME.fullmatch(value):
            raise InvalidField(
                field, f"{value[:80]!r} must be letters, digits, '.', '_' and '-' (128 at most)"
            )
    for field, value in (
        ("installation_id", hello.installation_id),
        ("instance_id", hello.instance_id),
        ("boot_id", hello.boot_id),
    ):
        if not 0 < len(value) <= 64:
            raise InvalidField(field, "must have 1 to 64 characters")
    offer_of(hello.offer)
