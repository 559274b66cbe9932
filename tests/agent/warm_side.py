"""Warm servers as the tests see them: made of small modules, with scripts in place of Runyard's worker."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.waiting import await_until

from runyard.agent.core.model import AttemptKey
from runyard.agent.drivers.process.fork_server_client import ForkServerClient
from runyard.agent.supervisor.records import ExitRecord, SpecRecord
from runyard.agent.supervisor.rundir import RunDirectories, RunDirectory
from runyard.agent.supervisor.warm.plan import WarmPlan

NAME = "server-1"

END = "\nimport os, sys; sys.stdout.flush(); os._exit(0)\n"
"""The last line of scripts: they have to end the process themselves, as the worker's does."""


class WarmBench:
    """A fork server, warm servers of it, and a project of small modules that they import."""

    def __init__(self, directories: RunDirectories, project: Path) -> None:
        self.directories = directories
        self.project = project
        self.news: list[dict[str, Any]] = []
        self.begun: list[Path] = []
        self.link = ForkServerClient(directories.state / "forkserver.log", self.begun.append, self._on_warm)
        self.home = directories.state / "warm" / "home"
        self.home.mkdir(parents=True)
        self._runs = 0

    def _on_warm(self, message: dict[str, Any] | None) -> None:
        self.news.append(message or {"warm": "*", "gone": "all"})

    def plan(self, script: str, *modules: str, **environment: str) -> WarmPlan:
        """A plan for a script that is given as text."""
        path = self.project / "script.py"
        path.write_text(script + END)
        env = {"PATH": os.environ["PATH"], **environment}
        return WarmPlan(sys.executable, str(path), str(self.project), env, modules)

    async def open(self, plan: WarmPlan) -> dict[str, Any]:
        """Has a server started, and gives what it first says of itself."""
        (self.home / "plan").write_bytes(plan.encode())
        await self.link.open_warm(NAME, self.home)
        return await self.news_with("ready", "unusable")

    async def news_with(self, *words: str) -> dict[str, Any]:
        """The first message with one of these words in it."""

        def found() -> dict[str, Any] | None:
            return next((each for each in self.news if set(words) & set(each)), None)

        return await await_until(found, lambda: (self.news, self.log()))

    def log(self) -> str:
        """What the server and its shims complained of."""
        path = self.home / "log"
        return path.read_text() if path.exists() else ""

    async def start(self, plan: WarmPlan, *arguments: str, warm: bool = True, **spec: Any) -> RunDirectory:
        """Starts a worker, as a fork or cold."""
        directory = self.create(plan, *arguments, **spec)
        await self.link.start_shim(directory.path, NAME if warm else None)
        return directory

    def create(self, plan: WarmPlan, *arguments: str, **spec: Any) -> RunDirectory:
        """Puts a worker on disk that is not started yet."""
        self._runs += 1
        record = SpecRecord([plan.python, plan.script, *arguments], dict(plan.env), cwd=plan.cwd)
        key = AttemptKey(f"run-{self._runs}", 1)
        return self.directories.create(key, replace(record, **spec))

    async def ended(self, directory: RunDirectory) -> ExitRecord:
        """How a worker ended."""
        return await await_until(directory.read_exit, lambda: (self.news, self.log()))

    async def output(self, plan: WarmPlan, *arguments: str, warm: bool = True, **spec: Any) -> str:
        """What a worker writes from its start to its end, which must be a good one."""
        directory = await self.start(plan, *arguments, warm=warm, **spec)
        ended = await self.ended(directory)
        assert ended.code == 0, (ended, directory.stderr.read_text(), self.news, self.log())
        return directory.stdout.read_text()
