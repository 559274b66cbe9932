"""All settings of a service as a table, for `--help` and for the reference pages."""

import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from runyard.common.secrets import Secret
from runyard.common.service.settings import Settings, section_kind, settings_at

_NAMES: Final[dict[object, str]] = {
    str: "text",
    SecretStr: "text",
    Secret: "text",
    Path: "path",
    bool: "true or false",
    int: "integer",
    float: "number",
    Any: "any value",
}
_TEXTS: Final = (str, Path, SecretStr)


@dataclass(frozen=True)
class SettingKey:
    """A setting, or a section of settings.

    Attributes:
        path: Keys that lead to it, such as `("isolation", "backends")`. `<name>` and `<n>` stand for a key of
            a mapping and a place in a list.
        type: For people, such as `list of text`.
        default: As it is written in YAML; empty if it is computed or described in `help`; None if the
            setting is required.
        help: Its docstring.
        old_names: Paths under which it is still read.
        is_section: True if it holds settings.
        is_text: True if its value is one text, which needs no quotes on the command line.
        is_mapping: True if its value is a mapping without fixed keys.
    """

    path: tuple[str, ...]
    type: str
    default: str | None
    help: str
    old_names: tuple[tuple[str, ...], ...] = ()
    is_section: bool = False
    is_text: bool = False
    is_mapping: bool = False

    @property
    def name(self) -> str:
        """Its path with dots, such as `isolation.backends`."""
        return ".".join(self.path)


def setting_keys(kind: type[Settings]) -> list[SettingKey]:
    """Return all settings in the order of their declaration, each section before the settings in it."""
    return list(_keys(kind, (), entries=False))


def documented_keys(kind: type[Settings]) -> list[SettingKey]:
    """Return all settings, and those in mappings and lists of sections, such as `policy.profiles[]`."""
    return list(_keys(kind, (), entries=True))


def _keys(kind: type[Settings], section: tuple[str, ...], *, entries: bool) -> Iterator[SettingKey]:
    for name, field in kind.model_fields.items():
        path = (*section, name)
        inner = section_kind(kind, name)
        yield SettingKey(
            path,
            type_text(field.annotation),
            _default(field),
            field.description or "",
            tuple((*section, old) for old, current in kind.renamed.items() if current == name),
            is_section=inner is not None,
            is_text=_is_text(field.annotation),
            is_mapping=get_origin(field.annotation) is dict,
        )
        if inner is not None:
            yield from _keys(inner, path, entries=entries)
        elif entries:
            place = "<name>" if get_origin(field.annotation) is dict else "<n>"
            entry = settings_at(kind, (name, place))
            if entry is not None:
                yield from _keys(entry, (*path, place), entries=True)


def type_text(annotation: object) -> str:
    """Return the name of a type for people, such as `list of text`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return "section"
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is Annotated:
        return type_text(arguments[0])
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(type_text(part) for part in arguments if part is not type(None)))
    if origin is tuple:
        return f"list of {type_text(arguments[0])}"
    if origin is dict:
        return f"mapping to {type_text(arguments[1])}"
    return _NAMES.get(annotation, "reference")


def _is_text(annotation: object) -> bool:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return all(part is type(None) or _is_text(part) for part in arguments)
    return annotation in _TEXTS or (origin is Literal and all(isinstance(value, str) for value in arguments))


def _default(field: FieldInfo) -> str | None:
    if field.is_required():
        return None
    if field.default is not PydanticUndefined:
        return _shown(field.default)
    factory: object = field.default_factory
    if factory in (dict, list, tuple):
        return _shown(factory())
    return ""


def _shown(value: object) -> str:
    match value:
        case None | Settings():
            return ""
        case bool():
            return str(value).lower()
        case float():
            return f"{value:.10g}"
        case str():
            return value or '""'
        case tuple() | list():
            return f"[{', '.join(map(_shown, value))}]"
        case dict():
            return "{}" if not value else f"{{{', '.join(f'{k}: {_shown(v)}' for k, v in value.items())}}}"
    return str(value)
