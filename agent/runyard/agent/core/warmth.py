"""Decisions about a node's warm servers. Pure.

A server has the name of its plan. Each process of it also has a serial number, so that a late update about a
replaced process cannot be mistaken for one about its successor.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

BUSY = 60.0
"""Seconds after its last fork for which a server is not closed to make room for another."""

FIRST_RETRY, LONGEST_RETRY = 30.0, 3600.0
"""Pauses in seconds before an unusable server is tried again; each is twice the one before."""

PATIENCE = 5.0
"""Longest time in seconds that a start waits for a server that is almost ready, instead of starting cold."""


@dataclass(frozen=True)
class Limits:
    """Limits on the number, age and size of servers. Times are in seconds."""

    max_servers: int = 4
    max_age: float = 6 * 3600.0
    max_runs: int = 1_000
    max_rss: int = 2 << 30
    """Bytes of one server's resident set."""
    min_available: float = 0.1
    """Share of the machine's memory. With less available, servers are closed and none is opened."""


@dataclass(frozen=True)
class Preloading:
    """A process is importing the code of its runs."""

    since: float


@dataclass(frozen=True)
class Ready:
    """A process can be forked."""

    since: float
    pid: int
    preload_seconds: float
    modules: int
    watched_files: int


@dataclass(frozen=True)
class Unusable:
    """Runs of this environment start cold. The first one after `retry_at` opens the server again."""

    since: float
    reason: str
    retry_at: float


@dataclass(frozen=True)
class Resting:
    """There is no process, because of a lack of runs or of room."""

    since: float
    reason: str


WarmPhase = Preloading | Ready | Unusable | Resting


@dataclass(frozen=True)
class WarmServer:
    """Server of one environment, with its history."""

    name: str
    serial: int = 0
    phase: WarmPhase = field(default_factory=lambda: Resting(0.0, "not needed yet"))
    usual_seconds: float = 0.0
    """Duration of the last preload; 0 if there was none."""
    used_at: float = 0.0
    forks: int = 0
    """Number of forks of the current process."""
    all_forks: int = 0
    cold_starts: int = 0
    last_cold_reason: str = ""
    failures: int = 0
    """Number of consecutive failures."""

    @property
    def process(self) -> str:
        """Name of the current process for the fork server."""
        return f"{self.name}-{self.serial}"


@dataclass(frozen=True)
class Open:
    """Open a process. `process` is its name, `name` that of its plan."""

    name: str
    process: str


@dataclass(frozen=True)
class Close:
    """Close a process; its forks keep running."""

    process: str


WarmEffect = Open | Close


@dataclass(frozen=True)
class Warm:
    """Start the run as a fork of this process."""

    process: str


@dataclass(frozen=True)
class Cold:
    """Start the run without a server."""

    reason: str


@dataclass(frozen=True)
class Wait:
    """Ask again after this time, or when a server changes."""

    seconds: float


Choice = Warm | Cold | Wait


class Warmth:
    """All servers of a node. Methods take the time in seconds of a monotonic clock."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._servers: dict[str, WarmServer] = {}
        self._is_short_of_memory = False

    def all(self) -> list[WarmServer]:
        """Return every server that was ever requested, the most recently used first."""
        return sorted(self._servers.values(), key=lambda server: -server.used_at)

    # Requests of runs

    def on_start(self, now: float, name: str) -> tuple[Choice, list[WarmEffect]]:
        """Choose the start of a run of this environment."""
        server = replace(self._servers.get(name) or WarmServer(name), used_at=now)
        self._servers[name] = server
        match server.phase:
            case Ready():
                self._servers[name] = replace(server, forks=server.forks + 1, all_forks=server.all_forks + 1)
                return Warm(server.process), []
            case Preloading(since):
                left = since + server.usual_seconds - now
                if 0 < left <= min(server.usual_seconds / 2, PATIENCE):
                    return Wait(left), []
                return self._cold(server, "its server is still importing"), []
            case Unusable(_, reason, retry_at) if now < retry_at:
                return self._cold(server, reason), []
            case _:
                effects = self._open(now, server)
                reason = "its server is just being started" if effects else self._why_no_room()
                return self._cold(self._servers[name], reason), effects

    def on_ahead(self, now: float, name: str) -> list[WarmEffect]:
        """Prepare for runs of this environment."""
        server = self._servers.setdefault(name, WarmServer(name))
        return self._open(now, server) if isinstance(server.phase, Resting) else []

    def on_refresh(self, now: float, name: str | None) -> list[WarmEffect]:
        """Replace a server, or all that are not resting, regardless of earlier failures."""
        effects: list[WarmEffect] = []
        for server in self._chosen(name):
            effects += self._replace(now, replace(server, failures=0))
        return effects

    # Updates about processes

    def on_ready(
        self, now: float, process: str, pid: int, preload_seconds: float, modules: int, watched_files: int
    ) -> list[WarmEffect]:
        """Record that a process has imported everything and can be forked."""
        server = self._of(process)
        if server is None:
            return [Close(process)]
        phase = Ready(now, pid, preload_seconds, modules, watched_files)
        self._put(replace(server, phase=phase, usual_seconds=preload_seconds, failures=0, forks=0))
        return []

    def on_unusable(self, now: float, process: str, reason: str) -> list[WarmEffect]:
        """Record that a process cannot be forked, or has ended unexpectedly."""
        server = self._of(process)
        if server is not None:
            failures = server.failures + 1
            pause = min(FIRST_RETRY * 2 ** (failures - 1), LONGEST_RETRY)
            phase = Unusable(now, reason, retry_at=now + pause)
            self._put(
                replace(
                    server, phase=phase, failures=failures, serial=server.serial + 1, last_cold_reason=reason
                )
            )
        return []

    def on_refused(self, now: float, process: str, reason: str) -> list[WarmEffect]:
        """Replace a process that detected that it must not be forked again; the run started cold."""
        server = self._of(process)
        if server is None:
            return []
        self._cold(replace(server, all_forks=server.all_forks - 1), reason)
        return self._replace(now, self._servers[server.name])

    def on_tick(self, now: float, available: float, rss: Mapping[str, int]) -> list[WarmEffect]:
        """Close or replace servers as time passes.

        Args:
            now: Seconds.
            available: Share of the machine's memory that is available, 0 to 1.
            rss: Resident sets of processes in bytes, as far as they are known.
        """
        effects: list[WarmEffect] = []
        for server in list(self._servers.values()):
            if isinstance(server.phase, Ready) and self._is_worn_out(now, server, rss):
                effects += self._replace(now, server)
        self._is_short_of_memory = available < self._limits.min_available
        if self._is_short_of_memory:
            effects += self._give_up_one(now, "memory is short", idle_for=0.0)
        return effects

    # Implementation

    def _is_worn_out(self, now: float, server: WarmServer, rss: Mapping[str, int]) -> bool:
        assert isinstance(server.phase, Ready)
        return (
            now - server.phase.since > self._limits.max_age
            or server.forks >= self._limits.max_runs
            or rss.get(server.process, 0) > self._limits.max_rss
        )

    def _open(self, now: float, server: WarmServer) -> list[WarmEffect]:
        if self._is_short_of_memory:
            return []
        effects: list[WarmEffect] = []
        if len(self._alive()) >= self._limits.max_servers:
            effects = self._give_up_one(now, "another one needed the room", idle_for=BUSY)
            if not effects:
                return []
        server = replace(server, serial=server.serial + 1, phase=Preloading(now), forks=0)
        self._put(server)
        return [*effects, Open(server.name, server.process)]

    def _replace(self, now: float, server: WarmServer) -> list[WarmEffect]:
        effects: list[WarmEffect] = []
        if isinstance(server.phase, Ready | Preloading):
            effects.append(Close(server.process))
        server = replace(server, phase=Resting(now, "about to be replaced"))
        self._put(server)
        return [*effects, *self._open(now, server)]

    def _give_up_one(self, now: float, reason: str, idle_for: float) -> list[WarmEffect]:
        idle = [each for each in self._alive() if now - each.used_at >= idle_for]
        if not idle:
            return []
        server = min(idle, key=lambda each: each.used_at)
        self._put(replace(server, phase=Resting(now, reason)))
        return [Close(server.process)]

    def _cold(self, server: WarmServer, reason: str) -> Cold:
        self._put(replace(server, cold_starts=server.cold_starts + 1, last_cold_reason=reason))
        return Cold(reason)

    def _why_no_room(self) -> str:
        if self._is_short_of_memory:
            return "memory is short, so no server is made"
        return f"all {self._limits.max_servers} servers are in use (warm.max_servers)"

    def _alive(self) -> list[WarmServer]:
        return [each for each in self._servers.values() if isinstance(each.phase, Ready | Preloading)]

    def _of(self, process: str) -> WarmServer | None:
        """Return the server whose current process this is."""
        return next((each for each in self._alive() if each.process == process), None)

    def _chosen(self, name: str | None) -> Iterable[WarmServer]:
        if name is not None:
            return [self._servers[name]] if name in self._servers else []
        # Resting servers would displace others.
        return [server for server in self._servers.values() if not isinstance(server.phase, Resting)]

    def _put(self, server: WarmServer) -> None:
        self._servers[server.name] = server
