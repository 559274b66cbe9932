"""Detection of the best mechanism on this machine that keeps runs within their limits.

Each backend is tried on an idle process, in order of preference. Blocks: call it in a thread.
"""

import contextlib
import hashlib
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from runyard.agent.config.isolation import IsolationSettings
from runyard.agent.core.model import AttemptKey
from runyard.agent.supervisor.limits.enforcement import confine
from runyard.agent.supervisor.limits.groups import Group
from runyard.agent.supervisor.limits.plan import CGROUP_1, CGROUP_2, SYSTEMD, WATCHDOG, LimitsPlan

LABEL = "runyard/isolation"
"""Label of the node that names its backend."""

SUBGROUP = "agent"
"""Name of the group in which systemd starts the agent, so that the groups of runs can be its siblings."""

_MEMBERSHIP = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")
_TRIAL = AttemptKey("trial", 0)
_TRIAL_MEMORY, _TRIAL_CPU = 64 << 20, 1000


class BackendUnavailable(Exception):
    """The backend cannot be used on this machine; the message names the reason."""


@dataclass(frozen=True)
class IsolationBackend:
    """Mechanism that enforces limits on this machine."""

    name: str
    """One of `runyard.agent.supervisor.limits.plan.BACKENDS`."""
    homes: tuple[Path, ...] = ()
    """Parent directories of the attempts' control groups; for version 1, one for each controller."""
    family: str = ""
    """Distinguishes the scopes of this agent from those of other agents on the machine."""

    def plan(self, key: AttemptKey, memory: int, cpu: int, required: bool) -> LimitsPlan:
        """Return the limits to enforce for an attempt.

        Args:
            key: The attempt.
            memory: Bytes; 0 for no limit.
            cpu: Thousandths of a core; 0 for no limit.
            required: The worker must not start if the limits cannot be enforced.
        """
        name = f"{key.run_id}-{key.attempt}"
        return LimitsPlan(
            backend=self.name,
            memory=memory,
            cpu=cpu,
            groups=tuple(str(home / name) for home in self.homes),
            unit=f"runyard-{self.family}-{name}.scope" if self.name == SYSTEMD else "",
            required=required,
        )

    def leave(self) -> None:
        """Remove the parent directories unless an attempt has a group in them."""
        for home in self.homes:
            with contextlib.suppress(OSError):
                home.rmdir()

    def groups(self) -> Iterator[tuple[str, Group]]:
        """Yield the existing groups of attempts, each with the name that `plan` gave it."""
        homes = [home for home in self.homes if home.is_dir()]
        names = {each.name for home in homes for each in home.iterdir() if each.is_dir()}
        for name in sorted(names):
            yield name, Group([home / name for home in self.homes])


WATCHDOG_ONLY = IsolationBackend(WATCHDOG)
"""Backend that works on every machine."""


def find_isolation_backend(
    settings: IsolationSettings, state: Path, membership: Path = _MEMBERSHIP, mount: Path = _MOUNT
) -> tuple[IsolationBackend, Mapping[str, str]]:
    """Return the first allowed backend that works.

    Args:
        settings: The agent's settings.
        state: The agent's state directory, which distinguishes it from other agents on this machine.
        membership: As `/proc/self/cgroup`.
        mount: Directory of the hierarchies, such as `/sys/fs/cgroup`.

    Returns:
        The backend, and the reasons why preferred ones do not work, by name.
    """
    family = hashlib.sha256(str(state.resolve()).encode()).hexdigest()[:8]
    makers: Mapping[str, Callable[[], IsolationBackend]] = {
        CGROUP_2: lambda: _version_2(settings.cgroup or _own_group(membership, mount), family),
        CGROUP_1: lambda: _version_1(membership, mount, family),
        SYSTEMD: lambda: _systemd(family),
    }
    reasons: dict[str, str] = {}
    for name in settings.backends:
        if name not in makers:
            break
        try:
            backend = makers[name]()
            _try(backend)
        except (BackendUnavailable, OSError) as error:
            reasons[name] = str(error)
        else:
            return backend, reasons
    return WATCHDOG_ONLY, reasons


def _own_group(membership: Path, mount: Path) -> Path:
    """Return the group to divide: the agent's own, or its parent if the agent was started in a subgroup."""
    mounts = [each for each in (mount / "unified", mount) if (each / "cgroup.controllers").exists()]
    names = [line[3:] for line in membership.read_text().splitlines() if line.startswith("0::")]
    if not mounts or not names:
        raise BackendUnavailable("there is no cgroup version 2")
    own = mounts[0] / names[0].lstrip("/")
    return own.parent if own.name == SUBGROUP else own


def _version_2(base: Path, family: str) -> IsolationBackend:
    try:
        offered = (base / "cgroup.controllers").read_text().split()
    except OSError as error:
        raise BackendUnavailable(f"{base} is not a cgroup of version 2: {error.strerror}") from error
    if "memory" not in offered:
        raise BackendUnavailable(f"{base} lacks the memory controller; delegate it (Delegate=memory cpu)")
    home = base / f"runyard-{family}"
    wanted = " ".join(f"+{each}" for each in ("memory", "cpu") if each in offered)
    try:
        (base / "cgroup.subtree_control").write_text(wanted)
        home.mkdir(exist_ok=True)
        (home / "cgroup.subtree_control").write_text(wanted)
    except OSError as error:
        remedy = f"delegate it, with the agent in a subgroup {SUBGROUP!r} (DelegateSubgroup={SUBGROUP})"
        raise BackendUnavailable(f"{base} cannot be divided ({error.strerror}); {remedy}") from error
    return IsolationBackend(CGROUP_2, (home,))


def _version_1(membership: Path, mount: Path, family: str) -> IsolationBackend:
    own: dict[str, str] = {}
    for line in membership.read_text().splitlines():
        _, controllers, name = line.split(":", 2)
        own |= {controller: name for controller in controllers.split(",") if controller}
    homes = []
    for controller in ("memory", "cpu"):
        base = mount / controller / own.get(controller, "/").lstrip("/")
        if not (mount / controller / "cgroup.procs").exists() or controller not in own:
            raise BackendUnavailable(f"there is no {controller} controller of cgroup version 1")
        home = (base if base.is_dir() else mount / controller) / f"runyard-{family}"
        try:
            home.mkdir(exist_ok=True)
        except OSError as error:
            raise BackendUnavailable(f"{home.parent} cannot be divided ({error.strerror})") from error
        homes.append(home)
    return IsolationBackend(CGROUP_1, tuple(homes))


def _systemd(family: str) -> IsolationBackend:
    if not Path("/run/systemd/system").is_dir():
        raise BackendUnavailable("systemd does not run here")
    return IsolationBackend(SYSTEMD, family=family)


def _try(backend: IsolationBackend) -> None:
    """Confine an idle process, with another one as keeper.

    Raises:
        OSError: It does not work.
    """
    plan = backend.plan(_TRIAL, _TRIAL_MEMORY, _TRIAL_CPU, required=True)
    for name, leftover in backend.groups():
        if name == f"{_TRIAL.run_id}-{_TRIAL.attempt}":
            leftover.remove()
    with _idle() as keeper, _idle() as worker:
        try:
            limits = confine(plan, worker.pid, keeper.pid)
        finally:
            for process in (worker, keeper):
                process.communicate()
        limits.remove()


def _idle() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
