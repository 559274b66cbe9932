"""Nodes in groups: by what they offer, and among these by how much of it is free."""

import heapq
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from runyard.coordinator.core.scheduling.filters import FREE, Ask, Site, why_never_there
from runyard.coordinator.core.scheduling.scores import Amounts, Needs, fits, needs_there

CellKey = tuple[str, Amounts, Amounts]


class Lot:
    """Node IDs, of which the smallest is found at once.

    Attributes:
        nodes: Those that are in it.
    """

    def __init__(self) -> None:
        self.nodes: dict[str, None] = {}
        self._heap: list[str] = []
        self._in_heap: set[str] = set()

    def add(self, node_id: str) -> None:
        """Takes a node in."""
        self.nodes[node_id] = None
        if node_id not in self._in_heap:
            self._in_heap.add(node_id)
            heapq.heappush(self._heap, node_id)

    def discard(self, node_id: str) -> None:
        """Lets a node go."""
        del self.nodes[node_id]

    def first(self, suits: Callable[[str], bool]) -> str | None:
        """The node with the smallest ID of those that suit."""
        set_aside = []
        found = None
        while self._heap and found is None:
            top = self._heap[0]
            if top not in self.nodes:
                self._in_heap.discard(heapq.heappop(self._heap))
            elif suits(top):
                found = top
            else:
                set_aside.append(heapq.heappop(self._heap))
        for node_id in set_aside:
            heapq.heappush(self._heap, node_id)
        return found


class Cell(Lot):
    """Nodes of one kind that nothing but their names and what they are warm for tells apart.

    Attributes:
        reason: Why they take nothing at all, or `FREE`.
        total: What each of them has of each resource of the kind.
        free: What of it no run has; empty where nothing can be had.
        warm: Those that are warm, by code location.
    """

    def __init__(self, reason: str, total: Amounts, free: Amounts) -> None:
        super().__init__()
        self.reason = reason
        self.total = total
        self.free = free
        self.warm: dict[str, Lot] = {}


class Shelf:
    """Cells in a row, so that a sample can be taken from any place of it."""

    def __init__(self) -> None:
        self._cells: list[Cell] = []
        self._places: dict[Cell, int] = {}

    def __len__(self) -> int:
        return len(self._cells)

    def __iter__(self) -> Iterator[Cell]:
        return iter(self._cells)

    def __getitem__(self, place: int) -> Cell:
        return self._cells[place]

    def add(self, cell: Cell) -> None:
        """Puts a cell at the end, if it is not there yet."""
        if cell not in self._places:
            self._places[cell] = len(self._cells)
            self._cells.append(cell)

    def discard(self, cell: Cell) -> None:
        """Takes a cell away, if it is there; the last one gets its place."""
        place = self._places.pop(cell, None)
        if place is None:
            return
        last = self._cells.pop()
        if last is not cell:
            self._cells[place] = last
            self._places[last] = place


class Kind:
    """All nodes of one site.

    Attributes:
        cells: Its nodes.
        open: Those cells of which a node may take something.
        warm: Those of the open cells in which nodes are warm, by code location.
        totals: How many nodes have how much of each resource.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        self.cells: dict[CellKey, Cell] = {}
        self.open = Shelf()
        self.warm: dict[str, Shelf] = {}
        self.totals: dict[Amounts, int] = {}

    def enter(
        self, node_id: str, reason: str, total: Amounts, free: Amounts, warm_for: Iterable[str]
    ) -> Cell:
        """Puts a node where it belongs."""
        key = (reason, total, free if reason == FREE else ())
        cell = self.cells.get(key)
        if cell is None:
            cell = self.cells[key] = Cell(*key)
            if reason == FREE:
                self.open.add(cell)
        cell.add(node_id)
        self.warm_up(node_id, cell, warm_for)
        return cell

    def leave(self, node_id: str, cell: Cell, warm_for: Iterable[str]) -> None:
        """Takes a node from where it is."""
        self.cool_down(node_id, cell, warm_for)
        cell.discard(node_id)
        if not cell.nodes:
            del self.cells[cell.reason, cell.total, cell.free]
            self.open.discard(cell)

    def warm_up(self, node_id: str, cell: Cell, locations: Iterable[str]) -> None:
        """Takes a node of a cell as warm for these."""
        for location in locations:
            cell.warm.setdefault(location, Lot()).add(node_id)
            if cell.reason == FREE:
                self.warm.setdefault(location, Shelf()).add(cell)

    def cool_down(self, node_id: str, cell: Cell, locations: Iterable[str]) -> None:
        """Takes a node of a cell as no longer warm for these."""
        for location in locations:
            lot = cell.warm[location]
            lot.discard(node_id)
            if lot.nodes:
                continue
            del cell.warm[location]
            if (shelf := self.warm.get(location)) is not None:
                shelf.discard(cell)
                if not len(shelf):
                    del self.warm[location]

    def count(self, total: Amounts, change: int) -> None:
        """Counts a node that came with so much, or left."""
        self.totals[total] = self.totals.get(total, 0) + change
        if not self.totals[total]:
            del self.totals[total]


NEVER_LOOKED_AT: Final = -1


class Demand:
    """What an ask comes to on each kind of node; found out once, and kept."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self._views: dict[Kind, Needs | str] = {}
        self._suitable: dict[str, list[Kind]] = {}
        self._all_suitable: list[Kind] = []
        self._seen = NEVER_LOOKED_AT
        self._generation = NEVER_LOOKED_AT

    def view(self, kind: Kind) -> Needs | str:
        """What the run takes of such a node; a text says why it could never have it."""
        view = self._views.get(kind)
        if view is None:
            site = kind.site
            view = why_never_there(self.ask, site) or needs_there(self.ask.requirements, site)
            self._views[kind] = view
        return view

    def needs(self, kind: Kind) -> Needs | None:
        """What the run takes of such a node, or None if it could never have it."""
        view = self.view(kind)
        return None if isinstance(view, str) else view

    def suitable(self, kinds: list[Kind], generation: int, cluster: str | None) -> list[Kind]:
        """The kinds that could take the run some day, in one cluster or in all.

        Args:
            kinds: All that there are; new ones come at the end.
            generation: Changes when kinds are taken out.
        """
        if generation != self._generation:
            self._views.clear()
            self._suitable.clear()
            self._all_suitable = []
            self._seen, self._generation = 0, generation
        while self._seen < len(kinds):
            kind = kinds[self._seen]
            self._seen += 1
            if self.needs(kind) is not None:
                self._all_suitable.append(kind)
                self._suitable.setdefault(kind.site.cluster, []).append(kind)
        return self._all_suitable if cluster is None else self._suitable.get(cluster, [])


def lacks(kind: Kind, needs: Needs, amounts: Amounts) -> str | None:
    """The first resource of which the amounts hold too little, or None."""
    if fits(needs, amounts):
        return None
    return next(kind.site.offered[position] for position, amount in needs if amounts[position] < amount)
