"""How much of a resource can be in use at once: the heaviest set of ops of which none waits for another."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

MOST_EXACT: Final = 300
"""Of more weighted nodes only an upper bound is worked out."""

_MOST_PUSHES: Final = 3_000
"""In one flow, some tenths of a second. One that is cut off here still gives an upper bound."""

Graph = Mapping[str, Sequence[str]]
"""By node the nodes that it waits for; without cycles."""


def heaviest_at_once(graph: Graph, weights: Mapping[str, int]) -> int:
    """The largest sum of weights that can be at work at the same time.

    Exact for up to `MOST_EXACT` weighted nodes; above that never too little, and at most the sum of all.

    Args:
        graph: All nodes; what it names beyond its keys does not count.
        weights: By node, above zero. Nodes without a weight only pass on who waits for whom.
    """
    order = _sorted(graph)
    if len(order) < len(graph):
        return sum(weights.values())
    if len(weights) > MOST_EXACT:
        return _sum_over_chains(graph, order, weights)
    # Dilworth's theorem, with every node as often as it weighs: the heaviest antichain weighs as much as the
    # fewest chains are many. Each unit that flows from a node to one that waits for it saves a chain.
    capacity = list(weights.values())
    return sum(capacity) - _Flow(capacity, _waits_for(graph, order, weights)).largest()


def _sorted(graph: Graph) -> list[str]:
    """The nodes, each after those that it waits for; without those that wait for themselves."""
    order: list[str] = []
    waits = {node: sum(source in graph for source in set(sources)) for node, sources in graph.items()}
    followers: dict[str, list[str]] = {}
    for node, sources in graph.items():
        for source in set(sources):
            followers.setdefault(source, []).append(node)
    ready = [node for node, count in waits.items() if not count]
    while ready:
        node = ready.pop()
        order.append(node)
        for follower in followers.get(node, ()):
            waits[follower] -= 1
            if not waits[follower]:
                ready.append(follower)
    return order


def _sum_over_chains(graph: Graph, order: Sequence[str], weights: Mapping[str, int]) -> int:
    """Lays the nodes into chains: of a chain only one node works at a time, so its heaviest is enough."""
    heaviest: list[int] = []
    ends_chain: dict[str, int] = {}
    for node in order:
        chain = next((ends_chain.pop(source) for source in graph[node] if source in ends_chain), None)
        if chain is None:
            chain = len(heaviest)
            heaviest.append(0)
        heaviest[chain] = max(heaviest[chain], weights.get(node, 0))
        ends_chain[node] = chain
    return sum(heaviest)


def _waits_for(graph: Graph, order: Sequence[str], weights: Mapping[str, int]) -> list[int]:
    """By the position of each weighted node, the set of all weighted nodes before it, as bits."""
    position = {node: number for number, node in enumerate(weights)}
    before: dict[str, int] = {}
    for node in order:
        bits = 0
        for source in graph[node]:
            if source in graph:
                bits |= before[source]
                if source in position:
                    bits |= 1 << position[source]
        before[node] = bits
    return [before[node] for node in weights]


class _Flow:
    """What nodes can hand on to nodes that wait for them, where each gives and takes at most its weight."""

    def __init__(self, capacity: Sequence[int], waits_for: Sequence[int]) -> None:
        self._may_give = list(capacity)
        self._may_take = list(capacity)
        self._takers = [0] * len(capacity)
        for taker, before in enumerate(waits_for):
            for giver in _bits(before):
                self._takers[giver] |= 1 << taker
        # By taker what it has from whom: it can be had from another instead.
        self._taken: list[dict[int, int]] = [{} for _ in capacity]

    def largest(self) -> int:
        """Pushes along shortest paths until there is none, as Edmonds and Karp do."""
        total = 0
        for _ in range(_MOST_PUSHES):
            path = self._path()
            if not path:
                break
            total += self._push(path)
        return total

    def _path(self) -> list[int]:
        """A shortest way for more: giver, taker, giver who gave to that taker so far, taker, and so on."""
        givers = deque(node for node, left in enumerate(self._may_give) if left)
        came_from: dict[int, int] = dict.fromkeys(givers, -1)
        got_from: dict[int, int] = {}
        unseen = (1 << len(self._takers)) - 1
        while givers:
            giver = givers.popleft()
            fresh = self._takers[giver] & unseen
            unseen &= ~fresh
            for taker in _bits(fresh):
                got_from[taker] = giver
                if self._may_take[taker]:
                    return _walk_back(taker, got_from, came_from)
                for other in self._taken[taker]:
                    if other not in came_from:
                        came_from[other] = taker
                        givers.append(other)
        return []

    def _push(self, path: list[int]) -> int:
        gains = list(zip(path[::2], path[1::2], strict=True))
        losses = list(zip(path[2::2], path[1::2], strict=False))
        room = [self._taken[taker][giver] for giver, taker in losses]
        amount = min(self._may_give[path[0]], self._may_take[path[-1]], *room)
        self._may_give[path[0]] -= amount
        self._may_take[path[-1]] -= amount
        for giver, taker in gains:
            self._taken[taker][giver] = self._taken[taker].get(giver, 0) + amount
        for giver, taker in losses:
            self._taken[taker][giver] -= amount
            if not self._taken[taker][giver]:
                del self._taken[taker][giver]
        return amount


def _walk_back(taker: int, got_from: Mapping[int, int], came_from: Mapping[int, int]) -> list[int]:
    path: list[int] = []
    while taker >= 0:
        giver = got_from[taker]
        path += (taker, giver)
        taker = came_from[giver]
    return path[::-1]


def _bits(bits: int) -> Iterator[int]:
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest
