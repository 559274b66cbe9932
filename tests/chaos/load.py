"""Launches, the way Dagster makes them: repeated until they are accepted, and remembered from then on."""

import random
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeAlias

from chaos.chaos_cluster import ChaosCluster
from google.protobuf.duration_pb2 import Duration
from harness.waiting import wait_until

from runyard.client import CoordinatorUnreachable, ResourceExhausted, RunNotFound
from runyard.v1 import placement_pb2, run_pb2

SUCCEEDED = run_pb2.OUTCOME_KIND_SUCCEEDED
FAILED = run_pb2.OUTCOME_KIND_FAILED
START_FAILED = run_pb2.OUTCOME_KIND_START_FAILED
STOPPED = run_pb2.OUTCOME_KIND_STOPPED
NODE_LOST = run_pb2.OUTCOME_KIND_NODE_LOST
EXIT_UNKNOWN = run_pb2.OUTCOME_KIND_EXIT_UNKNOWN

Kind: TypeAlias = "run_pb2.OutcomeKind.ValueType"


class Load:
    """The runs of one cluster.

    Args:
        cluster: Where they are launched.
        seed: Of the chance that gives them their lengths.
    """

    def __init__(self, cluster: ChaosCluster, seed: int = 0) -> None:
        self._cluster = cluster
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        self.launches: dict[str, int] = {}
        """By run ID: how often the run was launched, resumes included. Only what was accepted."""
        self.may_end: dict[str, set[Kind]] = {}
        """By run ID: the outcomes that a run may have beside SUCCEEDED, because of what was done to it."""

    def launch(
        self,
        seconds: float,
        *,
        node: str = "",
        stop_after: float | None = None,
        may_end: Sequence[Kind] = (),
        deadline: float = 60.0,
    ) -> str:
        """Launches a run that works for so many seconds; returns its ID when it was accepted.

        Args:
            seconds: How long the worker works.
            node: Where; by default anywhere.
            stop_after: See `Policies.stop_after`; the grace is half a second.
            may_end: Outcomes that are right beside SUCCEEDED.
            deadline: Seconds for which the launch is repeated.
        """
        run_id = str(uuid.uuid4())
        self._submit(self._spec(run_id, seconds, node, stop_after), deadline)
        with self._lock:
            self.launches[run_id] = 1
            self.may_end[run_id] = {SUCCEEDED, *may_end}
        return run_id

    def resume(self, run_id: str, seconds: float) -> None:
        """Launches a run again, anywhere, as Dagster does when its worker is gone."""
        spec = self._spec(run_id, seconds, "", None)
        spec.kind = run_pb2.LAUNCH_KIND_RESUME
        spec.resume_number = self.launches[run_id]
        self._submit(spec, 60.0)
        with self._lock:
            self.launches[run_id] += 1

    def stop(self, run_id: str) -> None:
        """Has a run stopped, over a restart of the coordinator too."""

        def asked() -> bool:
            try:
                self._cluster.client.terminate_run(run_id, reason="chaos", timeout=5.0)
            except CoordinatorUnreachable:
                return False
            return True

        wait_until(asked, self._cluster.describe)

    def busy(self, seconds: float, *, node: str = "", may_end: Sequence[Kind] = ()) -> str:
        """As `launch`, and returns when the worker is at work and the coordinator knows it."""
        run_id = self.launch(seconds, node=node, may_end=may_end)
        self.wait_busy(run_id)
        return run_id

    def crowd(self, size: int = 4, seconds: float = 1.5) -> None:
        """Returns when so many runs more are at work."""
        self.wait_busy(*[self.launch(seconds) for _ in range(size)])

    def wait_busy(self, *run_ids: str) -> None:
        """Returns when the workers of the runs are at work and the coordinator knows it."""
        for run_id in run_ids:
            wait_until(partial(self._is_busy, run_id), self._cluster.describe)

    def worker(self, run_id: str) -> int:
        """Process ID of the run's latest worker."""
        return self._cluster.ledger.life(run_id).starts[-1]

    @contextmanager
    def flowing(
        self, per_second: float = 3.0, longest: float = 1.0, may_end: Sequence[Kind] = ()
    ) -> Iterator[None]:
        """Launches short runs all the time, for the length of the block."""
        over = threading.Event()
        errors: list[BaseException] = []

        def flow() -> None:
            try:
                while not over.wait(1 / per_second):
                    self.launch(self._chance.uniform(0.1, longest), may_end=may_end, deadline=120.0)
            except BaseException as error:
                errors.append(error)

        launching = threading.Thread(target=flow, name="load")
        launching.start()
        try:
            yield
        finally:
            over.set()
            launching.join()
        if errors:
            raise errors[0]

    def _is_busy(self, run_id: str) -> bool:
        try:
            running = self._cluster.run(run_id).phase == run_pb2.PHASE_RUNNING
        except (CoordinatorUnreachable, RunNotFound):
            return False
        return running and bool(self._cluster.ledger.life(run_id).starts)

    def _submit(self, spec: run_pb2.LaunchSpec, deadline: float) -> None:
        """Repeats the launch until it is accepted, over a full disk too."""

        def accepted() -> bool:
            try:
                self._cluster.client.launch_run(spec, timeout=deadline)
            except (CoordinatorUnreachable, ResourceExhausted):
                return False
            return True

        wait_until(accepted, self._cluster.describe, deadline, poll=0.2)

    def _spec(self, run_id: str, seconds: float, node: str, stop_after: float | None) -> run_pb2.LaunchSpec:
        policies = run_pb2.Policies(grace=_span(0.5))
        if stop_after is not None:
            policies.stop_after.CopyFrom(_span(stop_after))
        return run_pb2.LaunchSpec(
            run_id=run_id,
            kind=run_pb2.LAUNCH_KIND_EXECUTE,
            worker_args="{}",
            deployment="chaos",
            environment=self._cluster.ledger.environment(seconds),
            code_origin=run_pb2.CodeOrigin(
                location="chaos", job="work", executable=str(self._cluster.ledger.worker)
            ),
            requirements=placement_pb2.Requirements(node=node),
            policies=policies,
        )


def _span(seconds: float) -> Duration:
    span = Duration()
    span.FromNanoseconds(round(seconds * 1e9))
    return span
