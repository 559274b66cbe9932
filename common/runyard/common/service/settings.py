"""Base classes of a service's settings, and their keys."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import ClassVar, Final, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict

from runyard.common.service.yaml_document import KeyPath
from runyard.common.transport.tls import TlsFiles

_OPTIONAL: Final = (None, Union, UnionType)
"""Origins of an annotation that is a section or an optional one, not a list or a mapping of sections."""


class SettingsError(Exception):
    """The settings cannot be used; the message names the file and line, the key and the remedy."""


class Settings(BaseModel):
    """Base of a service's settings and of their sections: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    renamed: ClassVar[Mapping[str, str]] = {}
    """Old names of settings of this section, each with its current name. `load_settings` still reads them."""


class TlsSettings(Settings):
    """Certificates that a service trusts and presents: PEM files, which are read again when they change."""

    authority: Path
    """Certificates of the trusted authorities."""

    certificate: Path
    """This service's certificate, followed by the intermediate ones."""

    key: Path
    """Private key of that certificate. No other user may be able to read it."""

    def files(self) -> TlsFiles:
        """Return the paths in the form that channels and servers take."""
        return TlsFiles(self.authority, self.certificate, self.key)


def section_kind(kind: type[Settings], key: str | int) -> type[Settings] | None:
    """Return the settings in a section; None if the key is unknown or a single setting."""
    field = kind.model_fields.get(str(key))
    if field is None or get_origin(field.annotation) not in _OPTIONAL:
        return None
    return _settings_in(field.annotation)


def settings_at(kind: type[Settings], path: KeyPath) -> type[Settings] | None:
    """Return the settings at a path, which may lead through mappings and lists of sections.

    Args:
        kind: The settings at the top.
        path: Such as `("policy", "profiles", 0, "containers")`.
    """
    inner: type[Settings] | None = kind
    rest = list(path)
    while rest and inner is not None:
        field = inner.model_fields.get(str(rest.pop(0)))
        if field is None:
            return None
        if get_origin(field.annotation) not in _OPTIONAL and rest:
            rest.pop(0)
        inner = _settings_in(field.annotation)
    return inner


def _settings_in(annotation: object) -> type[Settings] | None:
    for part in (annotation, *get_args(annotation)):
        if isinstance(part, type) and issubclass(part, Settings):
            return part
    return None


def current_path(kind: type[Settings], path: KeyPath) -> KeyPath:
    """Return a path with every old name replaced by the current one."""
    current: list[str | int] = []
    inner: type[Settings] | None = kind
    for part in path:
        name = inner.renamed.get(str(part), part) if inner is not None else part
        inner = section_kind(inner, name) if inner is not None else None
        current.append(name)
    return tuple(current)


def written_keys(kind: type[Settings]) -> Iterator[KeyPath]:
    """Yield the path of every setting and section, each section before what it holds, old names too."""
    for key in (*kind.model_fields, *kind.renamed):
        yield (key,)
        inner = section_kind(kind, kind.renamed.get(key, key))
        if inner is not None:
            yield from ((key, *path) for path in written_keys(inner))
