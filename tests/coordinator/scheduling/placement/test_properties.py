"""Whatever happens to a fleet: nothing is given twice, and nothing that could be given lies idle."""

from contextlib import suppress

from coordinator.fleet_building import (
    FleetTrial,
    finished,
    make_hello,
    make_launch,
    running,
    warm_server,
)
from coordinator.scheduling.placement import oracle
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from runyard.coordinator.core.effects import SaveRun
from runyard.coordinator.core.errors import FleetError
from runyard.coordinator.core.events.on_config_change import on_config_change
from runyard.coordinator.core.events.on_operator import on_cordon, on_drain, on_fence, on_uncordon
from runyard.coordinator.core.events.on_session import on_goodbye, on_heartbeat
from runyard.coordinator.core.explain.wording import situation
from runyard.coordinator.core.model import Assigned, Finished, Queued, Run
from runyard.coordinator.core.requirements.labels import label_is, parse_label_rule
from runyard.coordinator.core.requirements.requirements import CompiledRequirements, Preference
from runyard.coordinator.core.requirements.resources import Resources
from runyard.coordinator.core.routing.rules import Match, Order, Rule, WeightedCluster
from runyard.coordinator.core.scheduling.config import (
    NoNodeAction,
    NoRuleAction,
    QueueConfig,
    Quota,
    SchedulingConfig,
    Strategy,
)
from runyard.coordinator.core.scheduling.filters import out_of_service, static_node_reason
from runyard.coordinator.core.scheduling.reservations import MAX_RESERVATIONS
from runyard.coordinator.grpc.messages.agent_reports import heartbeat_of
from runyard.coordinator.grpc.messages.conversions import capacity_message
from runyard.v1 import agent_pb2, placement_pb2

NODES = [f"node-{letter}" for letter in "abcde"]
SHARES = ["shop", "bakery", "market"]
CLUSTERS = ["west", "east"]

Asked = tuple[CompiledRequirements, str, int]
Nodes = list[tuple[str, placement_pb2.Offer]]

node_ids = st.sampled_from(NODES)
picks = st.integers(0, 1_000)
sizes = st.sampled_from(
    [{"slots": 2, "memory": 6}, {"slots": 3, "memory": 4}, {"slots": 1, "memory": 8, "gpu": 1}]
)
plain_offers = st.builds(placement_pb2.Offer, drivers=st.just(["process"]), resources=sizes)
odd_offers = st.builds(
    placement_pb2.Offer,
    labels=st.sampled_from([{}, {"zone": "a"}, {"zone": "b", "ssd": ""}]),
    drivers=st.just(["process"]),
    taints=st.sampled_from([[], ["spot"]]),
    resources=sizes | st.sampled_from([{"slots": 3}, {"memory": 3}, {}]),
    largest_run=st.sampled_from([{}, {"memory": 3}]),
)
offers = plain_offers | plain_offers | odd_offers
memory = st.sampled_from([0, 2, 3, 6]).map(lambda amount: Resources.of({"slots": 1, "memory": amount}))
plain_requirements = st.builds(CompiledRequirements, resources=memory)
odd_requirements = st.builds(
    CompiledRequirements,
    cluster=st.sampled_from(["", "west"]),
    node=st.sampled_from(["", "", "node-a"]),
    labels=st.sampled_from([(), (label_is("zone", "a"),), (parse_label_rule("!ssd"),)]),
    resources=memory | st.just(Resources.of({"slots": 1, "gpu": 1})),
    tolerations=st.sampled_from([(), ("spot",)]),
    preferences=st.sampled_from([(), (Preference(label_is("zone", "b")),)]),
)
requirements = plain_requirements | plain_requirements | plain_requirements | odd_requirements
rules = st.builds(
    Rule,
    name=st.sampled_from(["one", "another"]),
    match=st.builds(Match, code_location=st.sampled_from([(), (), ("shop",)])),
    clusters=st.sampled_from(
        [
            (WeightedCluster("west"),),
            (WeightedCluster("west", 1), WeightedCluster("east", 3)),
            (WeightedCluster("east"), WeightedCluster("west")),
            (WeightedCluster("east"), WeightedCluster("north"), WeightedCluster("west")),
        ]
    ),
    order=st.sampled_from(Order),
    spill_after=st.sampled_from([0.0, 5.0, 11.0]),
)
quotas = st.dictionaries(
    st.sampled_from(SHARES),
    st.builds(
        Quota,
        guaranteed=st.sampled_from([Resources(), Resources.of({"slots": 1}), Resources.of({"memory": 4})]),
        limit=st.sampled_from(
            [Resources(), Resources.of({"slots": 2}), Resources.of({"memory": 5, "gpu": 1})]
        ),
    ),
    max_size=2,
)
queues = st.builds(
    QueueConfig,
    age_step=st.sampled_from([None, 16.0]),
    reserve_after=st.sampled_from([4.0, 60.0]),
    reservation=st.sampled_from([12.0, 100.0]),
    limit=st.sampled_from([5, 1000, 1000]),
)
plain_configs = st.builds(
    SchedulingConfig,
    strategy=st.sampled_from(Strategy),
    on_no_matching_rule=st.sampled_from([NoRuleAction.ANYWHERE, NoRuleAction.ANYWHERE, NoRuleAction.QUEUE]),
    on_no_eligible_node=st.sampled_from(NoNodeAction),
    queue=queues,
)
routed_configs = st.builds(
    SchedulingConfig,
    rules=st.lists(rules, min_size=1, max_size=2).map(tuple),
    on_no_eligible_node=st.just(NoNodeAction.QUEUE),
    queue=queues,
)
shared_configs = st.builds(
    SchedulingConfig, on_no_eligible_node=st.just(NoNodeAction.QUEUE), queue=queues, quotas=quotas
)
asked = st.tuples(requirements, st.sampled_from(SHARES), st.sampled_from([0, 0, 0, 1, 3]))


first_nodes = st.lists(st.tuples(st.sampled_from(CLUSTERS), offers), min_size=2, max_size=5)
first_runs = st.lists(asked, min_size=4, max_size=12)


class PlacementMachine(RuleBasedStateMachine):
    """What must hold of placement, against one that asks every node about every run."""

    def __init__(self) -> None:
        super().__init__()
        self.trial = FleetTrial(config=SchedulingConfig(on_no_eligible_node=NoNodeAction.QUEUE))
        self.sessions: dict[str, int] = {}
        self.launched = 0

    def begin(
        self,
        config: SchedulingConfig,
        nodes: Nodes,
        all_asked: list[Asked],
    ) -> None:
        self.change_config(config)
        for node_id, (cluster, offer) in zip(NODES, nodes, strict=False):
            self.join(node_id, cluster, offer, reboots=False)

    def live(self, pick: int) -> Run | None:
        """One of the runs that have a node."""
        runs = [run for run in self.trial.fleet.runs.values() if run.is_live]
        return runs[pick % len(runs)] if runs else None

    # Clients and operators

    @rule(all_asked=st.lists(asked, min_size=1, max_size=5), beats=st.sampled_from([0, 1, 2]))
    def launch(self, all_asked: list[Asked], beats: int) -> None:
        for wanted, location, priority in all_asked:
            self.launched += 1
            self.launch_one(f"run-{self.launched}", 0, wanted, location, priority)
        self.wait(beats)

    @rule(pick=picks, all_asked=asked)
    def resume(self, pick: int, all_asked: Asked) -> None:
        over = [run for run in self.trial.fleet.runs.values() if isinstance(run.phase, Finished)]
        if over:
            run = over[pick % len(over)]
            self.launch_one(run.run_id, run.launch.resume_number + 1, *all_asked)

    def launch_one(
        self, run_id: str, resume_number: int, wanted: CompiledRequirements, location: str, priority: int
    ) -> None:
        launch = make_launch(run_id, resume_number, requirements=wanted, location=location, priority=priority)
        with suppress(FleetError):
            self.trial.launch(launch)

    @rule(pick=picks)
    def terminate(self, pick: int) -> None:
        runs = [run for run in self.trial.fleet.runs.values() if not isinstance(run.phase, Finished)]
        if runs:
            self.trial.terminate(runs[pick % len(runs)].run_id)

    def change_config(self, config: SchedulingConfig) -> None:
        self.trial.step(lambda fleet, at: on_config_change(fleet, at, config))

    # Agents

    @rule(node_id=node_ids, cluster=st.sampled_from(CLUSTERS), offer=offers, reboots=st.booleans())
    def join(self, node_id: str, cluster: str, offer: placement_pb2.Offer, reboots: bool) -> None:
        held = [run for run in self.trial.fleet.live_on(node_id) if not isinstance(run.phase, Assigned)]
        told = [] if reboots else [running(run.run_id, run.attempt) for run in held]
        hello = make_hello(node_id, cluster=cluster, attempts=told, boot_id=f"boot-{reboots}")
        hello.offer.CopyFrom(offer)
        with suppress(FleetError):
            self.sessions[node_id] = self.trial.join(hello)

    @rule(node_id=node_ids, offer=offers)
    def change_offer(self, node_id: str, offer: placement_pb2.Offer) -> None:
        beat = agent_pb2.Heartbeat(sequence=8, offer=offer)
        session = self.sessions.get(node_id, 0)
        self.trial.step(lambda fleet, at: on_heartbeat(fleet, at, node_id, session, heartbeat_of(beat)))

    @rule(node_id=node_ids, locations=st.lists(st.sampled_from(SHARES), max_size=2))
    def warm_up(self, node_id: str, locations: list[str]) -> None:
        servers = [warm_server(location) for location in locations]
        self.trial.warm_up(self.sessions.get(node_id, 0), *servers, node_id=node_id)

    @rule(node_id=node_ids, what=st.sampled_from(["leave", "say goodbye", "cordon", "drain", "fence"]))
    def take_out_of_service(self, node_id: str, what: str) -> None:
        session = self.sessions.get(node_id, 0)
        with suppress(FleetError):
            match what:
                case "leave":
                    self.trial.leave(session, node_id)
                case "say goodbye":
                    self.trial.step(lambda fleet, at: on_goodbye(fleet, at, node_id, session, 60.0))
                case "cordon":
                    self.trial.step(lambda fleet, at: on_cordon(fleet, at, node_id))
                case "drain":
                    self.trial.step(lambda fleet, at: on_drain(fleet, at, node_id, 20.0))
                case _:
                    self.trial.step(lambda fleet, at: on_fence(fleet, at, node_id, "it is off"))

    @rule(all_ids=st.lists(node_ids, min_size=1, max_size=3))
    def come_back(self, all_ids: list[str]) -> None:
        for node_id in all_ids:
            if (node := self.trial.fleet.nodes.get(node_id)) is not None:
                self.join(node_id, node.cluster, capacity_message(node.capacity), reboots=False)
                self.trial.step(lambda fleet, at: on_uncordon(fleet, at, node_id))  # noqa: B023

    @rule(all_picks=st.lists(picks, min_size=1, max_size=4), beats=st.sampled_from([0, 0, 1]))
    def finish(self, all_picks: list[int], beats: int) -> None:
        for pick in all_picks:
            if (run := self.live(pick)) and run.place is not None:
                told = finished(run.run_id, run.attempt)
                self.trial.report(self.sessions.get(run.place.node, 0), told, run.place.node)
        self.wait(beats)

    @rule(pick=picks)
    def static_filter(self, pick: int) -> None:
        if (run := self.live(pick)) and run.place is not None:
            session = self.sessions.get(run.place.node, 0)
            self.trial.reject(session, run.run_id, run.attempt, node_id=run.place.node)

    @rule(node_id=node_ids, number=st.integers(0, 2), amounts=sizes)
    def remember_a_run_that_the_store_lost(self, node_id: str, number: int, amounts: dict[str, int]) -> None:
        told = running(f"lost-{number}", 0)
        told.requirements.resources.update(amounts)
        self.trial.report(self.sessions.get(node_id, 0), told, node_id)

    # Time

    @rule(beats=st.sampled_from([1, 2, 3]))
    def time_passes(self, beats: int) -> None:
        self.wait(beats)

    @rule(silent=node_ids)
    def a_node_is_silent(self, silent: str) -> None:
        self.wait(6, silent)

    def wait(self, beats: int, silent: str = "") -> None:
        """Lets time pass, and nodes beat."""
        for _ in range(beats):
            for node_id, session in self.sessions.items():
                told = [running(run.run_id, run.attempt) for run in self.trial.fleet.live_on(node_id)]
                if node_id != silent:
                    self.trial.beat(session, *told, node_id=node_id)
            self.trial.tick(4.0)

    @rule(back=st.lists(node_ids, max_size=5))
    def restart(self, back: list[str]) -> None:
        self.trial.restart()
        self.sessions.clear()
        self.come_back(back)

    # What must hold

    @invariant()
    def nothing_is_given_twice(self) -> None:
        fleet = self.trial.fleet
        for effect in self.trial.asked.everything():
            if not isinstance(effect, SaveRun) or not isinstance(effect.run.phase, Assigned):
                continue
            run = fleet.runs[effect.run.run_id]
            if run.attempt == effect.run.attempt and run.is_live and run.place is not None:
                node_id = run.place.node
                wanted = run.launch.requirements.resources
                too_much = oracle.exceeds(fleet.nodes[node_id], oracle.taken(fleet, node_id), wanted)
                assert not too_much, f"{node_id} gave more {too_much} than it has"

    @invariant()
    def nothing_lies_idle_that_a_waiting_run_could_have(self) -> None:
        now = self.trial.clock
        for run in self.trial.fleet.waiting():
            assert not oracle.idle_for(self.trial.fleet, run, now), f"{run.run_id} waits"

    @invariant()
    def reasons_agree_with_asking_every_node(self) -> None:
        fleet = self.trial.fleet
        for run in fleet.waiting():
            run_class = fleet.queue.class_of(run.run_id)
            if run_class.head.run_id == run.run_id and not run.launch.route.closed:
                run_class.opened = run_class.count_open(self.trial.clock)
                counted = fleet.why_not_now(run_class)
                assert dict(counted) == dict(oracle.reasons(fleet, run, self.trial.clock)), run.run_id

    @invariant()
    def reservations_are_of_use(self) -> None:
        fleet = self.trial.fleet
        assert len(fleet.queue.reservations) <= MAX_RESERVATIONS
        for reservation in fleet.queue.reservations:
            node, ask = fleet.nodes[reservation.node_id], reservation.run_class.key.ask
            assert len(reservation.run_class), "nobody waits for the reserved node"
            assert out_of_service(node) is None, "the reserved node takes nothing"
            assert static_node_reason(ask, node) is None, "the reserved node will never do"

    @invariant()
    def every_waiting_run_says_why(self) -> None:
        for run in self.trial.fleet.waiting():
            assert isinstance(run.phase, Queued)
            assert situation(self.trial.fleet, run).startswith("waiting: ")
            assert "free" not in situation(self.trial.fleet, run).replace("without a free slot", "")


class PlainMachine(PlacementMachine):
    """Without rules and quotas."""

    @initialize(config=plain_configs, nodes=first_nodes, all_asked=first_runs)
    def set_out(self, config: SchedulingConfig, nodes: Nodes, all_asked: list[Asked]) -> None:
        self.begin(config, nodes, all_asked)

    @rule(config=plain_configs)
    def decide_anew(self, config: SchedulingConfig) -> None:
        self.change_config(config)


class RoutedMachine(PlacementMachine):
    """With rules, whose clusters open by and by."""

    @initialize(config=routed_configs, nodes=first_nodes, all_asked=first_runs)
    def set_out(self, config: SchedulingConfig, nodes: Nodes, all_asked: list[Asked]) -> None:
        self.begin(config, nodes, all_asked)

    @rule(config=routed_configs)
    def decide_anew(self, config: SchedulingConfig) -> None:
        self.change_config(config)


class SharedMachine(PlacementMachine):
    """With quotas."""

    @initialize(config=shared_configs, nodes=first_nodes, all_asked=first_runs)
    def set_out(self, config: SchedulingConfig, nodes: Nodes, all_asked: list[Asked]) -> None:
        self.begin(config, nodes, all_asked)

    @rule(config=shared_configs)
    def decide_anew(self, config: SchedulingConfig) -> None:
        self.change_config(config)


for machine in (PlainMachine, RoutedMachine, SharedMachine):
    machine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)

TestPlain = PlainMachine.TestCase
TestRouted = RoutedMachine.TestCase
TestShared = SharedMachine.TestCase
