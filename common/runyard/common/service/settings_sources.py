"""Reading settings: one YAML file, overridden by the environment, overridden by the command line."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from runyard.common.service.settings import (
    Settings,
    SettingsError,
    current_path,
    section_kind,
    settings_at,
    written_keys,
)
from runyard.common.service.yaml_document import (
    InvalidYamlFile,
    KeyPath,
    YamlDocument,
    YamlProblem,
    read_yaml,
    read_yaml_file,
    show_path,
)

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

    A value replaces the whole value of the same setting, also a mapping such as `labels`. A setting of a
    section, such as `tls.key`, replaces only itself.

    Args:
        kind: The settings to read.
        file: A YAML file with a mapping, or None.
        prefix: Environment variables are named `<prefix>_<KEY>`, and `<prefix>_<SECTION>__<KEY>` in a
            section. Their values are read as YAML.
        flags: Values from the command line by dotted key, such as `isolation.backends`; None values mean "not
            given".
        on_renamed: Called with the old and the current name of each setting that has an old name, such as
            `isolation.rungs` and `isolation.backends`.

    Raises:
        SettingsError: A key is unknown, a value is wrong, or the file cannot be read.
    """
    layers = _Layers(kind, file, on_renamed)
    if file is not None:
        layers.add_file(file)
    names = {environment_name(prefix, path): path for path in written_keys(kind)}
    layers.add(
        {
            path: (_from_environment(name, environment[name]), f"environment variable {name}")
            for name, path in names.items()
            if name in environment
        }
    )
    layers.add(
        {
            tuple(key.split(".")): (value, flag_name(tuple(key.split("."))))
            for key, value in flags.items()
            if value is not None
        }
    )
    return layers.validated()


class _Layers(Generic[S]):
    """Values of the settings, from the source of the lowest precedence to that of the highest."""

    def __init__(self, kind: type[S], file: Path | None, on_renamed: Callable[[str, str], None]) -> None:
        self._kind = kind
        self._file = file
        self._on_renamed = on_renamed
        self._document = YamlDocument()
        self._values: dict[str, Any] = {}
        self._origins: dict[KeyPath, str] = {}

    def add_file(self, file: Path) -> None:
        """Read the file, which has the lowest precedence.

        Raises:
            SettingsError: It cannot be read, is not a mapping, or has a setting under both its names.
        """
        try:
            self._document = read_yaml_file(file)
        except InvalidYamlFile as error:
            raise SettingsError(str(error)) from error
        content = {} if self._document.value is None else self._document.value
        if not isinstance(content, dict):
            raise SettingsError(f"{file}: must hold a mapping of settings, such as 'node_id: a'")
        self._rename_in_file(self._kind, content, ())
        self._values = content

    def _rename_in_file(self, kind: type[Settings], content: Mapping[str, Any], section: KeyPath) -> None:
        for old in [key for key in content if key in kind.renamed]:
            path, current = (*section, old), (*section, kind.renamed[old])
            if current[-1] in content:
                raise SettingsError(f"{self._file}: {self._both_names(path, current)}")
            self._on_renamed(show_path(path), show_path(current))
            self._document.rename_key(section, old, str(current[-1]))
        for key, value in content.items():
            inner = section_kind(kind, key)
            if inner is not None and isinstance(value, Mapping):
                self._rename_in_file(inner, value, (*section, key))

    def _both_names(self, old: KeyPath, current: KeyPath) -> YamlProblem:
        message = f"is the old name of {show_path(current)}, which is set too; remove {show_path(old)}"
        return self._document.problem_at(old, message)

    def add(self, given: Mapping[KeyPath, tuple[Any, str]]) -> None:
        """Add a source that overrides the sources before it.

        Args:
            given: Values by key, each with its origin for error messages.

        Raises:
            SettingsError: A setting is given under both its names.
        """
        current: dict[KeyPath, tuple[Any, str]] = {}
        for path, (value, origin) in given.items():
            renamed = current_path(self._kind, path)
            if renamed != path:
                if renamed in given:
                    message = f"is the old name of {show_path(renamed)}, which is set too"
                    raise SettingsError(f"{origin}: {show_path(path)}: {message} ({given[renamed][1]})")
                self._on_renamed(show_path(path), show_path(renamed))
            current[renamed] = (self._inside_section(renamed, value, origin), origin)
        for path in sorted(current, key=len):
            self._set(path, *current[path])

    def _inside_section(self, path: KeyPath, value: Any, origin: str) -> Any:
        """Rename the keys of a whole section that is given as one mapping."""
        kind: type[Settings] = self._kind
        for part in path:
            inner = section_kind(kind, part)
            if inner is None or not isinstance(value, Mapping):
                return value
            kind = inner
        renamed: dict[str, Any] = {}
        for old, item in value.items():
            key = kind.renamed.get(old, old)
            if key != old:
                written, current = show_path((*path, old)), show_path((*path, key))
                if key in value:
                    raise SettingsError(
                        f"{origin}: {written}: is the old name of {current}, which is set too"
                    )
                self._on_renamed(written, current)
            renamed[key] = self._inside_section((*path, key), item, origin)
        return renamed

    def _set(self, path: KeyPath, value: Any, origin: str) -> None:
        section = self._values
        for part in path[:-1]:
            if not isinstance(section.get(str(part)), dict):
                section[str(part)] = {}
            section = section[str(part)]
        section[str(path[-1])] = value
        for below in [known for known in self._origins if known[: len(path)] == path]:
            del self._origins[below]
        self._origins[path] = origin

    def validated(self) -> S:
        """Return the settings.

        Raises:
            SettingsError: A key is unknown, missing, or has a wrong value.
        """
        try:
            return self._kind.model_validate(self._values)
        except ValidationError as error:
            problems = [self._explain(problem) for problem in error.errors(include_input=False)]
            raise SettingsError("; ".join(problems)) from None

    def _explain(self, problem: Any) -> str:
        path: KeyPath = problem["loc"]
        match problem["type"]:
            case "extra_forbidden":
                known = settings_at(self._kind, path[:-1]) or self._kind
                message = f"there is no such setting; known settings: {', '.join(sorted(known.model_fields))}"
            case "missing":
                message = "is required"
            case _:
                message = problem["msg"].removeprefix("Value error, ")
        for end in range(len(path), 0, -1):
            if origin := self._origins.get(path[:end]):
                return f"{origin}: {show_path(path)}: {message}"
        if self._file is None:
            return f"{show_path(path)}: {message}" if path else message
        where = self._document.problem_at(path, message)
        return f"{self._file}: {where if path else message}"


def environment_name(prefix: str, path: KeyPath) -> str:
    """Return the environment variable of a setting, such as `RUNYARD_AGENT_TLS__KEY`."""
    return f"{prefix}_{'__'.join(map(str, path))}".upper()


def flag_name(path: KeyPath) -> str:
    """Return the flag of a setting, such as `--warm.max-servers`."""
    return "--" + ".".join(map(str, path)).replace("_", "-")


def read_value(text: str) -> Any:
    """Return a value that is written as YAML, as in environment variables and flags.

    Raises:
        InvalidYamlFile: It is not YAML.
    """
    return read_yaml(os.fsencode(text)).value


def _from_environment(name: str, text: str) -> Any:
    try:
        return read_value(text)
    except InvalidYamlFile as error:
        raise SettingsError(f"environment variable {name}: {error}") from None
