"""Choice of the cluster, and the order of the queue."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from coordinator.cases.building import CLUSTERS, SIZES, Asked, Case, asked, node
from coordinator.cases.requirements import deployment

FIRST_FIT = "rules: [{name: all, clusters: [main, annex]}]"
SPILL = "rules: [{name: all, clusters: [main, annex], spill_after: 30s}]"

ROUTES = [
    Case(
        "a rule for a job sends it to its cluster",
        fleet=CLUSTERS,
        rules="rules: [{name: o, match: {job: 'ord*'}, clusters: [annex]}]",
        goes="x",
    ),
    Case(
        "a rule for another job does not apply",
        fleet=(node("m", "main"),),
        rules="rules: [{name: o, match: {job: 'pay*'}, clusters: [annex]}]",
        goes="m",
    ),
    Case(
        "a rule for a code location sends its jobs",
        Asked(location="shop.eu"),
        CLUSTERS,
        rules="rules: [{name: eu, match: {code_location: '*.eu'}, clusters: [annex]}]",
        goes="x",
    ),
    Case(
        "a rule for a repository sends its jobs",
        fleet=CLUSTERS,
        rules="rules: [{name: b, match: {repository: books}, clusters: [annex]}]",
        goes="x",
    ),
    Case(
        "a rule for a tag sends the runs that carry it",
        Asked(tags={"team": "data-eu"}),
        CLUSTERS,
        rules="rules: [{name: t, match: {tags: {team: 'data-*'}}, clusters: [annex]}]",
        goes="x",
    ),
    Case(
        "a rule for a tag does not apply to runs without it",
        fleet=CLUSTERS,
        rules="rules: [{name: t, match: {tags: {team: '*'}}, clusters: [annex]}, {name: z}]",
        goes="m",
    ),
    Case(
        "of two rules that match, the first one counts",
        fleet=CLUSTERS,
        rules="rules: [{name: one, clusters: [annex]}, {name: two, clusters: [main]}]",
        goes="x",
    ),
    Case(
        "a run's own cluster overrides the rule",
        asked(cluster="main"),
        CLUSTERS,
        rules="rules: [{name: all, clusters: [annex]}]",
        goes="m",
    ),
    Case(
        "a rule's clusters override the one of the deployment",
        Asked(deployment=deployment(cluster="main")),
        CLUSTERS,
        rules="rules: [{name: all, clusters: [annex]}]",
        goes="x",
    ),
    Case(
        "the first cluster that has room is taken",
        fleet=CLUSTERS,
        rules=FIRST_FIT,
        busy=[asked(cluster="main")],
        goes="x",
    ),
    Case("the first cluster is taken while it has room", fleet=CLUSTERS, rules=FIRST_FIT, goes="m"),
    Case(
        "a second cluster that opens later is not open yet",
        fleet=CLUSTERS,
        rules=SPILL,
        busy=[asked(cluster="main")],
        after=20,
        waits="1 in a cluster not open yet",
    ),
    Case(
        "a second cluster is open once the run has waited long enough",
        fleet=CLUSTERS,
        rules=SPILL,
        busy=[asked(cluster="main")],
        after=32,
        goes="x",
    ),
    Case(
        "cluster_order: least_loaded takes the least loaded cluster",
        fleet=CLUSTERS,
        busy=[asked(cluster="main")],
        rules="rules: [{name: all, clusters: [main, annex], cluster_order: least_loaded}]",
        goes="x",
    ),
    Case(
        "cluster_order: spread takes the cluster with the fewest runs",
        fleet=(node("m", "main", slots=100), node("x", "annex", slots=2)),
        busy=[asked(cluster="main")],
        rules="rules: [{name: all, clusters: [main, annex], cluster_order: spread}]",
        goes="x",
    ),
    Case(
        "a weight of a million to one decides",
        fleet=CLUSTERS,
        rules="rules: [{name: all, clusters: {main: 1, annex: 1000000}, cluster_order: weighted}]",
        goes="x",
    ),
    Case(
        "a run without a matching rule goes to the default cluster",
        fleet=CLUSTERS,
        rules="default_cluster: annex",
        goes="x",
    ),
    Case(
        "a run without a matching rule is refused with on_no_matching_rule: fail",
        fleet=CLUSTERS,
        rules="{on_no_matching_rule: fail, rules: [{name: pay, match: {job: pay}}]}",
        refused="no routing rule matches job",
    ),
    Case(
        "a run without a matching rule waits for one with on_no_matching_rule: queue",
        fleet=CLUSTERS,
        rules="{on_no_matching_rule: queue, rules: [{name: pay, match: {job: pay}}]}",
        waits="no routing rule matches job",
    ),
    Case(
        "a run that no node could ever take waits for one with on_no_eligible_node: queue",
        asked(gpu="1"),
        rules="on_no_eligible_node: queue",
        waits="without gpu",
    ),
    Case(
        "a rule may set requirements of its runs",
        fleet=SIZES,
        rules="rules: [{name: all, set: {memory: 64Gi}}]",
        goes="large",
    ),
]

QUOTAS = [
    Case(
        "a share that has reached its limit waits although there is room",
        fleet=(node("a", slots=4),),
        rules="quotas: {shop: {limit: {slots: 1}}}",
        busy=[Asked()],
        waits="quota",
    ),
    Case(
        "another share overtakes one that has reached its limit",
        Asked(location="bakery"),
        (node("a", slots=4),),
        rules="quotas: {shop: {limit: {slots: 1}}}",
        busy=[Asked()],
        goes="a",
    ),
    Case(
        "a full queue refuses launches",
        fleet=(node("a", slots=1),),
        rules="queue: {limit: 1}",
        busy=[Asked(), Asked()],
        refused="queue",
    ),
    Case(
        "a full queue of a share refuses launches",
        fleet=(node("a", slots=1),),
        rules="queue: {limit_per_share: 1}",
        busy=[Asked(), Asked()],
        refused="shop",
    ),
]


# Who goes first


@dataclass(frozen=True)
class Turn:
    """One sentence about a node with one slot, and the order in which those that wait get it.

    Attributes:
        queue: Runs by name, in the order in which they are launched, 10 s apart.
        order: Their names, in the order in which they run; each ends 10 s after it got the slot.
        holding: The run that has the slot first.
        after: Seconds after the last launch at which it ends.
    """

    says: str
    queue: Mapping[str, Asked]
    order: str
    rules: str = ""
    holding: Asked = field(default_factory=Asked)
    after: float = 10.0


def urgent(priority: int, location: str = "shop") -> Asked:
    """A run with Dagster's tag for its priority."""
    return Asked(tags={"dagster/priority": str(priority)}, location=location)


def of(location: str) -> Asked:
    """A run of that code location, which is its share."""
    return Asked(location=location)


def team(name: str) -> Asked:
    """A run with a tag for its team."""
    return Asked(tags={"team": name})


TURNS = [
    Turn("who came first goes first", {"early": Asked(), "late": Asked()}, "early late"),
    Turn("a higher priority goes first", {"early": urgent(0), "late": urgent(1)}, "late early"),
    Turn("a priority below zero goes last", {"early": urgent(-1), "late": urgent(0)}, "late early"),
    Turn(
        "a priority that is not a number is ignored",
        {"early": asked(dagster__priority="high"), "late": Asked()},
        "early late",
    ),
    Turn(
        "two shares take turns, however many runs one of them has",
        {"shop1": of("shop"), "shop2": of("shop"), "shop3": of("shop"), "bakery": of("bakery")},
        "shop1 bakery shop2 shop3",
    ),
    Turn(
        "a priority takes precedence over fairness",
        {"shop1": urgent(1), "shop2": urgent(1), "bakery": urgent(0, "bakery")},
        "shop1 shop2 bakery",
    ),
    Turn(
        "a tag can define the shares",
        {"one1": team("one"), "one2": team("one"), "two": team("two")},
        "one1 two one2",
        rules="queue: {share_by: {tag: team}}",
    ),
    Turn(
        "waiting raises the priority",
        {"early": urgent(0), "late": urgent(1)},
        "early late",
        rules="queue: {age_step: 5s}",
    ),
    Turn(
        "with age_step: never, waiting does not raise the priority",
        {"early": urgent(0), "late": urgent(1)},
        "late early",
        rules="queue: {age_step: never}",
        after=700,
    ),
    Turn(
        "a share below its guaranteed amount goes first",
        {"shop": of("shop"), "bakery": of("bakery")},
        "bakery shop",
        rules="quotas: {bakery: {guaranteed: {slots: 1}}}",
        holding=of("market"),
    ),
]
