"""Decision of the owner's policy about a launch. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from runyard.agent.admission.trust.environment import is_dangerous, not_settable
from runyard.agent.config.docker import Allow, DockerSettings
from runyard.agent.config.docker_kwargs import mount_sources
from runyard.agent.config.engine_sockets import holds_engine_socket
from runyard.agent.config.policy import ANY, PolicySettings, Profile, is_plain_path
from runyard.agent.drivers.docker.plan.allow import violations
from runyard.agent.drivers.docker.plan.context import DockerContext
from runyard.common.quantities import show_quantity

DEFAULT_PROFILE = "default"
"""Name of the profile that exists if the owner defines none."""


@dataclass(frozen=True)
class AsProcess:
    """Access of a worker that is a process on this machine."""

    interpreter: str
    """Interpreter that the launch names; empty if the owner's settings name one."""
    working_directory: str
    """Directory that the launch names; empty for the owner's."""
    user: str
    is_root: bool
    is_limited: bool
    """True if the run cannot use more than it reserves."""


@dataclass(frozen=True)
class AsContainer:
    """Access of a worker in a container."""

    image: str
    """Image that the launch or the code location names; empty for the owner's."""
    context: DockerContext
    engine: str
    """Address of the engine."""


@dataclass(frozen=True)
class AsOther:
    """Access of a worker that another driver starts."""


@dataclass(frozen=True)
class RequestedAccess:
    """Access that a launch requests, as far as a policy can limit it."""

    code_location: str
    driver: str
    environment: tuple[str, ...]
    """Names of the variables that the launch sets."""
    memory: int
    """Reserved memory in bytes."""
    cpu: int
    """Reserved CPU in thousandths of a core."""
    worker: AsProcess | AsContainer | AsOther
    unsigned_choices: frozenset[str] = frozenset()
    """Those of `driver` and `image` that the coordinator chose for a signed launch. The policy must name
    their values; `*` does not match them."""


@dataclass(frozen=True)
class Policy:
    """The owner's policy, with all its defaults."""

    profiles: tuple[Profile, ...]
    allow_root: bool = False
    allow_engine_socket: bool = False
    container_rules: str = "containers"
    """Name of the setting that holds the rules for containers."""


@dataclass(frozen=True)
class Allowed:
    """This profile allows the launch."""

    profile: str


@dataclass(frozen=True)
class Refused:
    """No profile allows the launch. The rule is the first one of the nearest profile that refuses it."""

    profile: str
    rule: str
    reason: str

    def __str__(self) -> str:
        return f"the policy of this node (profile {self.profile}, rule {self.rule}) refuses it: {self.reason}"


Decision = Allowed | Refused


@dataclass(frozen=True)
class _No:
    rule: str
    reason: str


def policy_of(settings: PolicySettings, docker: DockerSettings | None) -> Policy:
    """Return the policy of an agent with these settings."""
    profiles, container_rules = settings.profiles, "containers"
    if not profiles:
        allow = docker.allow if docker is not None else Allow()
        profiles, container_rules = (Profile(name=DEFAULT_PROFILE, containers=allow),), "docker.allow"
    return Policy(profiles, settings.allow_root, settings.allow_engine_socket, container_rules)


def decide(policy: Policy, asked: RequestedAccess) -> Decision:
    """Decide whether one of the profiles allows all of the requested access.

    If none does, the nearest profile is one for the code location, and among these the one with the fewest
    violated rules.
    """
    nearest: tuple[tuple[bool, int], Refused] | None = None
    for profile in policy.profiles:
        against = list(_against(policy, profile, asked))
        if not against:
            return Allowed(profile.name)
        first = against[0]
        distance = (first.rule == "code_locations", len(against))
        if nearest is None or distance < nearest[0]:
            nearest = distance, Refused(profile.name, first.rule, first.reason)
    return nearest[1] if nearest else Refused("none", "profiles", "there is no profile")


def _against(policy: Policy, profile: Profile, asked: RequestedAccess) -> Iterator[_No]:
    if not _matches(asked.code_location, profile.code_locations):
        reason = f"it is not for the code location {asked.code_location!r}"
        yield _No("code_locations", f"{reason}, only for {_listed(profile.code_locations)}")
    yield from _against_driver(profile, asked)
    match asked.worker:
        case AsProcess():
            yield from _against_process(policy, profile, asked.worker)
        case AsContainer():
            yield from _against_container(policy, profile, asked.worker, "image" in asked.unsigned_choices)
        case AsOther():
            pass
    yield from _against_environment(profile, asked)
    yield from _against_amounts(profile, asked)


def _against_driver(profile: Profile, asked: RequestedAccess) -> Iterator[_No]:
    if not _matches(asked.driver, profile.drivers):
        yield _No("drivers", f"{asked.driver!r} is not among {_listed(profile.drivers)}")
    elif "driver" in asked.unsigned_choices and not _matches(asked.driver, _named(profile.drivers)):
        yield _No("drivers", _chosen_by_coordinator(f"driver {asked.driver!r}"))


def _against_process(policy: Policy, profile: Profile, worker: AsProcess) -> Iterator[_No]:
    if worker.is_root and not policy.allow_root:
        remedy = "set isolation.run_as to the user of its code location, or policy.allow_root: true"
        yield _No("allow_root", f"its process would run as root; {remedy}")
    if not _matches(worker.user, profile.users):
        yield _No("users", f"its process would run as {worker.user}, not one of {_listed(profile.users)}")
    if worker.interpreter and not _matches_path(worker.interpreter, profile.interpreters):
        yield _No("interpreters", f"{worker.interpreter!r} is not among {_listed(profile.interpreters)}")
    directory = worker.working_directory
    if directory and not _matches_path(directory, profile.working_directories):
        yield _No("working_directories", f"{directory!r} is not among {_listed(profile.working_directories)}")


def _against_container(
    policy: Policy, profile: Profile, worker: AsContainer, image_needs_name: bool
) -> Iterator[_No]:
    rules = policy.container_rules
    for violation in violations(profile.containers, worker.image, worker.context):
        yield _No(f"{rules}.{violation.rule}", violation.reason)
    if image_needs_name and not _matches(worker.image, _named(profile.containers.images)):
        yield _No(f"{rules}.images", _chosen_by_coordinator(f"image {worker.image!r}"))
    if not policy.allow_engine_socket:
        for source in _sources(worker.context):
            if holds_engine_socket(source, worker.engine):
                yield _No("allow_engine_socket", f"a mount of {source!r} would show it a container engine")


def _sources(context: DockerContext) -> Sequence[str]:
    try:
        return mount_sources(context.container_kwargs)
    except ValueError:
        return ()  # reported as a separate violation


def _against_environment(profile: Profile, asked: RequestedAccess) -> Iterator[_No]:
    refused = not_settable(asked.environment, profile.environment)
    if dangerous := [name for name in refused if is_dangerous(name)]:
        reason = "can make another program run; what is needed of them must be written out in full there"
        yield _No("environment", f"{', '.join(dangerous)} {reason}")
    elif refused:
        yield _No("environment", f"{', '.join(refused)} not among {_listed(profile.environment)}")


def _against_amounts(profile: Profile, asked: RequestedAccess) -> Iterator[_No]:
    is_limited = not isinstance(asked.worker, AsProcess) or asked.worker.is_limited
    for name, most, amount in (("memory", profile.memory, asked.memory), ("cpu", profile.cpu, asked.cpu)):
        if most is None:
            continue
        at_most = f"at most {show_quantity(name, most)} of {name} is allowed"
        if amount == 0:
            yield _No(name, f"{at_most}, and it reserves none: give it the tag runyard/{name}")
        elif amount > most:
            yield _No(name, f"{at_most}, and it asks for {show_quantity(name, amount)}")
        elif not is_limited:
            yield _No(name, f"{at_most}, and with isolation `none` nothing would hold it to that")


def _matches(text: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(text, pattern) for pattern in patterns)


def _matches_path(path: str, patterns: Sequence[str]) -> bool:
    return ANY in patterns or (is_plain_path(path) and _matches(path, patterns))


def _named(patterns: Sequence[str]) -> Sequence[str]:
    return [pattern for pattern in patterns if pattern != ANY]


def _chosen_by_coordinator(what: str) -> str:
    return f"{what} is the coordinator's choice and not in what was signed; name it there if you allow it"


def _listed(patterns: Sequence[str]) -> str:
    return ", ".join(patterns) or "none"
