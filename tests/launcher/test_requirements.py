"""How settings and run tags become what a run asks of its node."""

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
    ("tag", "value"),
    [
        ("runyard/cluster", " "),
        ("runyard/node", ""),
        ("runyard/grace", "soon"),
        ("runyard/grace", "-1"),
        ("runyard/grace", "nan"),
        ("runyard/grace", "inf"),
        ("runyard/grace", "1e30"),
        ("runyard/labels", ""),
        ("runyard/labels", "zone"),
        ("runyard/labels", "=a"),
        ("runyard/labels", "zone=a,zone=b"),
        ("runyard/labels", '{"zone": 1}'),
        ("runyard/labels", '{"zone"'),
    ],
)
def test_a_tag_that_makes_no_sense_is_named_with_the_remedy(tag: str, value: str) -> None:
    read = policies_of if tag == "runyard/grace" else requirements_of
    with pytest.raises(InvalidRunTag, match=rf"run tag {tag}: .*\. (Write|Give)"):
        read({tag: value}, SETTINGS)
