"""Which node takes a run, and why the others do not."""

import pytest
from coordinator.fleet_building import FleetTrial, make_hello, make_launch

from runyard.coordinator.core.errors import LaunchRefused
from runyard.coordinator.core.explain.wording import situation
from runyard.coordinator.core.requirements.labels import label_is
from runyard.coordinator.core.requirements.requirements import CompiledRequirements
from runyard.coordinator.core.scheduling.config import SchedulingConfig, Strategy
from runyard.v1 import agent_pb2

GPU = (label_is("gpu", "a100"),)


def fleet_of(*hellos: agent_pb2.Hello) -> FleetTrial:
    trial = FleetTrial()
    for hello in hellos:
        trial.join(hello)
    return trial


@pytest.mark.parametrize(
    ("strategy", "order"),
    [
        (Strategy.BINPACK, ["small", "small", "big", "big", "big", "big"]),
        (Strategy.SPREAD, ["big", "big", "small", "big", "big", "small"]),
    ],
)
def test_nodes_fill_up_one_after_the_other_or_evenly(strategy: Strategy, order: list[str]) -> None:
    trial = FleetTrial(config=SchedulingConfig(strategy=strategy))
    trial.join(make_hello("big", slots=4))
    trial.join(make_hello("small", slots=2))
    placed = []
    for number in range(6):
        trial.launch(make_launch(f"run-{number}"))
        placed.append(trial.node_of(f"run-{number}"))
    assert placed == order


def test_tie_goes_to_the_smaller_name_whoever_joined_first() -> None:
    trial = fleet_of(make_hello("b"), make_hello("a"))
    trial.launch()
    assert trial.node_of() == "a"


@pytest.mark.parametrize(
    ("requirements", "expected"),
    [
        (CompiledRequirements(), "any"),
        (CompiledRequirements(cluster="east"), "gpu"),
        (CompiledRequirements(node="any"), "any"),
        (CompiledRequirements(labels=GPU), "gpu"),
        (CompiledRequirements(driver="docker"), "docker"),
        (CompiledRequirements(cluster="east", node="gpu", labels=GPU, driver="process"), "gpu"),
    ],
    ids=["nothing", "a cluster", "a node", "a label", "a driver", "everything"],
)
def test_run_goes_to_the_node_that_offers_what_it_asks_for(
    requirements: CompiledRequirements, expected: str
) -> None:
    trial = fleet_of(
        make_hello("any", cluster="west", slots=1),
        make_hello("docker", cluster="west", slots=8, drivers=["docker"]),
        make_hello("gpu", cluster="east", slots=8, labels={"gpu": "a100", "zone": "1"}),
    )
    trial.launch(make_launch(requirements=requirements))
    assert trial.node_of() == expected


@pytest.mark.parametrize(
    ("requirements", "message"),
    [
        (CompiledRequirements(cluster="north"), "no cluster is named 'north'; known clusters: east, west"),
        (CompiledRequirements(node="nobody"), "no node is named 'nobody'; known nodes: a, b, c"),
        (
            CompiledRequirements(labels=(label_is("zone", "9"),)),
            r"no node matches \(0/3 nodes available: 3 did not match label zone=9\)",
        ),
        (
            CompiledRequirements(driver="slurm"),
            r"no node matches \(0/3 nodes available: 3 without driver slurm\)",
        ),
        (
            CompiledRequirements(cluster="west", labels=GPU),
            r"no node matches \(0/3 nodes available: 2 did not match label gpu=a100, 1 in another cluster\)",
        ),
        (
            CompiledRequirements(node="c"),
            r"no node matches \(0/3 nodes available: 2 not the requested node, 1 without slots\)",
        ),
    ],
    ids=["cluster", "node", "label", "driver", "a mixture", "no slots"],
)
def test_launch_that_no_node_could_ever_take_is_refused_and_says_what_is_missing(
    requirements: CompiledRequirements, message: str
) -> None:
    trial = fleet_of(
        make_hello("a", cluster="west"),
        make_hello("b", cluster="west"),
        make_hello("c", cluster="east", slots=0, labels={"gpu": "a100"}),
    )
    with pytest.raises(LaunchRefused, match=f"^{message}$"):
        trial.launch(make_launch(requirements=requirements))


def test_refusal_in_a_large_fleet_names_a_few_nodes_and_counts_the_rest() -> None:
    trial = fleet_of(*(make_hello(f"node-{number:04}") for number in range(500)))
    with pytest.raises(LaunchRefused) as refusal:
        trial.launch(make_launch(requirements=CompiledRequirements(node="nobody")))
    assert str(refusal.value).endswith("node-0009 and 490 more")


def test_label_must_have_exactly_the_value() -> None:
    trial = fleet_of(make_hello("a", labels={"gpu": "a100x"}), make_hello("b", labels={"gpu": "a100"}))
    trial.launch(make_launch(requirements=CompiledRequirements(labels=GPU)))
    assert trial.node_of() == "b"


def test_silent_node_is_passed_over() -> None:
    trial = fleet_of(make_hello("a"), make_hello("b"))
    trial.leave(1, "a")
    trial.launch()
    assert trial.node_of() == "b"


def test_news_of_a_waiting_run_follow_what_happens() -> None:
    trial = fleet_of(make_hello("a", slots=1))
    trial.launch(make_launch("first"))
    trial.launch()
    news = [situation(trial.fleet, trial.run())]
    trial.leave(1, "a")
    news.append(situation(trial.fleet, trial.run()))
    trial.tick(after=300.0)
    news.append(situation(trial.fleet, trial.run()))
    trial.join(make_hello("b", slots=0))
    news.append(situation(trial.fleet, trial.run()))
    assert news == [
        "waiting: 0/1 nodes available: 1 without a free slot",
        "waiting: 0/1 nodes available: 1 suspect",
        "waiting: 0/1 nodes available: 1 unreachable",
        "waiting: 0/2 nodes available: 1 unreachable, 1 without slots",
    ]


def test_news_of_a_waiting_run_count_the_reasons_of_all_nodes() -> None:
    trial = fleet_of(
        make_hello("full", slots=1),
        make_hello("gone"),
        make_hello("silent"),
        make_hello("elsewhere", cluster="other"),
    )
    here = CompiledRequirements(cluster="default")
    trial.launch(make_launch("first", requirements=CompiledRequirements(node="full")))
    trial.leave(2, "gone")
    trial.leave(3, "silent")
    trial.launch(make_launch(requirements=here))
    assert trial.phase() == "queued"
    assert (
        situation(trial.fleet, trial.run())
        == "waiting: 0/4 nodes available: 2 suspect, 1 in another cluster, 1 without a free slot"
    )
