"""A coordinator with one node, on a loopback socket. Tests say what the node's workers do."""

import threading
from collections.abc import Callable, Iterator

import grpc
from client.fake_coordinator import FakeCoordinator

from runyard.v1 import launch_pb2, run_pb2

CLUSTER = "main"
NODE = "node-1"
PID = 4711


class PlacingCoordinator(FakeCoordinator):
    """Places every run at once, unless `waits_because` says why not."""

    def __init__(self) -> None:
        super().__init__()
        self.waits_because = ""
        self.on_stop: Callable[[], object] = lambda: None

    # What the node's workers do

    def take_long(self, run_id: str, progress: str) -> None:
        """The worker of the latest attempt does not begin yet."""
        self.move(run_pb2.Run(run_id=run_id, phase=run_pb2.PHASE_STARTING, message=progress))

    def begin(self, run_id: str) -> None:
        """The worker of the latest attempt runs."""
        change = run_pb2.Run(run_id=run_id, phase=run_pb2.PHASE_RUNNING, pid=PID)
        change.running_at.GetCurrentTime()
        self.move(change)

    def end(self, run_id: str, outcome: run_pb2.Outcome) -> None:
        """The worker of the latest attempt is over."""
        self.move(run_pb2.Run(run_id=run_id, phase=run_pb2.PHASE_FINISHED, outcome=outcome))

    def lose_sight(self, run_id: str) -> None:
        """The node falls silent."""
        self.move(run_pb2.Run(run_id=run_id, unreachable=True, message="not heard of for 40 s"))

    # What tests look at

    def launched(self, run_id: str, resume_number: int = 0) -> run_pb2.LaunchSpec:
        return self.specs[run_id, resume_number]

    def was_told_to_stop(self, run_id: str) -> bool:
        requests = self.requests("TerminateRun")
        return any(request.run_id == run_id for request in requests)  # type: ignore[attr-defined]

    def has_settled(self, run_id: str) -> bool:
        return (run_id, self.runs[run_id].attempt) in self.acknowledged

    # LaunchService, where the node makes a difference

    def _launched(self, spec: run_pb2.LaunchSpec) -> run_pb2.Run:
        known = self.runs.get(spec.run_id)
        run = super()._launched(spec)
        run.attempt = 0 if known is None else known.attempt + 1
        if run.phase != run_pb2.PHASE_FINISHED:
            self._place(run)
        return run

    def _place(self, run: run_pb2.Run) -> None:
        run.message = self.waits_because
        if not self.waits_because:
            run.phase = run_pb2.PHASE_ASSIGNED
            run.cluster, run.node = CLUSTER, NODE

    def TerminateRun(
        self, request: launch_pb2.TerminateRunRequest, context: grpc.ServicerContext
    ) -> launch_pb2.TerminateRunResponse:
        self.on_stop()
        return super().TerminateRun(request, context)

    def FollowReports(
        self, request_iterator: Iterator[launch_pb2.FollowReportsRequest], context: grpc.ServicerContext
    ) -> Iterator[launch_pb2.FollowReportsResponse]:
        """As the fake, and also sends what has just begun to run."""
        opening = next(request_iterator)
        self._enter("FollowReports", opening, context)
        while not self._reporting.acquire(timeout=0.1):
            if not context.is_active():
                return
        try:
            known = {_version(run) for run in self.runs.values() if run.phase == run_pb2.PHASE_RUNNING}
            self.reporters.append(opening.reporter)
            threading.Thread(target=self._take, args=(request_iterator,), daemon=True).start()
            yield from self._news(opening.deployment, known, context)
        finally:
            self._reporting.release()

    def _news(
        self, deployment: str, sent: set[bytes], context: grpc.ServicerContext
    ) -> Iterator[launch_pb2.FollowReportsResponse]:
        while context.is_active():
            for run in list(self.runs.values()):
                if run.deployment == deployment and self._is_news(run) and _version(run) not in sent:
                    sent.add(_version(run))
                    yield launch_pb2.FollowReportsResponse(run=run)
            with self.changed:
                self.changed.wait(0.02)

    def _is_news(self, run: run_pb2.Run) -> bool:
        if run.phase == run_pb2.PHASE_RUNNING or (run.phase == run_pb2.PHASE_STARTING and run.message):
            return True
        return run.phase == run_pb2.PHASE_FINISHED and (run.run_id, run.attempt) not in self.acknowledged


def _version(run: run_pb2.Run) -> bytes:
    """Every change of a run is news, also one that changes nothing for a reporter."""
    return run.SerializeToString(deterministic=True)
