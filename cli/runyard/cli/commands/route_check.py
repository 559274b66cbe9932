"""`runyard route check`: what is wrong with a routing file, before the coordinator reads it."""

import importlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from runyard.cli.doctor.findings import Level
from runyard.cli.exit_codes import CommandFailed, ExitCode
from runyard.cli.options import AddressOption, Output, OutputOption, Settings
from runyard.client.errors import CoordinatorUnreachable
from runyard.common.transport.address import DEFAULT_ADDRESS

TIMEOUT = 5.0
"""Seconds for the coordinator to name its clusters; the check continues without them."""


@dataclass(frozen=True)
class Remark:
    """Something about the file. `line` is 0 and `key` empty where it is about the whole."""

    level: Level
    line: int
    key: str
    text: str


def check_file(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The routing file.")],
    output: OutputOption = None,
    address: AddressOption = None,
) -> None:
    """Check a routing file. Ends with 1 if the coordinator would refuse it.

    Needs no coordinator; with --address it also says which clusters have no node.
    """
    settings = Settings.of(context, address, output)
    reading = _load_reader()
    try:
        routing = reading.load_routing(file)
    except reading.InvalidYamlFile as error:
        remarks = _remarks(Level.PROBLEM, error.problems)
    else:
        remarks = _remarks(Level.WARNING, routing.warnings)
        if address is not None or settings.address != DEFAULT_ADDRESS:
            remarks += _absent_clusters(routing, settings)
        remarks.append(Remark(Level.OK, 0, "", _summary(routing.config)))
    _print(file, remarks, settings.output)
    refused = any(remark.level is Level.PROBLEM for remark in remarks)
    raise typer.Exit(ExitCode.FAILED if refused else ExitCode.OK)


def _load_reader() -> Any:
    try:
        return importlib.import_module("runyard.coordinator.routing_config.reading")
    except ModuleNotFoundError as missing:
        raise CommandFailed(
            f"`runyard route check` needs {missing.name}, which is not installed.\n"
            "Install it with: pip install 'runyard[coordinator]'"
        ) from missing


def _remarks(level: Level, problems: Iterable[Any]) -> list[Remark]:
    return [Remark(level, each.line, each.key, each.message) for each in problems]


def _absent_clusters(routing: Any, settings: Settings) -> list[Remark]:
    try:
        with settings.client() as client:
            known = {cluster.name for cluster in client.list_clusters(timeout=TIMEOUT)}
    except CoordinatorUnreachable as error:
        return [Remark(Level.WARNING, 0, "", f"whether the clusters have nodes was not checked: {error}")]
    return _remarks(Level.WARNING, [each for name, each in routing.if_absent.items() if name not in known])


def _summary(config: Any) -> str:
    counts = {"rule": len(config.rules), "quota": len(config.quotas)}
    return ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts.items())


def _print(file: Path, remarks: list[Remark], output: Output) -> None:
    if output is Output.JSON:
        rows = [
            {
                "level": remark.level.name.lower(),
                "line": remark.line or None,
                "key": remark.key or None,
                "text": remark.text,
            }
            for remark in remarks
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    for remark in remarks:
        place = f"{file}:{remark.line}" if remark.line else str(file)
        parts = [place, remark.key, remark.text] if remark.key else [place, remark.text]
        typer.echo(f"{remark.level.name.lower():<8} {': '.join(parts)}")
