"""Settings of a service: one YAML file, overridden by the environment, overridden by the command line."""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from runyard.common.service.yaml_errors import explained
from runyard.common.transport.tls import TlsFiles


class SettingsError(Exception):
    """The settings cannot be used; the message names the file, the key and the remedy."""


class Settings(BaseModel):
    """Base of a service's settings: immutable, and a key that is not known is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    renamed: ClassVar[Mapping[str, str]] = {}
    """Old names of settings of this section, each with its current name. `load_settings` still reads them."""


class TlsSettings(Settings):
    """Whom a service trusts, and what it shows: PEM files, which are read again when they change."""

    authority: Path
    """Certificates of the authorities that are trusted."""

    certificate: Path
    """This side's certificate, then those between it and the authority."""

    key: Path
    """Its private key, which nobody else may read."""

    def files(self) -> TlsFiles:
        """The same, as the client library takes them."""
        return TlsFiles(self.authority, self.certificate, self.key)


S = TypeVar("S", bound=Settings)


def load_settings(
    kind: type[S],
    *,
    file: Path | None,
    prefix: str,
    flags: Mapping[str, Any],
    environment: Mapping[str, str] = os.environ,
    on_renamed: Callable[[str, str], None] = lambda old, new: None,
) -> S:
    """Read settings. The command line overrides the environment, and the environment overrides the file.

    Args:
        kind: The settings to read.
        file: A YAML file with a mapping, or None.
        prefix: Environment variables are named `<prefix>_<KEY>`; their values are read as YAML.
        flags: From the command line; None values mean "not given".
        on_renamed: Called with the old and the current name of each setting that has an old name, such as
            `isolation.rungs` and `isolation.backends`.

    Raises:
        SettingsError: A key is unknown, a value is wrong, or the file cannot be read.
    """
    values = _with_current_names(kind, _from_file(file) if file is not None else {}, on_renamed)
    from_environment: dict[str, Any] = {}
    for key in (*kind.model_fields, *kind.renamed):
        name = f"{prefix}_{key.upper()}"
        if name in environment:
            from_environment[key] = _from_environment(name, environment[name])
    values.update(_with_current_names(kind, from_environment, on_renamed))
    values.update({key: value for key, value in flags.items() if value is not None})
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_explain(error, kind, file)) from error


def _with_current_names(
    kind: type[Settings], values: Mapping[str, Any], on_renamed: Callable[[str, str], None], section: str = ""
) -> dict[str, Any]:
    """Return the values with every old name replaced by the current one, also in nested sections.

    Raises:
        SettingsError: A setting is given under both names.
    """
    current: dict[str, Any] = {}
    for written, value in values.items():
        key = kind.renamed.get(written, written)
        if key != written:
            if key in values:
                raise SettingsError(f"{section}{written}: is the old name of {section}{key}; remove it")
            on_renamed(f"{section}{written}", f"{section}{key}")
        if isinstance(value, Mapping):
            for inner in _sections_of(kind, key):
                value = _with_current_names(inner, value, on_renamed, f"{section}{key}.")
        current[key] = value
    return current


def _sections_of(kind: type[Settings], key: str) -> Iterator[type[Settings]]:
    """Yield the kind of settings that a key holds, if it holds a section."""
    field = kind.model_fields.get(key)
    if field is not None:
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, Settings):
                yield part


def _from_file(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text())
    except OSError as error:
        raise SettingsError(f"{file}: cannot be read ({error.strerror}); check the path") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{file}: is not valid YAML ({explained(error)})") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError(f"{file}: must hold a mapping of settings, such as 'node_id: a'")
    return dict(content)


def _from_environment(name: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"environment variable {name}: is not valid YAML ({explained(error)})") from None


def _explain(error: ValidationError, kind: type[Settings], file: Path | None) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            known = ", ".join(sorted(kind.model_fields))
            lines.append(f"{key}: there is no such setting; known settings: {known}")
        elif problem["type"] == "missing":
            lines.append(f"{key}: is required")
        else:
            lines.append(f"{key}: {problem['msg'].removeprefix('Value error, ')}")
    where = f"{file}: " if file else ""
    return "; ".join(f"{where}{line}" for line in lines)
