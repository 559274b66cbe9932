"""Contents of the files of a run directory: one dataclass per file, written as JSON with a version.

Newer agents read what older shims wrote, and within one version the reverse holds: unknown fields are
ignored, missing fields take their defaults, and a higher version is refused. Standard library only.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from runyard.agent.supervisor.procfs import ProcessIdentity

if TYPE_CHECKING:
    from typing import Self  # from Python 3.11 on, and warm servers may run older ones

FORMAT_VERSION = 1

Cause = Literal[
    "exited",
    "signaled",
    "oom_killed",
    "start_failed",
    "stopped",
    "timed_out",
    "node_lost",
    "node_shutdown",
    "exit_unknown",
]
"""Cause of the end: the worker exited, was killed, never started, or its end was not observed."""

MESSAGE_LIMIT = 1500
"""Characters of `ExitRecord.message` that are kept, so that the record fits the room set aside for it."""


class UnreadableRecord(Exception):
    """A file of a run directory does not hold what this version of Runyard can read."""


@dataclass(frozen=True)
class Record:
    """Base of the dataclasses below: to and from the bytes of a file."""

    def encode(self) -> bytes:
        """The bytes of the file."""
        return json.dumps({"version": FORMAT_VERSION, **asdict(self)}).encode()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The record in these bytes.

        Raises:
            UnreadableRecord: It is no JSON object, of a newer version, or lacks a field.
        """
        try:
            values = json.loads(data)
            version = values.pop("version")
            if version > FORMAT_VERSION:
                raise UnreadableRecord(
                    f"version {version} is newer than {FORMAT_VERSION}: upgrade this agent"
                )
            known = {entry.name for entry in fields(cls)}
            return cls(**{name: value for name, value in values.items() if name in known})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UnreadableRecord(f"not a {cls.__name__}: {error}") from error


@dataclass(frozen=True)
class SpecRecord(Record):
    """`spec`: everything needed to start the worker. Holds secrets until it is: the file's mode is 0600."""

    argv: list[str]
    env: dict[str, str] = field(repr=False)
    """The whole environment of the worker; nothing of the agent's own is added. Empty once it is running."""
    cwd: str = ""
    """Empty: the agent's working directory."""
    grace_seconds: float = 30.0
    """Between SIGTERM and SIGKILL, unless a stop request brings its own."""
    stop_after: float | None = None
    """Seconds without contact to the coordinator after which the worker is stopped; None: never."""
    worker_args: str = field(default="", repr=False)
    """Given to the worker through a file descriptor: never in its arguments or environment. As `env`."""
    identity: dict[str, Any] = field(default_factory=dict)
    """The fields of the launch that a coordinator without a memory needs; opaque to the shim."""
    driver: str = "process"
    container: dict[str, Any] = field(default_factory=dict)
    """For drivers of containers: image, networks and so on; opaque to the shim."""
    limits: dict[str, Any] = field(default_factory=dict)
    """How much the worker may take, and how that is enforced: see `runyard.agent.supervisor.limits.plan`."""
    run_as: str = ""
    """Name of the user; empty for the agent's own."""
    scratch: str = ""
    """Path of a directory that is the attempt's own, and deleted after it; empty for none."""
    no_new_privs: bool = False
    """Nothing that the worker executes gets more rights than it has."""
    core_dumps: bool = True
    gpus: list[str] = field(default_factory=list)
    """What the attempt has to itself until it is over: UUIDs, or indices where these are not known."""
    secret_names: list[str] = field(default_factory=list)
    """The variables in `env` that hold secrets."""
    fingerprints: list[list[int]] = field(default_factory=list)
    """Fingerprints of secrets, for redaction: see `runyard.agent.spec_record.redaction`."""


@dataclass(frozen=True)
class WorkerRecord(Record):
    """`worker`: which process is the worker, and which its shim. On disk before the program begins."""

    pid: int
    start_time: int
    boot_id: str
    shim_pid: int
    shim_start_time: int
    started_at: float
    """Unix time in seconds."""

    @property
    def process(self) -> ProcessIdentity:
        """The worker."""
        return ProcessIdentity(self.pid, self.start_time)

    @property
    def shim(self) -> ProcessIdentity:
        """The process that watches the worker."""
        return ProcessIdentity(self.shim_pid, self.shim_start_time)


@dataclass(frozen=True)
class ContainerRecord(Record):
    """`container`: which container is the worker's. On disk once it was seen to run."""

    id: str
    pid: int
    """As the engine's machine counts."""
    boot_id: str


@dataclass(frozen=True)
class StopRequest(Record):
    """`stop`: asks the shim to end the worker, or never to start it."""

    grace_seconds: float
    reason: str
    requested_at: float
    """Unix time in seconds."""
    cause: Cause = "stopped"
    """What the exit will say."""
    why: str = ""
    """As in `ExitRecord`."""
    requested_at_boottime: float | None = None
    """Seconds of CLOCK_BOOTTIME; None in requests of 0.1.0."""


@dataclass(frozen=True)
class ExitRecord(Record):
    """`exit`: how the attempt ended. Written once; the first writer wins."""

    cause: Cause
    message: str
    ended_at: float
    """Unix time in seconds."""
    code: int | None = None
    signal: int | None = None
    peak_rss_bytes: int = 0
    """Of the worker; of an attempt with a limit, of all its processes together as far as was seen."""
    user_seconds: float = 0.0
    system_seconds: float = 0.0
    stop_requested: bool = False
    memory_limit_bytes: int = 0
    """The limit that was in force; 0 for none."""
    why: str = ""
    """A word for programs, where the cause is too coarse: `executable_missing`, `disk_full` and so on."""

    def encode(self) -> bytes:
        """The bytes of the file, with the message cut to `MESSAGE_LIMIT`."""
        values = {"version": FORMAT_VERSION, **asdict(self), "message": self.message[:MESSAGE_LIMIT]}
        return json.dumps(values, ensure_ascii=False).encode(errors="replace")
