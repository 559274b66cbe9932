"""How settings and run tags become what a run asks of its node."""

from dataclasses import replace

import pytest
from google.protobuf.duration_pb2 import Duration

from runyard.launcher.config import Settings
from runyard.launcher.errors import InvalidRunTag
from runyard.launcher.requirements import policies_of, requirements_of
from runyard.v1 import run_pb2

SETTINGS = Settings(
    address="127.0.0.1:7171",
    insecure=False,
    deployment="default",
    cluster=None,
    labels={"zone": "a"},
    env_vars=[],
    launch_timeout=30,
    request_timeout=10,
    grace=60,
    max_queue=None,
    start_timeout=None,
    stop_after=None,
    reporter=False,
)


@pytest.mark.parametrize(
    ("tags", "requirements"),
    [
        ({}, run_pb2.Requirements(labels={"zone": "a"})),
        ({"runyard/cluster": "gpu"}, run_pb2.Requirements(cluster="gpu", labels={"zone": "a"})),
        ({"runyard/node": " node-7 "}, run_pb2.Requirements(node="node-7", labels={"zone": "a"})),
        ({"runyard/driver": "docker"}, run_pb2.Requirements(driver="docker", labels={"zone": "a"})),
        ({"runyard/labels": "zone=b, q = x=y"}, run_pb2.Requirements(labels={"zone": "b", "q": "x=y"})),
        ({"runyard/labels": '{"q": "1,2"}'}, run_pb2.Requirements(labels={"zone": "a", "q": "1,2"})),
        ({"runyard/placed_node": "node-7"}, run_pb2.Requirements(labels={"zone": "a"})),
    ],
)
def test_run_tags_go_before_settings(tags: dict[str, str], requirements: run_pb2.Requirements) -> None:
    assert requirements_of(tags, SETTINGS) == requirements


def test_a_grace_of_zero_goes_before_the_setting() -> None:
    assert policies_of({"runyard/grace": "0"}, SETTINGS) == run_pb2.Policies(grace=Duration())
    assert policies_of({}, SETTINGS) == run_pb2.Policies(grace=Duration(seconds=60))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("keep", None),
        ("stop_after=300", 300),
        ("stop_after=5m", 300),
        ("stop_after: 5m", 300),
        (" stop_after = 1h30m ", 5400),
        ("stop_after=90.5s", 90.5),
    ],
)
def test_the_tag_on_disconnect_goes_before_the_setting(text: str, seconds: float | None) -> None:
    fencing = replace(SETTINGS, stop_after=60.0)
    policies = policies_of({"runyard/on_disconnect": text}, fencing)
    assert policies.HasField("stop_after") == (seconds is not None)
    assert policies.stop_after.ToNanoseconds() == (seconds or 0) * 1e9


def test_the_setting_on_disconnect_holds_for_runs_without_the_tag() -> None:
    assert policies_of({}, replace(SETTINGS, stop_after=60.0)).stop_after == Duration(seconds=60)
    assert not policies_of({}, SETTINGS).HasField("stop_after")


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        ("runyard/cluster", " "),
        ("runyard/node", ""),
        ("runyard/grace", "soon"),
        ("runyard/grace", "-1"),
        ("runyard/grace", "nan"),
        ("runyard/grace", "inf"),
        ("runyard/grace", "1e30"),
        ("runyard/on_disconnect", ""),
        ("runyard/on_disconnect", "stop"),
        ("runyard/on_disconnect", "keep=5m"),
        ("runyard/on_disconnect", "stop_after"),
        ("runyard/on_disconnect", "stop_after=soon"),
        ("runyard/on_disconnect", "stop_after=0"),
        ("runyard/on_disconnect", "stop_after=-5m"),
        ("runyard/on_disconnect", "stop_after=9999d"),
        ("runyard/labels", ""),
        ("runyard/labels", "zone"),
        ("runyard/labels", "=a"),
        ("runyard/labels", "zone=a,zone=b"),
        ("runyard/labels", '{"zone": 1}'),
        ("runyard/labels", '{"zone"'),
    ],
)
def test_a_tag_that_makes_no_sense_is_named_with_the_remedy(tag: str, value: str) -> None:
    read = policies_of if tag in ("runyard/grace", "runyard/on_disconnect") else requirements_of
    with pytest.raises(InvalidRunTag, match=rf"run tag {tag}: .*\. (Write|Give)"):
        read({tag: value}, SETTINGS)
