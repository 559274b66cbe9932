"""The launcher's settings in `dagster.yaml`.

Values written as `{env: NAME}` are looked up when the launcher first needs them, not when it is created: run
workers create a launcher too, for one property, and lack the variables of the control plane.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from dagster import Array, Field, ScalarUnion

from runyard.common.defaults import LONGEST_SECONDS
from runyard.common.durations import parse_duration
from runyard.common.references import Reference, is_reference, parse_reference
from runyard.common.transport.address import DEFAULT_ADDRESS
from runyard.common.transport.tls import TlsFiles
from runyard.launcher.errors import InvalidLauncherConfig

ON_DISCONNECT_REMEDY: Final = "Write keep, or a time as in stop_after=5m"


def _or_env(scalar: type) -> ScalarUnion:
    return ScalarUnion(scalar_type=scalar, non_scalar_schema={"env": str})


_TEXT: Final = _or_env(str)
_SECONDS: Final = _or_env(float)
_YES_OR_NO: Final = _or_env(bool)

SCHEMA: Final[dict[str, Field]] = {
    "address": Field(
        _TEXT,
        default_value=DEFAULT_ADDRESS,
        description="The coordinator: host:port, [ipv6]:port or unix:/path.",
    ),
    "tls": Field(
        {"authority": _TEXT, "certificate": _TEXT, "key": _TEXT},
        is_required=False,
        description="PEM files: the authorities to trust, this side's certificate, and its key. Required for "
        "an address beyond this machine. They are read again when they change.",
    ),
    "deployment": Field(
        _TEXT,
        default_value="default",
        description="Name of this Dagster instance at the coordinator. Two instances need two names.",
    ),
    "cluster": Field(
        _TEXT,
        is_required=False,
        description="Cluster for runs without the tag runyard/cluster. Default: any.",
    ),
    "labels": Field(
        {str: _TEXT},
        default_value={},
        description="Labels that every run's node must carry; a run's own rule on a label overrides it.",
    ),
    "env_vars": Field(
        Array(_TEXT),
        default_value=[],
        description="Environment of every worker: KEY=VALUE; KEY to copy it from the launching process; "
        "KEY@env:NAME or KEY@file:/path for a value that the node looks up, so that it never travels.",
    ),
    "launch_timeout_seconds": Field(
        _SECONDS,
        default_value=30.0,
        description="How long a launch is retried while the coordinator does not answer.",
    ),
    "request_timeout_seconds": Field(
        _SECONDS,
        default_value=10.0,
        description="Deadline of every other request to the coordinator.",
    ),
    "grace_seconds": Field(
        _SECONDS,
        is_required=False,
        description="Seconds from SIGTERM to SIGKILL when a worker is stopped; the tag runyard/grace "
        "overrides it.",
    ),
    "max_queue_seconds": Field(
        _SECONDS,
        is_required=False,
        description="A run that has waited longer for a node ends as timed out.",
    ),
    "start_timeout_seconds": Field(
        _SECONDS,
        is_required=False,
        description="A worker that takes longer to start on its node ends as timed out.",
    ),
    "on_disconnect": Field(
        _TEXT,
        default_value="keep",
        description="When a node loses contact with the coordinator: keep lets the worker continue; with "
        "stop_after=5m the node stops it after that time. The tag runyard/on_disconnect overrides it.",
    ),
    "signing_key": Field(
        _TEXT,
        is_required=False,
        description="Path of the private key that signs every launch, for agents that require signatures.",
    ),
    "signature_lifetime_seconds": Field(
        _SECONDS,
        default_value=86_400.0,
        description="How long after its launch a signed run may be started; longer than any wait in a queue.",
    ),
    "reporter": Field(
        _YES_OR_NO,
        default_value=True,
        description="Report the outcomes of workers from the processes that launch runs; false if "
        "dagster-reporter runs.",
    ),
}


@dataclass(frozen=True)
class Settings:
    """The launcher's settings, looked up and checked. Times in seconds; None: the coordinator's default."""

    address: str
    tls: TlsFiles | None
    deployment: str
    cluster: str | None
    labels: Mapping[str, str]
    env_vars: Sequence[str] = field(repr=False)
    launch_timeout: float
    request_timeout: float
    grace: float | None
    max_queue: float | None
    start_timeout: float | None
    stop_after: float | None
    signing_key: str | None
    signature_lifetime: float
    reporter: bool


def resolve_settings(config: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """Look up the values that come from the environment, and check everything.

    Args:
        config: As Dagster validated it against `SCHEMA`.
        environ: Environment of this process.

    Raises:
        InvalidLauncherConfig: A variable is not set, or a value is invalid.
    """
    source = _Source(config, environ)
    return Settings(
        address=source.name("address"),
        tls=source.tls("tls"),
        deployment=source.name("deployment"),
        cluster=source.name("cluster") if "cluster" in config else None,
        labels={key: source.text(f"labels.{key}", value) for key, value in config["labels"].items()},
        env_vars=[source.text(f"env_vars[{index}]", entry) for index, entry in enumerate(config["env_vars"])],
        launch_timeout=source.seconds("launch_timeout_seconds", at_least=0.1),
        request_timeout=source.seconds("request_timeout_seconds", at_least=0.1),
        grace=source.optional_seconds("grace_seconds"),
        max_queue=source.optional_seconds("max_queue_seconds"),
        start_timeout=source.optional_seconds("start_timeout_seconds"),
        stop_after=source.stop_after("on_disconnect"),
        signing_key=source.name("signing_key") if "signing_key" in config else None,
        signature_lifetime=source.seconds("signature_lifetime_seconds", at_least=1),
        reporter=source.yes_or_no("reporter"),
    )


def stop_after_of(text: str) -> float | None:
    """Read the policy for workers whose node loses contact with the coordinator.

    Args:
        text: `keep`, or `stop_after=` and a time; a colon may stand for the equals sign.

    Returns:
        Seconds after which the node stops the worker. None: never.

    Raises:
        ValueError: It is neither.
    """
    word, _, time = text.replace(":", "=", 1).partition("=")
    match word.strip(), time.strip():
        case "keep", "":
            return None
        case "stop_after", time:
            seconds = parse_duration(time)
            if 0 < seconds <= LONGEST_SECONDS:
                return seconds
    raise ValueError(f"{text!r} is neither keep nor a time")


@dataclass(frozen=True)
class WorkerEnvironment:
    """Environment of every worker: values, and references that the node resolves."""

    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    references: Mapping[str, Reference] = field(default_factory=dict)


def resolve_environment(entries: Sequence[str], environ: Mapping[str, str]) -> WorkerEnvironment:
    """Build the workers' environment from `env_vars`.

    Args:
        entries: `KEY=VALUE`, `KEY` for the value in `environ`, or `KEY@env:NAME` and `KEY@file:/path` for one
            that the node looks up.
        environ: Environment of the launching process.

    Raises:
        InvalidLauncherConfig: A variable is not set, or an entry has no name or a malformed reference.
    """
    resolved: dict[str, str] = {}
    references: dict[str, Reference] = {}
    for index, entry in enumerate(entries):
        if is_reference(entry):
            name, reference = _reference(index, entry)
            references[name] = reference
            continue
        name, equals, value = entry.partition("=")
        if not name.strip():
            raise InvalidLauncherConfig(
                f"env_vars[{index}]", "has no variable name", "Write KEY=VALUE, or KEY to copy a variable"
            )
        if not equals and name not in environ:
            raise InvalidLauncherConfig(
                f"env_vars[{index}]",
                f"copies the environment variable {name}, which the launching process does not have",
                f"Set it for the Dagster daemon and web server, or write {name}=VALUE",
            )
        resolved[name] = value if equals else environ[name]
    return WorkerEnvironment(resolved, references)


def _reference(index: int, entry: str) -> tuple[str, Reference]:
    try:
        return parse_reference(entry)
    except ValueError as error:
        remedy = "Write KEY@env:NAME or KEY@file:/path"
        raise InvalidLauncherConfig(f"env_vars[{index}]", f"is malformed: {error}", remedy) from None


@dataclass(frozen=True)
class _Source:
    """Reads single settings from the file or from the environment variable that it names."""

    config: Mapping[str, Any]
    environ: Mapping[str, str]

    def text(self, field: str, raw: object) -> str:
        if not isinstance(raw, Mapping):
            return str(raw)
        name = raw["env"]
        if name not in self.environ:
            raise InvalidLauncherConfig(
                field,
                f"takes its value from the environment variable {name}, which is not set",
                f"Set {name} for this process, or write the value itself",
            )
        return self.environ[name]

    def name(self, field: str) -> str:
        text = self.text(field, self.config[field]).strip()
        if not text:
            raise InvalidLauncherConfig(field, "is empty", "Give it a value, or leave it out")
        return text

    def tls(self, field: str) -> TlsFiles | None:
        if field not in self.config:
            return None
        parts = {part: self.text(f"{field}.{part}", value) for part, value in self.config[field].items()}
        for part, text in parts.items():
            if not text.strip():
                raise InvalidLauncherConfig(f"{field}.{part}", "is empty", "Give the path of a PEM file")
        return TlsFiles(Path(parts["authority"]), Path(parts["certificate"]), Path(parts["key"]))

    def yes_or_no(self, field: str) -> bool:
        text = self.text(field, self.config[field]).lower()
        if text not in ("true", "false"):
            raise InvalidLauncherConfig(field, f"is {text!r}", "Write true or false")
        return text == "true"

    def stop_after(self, field: str) -> float | None:
        text = self.text(field, self.config[field])
        try:
            return stop_after_of(text)
        except ValueError:
            raise InvalidLauncherConfig(field, f"is {text!r}", ON_DISCONNECT_REMEDY) from None

    def optional_seconds(self, field: str) -> float | None:
        return self.seconds(field, at_least=0) if field in self.config else None

    def seconds(self, field: str, at_least: float) -> float:
        text = self.text(field, self.config[field])
        try:
            seconds = float(text)
        except ValueError:
            raise InvalidLauncherConfig(field, f"is {text!r}", "Write a number of seconds") from None
        if not at_least <= seconds <= LONGEST_SECONDS:
            remedy = f"Write a number of seconds from {at_least:g} to {LONGEST_SECONDS:.0f}"
            raise InvalidLauncherConfig(field, f"is {text}", remedy)
        return seconds
