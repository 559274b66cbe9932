"""What a container is to be: the layers merged as Dagster's own launcher does, within the owner's rules."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from runyard.agent.admission.errors import UnusableLaunch
from runyard.agent.admission.specs import build_spec_record
from runyard.agent.config.agent import AgentSettings
from runyard.agent.config.docker import Allow, DockerSettings
from runyard.agent.core.model import UNKNOWN_LAUNCH
from runyard.agent.drivers.docker.engine.images import registry_of
from runyard.agent.drivers.docker.plan.allow import Violation, violations
from runyard.agent.drivers.docker.plan.context import DockerContext, read_context
from runyard.agent.drivers.docker.plan.plan import (
    ENTER,
    ContainerPlan,
    UnusablePlan,
    container_environment,
    plan_container,
)
from runyard.agent.spec_record.environment import ResolvedEnvironment
from runyard.common.secrets import Secret
from runyard.v1 import placement_pb2, run_pb2


def launch(*, image: str = "", context: object = None, **requirements: Any) -> run_pb2.LaunchSpec:
    """A launch from a code location with that image and container_context."""
    return run_pb2.LaunchSpec(
        run_id="run-a",
        kind=run_pb2.LAUNCH_KIND_EXECUTE,
        code_origin=run_pb2.CodeOrigin(
            location="shop",
            job="orders",
            executable="/usr/local/bin/python",
            image=image,
            container_context_json=json.dumps(context) if context else "",
        ),
        requirements=placement_pb2.Requirements(driver="docker", **requirements),
    )


def plan(spec: run_pb2.LaunchSpec, **settings: Any) -> ContainerPlan:
    """The plan of an agent with these settings."""
    return plan_container(DockerSettings(**{"image": "etl:1", **settings}), spec)


def docker(**context: Any) -> dict[str, Any]:
    """A container_context."""
    return {"docker": context}


def against(context: object) -> list[Violation]:
    """What the rules of some owner say of a container_context."""
    allow = Allow(mounts=("/data/*",), networks=("etl*",), users=("1000",))
    return list(violations(allow, "", read_context(json.dumps(context))))


def test_the_image_of_the_run_goes_before_the_code_locations_and_that_before_the_agents() -> None:
    assert plan(launch()).image == "etl:1"
    assert plan(launch(image="etl:2")).image == "etl:2"
    spec = launch(image="etl:2")
    spec.requirements.image = "etl:3"
    assert plan(spec).image == "etl:3"


def test_without_any_image_the_launch_is_refused_with_all_three_remedies() -> None:
    with pytest.raises(UnusablePlan, match=r"runyard/image.*code location.*docker\.image"):
        plan(launch(), image="")


def test_lists_are_appended_and_arguments_replaced_as_dagsters_launcher_does() -> None:
    context = docker(
        networks=["theirs"], container_kwargs={"volumes": ["/data:/data"], "hostname": "b", "labels": ["x"]}
    )
    made = plan(
        launch(context=context),
        networks=["ours"],
        volumes=["/cache:/cache:ro"],
        container_kwargs={"volumes": ["/old:/old"], "hostname": "a", "shm_size": "1g"},
        labels={"team": "etl"},
    )
    assert made.networks == ["ours", "theirs"]
    assert made.kwargs["volumes"] == ["/cache:/cache:ro", "/data:/data"]
    assert (made.kwargs["hostname"], made.kwargs["shm_size"]) == ("b", "1g")
    assert made.kwargs["labels"] == {
        "team": "etl",
        "x": "",
        "dagster/run_id": "run-a",
        "dagster/job_name": "orders",
    }


def test_volumes_may_be_mappings_as_the_docker_package_knows_them() -> None:
    volumes = {"/data": {"bind": "/in", "mode": "ro"}, "cache": {"bind": "/cache"}}
    assert plan(launch(), container_kwargs={"volumes": volumes}).kwargs["volumes"] == [
        "/data:/in:ro",
        "cache:/cache:rw",
    ]


def test_what_a_run_reserves_is_what_its_container_gets() -> None:
    resources = {"cpu": 1500, "memory": 1 << 30, "pids": 100, "shm": 1 << 26, "gpu": 2}
    kwargs = plan(
        launch(resources=resources), container_kwargs={"mem_limit": "9g", "cpu_quota": 1, "pids_limit": 7}
    ).kwargs
    assert "cpu_quota" not in kwargs
    assert kwargs["nano_cpus"] == 1_500_000_000
    assert kwargs["mem_limit"] == kwargs["memswap_limit"] == 1 << 30
    assert (kwargs["pids_limit"], kwargs["shm_size"]) == (100, 1 << 26)
    (gpus,) = kwargs["device_requests"]
    assert (gpus["Count"], gpus["Capabilities"]) == (2, [["gpu"]])


def test_without_a_reservation_the_limits_of_the_settings_hold() -> None:
    assert plan(launch(), container_kwargs={"mem_limit": "9g"}).kwargs["mem_limit"] == "9g"


def test_an_init_is_first_in_the_container_unless_the_owner_says_otherwise() -> None:
    assert plan(launch()).kwargs["init"] is True
    assert plan(launch(), container_kwargs={"init": False}).kwargs["init"] is False


def test_arguments_of_dagsters_launcher_that_runyard_overrules_are_accepted() -> None:
    kwargs = plan(launch(), container_kwargs={"auto_remove": True, "stop_timeout": 60}).kwargs
    assert not {"auto_remove", "stop_timeout"} & set(kwargs)


@pytest.mark.parametrize("name", ["image", "environment", "network", "name", "restart_policy", "tty"])
def test_arguments_that_runyard_keeps_for_itself_are_refused_with_the_remedy(name: str) -> None:
    with pytest.raises(ValidationError, match=rf"{name}: "):
        DockerSettings(container_kwargs={name: "x"})
    with pytest.raises(UnusablePlan, match=rf"container_kwargs: {name}: "):
        plan(launch(context=docker(container_kwargs={name: "x"})))


def test_the_environment_is_what_was_given_and_nothing_of_the_agents_own() -> None:
    settings = DockerSettings(env_vars=("A=settings", "TOKEN"))
    spec = launch(context={"env_vars": ["B=location"], "docker": {"env_vars": ["A=location"]}})
    own = {"TOKEN": "t", "PATH": "/usr/bin"}
    given = ResolvedEnvironment({"D": "everyone", "C": "everyone"}, {"C": "launch"})
    assert container_environment(settings, given, spec, own) == {
        "A": "location",
        "B": "location",
        "C": "launch",
        "D": "everyone",
        "TOKEN": "t",
    }


def test_a_variable_that_the_agent_has_not_is_named() -> None:
    with pytest.raises(UnusablePlan, match="TOKEN"):
        container_environment(DockerSettings(env_vars=("TOKEN",)), ResolvedEnvironment({}, {}), launch(), {})


@pytest.mark.parametrize(
    ("rule", "context"),
    [
        ("mounts", docker(container_kwargs={"volumes": ["/etc:/host"]})),
        ("mounts", docker(container_kwargs={"volumes": {"/etc": {"bind": "/host"}}})),
        ("mounts", docker(container_kwargs={"volumes": ["/data/../etc:/host"]})),
        ("mounts", docker(container_kwargs={"volumes": ["//etc:/host"]})),
        ("mounts", docker(container_kwargs={"mounts": [{"Type": "bind", "Source": "/etc", "Target": "/x"}]})),
        ("networks", docker(networks=["internal"])),
        ("networks", docker(container_kwargs={"network_mode": "host"})),
        ("users", docker(container_kwargs={"user": "root"})),
        ("env_vars", docker(env_vars=["AWS_SECRET_ACCESS_KEY"])),
        ("env_vars", {"env_vars": ["AWS_SECRET_ACCESS_KEY"]}),
        ("privileged", docker(container_kwargs={"privileged": True})),
        ("privileged", docker(container_kwargs={"cap_add": ["SYS_ADMIN"]})),
        ("privileged", docker(container_kwargs={"devices": ["/dev/sda"]})),
        ("privileged", docker(container_kwargs={"pid_mode": "host"})),
        ("privileged", docker(container_kwargs={"volumes_from": ["other"]})),
        ("privileged", docker(container_kwargs={"log_config": {"Type": "syslog"}})),
        ("privileged", docker(container_kwargs={"never_heard_of": 1})),
    ],
)
def test_a_code_location_gets_nothing_that_the_owner_does_not_allow(rule: str, context: object) -> None:
    assert {violation.rule for violation in against(context)} == {rule}


@pytest.mark.parametrize(
    "context",
    [
        docker(container_kwargs={"volumes": ["/data/in:/in:ro"]}),
        docker(container_kwargs={"volumes": ["/scratch"]}),
        docker(networks=["etl-1"]),
        docker(container_kwargs={"user": 1000}),
        docker(container_kwargs={"mem_limit": "1g", "read_only": True, "tmpfs": {"/tmp": ""}}),
        docker(env_vars=["STAGE=test"]),
        docker(registry={"url": "r", "username": "u", "password": "p"}),
    ],
)
def test_a_code_location_gets_what_the_owner_allows(context: object) -> None:
    assert against(context) == []
    plan(launch(context=context))


def test_an_image_that_the_owner_does_not_allow_is_named_but_not_the_owners_own() -> None:
    allow = Allow(images=("registry.example/*",))
    (violation,) = violations(allow, "evil:1", DockerContext())
    assert (violation.rule, violation.reason) == ("images", "'evil:1' is not among registry.example/*")
    assert not list(violations(allow, "registry.example/etl:2", DockerContext()))
    assert not list(violations(allow, "", DockerContext()))


@pytest.mark.parametrize(
    ("context", "match"),
    [
        ([], "mapping"),
        ({"docker": [1]}, "docker: must be a mapping"),
        (docker(network="a"), "no 'network'"),
        (docker(networks="a"), "networks: must be a list"),
        (docker(container_kwargs=[1]), "container_kwargs: must be a mapping"),
        (docker(container_kwargs={"volumes": "/a:/b"}), "volumes: write"),
    ],
)
def test_a_context_of_another_form_is_refused_with_its_key(context: object, match: str) -> None:
    spec = launch()
    spec.code_origin.container_context_json = json.dumps(context)
    with pytest.raises(UnusablePlan, match=match):
        plan(spec)


def test_the_run_directory_gets_the_plan_and_the_command_in_the_image() -> None:
    settings = AgentSettings(docker=DockerSettings(image="etl:1"), environment={"A": Secret("1")})
    record = build_spec_record(settings, UNKNOWN_LAUNCH, launch(), {"PATH": "/usr/bin"})
    assert record.argv == ["/usr/local/bin/python", ENTER, "execute_run", "run-a"]
    assert record.env == {"A": "1"}
    assert ContainerPlan.of_record(record.container).image == "etl:1"
    assert record.driver == "docker"


def test_a_refusal_becomes_the_rejection_of_the_launch() -> None:
    settings = AgentSettings(docker=DockerSettings())
    with pytest.raises(UnusableLaunch, match="no image"):
        build_spec_record(settings, UNKNOWN_LAUNCH, launch(), {})


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"host": "10.0.0.1"}, "unix:///path or tcp://host:port"),
        ({"host": "tcp://10.0.0.1:2375"}, "set tls_directory"),
        ({"host": "tcp://127.0.0.1:2375"}, "set tls_directory"),
        ({"registries": {"r": {"username": "u"}}}, "password or password_file"),
        ({"pull": "sometimes"}, "always"),
        ({"imagee": "x"}, "imagee"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_the_remedy(settings: Any, match: str) -> None:
    with pytest.raises(ValidationError, match=match):
        DockerSettings(**settings)


def test_passwords_of_registries_are_not_shown() -> None:
    settings = DockerSettings(registries={"r": {"username": "u", "password": "hunter2"}})  # type: ignore[dict-item]
    assert "hunter2" not in repr(settings)
    assert settings.registries["r"].read_password() == "hunter2"


@pytest.mark.parametrize(
    ("image", "registry"),
    [
        ("python:3", "docker.io"),
        ("library/python", "docker.io"),
        ("registry.example/etl:1", "registry.example"),
        ("localhost/etl", "localhost"),
        ("127.0.0.1:5000/etl", "127.0.0.1:5000"),
    ],
)
def test_the_registry_is_read_from_the_images_name(image: str, registry: str) -> None:
    assert registry_of(image) == registry
