"""Search for the best node of a run, among all nodes or among a few."""

import itertools
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from runyard.coordinator.core.scheduling.config import Strategy
from runyard.coordinator.core.scheduling.node_classes import (
    BucketSet,
    CapacityBucket,
    NodeClassIndex,
    NodeMatcher,
    NodeSet,
)
from runyard.coordinator.core.scheduling.node_index import NodeIndex
from runyard.coordinator.core.scheduling.scores import (
    WARM,
    Candidate,
    Needs,
    ScoredCandidate,
    ScoringContext,
    class_score,
    fits,
    scored,
)

MAX_COMPARED: Final = 256
"""Up to this many buckets, all that can take the run are compared; of more, a sample."""

SAMPLE_SIZE: Final = 64
"""Number of suitable buckets in a sample."""


@dataclass(frozen=True)
class PlacementRequest:
    """Request to place one run.

    Attributes:
        clusters: Searched one after the other; None: all at once.
        excluded: Nodes that refused the run or are reserved for another.
    """

    context: ScoringContext
    matcher: NodeMatcher
    clusters: tuple[str, ...] | None
    excluded: Collection[str]
    strategy: Strategy


@dataclass(frozen=True)
class Placement:
    """Node that was chosen for a run.

    Attributes:
        among: Number of nodes found that could take the run.
        warm_for: The code location, if the node was chosen because it is warm for that; else empty.
    """

    node_id: str
    cluster: str
    among: int
    warm_for: str = ""


def search(index: NodeIndex, request: PlacementRequest) -> Placement | None:
    """Return the best of all nodes that can take the run now, or None."""
    if named := request.matcher.ask.requirements.node:
        return search_among(index, request, [named])
    if request.clusters is None:
        return _best_of_classes(request, index.suitable(request.matcher))
    for cluster in request.clusters:
        if placement := _best_of_classes(request, index.suitable(request.matcher, cluster)):
            return placement
    return None


def search_among(index: NodeIndex, request: PlacementRequest, node_ids: Iterable[str]) -> Placement | None:
    """Return the best of these nodes, or None if none can take the run now."""
    candidates: dict[str, list[ScoredCandidate]] = {}
    for node_id in node_ids:
        needs = index.fits(request.matcher, node_id)
        if needs is None or node_id in request.excluded:
            continue
        known = index.node(node_id)
        assert known is not None
        is_warm = request.context.location in known.node.warm_for
        candidate = Candidate(node_id, known.class_index.node_class, known.total, known.free, needs, is_warm)
        of_class = class_score(request.context, candidate.node_class)
        found = scored(request.context, candidate, request.strategy, of_class)
        candidates.setdefault(known.node.cluster, []).append(found)
    if request.clusters is None:
        of_all = [each for of_cluster in candidates.values() for each in of_cluster]
        return _choice(request, of_all, len(of_all))
    for cluster in request.clusters:
        if cluster in candidates:
            return _choice(request, candidates[cluster], len(candidates[cluster]))
    return None


def _choice(request: PlacementRequest, candidates: list[ScoredCandidate], among: int) -> Placement | None:
    if not candidates:
        return None
    _, node_id, chosen = min(candidates)
    decided = chosen.warm and min(map(_apart_from_warmth, candidates))[1] != node_id
    return Placement(node_id, chosen.node_class.cluster, among, request.context.location if decided else "")


def _apart_from_warmth(candidate: ScoredCandidate) -> ScoredCandidate:
    negated, node_id, each = candidate
    return negated + WARM.weight * each.warm, node_id, each


def _best_of_classes(request: PlacementRequest, class_indexes: Sequence[NodeClassIndex]) -> Placement | None:
    known: dict[NodeClassIndex, tuple[Needs, float]] = {}
    candidates: list[ScoredCandidate] = []
    compared = among = 0
    groups = sum(len(class_index.open) for class_index in class_indexes)
    buckets, enough = (
        (_all(class_indexes), groups)
        if groups <= MAX_COMPARED
        else (_shuffled(request, class_indexes), SAMPLE_SIZE)
    )
    for class_index, bucket in buckets:
        needs, of_class = known.get(class_index) or _get_to_know(request, class_index, known)
        if not fits(needs, bucket.free) or not (firsts := _firsts(request, bucket)):
            continue
        for node_id, is_warm in firsts:
            candidate = Candidate(node_id, class_index.node_class, bucket.total, bucket.free, needs, is_warm)
            candidates.append(scored(request.context, candidate, request.strategy, of_class))
        among += len(bucket.nodes)
        if request.excluded:
            among -= sum(each in bucket.nodes for each in request.excluded)
        compared += 1
        if compared == enough:
            break
    return _choice(request, candidates, among)


def _get_to_know(
    request: PlacementRequest, class_index: NodeClassIndex, known: dict[NodeClassIndex, tuple[Needs, float]]
) -> tuple[Needs, float]:
    """Return what the run takes of nodes of the class, and the score of the class; cached per search."""
    needs = request.matcher.needs(class_index)
    assert needs is not None, "only suitable classes are searched"
    known[class_index] = needs, class_score(request.context, class_index.node_class)
    return known[class_index]


def _all(class_indexes: Sequence[NodeClassIndex]) -> Iterator[tuple[NodeClassIndex, CapacityBucket]]:
    return ((class_index, bucket) for class_index in class_indexes for bucket in class_index.open)


def _shuffled(
    request: PlacementRequest, class_indexes: Sequence[NodeClassIndex]
) -> Iterator[tuple[NodeClassIndex, CapacityBucket]]:
    """Yield all buckets, one of each class in turn, starting elsewhere for each run.

    Warm buckets come first, but make up no more than half of the sample.
    """
    start = zlib.crc32(request.context.run_id.encode())
    class_indexes = [
        *class_indexes[start % len(class_indexes) :],
        *class_indexes[: start % len(class_indexes)],
    ]
    bucket_sets = [
        (class_index, bucket_set)
        for class_index in class_indexes
        if (bucket_set := class_index.warm.get(request.context.location))
    ]
    warm = dict.fromkeys(itertools.islice(_in_turn(bucket_sets, start), SAMPLE_SIZE // 2))
    yield from warm
    for index_and_bucket in _in_turn(
        [(class_index, class_index.open) for class_index in class_indexes], start
    ):
        if index_and_bucket not in warm:
            yield index_and_bucket


def _in_turn(
    bucket_sets: Sequence[tuple[NodeClassIndex, BucketSet]], start: int
) -> Iterator[tuple[NodeClassIndex, CapacityBucket]]:
    """Yield one bucket of each set, then the next of each, until all are exhausted."""
    for step in range(max((len(bucket_set) for _, bucket_set in bucket_sets), default=0)):
        for class_index, bucket_set in bucket_sets:
            if step < len(bucket_set):
                yield class_index, bucket_set[(start + step) % len(bucket_set)]


def _firsts(request: PlacementRequest, bucket: CapacityBucket) -> list[tuple[str, bool]]:
    """Return the first node of the bucket and its first warm one, each with its warmth."""
    first = _first(request, bucket)
    if first is None:
        return []
    warm = bucket.warm.get(request.context.location)
    if warm is None:
        return [(first, False)]
    if first in warm.nodes:
        return [(first, True)]
    first_warm = _first(request, warm)
    return [(first, False)] if first_warm is None else [(first, False), (first_warm, True)]


def _first(request: PlacementRequest, nodes: NodeSet) -> str | None:
    """Return the first node, preferably one that has not failed the run before."""
    excluded, avoided = request.excluded, request.context.avoided
    if not excluded and not avoided:
        return nodes.first(_any)
    clean = nodes.first(lambda node_id: node_id not in excluded and node_id not in avoided)
    return clean or nodes.first(lambda node_id: node_id not in excluded)


def _any(_: str) -> bool:
    return True
