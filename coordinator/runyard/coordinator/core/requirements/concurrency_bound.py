"""Upper bound on the amount of a resource that the ops of a job can use at the same time.

Ops at work at the same time do not depend on each other. If all ops are covered by chains of dependent ops,
each op by as many chains as it has units of the resource, then every unit in use belongs to another chain, so
the number of chains is a bound (Dilworth's theorem: the smallest number is exact). Chains are made greedily
here: the bound is exact for chains, independent ops and fan-outs with their fan-ins, and seldom more than a
few percent above the exact value otherwise, which takes a maximum flow.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

Graph = Mapping[str, Sequence[str]]
"""By op, the ops that it depends on, or those that depend on it."""

_MOST_EDGES: Final = 1_000_000
"""Edges that one pass follows beyond direct dependencies, which takes under a second; then the bound gets
looser."""


def most_at_once(upstream: Graph, amounts: Mapping[str, int]) -> int:
    """Return a bound on the sum of amounts in use at once: never too low, and at most the sum of all.

    Args:
        upstream: All ops with their dependencies; dependencies that are not ops themselves are ignored.
        amounts: By op, above zero. Ops without an amount only establish an order between others.
    """
    downstream = _reversed(upstream)
    order = _sorted(upstream, downstream)
    if len(order) < len(upstream):  # a cycle, which Dagster does not allow
        return sum(amounts.values())
    return min(
        _ChainCover(upstream, downstream).count(order, amounts),
        _ChainCover(downstream, upstream).count(order[::-1], amounts),
    )


def _reversed(upstream: Graph) -> dict[str, list[str]]:
    downstream: dict[str, list[str]] = {op: [] for op in upstream}
    for op, sources in upstream.items():
        for source in set(sources) & downstream.keys():
            downstream[source].append(op)
    return downstream


def _sorted(upstream: Graph, downstream: Graph) -> list[str]:
    """Return the ops in topological order, without those that are part of a cycle or depend on one."""
    waits = dict.fromkeys(upstream, 0)
    for followers in downstream.values():
        for follower in followers:
            waits[follower] += 1
    ready = deque(op for op, count in waits.items() if not count)
    order = []
    while ready:
        order.append(op := ready.popleft())
        for follower in downstream[op]:
            waits[follower] -= 1
            if not waits[follower]:
                ready.append(follower)
    return order


class _ChainCover:
    """Chains of dependent ops that cover each op as many times as its amount."""

    def __init__(self, before: Graph, after: Graph) -> None:
        self._before = before
        self._after = after
        self._budget = _MOST_EDGES

    def count(self, order: Sequence[str], amounts: Mapping[str, int]) -> int:
        """Return the number of chains. Each op continues chains that end before it, and starts new ones.

        Args:
            order: The ops, each after those before it.
            amounts: By op.
        """
        total = 0
        ends: dict[str, int] = {}
        for op in order:
            if not (lacking := amounts.get(op, 0)):
                continue
            for level in self._predecessors(op):
                # First those that have few other successors to be continued by.
                for other in sorted(filter(ends.get, level), key=lambda each: len(self._after[each])):
                    continued = min(ends[other], lacking)
                    ends[other] -= continued
                    lacking -= continued
                if not lacking:
                    break
            total += lacking
            ends[op] = amounts[op]
        return total

    def _predecessors(self, op: str) -> Iterator[list[str]]:
        """Yield direct predecessors, then those of these, and so on while the budget lasts."""
        level = [op]
        seen = {op}
        while level:
            found = dict.fromkeys(other for each in level for other in self._before[each])
            level = [other for other in found if other in self._before and other not in seen]
            seen.update(level)
            yield level
            self._budget -= sum(len(self._before[each]) for each in level)
            if self._budget < 0:
                break
