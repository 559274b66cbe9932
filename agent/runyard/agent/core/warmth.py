"""Which warm servers a node keeps: pure decisions over what is known of each.

A server is known by the name of its plan, and each process that is made for it by a serial number too, so
that news of one that was replaced cannot be mistaken for news of the other.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

BUSY = 60.0
"""Seconds after its last fork for which a server is not given up to make room for another."""

RETRY = (30.0, 3600.0)
"""First and longest pause in seconds before a server that was of no use is tried again; doubled each time."""

PATIENCE = 5.0
"""Seconds at most for which a start waits for a server that is nearly there, instead of going on cold."""


@dataclass(frozen=True)
class Limits:
    """How many servers there may be, and for how long each. Times are in seconds."""

    max_servers: int = 4
    max_age: float = 6 * 3600.0
    max_runs: int = 1_000
    max_rss: int = 2 << 30
    """Bytes of one server's resident set."""
    min_available: float = 0.1
    """Share of the machine's memory; with less available, servers are given up and none is made."""


@dataclass(frozen=True)
class Preloading:
    """A process imports what its runs will need."""

    since: float


@dataclass(frozen=True)
class Ready:
    """A process forks."""

    since: float
    pid: int
    preload_seconds: float
    modules: int
    watched_files: int


@dataclass(frozen=True)
class Unusable:
    """Runs of this environment start cold; the next one after `retry_at` has it tried again."""

    since: float
    reason: str
    retry_at: float


@dataclass(frozen=True)
class Resting:
    """There is no process, for want of runs or of room."""

    since: float
    reason: str


WarmPhase = Preloading | Ready | Unusable | Resting


@dataclass(frozen=True)
class WarmServer:
    """One environment's server and its history."""

    name: str
    serial: int = 0
    phase: WarmPhase = field(default_factory=lambda: Resting(0.0, "not needed yet"))
    usual_seconds: float = 0.0
    """What the last preload took; 0 if there was none."""
    used_at: float = 0.0
    forks: int = 0
    """Of the present process."""
    all_forks: int = 0
    cold_starts: int = 0
    last_cold_reason: str = ""
    failures: int = 0
    """In a row."""

    @property
    def process(self) -> str:
        """Names the present process to the fork server."""
        return f"{self.name}-{self.serial}"


@dataclass(frozen=True)
class Open:
    """Have a process made. `process` names it, `name` its plan."""

    name: str
    process: str


@dataclass(frozen=True)
class Close:
    """Let a process go; its forks go on."""

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
    """Ask again after that many seconds, or when there is news of servers."""

    seconds: float


Choice = Warm | Cold | Wait


class Warmth:
    """All servers of a node. Methods take the time in seconds of a clock that only goes forward."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._servers: dict[str, WarmServer] = {}
        self._is_short_of_memory = False

    def all(self) -> list[WarmServer]:
        """Every server that was ever asked for, the most recently used first."""
        return sorted(self._servers.values(), key=lambda server: -server.used_at)

    # What runs ask for

    def on_start(self, now: float, name: str) -> tuple[Choice, list[WarmEffect]]:
        """A run of this environment is to start."""
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
        """Runs of this environment are expected."""
        server = self._servers.setdefault(name, WarmServer(name))
        return self._open(now, server) if isinstance(server.phase, Resting) else []

    def on_refresh(self, now: float, name: str | None) -> list[WarmEffect]:
        """An operator wants a server made anew, or all that are not resting, however often they failed."""
        effects: list[WarmEffect] = []
        for server in self._chosen(name):
            effects += self._replace(now, replace(server, failures=0))
        return effects

    # What becomes of processes

    def on_ready(
        self, now: float, process: str, pid: int, preload_seconds: float, modules: int, watched_files: int
    ) -> list[WarmEffect]:
        """A process has imported everything and can be forked."""
        server = self._of(process)
        if server is None:
            return [Close(process)]
        phase = Ready(now, pid, preload_seconds, modules, watched_files)
        self._put(replace(server, phase=phase, usual_seconds=preload_seconds, failures=0, forks=0))
        return []

    def on_unusable(self, now: float, process: str, reason: str) -> list[WarmEffect]:
        """A process cannot be forked, or has ended unasked."""
        server = self._of(process)
        if server is not None:
            failures = server.failures + 1
            pause = min(RETRY[0] * 2 ** (failures - 1), RETRY[1])
            phase = Unusable(now, reason, retry_at=now + pause)
            self._put(
                replace(
                    server, phase=phase, failures=failures, serial=server.serial + 1, last_cold_reason=reason
                )
            )
        return []

    def on_refused(self, now: float, process: str, reason: str) -> list[WarmEffect]:
        """A process found out that it must not be forked any more; the run that met this started cold."""
        server = self._of(process)
        if server is None:
            return []
        self._cold(replace(server, all_forks=server.all_forks - 1), reason)
        return self._replace(now, self._servers[server.name])

    def on_tick(self, now: float, available: float, rss: Mapping[str, int]) -> list[WarmEffect]:
        """Time has passed.

        Args:
            now: Seconds.
            available: Share of the machine's memory that is available, 0 to 1.
            rss: Bytes of the resident sets of processes, as far as they are known.
        """
        effects: list[WarmEffect] = []
        for server in list(self._servers.values()):
            if isinstance(server.phase, Ready) and self._is_worn_out(now, server, rss):
                effects += self._replace(now, server)
        self._is_short_of_memory = available < self._limits.min_available
        if self._is_short_of_memory:
            effects += self._give_up_one(now, "memory is short", idle_for=0.0)
        return effects

    # Inner workings

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
        server = replace(server, phase=Resting(now, "about to be made anew"))
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
        """The server whose present process this is."""
        return next((each for each in self._alive() if each.process == process), None)

    def _chosen(self, name: str | None) -> Iterable[WarmServer]:
        if name is not None:
            return [self._servers[name]] if name in self._servers else []
        # Those that rest would push out others.
        return [server for server in self._servers.values() if not isinstance(server.phase, Resting)]

    def _put(self, server: WarmServer) -> None:
        self._servers[server.name] = server
