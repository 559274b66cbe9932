"""The warm servers of a node: one for each environment whose runs can be forks of it.

The decisions are `runyard.agent.core.warmth`'s. This carries them out: it writes plans, has servers opened
and closed by the fork server, and remembers on disk which environments there were.
"""

import asyncio
import contextlib
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import structlog

from runyard.agent.config.warm import WarmSettings
from runyard.agent.core.warmth import (
    Choice,
    Close,
    Cold,
    Open,
    Preloading,
    Ready,
    WarmEffect,
    WarmServer,
    Warmth,
)
from runyard.agent.drivers.process.fork_server_client import ForkServerClient
from runyard.agent.drivers.process.warm_plans import plan_of
from runyard.agent.logs import read_tail
from runyard.agent.supervisor import procfs
from runyard.agent.supervisor.records import SpecRecord, UnreadableRecord
from runyard.agent.supervisor.rundir import RunDirectory
from runyard.agent.supervisor.warm.plan import WarmPlan

PRELOAD_SECONDS = 180.0
"""How long a warm server may import, until it is given up."""

TICK = 5.0
"""Seconds between two looks at the memory of the machine and of the servers."""

_NOTE_SECONDS = 60.0
"""How exactly it is remembered when an environment was last used."""

_LOG_TAIL_BYTES = 400

_LOCATIONS = 16
"""Code locations that are remembered of a server that several share."""

log = structlog.get_logger("runyard.agent.supervisor.warm")


@dataclass(frozen=True)
class _Environment:
    """Description of a plan for people."""

    mode: str
    python: str
    cwd: str

    @classmethod
    def of(cls, plan: WarmPlan) -> "_Environment":
        return cls("location" if plan.job_origin else "framework", plan.python, plan.cwd)


class WarmServers:
    """The warm servers of one node.

    Args:
        settings: What is imported ahead, and how many servers there may be.
        state: The agent's state directory.
        link: To the fork server; its `on_warm` has to be `on_news`.
    """

    def __init__(self, settings: WarmSettings, state: Path, link: ForkServerClient) -> None:
        self._settings = settings
        self._homes = state / "warm"
        self._link = link
        self._warmth = Warmth(settings.limits())
        self._ahead: list[str] = []
        self._noted: dict[str, float] = {}
        self._environments: dict[str, _Environment] = {}
        self._locations: dict[str, tuple[str, ...]] = {}
        self._secret_plans: dict[str, WarmPlan] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ticking: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Readies servers for the environments that are remembered, one after the other."""
        if self._settings.mode == "off" and not self._settings.locations:
            return
        self._homes.mkdir(mode=0o700, exist_ok=True)
        self._ahead = self._remembered()[: self._settings.max_servers]
        self._ticking = asyncio.create_task(self._tick(), name="warm servers")
        self._ready_next()

    async def close(self) -> None:
        """Stop deciding; the servers end with the fork server."""
        tasks = [*self._tasks, *([self._ticking] if self._ticking else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def choose(self, directory: RunDirectory) -> Choice:
        """Choose how the worker of an attempt starts: from a warm server, cold, or later."""
        try:
            spec = await asyncio.to_thread(directory.read_spec)
        except UnreadableRecord as error:
            return Cold(str(error))
        plan = None if spec is None else self._plan(spec)
        if spec is None or plan is None:
            return Cold("no server is made for such runs")
        self._environments[plan.name] = _Environment.of(plan)
        if location := str(spec.identity.get("location", "")):
            self._serve(plan.name, location)
        await asyncio.to_thread(self._note, plan.name, plan)
        choice, effects = self._warmth.on_start(time.monotonic(), plan.name)
        self._carry_out(effects)
        if isinstance(choice, Cold):
            log.debug("cold_start", attempt=directory.mark, server=plan.name, reason=choice.reason)
        return choice

    def refresh(self, name: str | None = None) -> None:
        """Replace a server, or all that are not resting."""
        log.info("warm_servers_refreshed", server=name or "all")
        self._carry_out(self._warmth.on_refresh(time.monotonic(), name))

    def snapshot(self) -> list[dict[str, Any]]:
        """Every server as plain data, for people and for placement."""
        now = time.monotonic()
        return [self._described(server, now) for server in self._warmth.all()]

    def on_news(self, message: dict[str, Any] | None) -> None:
        """Take what the fork server says of a warm server; None: that all are gone."""
        now = time.monotonic()
        match message:
            case None:
                for server in self._warmth.all():
                    self._warmth.on_unusable(now, server.process, "the fork server died")
            case {"warm": process, "ready": facts}:
                log.info("warm_server_ready", server=process, **facts)
                self._carry_out(
                    self._warmth.on_ready(
                        now, process, facts["pid"], facts["seconds"], facts["modules"], facts["watched"]
                    )
                )
            case {"warm": process, "refused": path, "reason": reason}:
                log.info("started_cold_instead", server=process, path=path, reason=reason)
                self._carry_out(self._warmth.on_refused(now, process, reason))
            case {"warm": process, "unusable": reason}:
                log.warning("warm_server_unusable", server=process, reason=reason)
                self._carry_out(self._warmth.on_unusable(now, process, reason))
            case {"warm": process, "gone": how}:
                self._carry_out(self._warmth.on_unusable(now, process, self._last_words(process, how)))
        self._forget_secrets()
        self._ready_next()

    def _plan(self, spec: SpecRecord) -> WarmPlan | None:
        return plan_of(
            spec, self._settings.mode_of(str(spec.identity.get("location", ""))), self._settings.steps
        )

    def _serve(self, name: str, location: str) -> None:
        """Note whose runs the server is for."""
        known = self._locations_of(name)
        if location not in known:
            self._noted.pop(name, None)  # has it written down
        others = (each for each in known if each != location)
        self._locations[name] = (location, *others)[:_LOCATIONS]

    def _carry_out(self, effects: list[WarmEffect]) -> None:
        for effect in effects:
            match effect:
                case Open(name, process):
                    task = asyncio.create_task(self._open(name, process), name=f"open {process}")
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                case Close(process):
                    self._link.close_warm(process)

    async def _open(self, name: str, process: str) -> None:
        try:
            if name in self._secret_plans:
                self._write_plan(name, self._secret_plans[name])
            await self._link.open_warm(process, self._homes / name)
        except OSError as error:
            self.on_news({"warm": process, "unusable": f"the fork server cannot be reached: {error}"})
            return
        await asyncio.sleep(PRELOAD_SECONDS)
        if any(each.process == process and isinstance(each.phase, Preloading) for each in self._warmth.all()):
            self._link.close_warm(process)
            self.on_news({"warm": process, "unusable": f"it was not ready in {PRELOAD_SECONDS:g} s"})

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            memory = psutil.virtual_memory()
            servers = [each for each in self._warmth.all() if isinstance(each.phase, Ready)]
            rss = {each.process: _rss_bytes(each) for each in servers}
            effects = self._warmth.on_tick(time.monotonic(), memory.available / memory.total, rss)
            self._carry_out(effects)

    def _ready_next(self) -> None:
        is_busy = any(isinstance(server.phase, Preloading) for server in self._warmth.all())
        if self._ahead and not is_busy:
            self._carry_out(self._warmth.on_ahead(time.monotonic(), self._ahead.pop(0)))

    # What is on disk

    def _note(self, name: str, plan: WarmPlan) -> None:
        """Write the plan for the server that may be started, and for the agent's next start."""
        now = time.monotonic()
        if now - self._noted.get(name, -_NOTE_SECONDS) < _NOTE_SECONDS:
            return
        self._noted[name] = now
        home = self._homes / name
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        (home / "locations").write_text(json.dumps(self._locations.get(name, ())))
        if plan.is_secret:
            self._secret_plans[name] = plan  # on disk only while a server reads it
        else:
            self._write_plan(name, plan)

    def _write_plan(self, name: str, plan: WarmPlan) -> None:
        aside = self._homes / name / ".plan"
        aside.touch(mode=0o600)
        aside.write_bytes(plan.encode())
        os.rename(aside, self._homes / name / "plan")

    def _forget_secrets(self) -> None:
        """Deletes plans with secrets, unless a server is about to read one."""
        opening = {each.name for each in self._warmth.all() if isinstance(each.phase, Preloading)}
        for name in self._secret_plans.keys() - opening:
            (self._homes / name / "plan").unlink(missing_ok=True)

    def _remembered(self) -> list[str]:
        """The names of plans on disk, those used last first; what is older than it may be is deleted."""
        used: dict[str, float] = {}
        for home in self._homes.iterdir():
            with contextlib.suppress(OSError):
                used[home.name] = (home / "plan").stat().st_mtime
        oldest = time.time() - self._settings.retention
        for home in list(self._homes.iterdir()):
            if used.get(home.name, 0.0) < oldest:
                shutil.rmtree(home, ignore_errors=True)
        return sorted((name for name, at in used.items() if at >= oldest), key=lambda name: -used[name])

    def _environment_of(self, name: str) -> _Environment:
        if name not in self._environments:
            try:
                plan = WarmPlan.decode((self._homes / name / "plan").read_bytes())
            except (OSError, UnreadableRecord):
                return _Environment("", "", "")
            self._environments[name] = _Environment.of(plan)
        return self._environments[name]

    def _locations_of(self, name: str) -> tuple[str, ...]:
        """Code locations whose runs the server was asked for, the last one first; also by earlier agents."""
        if name not in self._locations:
            try:
                self._locations[name] = tuple(json.loads((self._homes / name / "locations").read_bytes()))
            except (OSError, ValueError):
                self._locations[name] = ()
        return self._locations[name]

    def _described(self, server: WarmServer, now: float) -> dict[str, Any]:
        phase = server.phase
        environment = self._environment_of(server.name)
        known: dict[str, Any] = {
            "name": server.name,
            "state": type(phase).__name__.lower(),
            "state_seconds": now - phase.since,
            "code_locations": list(self._locations_of(server.name)),
            "mode": environment.mode,
            "python": environment.python,
            "working_directory": environment.cwd,
            "all_forks": server.all_forks,
            "cold_starts": server.cold_starts,
            "last_cold_reason": server.last_cold_reason,
        }
        if isinstance(phase, Ready):
            known |= {
                "pid": phase.pid,
                "forks": server.forks,
                "rss_bytes": _rss_bytes(server),
                "preload_seconds": phase.preload_seconds,
                "modules": phase.modules,
                "watched_files": phase.watched_files,
            }
        elif not isinstance(phase, Preloading):
            known["reason"] = phase.reason
        return known

    def _last_words(self, process: str, how: str) -> str:
        words = read_tail(self._homes / process.rpartition("-")[0] / "log", _LOG_TAIL_BYTES).strip()
        return f"{how}: {words.splitlines()[-1]}" if words else how


def _rss_bytes(server: WarmServer) -> int:
    assert isinstance(server.phase, Ready)
    stat = procfs.read_stat(server.phase.pid)
    return stat.rss_bytes if stat else 0
