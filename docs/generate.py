"""Write the pages in docs/reference from the code: `make docs`. A test fails if a page is out of date."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from dagster import Field

from runyard.agent.__main__ import SERVICE as AGENT
from runyard.cli.app import app
from runyard.cli.commands.daemons import DAEMONS
from runyard.common.service.service_main import Service
from runyard.common.service.setting_keys import SettingKey, documented_keys
from runyard.common.service.settings_sources import environment_name
from runyard.coordinator.command import SERVICE as COORDINATOR
from runyard.launcher.config import SCHEMA

REFERENCE = Path(__file__).parent / "reference"

GENERATED = "<!-- Written by `make docs` from the code. Do not edit. -->"


def pages() -> dict[str, str]:
    """Return the text of every page by its file name."""
    return {
        "coordinator.yaml.md": "\n".join(_settings_page(COORDINATOR)) + "\n",
        "agent.yaml.md": "\n".join(_settings_page(AGENT)) + "\n",
        "dagster.yaml.md": "\n".join(_launcher_page()) + "\n",
        "cli.md": "\n".join(_cli_page()) + "\n",
    }


def _settings_page(service: Service[Any]) -> Iterator[str]:
    role = service.role
    yield f"# {role}.yaml\n\n{GENERATED}\n"
    yield (
        f"Settings of the {role}. Each can be set in the file that `runyard {role} --config {role}.yaml` "
        "names, in the environment variable, or by the flag. Flags override the environment, and the "
        "environment overrides the file. Environment variables are read as YAML, and so are flags whose type "
        "is not a text, a path or one of several words. Times are in seconds.\n"
    )
    yield f"`runyard {role} --config {role}.yaml --check` checks the settings and exits.\n"
    keys = documented_keys(service.settings)
    yield from _settings_table(service, [key for key in keys if len(key.path) == 1])
    for section in keys:
        inner = [key for key in keys if key.path[:-1] == section.path]
        entries = [key for key in keys if key.path[:-2] == section.path and key.path[-2].startswith("<")]
        if inner and section.is_section:
            yield f"\n## {section.name}\n\n{section.help}\n"
            yield from _settings_table(service, inner)
        if entries:
            yield f"\n## {'.'.join(entries[0].path[:-1])}\n\nOne entry of `{section.name}`. {section.help}\n"
            yield from _settings_table(service, entries)
    old_names = [(".".join(old), key.name) for key in keys for old in key.old_names]
    if old_names:
        yield "\n## Deprecated names\n\nThey are still read, with a warning.\n"
        yield "| Old name | Current name |\n| --- | --- |"
        yield from (f"| `{old}` | `{current}` |" for old, current in old_names)


def _settings_table(service: Service[Any], keys: list[SettingKey]) -> Iterator[str]:
    yield "| Setting | Type | Default | Environment variable and flags | Description |"
    yield "| --- | --- | --- | --- | --- |"
    for key in keys:
        in_entry = any(part.startswith("<") for part in key.path)
        given = [] if in_entry else [environment_name(service.prefix, key.path), *service.flags_of(key)]
        if key.name in service.entry_flags:
            given.append(service.entry_flags[key.name])
        default = "required" if key.default is None else f"`{key.default}`" if key.default else ""
        yield _row(
            f"`{key.path[-1]}`", key.type, default, "<br>".join(f"`{name}`" for name in given), key.help
        )


def _row(*cells: str) -> str:
    return f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in cells)} |"


def _launcher_page() -> Iterator[str]:
    yield f"# dagster.yaml\n\n{GENERATED}\n"
    yield "Settings of the launcher, in Dagster's own file:\n"
    yield (
        "```yaml\nrun_launcher:\n  module: runyard.launcher\n  class: RunyardRunLauncher\n"
        "  config:\n    address: 127.0.0.1:7171\n```\n"
    )
    yield "Every single value can also be `{env: NAME}`, which the launcher reads from its environment.\n"
    yield "| Setting | Type | Default | Description |\n| --- | --- | --- | --- |"
    for name, field in SCHEMA.items():
        default = f"`{_written(field.default_value)}`" if field.default_provided else ""
        yield _row(f"`{name}`", _launcher_type(field), default, field.description or "")


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _launcher_type(field: Field) -> str:
    scalar = getattr(field.config_type, "scalar_type", None)
    if scalar is not None:
        return {"String": "text", "Float": "number", "Bool": "true or false"}[str(scalar.given_name)]
    return {"Map": "mapping to text", "Array": "list of text", "Shape": "section"}[
        type(field.config_type).__name__
    ]


def _cli_page() -> Iterator[str]:
    yield f"# runyard\n\n{GENERATED}\n"
    root: Any = typer.main.get_command(app)
    yield f"{root.help}\n"
    yield from _options(root)
    for daemon in DAEMONS:
        yield f"\n## runyard {daemon.command}\n\n{daemon.help}"
        if daemon.command in (COORDINATOR.role, AGENT.role):
            yield f"Its flags are in [{daemon.command}.yaml]({daemon.command}.yaml.md)."
    yield from _commands(root, "runyard", {daemon.command for daemon in DAEMONS})


def _commands(group: Any, path: str, left_out: set[str]) -> Iterator[str]:
    for name, command in group.commands.items():
        if name in left_out or command.hidden:
            continue
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path} {name}", set())
            continue
        arguments = [each for each in command.params if not _is_option(each)]
        usage = " ".join((f"{path} {name}", *(each for argument in arguments for each in _names(argument))))
        yield f"\n## {usage}\n\n{command.help or ''}\n"
        yield from _options(command)


def _options(command: Any) -> Iterator[str]:
    described = [each for each in command.params if not each.hidden and each.help]
    if not described:
        return
    yield "| Option | Description |\n| --- | --- |"
    for each in described:
        value = f" {each.metavar}" if _is_option(each) and each.metavar else ""
        yield _row(", ".join(f"`{name}{value}`" for name in _names(each)), each.help)


def _names(parameter: Any) -> tuple[str, ...]:
    if _is_option(parameter):
        return (*parameter.opts, *parameter.secondary_opts)
    return (str(parameter.metavar or parameter.name).upper(),)


def _is_option(parameter: Any) -> bool:
    return any(name.startswith("-") for name in parameter.opts)


def main() -> None:
    """Write all pages."""
    for name, text in pages().items():
        (REFERENCE / name).write_text(text)


if __name__ == "__main__":
    main()
