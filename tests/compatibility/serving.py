"""A coordinator of this version on a database of 0.1.0, and the command line as its client."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from compatibility.readers import COMMAND_LINE, COORDINATOR_COMMAND
from harness.waiting import wait_until


@dataclass(frozen=True)
class Asked:
    """A running coordinator that commands can query."""

    address: str

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run `runyard` with these arguments and return its exit code and output."""
        done = subprocess.run(
            [sys.executable, *COMMAND_LINE, *arguments],
            env={**os.environ, "RUNYARD_ADDRESS": self.address},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout


@contextmanager
def serving(state: Path) -> Iterator[Asked]:
    """Start a coordinator on a copy of a state directory."""
    folder = Path(tempfile.mkdtemp(prefix="ry-"))
    shutil.copytree(state, folder / "state")
    (folder / "state").chmod(0o700)
    (folder / "state" / "coordinator.db").chmod(0o600)
    socket = folder / "socket"
    # Everything stays as it was recorded: nothing is forgotten, and no silence is too long.
    settings = {
        "listen": f"unix:{socket}",
        "state_directory": str(folder / "state"),
        "keep_finished": 3e9,
        "recovery": 0,
        "lease": 86_400,
        "lost_after": 864_000,
    }
    config = folder / "coordinator.yaml"
    config.write_text(yaml.safe_dump(settings))
    log = folder / "log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, *COORDINATOR_COMMAND, "--config", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
    try:
        asked = Asked(f"unix:{socket}")
        wait_until(lambda: process.poll() is None and socket.exists(), log.read_text, timeout=30.0)
        yield asked
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)


def commands_of(database: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Arguments of the commands with JSON output, by name."""
    runs = database["runs"]
    found: dict[str, tuple[str, ...]] = {
        "run list": ("run", "list"),
        "node list": ("node", "list"),
        "cluster list": ("cluster", "list"),
        "show of an unknown run": ("run", "show", "77777777-0000-4000-8000-000000000000"),
        "show of an unknown node": ("node", "show", "nobody"),
        "a command that is not understood": ("run", "list", "--nonsense"),
    }
    by_phase = {run["phase"]["is"]: run_id for run_id, run in runs.items() if not run["reported"]}
    for phase, run_id in by_phase.items():
        found[f"run show of one that is {phase}"] = ("run", "show", run_id)
    queued = by_phase["queued"]
    found["run explain"] = ("run", "explain", queued)
    for node in ("node-a", "node-c"):
        found[f"node show {node}"] = ("node", "show", node)
    return {name: (*arguments, "--output", "json") for name, arguments in found.items()}


def as_value(output: str) -> Any:
    """Parse the JSON that a command printed; None if it printed nothing.

    When events were is left out: the coordinator adds some when it starts.
    """
    value = json.loads(output) if output else None
    for event in value.get("events", []) if isinstance(value, dict) else []:
        event["at"] = "a time" if event["at"] else None
    return value
