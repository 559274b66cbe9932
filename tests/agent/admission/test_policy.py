"""Decisions of the owner's policy: rule by rule, and properties of every policy and launch."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.agent.admission.trust.environment import is_dangerous
from runyard.agent.admission.trust.policy import (
    Allowed,
    AsContainer,
    AsOther,
    AsProcess,
    Policy,
    Refused,
    RequestedAccess,
    decide,
    policy_of,
)
from runyard.agent.config.docker import Allow, DockerSettings
from runyard.agent.config.engine_sockets import holds_engine_socket
from runyard.agent.config.policy import PolicySettings, Profile
from runyard.agent.drivers.docker.plan.context import DockerContext

PROCESS = AsProcess("/opt/shop/bin/python", "/srv/shop", user="etl", is_root=False, is_limited=True)
CONTAINER = AsContainer("etl:1", DockerContext(), "unix:///var/run/docker.sock")
ASKED = RequestedAccess(
    "shop", "process", ("SHOP_MODE", "DAGSTER_RUN_JOB_NAME"), memory=1 << 30, cpu=1000, worker=PROCESS
)
IN_CONTAINER = replace(ASKED, driver="docker", worker=CONTAINER)


def refusal(asked: RequestedAccess, allow_root: bool = False, **profile: Any) -> Refused:
    """Why one profile refuses."""
    decision = decide(Policy((Profile(name="only", **profile),), allow_root), asked)
    assert isinstance(decision, Refused)
    return decision


def is_allowed(asked: RequestedAccess, allow_root: bool = False, **profile: Any) -> bool:
    """True if one profile allows it."""
    return decide(Policy((Profile(name="only", **profile),), allow_root), asked) == Allowed("only")


def process(**facts: Any) -> RequestedAccess:
    """A launch as a process."""
    return replace(ASKED, worker=replace(PROCESS, **facts))


def container(**kwargs: Any) -> RequestedAccess:
    """A launch in a container with these arguments."""
    return replace(IN_CONTAINER, worker=replace(CONTAINER, context=DockerContext(container_kwargs=kwargs)))


# Rule by rule


@pytest.mark.parametrize(
    ("profile", "asked", "reason"),
    [
        ({"code_locations": ["bakery"]}, ASKED, "it is not for the code location 'shop', only for bakery"),
        ({"drivers": ["docker"]}, ASKED, "'process' is not among docker"),
        ({"interpreters": ["/opt/*/bin/python3"]}, ASKED, "'/opt/shop/bin/python' is not among"),
        ({"working_directories": ["/srv/bakery"]}, ASKED, "'/srv/shop' is not among /srv/bakery"),
        ({"users": ["nobody"]}, ASKED, "its process would run as etl, not one of nobody"),
        ({"environment": ["SHOP_*"]}, ASKED, "DAGSTER_RUN_JOB_NAME not among SHOP_*"),
        ({"memory": "512Mi"}, ASKED, "at most 512Mi of memory is allowed, and it asks for 1Gi"),
        ({"cpu": 0.5}, ASKED, "at most 0.5 of cpu is allowed, and it asks for 1"),
        ({"memory": "2Gi"}, replace(ASKED, memory=0), "it reserves none: give it the tag runyard/memory"),
        ({"cpu": 2}, process(is_limited=False), "with isolation `none` nothing would hold it to that"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_refusal_names_profile_rule_and_reason(
    profile: dict[str, Any], asked: RequestedAccess, reason: str
) -> None:
    decision = refusal(asked, **profile)
    assert (decision.profile, decision.rule) == ("only", next(iter(profile)))
    assert reason in decision.reason
    assert str(decision).startswith(
        f"the policy of this node (profile only, rule {decision.rule}) refuses it: "
    )


def test_a_launch_that_fits_every_rule_is_allowed() -> None:
    assert is_allowed(
        ASKED,
        code_locations=["sh*"],
        drivers=["process"],
        interpreters=["/opt/*/bin/python"],
        working_directories=["/srv/shop"],
        users=["etl"],
        environment=["SHOP_*", "DAGSTER_RUN_JOB_NAME"],
        memory="1Gi",
        cpu=1,
    )


def test_what_the_owners_settings_name_is_not_held_against_a_profile() -> None:
    assert is_allowed(process(interpreter="", working_directory=""), interpreters=[], working_directories=[])


@pytest.mark.parametrize(
    "path", ["/opt/a/../../tmp/python", "/opt//a/python", "//opt/a/python", "python", "/opt/a/python/"]
)
def test_a_path_with_detours_matches_no_pattern(path: str) -> None:
    assert refusal(process(interpreter=path), interpreters=["/opt/*", "/*"]).rule == ("interpreters")
    assert is_allowed(process(interpreter=path), interpreters=["*"])


def test_processes_are_root_only_where_the_owner_says_so() -> None:
    asked = process(user="root", is_root=True)
    assert refusal(asked).rule == "allow_root"
    assert "isolation.run_as" in refusal(asked).reason
    assert is_allowed(asked, allow_root=True)


def test_a_container_is_its_engines_business_and_not_the_agents_user() -> None:
    assert is_allowed(IN_CONTAINER, users=[], interpreters=[], working_directories=[])


def test_other_drivers_are_held_against_the_rules_for_all() -> None:
    asked = replace(ASKED, driver="fake", worker=AsOther())
    assert is_allowed(asked)
    assert refusal(asked, drivers=["process"]).rule == "drivers"


# Variables


@pytest.mark.parametrize(
    "name",
    [
        *("LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "GLIBC_TUNABLES", "PATH", "HOME", "BASH_ENV", "ENV"),
        *(
            "PYTHONPATH",
            "PYTHONSTARTUP",
            "PYTHONHOME",
            "PYTHONWARNINGS",
            "PYTHONBREAKPOINT",
            "PYTHONUSERBASE",
        ),
        *("NODE_OPTIONS", "JAVA_TOOL_OPTIONS", "PERL5OPT", "RUBYOPT", "GIT_SSH_COMMAND", "OPENSSL_CONF"),
        *("RUNYARD_RUN_DIRECTORY", "RUNYARD_ARGS_FD"),
    ],
)
def test_a_dangerous_variable_is_allowed_only_by_its_full_name(name: str) -> None:
    asked = replace(ASKED, environment=(name,))
    for patterns in (["*"], [f"{name}*"], [f"{name[:-1]}?"], [f"[{name[0]}]{name[1:]}"]):
        assert f"{name} can make another program run" in refusal(asked, environment=patterns).reason
    assert is_allowed(asked, environment=[name])


@pytest.mark.parametrize(
    "name",
    [
        *(
            "DAGSTER_RUN_JOB_NAME",
            "DAGSTER_HOME",
            "AWS_SECRET_ACCESS_KEY",
            "PGPASSWORD",
            "DATABASE_URL",
            "STAGE",
        ),
        *("PYTHONUNBUFFERED", "PYTHONHASHSEED", "PYTHONDONTWRITEBYTECODE", "TZ", "LANG", "LC_ALL", "TMPDIR"),
        *("HTTPS_PROXY", "NO_PROXY", "GIT_COMMIT", "NODE_ENV", "JAVA_HOME", "SPARK_HOME", "OMP_NUM_THREADS"),
        *("CUDA_VISIBLE_DEVICES", "DBT_PROFILES_DIR", "SNOWFLAKE_USER", "GOOGLE_APPLICATION_CREDENTIALS"),
    ],
)
def test_usual_variables_are_not_dangerous(name: str) -> None:
    assert not is_dangerous(name)
    assert is_allowed(replace(ASKED, environment=(name,)))


# Containers


def test_the_rules_of_docker_allow_are_those_of_the_default_profile() -> None:
    policy = policy_of(PolicySettings(), DockerSettings(allow=Allow(images=("good/*",))))
    decision = decide(policy, IN_CONTAINER)
    assert decision == Refused("default", "docker.allow.images", "'etl:1' is not among good/*")


def test_the_rules_of_a_profile_are_in_the_place_of_docker_allow() -> None:
    mounts = container(volumes=["/data/in:/in"])
    assert refusal(mounts).rule == "containers.mounts"
    assert is_allowed(mounts, containers=Allow(mounts=("/data/*",)))
    assert refusal(container(privileged=True)).rule == "containers.privileged"


def test_an_image_may_be_pinned_by_its_digest() -> None:
    digest = "registry.example/etl@sha256:" + "0" * 64
    asked = replace(IN_CONTAINER, worker=replace(CONTAINER, image=digest))
    assert is_allowed(asked, containers=Allow(images=("registry.example/etl@sha256:*",)))
    assert refusal(IN_CONTAINER, containers=Allow(images=(digest,))).rule == "containers.images"


@pytest.mark.parametrize(
    "source",
    [
        *(
            "/var/run/docker.sock",
            "/run/docker.sock",
            "/run/podman/podman.sock",
            "/run/user/1000/podman/podman.sock",
        ),
        *(
            "/run/containerd/containerd.sock",
            "/home/me/.docker/run/docker.sock",
            "/run",
            "/var/run",
            "/var",
            "/",
        ),
        *("/run/user/1000", "/var/../run/docker.sock", "//var/run/docker.sock", "/run/"),
    ],
)
def test_no_pattern_lets_a_container_have_the_socket_of_an_engine(source: str) -> None:
    everything = Profile(name="only", containers=Allow(mounts=("*",), privileged=True))
    for asked in (
        container(volumes=[f"{source}:/x"]),
        container(volumes={source: {"bind": "/x"}}),
        container(mounts=[{"Type": "bind", "Source": source, "Target": "/x"}]),
    ):
        decision = decide(Policy((everything,)), asked)
        assert isinstance(decision, Refused)
        assert decision.rule == "allow_engine_socket"
        assert decide(Policy((everything,), allow_engine_socket=True), asked) == Allowed("only")


@pytest.mark.parametrize("source", ["/data", "/running", "docker.sock", "/srv/run", "/var/lib/etl"])
def test_other_folders_and_volumes_are_no_sockets(source: str) -> None:
    assert not holds_engine_socket(source, "unix:///var/run/docker.sock")


def test_the_socket_of_the_nodes_own_engine_is_known_wherever_it_is() -> None:
    assert holds_engine_socket("/srv/engine", "unix:///srv/engine/socket")
    assert holds_engine_socket("/srv/engine/socket", "unix:///srv/engine/socket")
    assert not holds_engine_socket("/srv/eng", "unix:///srv/engine/socket")


# What the coordinator chose of a signed launch


def test_a_driver_that_the_coordinator_chose_must_be_named() -> None:
    asked = replace(IN_CONTAINER, unsigned_choices=frozenset({"driver"}))
    assert "the coordinator's choice" in refusal(asked).reason
    assert is_allowed(asked, drivers=["*", "dock*"])


def test_an_image_that_the_coordinator_chose_must_be_named() -> None:
    asked = replace(IN_CONTAINER, unsigned_choices=frozenset({"image"}))
    assert refusal(asked).rule == "containers.images"
    assert is_allowed(asked, containers=Allow(images=("etl:*",)))


# Several profiles


def test_one_profile_has_to_allow_all_of_it() -> None:
    by_driver = Profile(name="driver", drivers=("process",), users=("nobody",))
    by_user = Profile(name="user", drivers=("docker",), users=("etl",))
    assert isinstance(decide(Policy((by_driver, by_user)), ASKED), Refused)
    assert decide(Policy((by_driver, by_user, Profile(name="all"))), ASKED) == Allowed("all")


def test_the_nearest_profile_is_named() -> None:
    far = Profile(name="far", drivers=("docker",), users=("nobody",), memory=10_000_000)
    near = Profile(name="near", users=("nobody",), memory=10_000_000)
    elsewhere = Profile(name="elsewhere", code_locations=("bakery",))
    decision = decide(Policy((elsewhere, far, near)), ASKED)
    assert isinstance(decision, Refused)
    assert (decision.profile, decision.rule) == ("near", "users")


# For any policy and any launch

WORDS = st.sampled_from(
    [
        "*",
        "shop",
        "sh*",
        "/opt/*",
        "/opt/shop/bin/python",
        "/srv",
        "PATH",
        "SHOP_MODE",
        "[a-",
        "process",
        "docker",
        "etl",
        "root",
        "etl:1",
        "[!x]*",
    ]
)
PATTERNS = st.lists(WORDS, max_size=3).map(tuple)
PATHS = st.lists(st.sampled_from(["*", "/opt/*", "/opt/shop/bin/python", "/srv/[a", "/*"]), max_size=3).map(
    tuple
)
AMOUNTS = st.none() | st.sampled_from([1_000_000, 1 << 30, 1 << 40])
ALLOWS = st.builds(
    Allow,
    images=PATTERNS,
    mounts=PATTERNS,
    networks=PATTERNS,
    users=PATTERNS,
    env_vars=PATTERNS,
    privileged=st.booleans(),
)
PROFILES = st.builds(
    Profile,
    name=st.sampled_from(["a", "b", "c"]),
    code_locations=PATTERNS,
    drivers=PATTERNS,
    interpreters=PATHS,
    working_directories=PATHS,
    users=PATTERNS,
    environment=PATTERNS,
    memory=AMOUNTS,
    cpu=AMOUNTS,
    containers=ALLOWS,
)
POLICIES = st.builds(
    Policy, st.lists(PROFILES, max_size=3).map(tuple), st.booleans(), st.booleans(), st.just("containers")
)
TEXTS = WORDS | st.text(max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda part: st.lists(part, max_size=3) | st.dictionaries(TEXTS, part, max_size=3),
    max_leaves=6,
)
KWARGS = st.dictionaries(
    st.sampled_from(["volumes", "mounts", "network_mode", "user", "privileged", "mem_limit", "x"]),
    JSON,
    max_size=3,
)
PROCESSES = st.builds(AsProcess, TEXTS, TEXTS, TEXTS, st.booleans(), st.booleans())
CONTAINERS = st.builds(
    AsContainer,
    TEXTS,
    st.builds(DockerContext, st.lists(TEXTS, max_size=2), st.lists(TEXTS, max_size=2), KWARGS),
    st.sampled_from(["unix:///run/docker.sock", "tcp://h:1", "unix://"]),
)
LAUNCHES = st.builds(
    RequestedAccess,
    TEXTS,
    TEXTS,
    st.lists(TEXTS, max_size=3).map(tuple),
    st.sampled_from([0, 1 << 29, 1 << 35]),
    st.sampled_from([0, 500, 4000]),
    PROCESSES | CONTAINERS | st.just(AsOther()),
    st.sets(st.sampled_from(["driver", "image"])).map(frozenset),
)


@st.composite
def narrowed(draw: st.DrawFn, policy: Policy) -> Policy:
    """The same policy with less in it: a profile or a pattern less, a smaller amount, a right taken away."""
    profiles = list(policy.profiles)
    drops_profiles, drops_rights = draw(st.booleans()), draw(st.booleans())
    if profiles and drops_profiles:
        return replace(policy, profiles=tuple(profiles[: draw(st.integers(0, len(profiles) - 1))]))
    if not profiles or drops_rights:
        return replace(policy, allow_root=False, allow_engine_socket=False)
    index = draw(st.integers(0, len(profiles) - 1))
    profiles[index] = draw(narrowed_profile(profiles[index]))
    return replace(policy, profiles=tuple(profiles))


@st.composite
def narrowed_profile(draw: st.DrawFn, profile: Profile) -> Profile:
    """The same profile with less in it."""
    name = draw(st.sampled_from([name for name in Profile.model_fields if name != "name"]))
    value = getattr(profile, name)
    if name == "containers":
        rule = draw(st.sampled_from(sorted(Allow.model_fields)))
        less = False if rule == "privileged" else getattr(value, rule)[1:]
        return profile.model_copy(update={name: value.model_copy(update={rule: less})})
    if name in ("memory", "cpu"):
        return profile.model_copy(
            update={name: draw(st.integers(0, value if value is not None else 1 << 40))}
        )
    return profile.model_copy(update={name: value[1:] if draw(st.booleans()) else value[:-1]})


@given(st.data(), POLICIES, LAUNCHES)
def test_a_launch_that_is_refused_stays_refused_when_the_policy_is_narrowed(
    data: st.DataObject, policy: Policy, asked: RequestedAccess
) -> None:
    before = decide(policy, asked)
    after = decide(data.draw(narrowed(policy)), asked)
    if isinstance(before, Refused):
        assert isinstance(after, Refused)


@given(POLICIES, LAUNCHES)
def test_a_refusal_always_says_why(policy: Policy, asked: RequestedAccess) -> None:
    decision = decide(policy, asked)
    if isinstance(decision, Refused):
        assert decision.profile
        assert decision.rule
        assert decision.reason


@given(POLICIES, LAUNCHES)
def test_no_policy_without_the_owners_word_lets_a_process_be_root(
    policy: Policy, asked: RequestedAccess
) -> None:
    root = replace(asked, driver="process", worker=replace(PROCESS, user="root", is_root=True))
    assert isinstance(decide(replace(policy, allow_root=False), root), Refused)


@given(LAUNCHES)
def test_a_policy_without_profiles_refuses_everything(asked: RequestedAccess) -> None:
    assert isinstance(decide(Policy(()), asked), Refused)
