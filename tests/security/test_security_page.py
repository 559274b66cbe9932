"""What docs/security.md says is so: its commands work, and the tests that it names exist."""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from harness.folders import remove
from harness.processes import Child, Processes, free_port, wait_for_text

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
BLOCK = re.compile(r"<!-- (run|file|start): (.+?) -->\n```(?:sh|yaml)\n(.*?)```", re.DOTALL)
BLOCKS = {(kind, name): text for kind, name, text in BLOCK.findall(PAGE)}
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)))
SOON = 60.0


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_every_test_that_the_page_names_exists(file: str, test: str) -> None:
    text = (ROOT / file).read_text()
    assert not test or re.search(rf"^(async )?def {test}\(", text, re.M)


def test_the_page_names_tests() -> None:
    assert len(NAMED) > 20


class Machines:
    """The machines of the page, all in one folder, on loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes = Processes(folder)
        self.places = {
            "/etc/runyard": str(folder / "etc"),
            "/var/lib/runyard": str(folder / "var"),
            "coord.example": "localhost",
            "0.0.0.0": "127.0.0.1",
            "7171": str(free_port()),
            "7172": str(free_port()),
        }
        (folder / "etc").mkdir()
        programs = folder / "bin"
        programs.mkdir()
        (programs / "runyard").write_text(
            f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m runyard.cli.main "$@"\n'
        )
        (programs / "runyard").chmod(0o755)
        self.environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "RUNYARD_AGENT_POLICY": '{"allow_root": true}',
        }

    def here(self, kind: str, name: str) -> str:
        """A block of the page, with the names of this machine."""
        text: str = BLOCKS[kind, name]
        for there, here in self.places.items():
            text = text.replace(there, here)
        return text

    def run(self, name: str) -> str:
        """What the commands print. What they export is there for the commands to come, as in a shell."""
        script = f"set -eu\n{self.here('run', name)}"
        self.environment |= dict(re.findall(r"^export (\w+)=(\S+)", script, re.M))
        environment = {**os.environ, **self.environment}
        done = subprocess.run(
            ["sh", "-c", script], env=environment, capture_output=True, text=True, timeout=SOON, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def write(self, path: str) -> None:
        """Writes a file of the page."""
        Path(self.folder, "etc", Path(path).name).write_text(self.here("file", path))

    def start(self, name: str) -> Child:
        """Starts a service, and returns when it is ready."""
        command = shlex.split(self.here("start", name))
        child = self.processes.start(name, *command, "--log-format", "json", environment=self.environment)
        wait_for_text(child, '"event": "ready"', SOON)
        return child


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machines]:
    folder = Path(tempfile.mkdtemp(prefix="ry-"))
    made = Machines(folder)
    monkeypatch.setenv("PATH", made.environment["PATH"])
    yield made
    made.processes.close()
    remove(folder)


def test_the_secure_set_up_of_the_page_works_as_it_is_written(machines: Machines) -> None:
    machines.run("coordinator")
    machines.write("/etc/runyard/coordinator.yaml")
    machines.start("coordinator")
    machines.run("admin")
    machines.write("/etc/runyard/agent.yaml")
    machines.start("agent")
    told = machines.run("admin, at last")
    assert re.search(r"^node-1 +east +ready", told, re.M)
    assert re.search(r"^ok +cluster east: 1 of 1 nodes ready", told, re.M)


def test_the_launcher_takes_the_settings_of_the_page() -> None:
    from runyard.launcher.config import SCHEMA

    config = yaml.safe_load(BLOCKS["file", "dagster.yaml"])["run_launcher"]["config"]
    assert set(config) <= set(SCHEMA)
