"""Finds out, when the agent starts, by what means this machine can keep runs within their limits.

Each rung is tried on a process that does nothing, from the best to the last. Blocks: call it in a thread.
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
"""The node's label that names its rung."""

SUBGROUP = "agent"
"""Name of the group in which systemd starts the agent, so that the groups of runs may lie beside it."""

_MEMBERSHIP = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")
_TRIAL = AttemptKey("trial", 0)
_TRIAL_MEMORY, _TRIAL_CPU = 64 << 20, 1000


class NotHere(Exception):
    """The rung cannot be used on this machine; the message says why."""


@dataclass(frozen=True)
class Rung:
    """The means by which limits are enforced here."""

    name: str
    """One of `runyard.agent.supervisor.limits.plan.RUNGS`."""
    homes: tuple[Path, ...] = ()
    """Directories under which each attempt gets a control group; of version 1 one for each controller."""
    family: str = ""
    """Tells the scopes of this agent from those of others on the machine."""

    def plan(self, key: AttemptKey, memory: int, cpu: int, required: bool) -> LimitsPlan:
        """What is to be enforced for an attempt.

        Args:
            key: The attempt.
            memory: Bytes; 0 for no limit.
            cpu: Thousandths of a core; 0 for no limit.
            required: Without these means the worker must not start.
        """
        name = f"{key.run_id}-{key.attempt}"
        return LimitsPlan(
            rung=self.name,
            memory=memory,
            cpu=cpu,
            groups=tuple(str(home / name) for home in self.homes),
            unit=f"runyard-{self.family}-{name}.scope" if self.name == SYSTEMD else "",
            required=required,
        )

    def leave(self) -> None:
        """Removes the directories if no attempt has a group in them."""
        for home in self.homes:
            with contextlib.suppress(OSError):
                home.rmdir()

    def groups(self) -> Iterator[tuple[str, Group]]:
        """The groups of attempts that are there, each with the name that `plan` gave it."""
        homes = [home for home in self.homes if home.is_dir()]
        names = {each.name for home in homes for each in home.iterdir() if each.is_dir()}
        for name in sorted(names):
            yield name, Group([home / name for home in self.homes])


JUST_WATCHED = Rung(WATCHDOG)
"""What every machine can do."""


def find_rung(
    settings: IsolationSettings, state: Path, membership: Path = _MEMBERSHIP, mount: Path = _MOUNT
) -> tuple[Rung, Mapping[str, str]]:
    """The first of the allowed rungs that works.

    Args:
        settings: Of the agent.
        state: The agent's state directory, which tells it from others on this machine.
        membership: As `/proc/self/cgroup`.
        mount: Where the hierarchies are, as in `/sys/fs/cgroup`.

    Returns:
        The rung, and why those before it do not work, by name.
    """
    family = hashlib.sha256(str(state.resolve()).encode()).hexdigest()[:8]
    makers: Mapping[str, Callable[[], Rung]] = {
        CGROUP_2: lambda: _version_2(settings.cgroup or _own_group(membership, mount), family),
        CGROUP_1: lambda: _version_1(membership, mount, family),
        SYSTEMD: lambda: _systemd(family),
    }
    reasons: dict[str, str] = {}
    for name in settings.backends:
        if name not in makers:
            break
        try:
            rung = makers[name]()
            _try(rung)
        except (NotHere, OSError) as error:
            reasons[name] = str(error)
        else:
            return rung, reasons
    return JUST_WATCHED, reasons


def _own_group(membership: Path, mount: Path) -> Path:
    """The group that may be divided: the agent's own, or that above it if it was put into a subgroup."""
    mounts = [each for each in (mount / "unified", mount) if (each / "cgroup.controllers").exists()]
    names = [line[3:] for line in membership.read_text().splitlines() if line.startswith("0::")]
    if not mounts or not names:
        raise NotHere("there is no cgroup version 2")
    own = mounts[0] / names[0].lstrip("/")
    return own.parent if own.name == SUBGROUP else own


def _version_2(base: Path, family: str) -> Rung:
    try:
        offered = (base / "cgroup.controllers").read_text().split()
    except OSError as error:
        raise NotHere(f"{base} is no cgroup of version 2: {error.strerror}") from error
    if "memory" not in offered:
        raise NotHere(f"{base} lacks the memory controller; delegate it (Delegate=memory cpu)")
    home = base / f"runyard-{family}"
    wanted = " ".join(f"+{each}" for each in ("memory", "cpu") if each in offered)
    try:
        (base / "cgroup.subtree_control").write_text(wanted)
        home.mkdir(exist_ok=True)
        (home / "cgroup.subtree_control").write_text(wanted)
    except OSError as error:
        remedy = f"delegate it, with the agent in a subgroup {SUBGROUP!r} (DelegateSubgroup={SUBGROUP})"
        raise NotHere(f"{base} cannot be divided ({error.strerror}); {remedy}") from error
    return Rung(CGROUP_2, (home,))


def _version_1(membership: Path, mount: Path, family: str) -> Rung:
    own: dict[str, str] = {}
    for line in membership.read_text().splitlines():
        _, controllers, name = line.split(":", 2)
        own |= {controller: name for controller in controllers.split(",") if controller}
    homes = []
    for controller in ("memory", "cpu"):
        base = mount / controller / own.get(controller, "/").lstrip("/")
        if not (mount / controller / "cgroup.procs").exists() or controller not in own:
            raise NotHere(f"there is no {controller} controller of cgroup version 1")
        home = (base if base.is_dir() else mount / controller) / f"runyard-{family}"
        try:
            home.mkdir(exist_ok=True)
        except OSError as error:
            raise NotHere(f"{home.parent} is not ours to divide ({error.strerror})") from error
        homes.append(home)
    return Rung(CGROUP_1, tuple(homes))


def _systemd(family: str) -> Rung:
    if not Path("/run/systemd/system").is_dir():
        raise NotHere("systemd does not run here")
    return Rung(SYSTEMD, family=family)


def _try(rung: Rung) -> None:
    """Confines a process that waits for the end of its input, with another one as keeper.

    Raises:
        OSError: It cannot be done.
    """
    plan = rung.plan(_TRIAL, _TRIAL_MEMORY, _TRIAL_CPU, required=True)
    for name, leftover in rung.groups():
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
