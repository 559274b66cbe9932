"""Choice of the node: labels, amounts, taints, preferences, and nodes that take nothing."""

from coordinator.cases.building import SIZES, ZONES, Asked, Case, NodeOffer, asked, labelled, node

MIXED = (node("plain", cpu=8), node("gpu", cpu=8, gpu=2))

LABELS = [
    Case("of several values any will do", asked(labels="zone=b|c"), ZONES, goes="b"),
    Case("a value can be ruled out", asked(labels="zone!=a"), ZONES, goes="b"),
    Case("a label can be ruled out", asked(labels="!spot"), (labelled("a", spot="1"), node("b")), goes="b"),
    Case(
        "a run can require a label whatever its value",
        asked(labels="fast"),
        (node("a"), labelled("b", fast="")),
        goes="b",
    ),
    Case(
        "labels that are numbers can be compared",
        asked(labels="cores>=16,cores<=64"),
        (labelled("a", cores="8"), labelled("b", cores="32"), labelled("c", cores="128")),
        goes="b",
    ),
    Case(
        "labels that no node has are reported with counts",
        asked(labels="zone=c"),
        ZONES,
        refused="2 did not match label zone=c",
    ),
    Case("one node can be named", asked(node="b"), (node("a"), node("b")), goes="b"),
    Case(
        "a node that never joined is refused with the names of those that did",
        asked(node="z"),
        refused="known nodes: a",
    ),
    Case(
        "a cluster without nodes is refused with the names of those that have some",
        asked(cluster="z"),
        refused="clusters: main",
    ),
    Case(
        "a run with a container goes to a node that can start one",
        asked(driver="docker", image="shop:1"),
        (node("a"), NodeOffer("b", drivers=("process", "docker"))),
        goes="b",
    ),
    Case("a driver that no node has is refused", asked(driver="docker"), refused="without driver docker"),
]

AMOUNTS = [
    Case("a run that needs much goes where much is", asked(memory="64Gi"), SIZES, goes="large"),
    Case("what no node has even when empty is refused", asked(memory="1Ti"), SIZES, refused="memory"),
    Case(
        "a run waits for resources that others hold",
        asked(memory="6Gi"),
        (node("a", memory="8Gi"),),
        busy=[asked(memory="4Gi")],
        waits="0/1 nodes available: 1 insufficient memory",
    ),
    Case(
        "a run takes the remaining resources",
        asked(memory="4Gi"),
        (node("a", memory="8Gi"),),
        busy=[asked(memory="4Gi")],
        goes="a",
    ),
    Case(
        "half a core is enough for half a core",
        asked(cpu="500m"),
        (node("a", cpu=1),),
        busy=[asked(cpu="0.5")],
        goes="a",
    ),
    Case(
        "every run takes a slot, whatever else it requires",
        fleet=(node("a", slots=1),),
        busy=[Asked()],
        waits="0/1 nodes available: 1 without a free slot",
    ),
    Case("a run that needs a GPU goes to one", asked(gpu="1"), MIXED, goes="gpu"),
    Case("a run that needs none stays away from the GPU", asked(cpu="1"), MIXED, goes="plain"),
    Case(
        "a run without a GPU takes the GPU's node if the others are full",
        asked(cpu="1"),
        MIXED,
        busy=[asked(cpu="8")],
        goes="gpu",
    ),
    Case("a GPU that no node has is refused", asked(gpu="1"), refused="without gpu"),
    Case(
        "GPUs that are taken are waited for",
        asked(gpu="2"),
        MIXED,
        busy=[asked(gpu="1")],
        waits="1 insufficient gpu",
    ),
    Case(
        "a run can require a resource that an operator named",
        asked(resources='{"licenses": 1}'),
        (node("a"), node("b", licenses=3)),
        goes="b",
    ),
    Case(
        "a run waits for the last licence",
        asked(resources='{"licenses": 1}'),
        (node("a", licenses=1),),
        busy=[asked(resources='{"licenses": 1}')],
        waits="1 insufficient licenses",
    ),
    Case(
        "a gateway takes what its cluster has room for",
        asked(memory="32Gi"),
        (NodeOffer("gw", slots=100, amounts={"memory": "1Ti"}, largest_run={"memory": "64Gi"}),),
        goes="gw",
    ),
    Case(
        "a gateway takes no run that no single machine behind it could hold",
        asked(memory="96Gi"),
        (NodeOffer("gw", slots=100, amounts={"memory": "1Ti"}, largest_run={"memory": "64Gi"}),),
        refused="with too little memory for one run",
    ),
    Case(
        "a gateway whose cluster has shrunk to nothing may grow again",
        asked(memory="32Gi"),
        (NodeOffer("gw", slots=0, largest_run={"memory": "64Gi"}),),
        waits="0/1 nodes available: 1 without memory",
    ),
]

SPOT = NodeOffer("spot", taints=("spot",))
TEAM_X = NodeOffer("x", taints=("team=x",))

CHOICES = [
    Case("a taint keeps runs away", fleet=(SPOT, node("z")), goes="z"),
    Case("a run that tolerates a taint may go there", asked(tolerations="spot"), (SPOT,), goes="spot"),
    Case("a taint with a value is tolerated by its key", asked(tolerations="team"), (TEAM_X,), goes="x"),
    Case("a taint with a value is tolerated by both", asked(tolerations="team=x"), (TEAM_X,), goes="x"),
    Case("another value is not tolerated", asked(tolerations="team=y"), (TEAM_X,), refused="taint team=x"),
    Case("a star tolerates everything", asked(tolerations="*"), (TEAM_X,), goes="x"),
    Case("a wish decides between nodes that will do", asked(prefer="zone=b"), ZONES, goes="b"),
    Case(
        "the preference with the larger weight decides",
        asked(prefer='{"zone=a": 1, "zone=b": 5}'),
        ZONES,
        goes="b",
    ),
    Case(
        "a preference that no node satisfies keeps no run waiting",
        asked(prefer="zone=c"),
        (node("a"),),
        goes="a",
    ),
    Case(
        "a preference does not make a run wait for a full node",
        asked(prefer="zone=a"),
        (NodeOffer("a", slots=1, labels={"zone": "a"}), labelled("b", zone="b")),
        busy=[asked(labels="zone=a")],
        goes="b",
    ),
    Case(
        "nodes fill up one after the other",
        fleet=(node("a"), node("b")),
        busy=[asked(node="b")],
        goes="b",
    ),
    Case(
        "nodes fill up evenly with placement: spread",
        rules="placement: spread",
        fleet=(node("a"), node("b")),
        busy=[asked(node="a")],
        goes="b",
    ),
    Case("a node that drains takes nothing", fleet=(NodeOffer("a", state="draining"),), waits="1 draining"),
    Case(
        "a node that is cordoned takes nothing", fleet=(NodeOffer("a", state="cordoned"), node("b")), goes="b"
    ),
    Case("a node that is silent takes nothing", fleet=(NodeOffer("a", state="silent"),), waits="1 suspect"),
    Case(
        "every node is counted once, by the first reason against it",
        asked(labels="zone=a", memory="6Gi"),
        (
            NodeOffer("a", amounts={"memory": "8Gi"}, labels={"zone": "a"}),
            NodeOffer("b", amounts={"memory": "8Gi"}, labels={"zone": "a"}, state="draining"),
            NodeOffer("c", amounts={"memory": "8Gi"}, labels={"zone": "b"}),
            NodeOffer("d", amounts={"memory": "8Gi"}, labels={"zone": "b"}),
        ),
        busy=[asked(labels="zone=a", memory="6Gi")],
        waits="0/4 nodes available: 2 did not match label zone=a, 1 draining, 1 insufficient memory",
    ),
]
