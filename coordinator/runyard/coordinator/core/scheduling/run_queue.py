"""The runs that wait for a node, by what they wait for."""

import itertools
from collections.abc import Iterable, Iterator

from runyard.coordinator.core.model import Run
from runyard.coordinator.core.requirements.resources import Resources
from runyard.coordinator.core.routing.order import next_opening
from runyard.coordinator.core.scheduling.equivalence_classes import OLDER_THAN_ALL, Lane, Shape, State, Ticket
from runyard.coordinator.core.scheduling.fair_shares import UNBOUNDED, Band, Share
from runyard.coordinator.core.scheduling.node_classes import Demand
from runyard.coordinator.core.scheduling.node_index import NodeIndex
from runyard.coordinator.core.scheduling.policy import PlacementPolicy
from runyard.coordinator.core.scheduling.reservations import Reservation, Reservations
from runyard.coordinator.core.timers import Timers


class RunQueue:
    """Runs in lanes of one shape, lanes in bands of one share and priority.

    A lane whose first run found no node is blocked: it is tried again only on nodes that became freer since,
    or when more of the fleet opens to it. So a run that joins a blocked lane costs no search.

    Attributes:
        restless: Bands with lanes that have to look at all nodes.
        demands: What lanes ask for, and in which bands, with how many lanes there.
        hungry: Blocked lanes that have been without a node for so long that one should be reserved.
    """

    def __init__(self, index: NodeIndex, policy: PlacementPolicy) -> None:
        self.policy = policy
        self.shares: dict[str, Share] = {}
        self.restless: dict[Band, None] = {}
        self.demands: dict[Demand, dict[Band, int]] = {}
        self.reservations = Reservations()
        self.hungry: dict[Lane, None] = {}
        self._index = index
        self._lanes: dict[Shape, Lane] = {}
        self._lane_of: dict[str, Lane] = {}
        self._eased: dict[Share, None] = {}
        self._youngest_placed = OLDER_THAN_ALL  # the youngest of the runs that got a node
        self._passed = 0.0  # how much the share that was served last had been given before
        self._openings: Timers[Lane] = Timers()
        self._patience: Timers[Lane] = Timers()
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._lane_of)

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._lane_of

    def lane_of(self, run_id: str) -> Lane:
        """The lane of a waiting run."""
        return self._lane_of[run_id]

    def run_ids(self) -> list[str]:
        """All waiting runs, the oldest first."""
        return [ticket.run_id for ticket in sorted(self._tickets())]

    def lanes(self) -> Iterator[Lane]:
        """All lanes; none of them is empty."""
        return iter(self._lanes.values())

    def band_of(self, lane: Lane) -> Band:
        """The band that the lane is in."""
        return self.shares[lane.shape.share].bands[lane.shape.priority]

    def bands(self) -> Iterator[Band]:
        """All bands with lanes."""
        return (band for share in self.shares.values() for band in share.bands.values() if len(band))

    def bands_of(self, demands: Iterable[Demand]) -> dict[Band, None]:
        """The bands in which some lane asks for one of these."""
        return {band: None for demand in demands for band in self.demands.get(demand, ())}

    def waiting_in(self, share: str) -> int:
        """How many runs of the share wait."""
        return self.shares[share].waiting if share in self.shares else 0

    def part_of_fleet(self, amounts: Iterable[tuple[str, int]]) -> float:
        """How much of the fleet that is, in the resource of which it is most."""
        total = self._index.total
        return max((amount / total[name] for name, amount in amounts if total.get(name)), default=0.0)

    # Runs come and go

    def add(self, run: Run) -> None:
        """Takes a run that waits from now on."""
        shape = Shape.of(run)
        lane = self._lanes.get(shape) or self._new_lane(shape)
        share = self.shares[shape.share]
        if not share.waiting:
            self._rejoin(share)
        share.waiting += 1
        ticket = Ticket(run.queued_since, run.times.launched, next(self._numbers), run.run_id)
        self._lane_of[run.run_id] = lane
        lane.add(ticket)
        if lane.head == ticket:
            self.band_of(lane).file(lane)
            if lane.state is not State.CLOSED:
                self.set_state(lane, State.UNTRIED)

    def remove(self, run_id: str) -> None:
        """Lets a run go: it has a node, or is over."""
        lane = self._lane_of.pop(run_id)
        share = self.shares[lane.shape.share]
        share.waiting -= 1
        was_first = lane.head.run_id == run_id
        lane.discard(run_id)
        if not len(lane):
            self._drop_lane(lane)
            self._drop_share_if_idle(share)
        elif was_first:
            self.band_of(lane).file(lane)
            if lane.state is State.BLOCKED and lane.shape.route.spill_after > 0:
                # Fewer clusters are open to the next one, at other times.
                self.set_state(lane, State.UNTRIED)

    def hold(self, share: str, taken: Resources) -> None:
        """Counts what a live run has."""
        holder = self._share(share)
        holder.change(taken, 1)
        holder.part_held = self.part_of_fleet(holder.held.items())

    def give_back(self, share: str, taken: Resources) -> None:
        """Counts what a run had."""
        holder = self._share(share)
        holder.change(taken, -1)
        holder.part_held = self.part_of_fleet(holder.held.items())
        if holder.capped:
            self._eased[holder] = None
        self._drop_share_if_idle(holder)

    # What is known of lanes

    def set_state(self, lane: Lane, state: State) -> None:
        """Notes what is known of a lane."""
        band = self.band_of(lane)
        band.set_state(lane, state)
        if band.untried:
            self.restless[band] = None
        else:
            self.restless.pop(band, None)
        if state is not State.BLOCKED:
            self.hungry.pop(lane, None)
        if state is State.CAPPED and (reservation := self.reservations.of(lane)):
            self.end(reservation)

    def block(self, lane: Lane, now: float) -> None:
        """Notes that no node can take the first run of the lane."""
        self.set_state(lane, State.BLOCKED)
        since = lane.head.queued_since
        opening = next_opening(lane.shape.route, now - since)
        if opening is not None:
            self._openings.set(lane, since + opening)
        if lane not in self.hungry and self.reservations.of(lane) is None:
            self._patience.set(lane, self._patient_until(lane))

    def wake(self, now: float) -> None:
        """Has those lanes look at all nodes to which more of the fleet has opened."""
        for lane in self._openings.take_due(now):
            if lane.state is State.BLOCKED:
                self.set_state(lane, State.UNTRIED)
        while self._eased:
            share, _ = self._eased.popitem()
            for lane in list(share.capped):
                if share.over_quota(lane.shape.ask.requirements.resources) is None:
                    self.set_state(lane, State.UNTRIED)

    def wake_all(self) -> None:
        """Has every lane look at all nodes, whatever was concluded before."""
        for lane in self._lanes.values():
            if lane.state is not State.CLOSED:
                self.set_state(lane, State.UNTRIED)

    def take_policy(self, policy: PlacementPolicy) -> None:
        """Orders by another policy from now on; nothing that was concluded holds any more."""
        self.policy = policy
        for share in self.shares.values():
            share.quota = policy.quotas.get(share.name, UNBOUNDED)
        for reservation in self.reservations:
            self.end(reservation)
        self.hungry.clear()
        self.wake_all()

    def note_placed(self, lane: Lane, taken: Resources, now: float) -> None:
        """Counts a placement against the lane's share."""
        share = self.shares[lane.shape.share]
        self._youngest_placed = max(self._youngest_placed, lane.head)
        self._passed = share.passed
        share.last_cost = self.part_of_fleet(taken)
        share.passed += share.last_cost
        share.bands[lane.shape.priority].served = now
        lane.placed_at = now
        lane.passed_over = ""
        self.hungry.pop(lane, None)
        if reservation := self.reservations.of(lane):
            self.end(reservation)

    # Reservations

    def grow_hungry(self, now: float) -> None:
        """Notes which lanes have been without a node for too long, while younger runs got theirs."""
        patience = self.policy.queue.reserve_after
        for lane in self._patience.take_due(now):
            if lane.state is not State.BLOCKED or self.reservations.of(lane):
                continue
            if (until := self._patient_until(lane)) > now:
                self._patience.set(lane, until)
            elif self._youngest_placed < lane.head:
                self._patience.set(lane, now + patience / 4)
            else:
                self.hungry[lane] = None

    def reserve(self, reservation: Reservation) -> None:
        """Keeps a node for a lane."""
        self.reservations.make(reservation)
        self.hungry.pop(reservation.lane, None)

    def be_patient(self, lane: Lane, until: float) -> None:
        """Leaves a lane alone for a while."""
        self.hungry.pop(lane, None)
        self._patience.set(lane, until)

    def end(self, reservation: Reservation) -> None:
        """Opens a reserved node to all again; the lane may get another."""
        self.reservations.end(reservation)
        lane = reservation.lane
        lane.passed_over = reservation.node_id
        if len(lane) and lane.state is State.BLOCKED:
            self.hungry[lane] = None
        self._index.mark_freed(reservation.node_id)

    # How it is kept

    def _patient_until(self, lane: Lane) -> float:
        return max(lane.head.queued_since, lane.placed_at) + self.policy.queue.reserve_after

    def _rejoin(self, share: Share) -> None:
        """Has a share that comes back start beside the others.

        What it did not use meanwhile is no credit; of what it was given, only its last run counts against it.
        """
        others = (each.passed for each in self.shares.values() if each.waiting)
        start = min(others, default=self._passed)
        start = min(start, self._passed)
        share.passed = start + min(max(share.passed - start, 0.0), share.last_cost)

    def _share(self, name: str) -> Share:
        share = self.shares.get(name)
        if share is None:
            share = self.shares[name] = Share(name, self.policy.quotas.get(name, UNBOUNDED))
        return share

    def _drop_share_if_idle(self, share: Share) -> None:
        if not share.waiting and not share.live:
            self.shares.pop(share.name, None)
            self._eased.pop(share, None)

    def _new_lane(self, shape: Shape) -> Lane:
        lane = self._lanes[shape] = Lane(shape, self._index.demand(shape.ask))
        share = self._share(shape.share)
        band = share.bands.get(shape.priority)
        if band is None:
            band = share.bands[shape.priority] = Band(share, shape.priority)
        in_bands = self.demands.setdefault(lane.demand, {})
        in_bands[band] = in_bands.get(band, 0) + 1
        return lane

    def _drop_lane(self, lane: Lane) -> None:
        self.set_state(lane, State.CLOSED)
        self.band_of(lane).unfile(lane)
        del self._lanes[lane.shape]
        self._openings.cancel(lane)
        self._patience.cancel(lane)
        if reservation := self.reservations.of(lane):
            self.end(reservation)
        band, in_bands = self.band_of(lane), self.demands[lane.demand]
        in_bands[band] -= 1
        if not in_bands[band]:
            del in_bands[band]
        if not in_bands:
            del self.demands[lane.demand]

    def _tickets(self) -> Iterator[Ticket]:
        return (ticket for lane in self._lanes.values() for ticket in lane.tickets())
