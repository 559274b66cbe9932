"""LaunchService: the calls of Dagster and of people."""

from collections.abc import AsyncIterator

from runyard.coordinator.audit.audit import Audit, actor_of, audited
from runyard.coordinator.audit.events import TerminationRequested, launch_requested
from runyard.coordinator.auth.callers import caller_of
from runyard.coordinator.core.client_scope import ClientScope
from runyard.coordinator.core.errors import InvalidField
from runyard.coordinator.core.events.on_launch import on_launch, on_terminate
from runyard.coordinator.core.explain.explanation import explain_launch, explain_run
from runyard.coordinator.core.model import Run
from runyard.coordinator.grpc.errors import Context, NotFound, Unavailable
from runyard.coordinator.grpc.log_relay import LogRelay
from runyard.coordinator.grpc.messages.dry_run import dry_run_launch
from runyard.coordinator.grpc.messages.requests import check_run_id, check_spec, launch_of
from runyard.coordinator.grpc.messages.views import event_view, matches, run_view
from runyard.coordinator.grpc.reporter_queue import ReporterQueue
from runyard.coordinator.grpc.snapshot_uploads import SnapshotUploads
from runyard.coordinator.grpc.snapshots import Snapshots
from runyard.coordinator.runtime.clock import now
from runyard.coordinator.runtime.runtime import Runtime
from runyard.v1 import launch_pb2, launch_pb2_grpc, run_pb2

PAGE_DEFAULT = 100
PAGE_LIMIT = 1_000


class LaunchService(launch_pb2_grpc.LaunchServiceServicer):
    """See `runyard/v1/launch.proto` for the contract of each method."""

    def __init__(self, runtime: Runtime, logs: LogRelay, audit: Audit) -> None:
        self._runtime = runtime
        self._logs = logs
        self._audit = audit
        self._reports = ReporterQueue(runtime)
        self._snapshots = Snapshots(runtime)
        self._uploads = SnapshotUploads(runtime)

    async def LaunchRun(
        self, request: launch_pb2.LaunchRunRequest, context: Context
    ) -> launch_pb2.LaunchRunResponse:
        spec = request.spec
        with audited(self._audit, launch_requested(actor_of(context), spec)) as entry:
            check_spec(spec)
            if not await self._snapshots.is_held(spec.job_snapshot_id):
                entry.withdraw()  # the client launches again, after the snapshot
                return launch_pb2.LaunchRunResponse(snapshot_needed=True)
            ops = await self._snapshots.ops_layer(
                spec.job_snapshot_id, spec.step_keys, spec.execution_config_json
            )
            launch = launch_of(spec, ops, self._scope(context).who)
            run = await self._runtime.decide(lambda fleet, at: on_launch(fleet, at, launch))
        return launch_pb2.LaunchRunResponse(run=self._view(run))

    async def StoreSnapshot(
        self, request_iterator: AsyncIterator[launch_pb2.StoreSnapshotRequest], context: Context
    ) -> launch_pb2.StoreSnapshotResponse:
        await self._uploads.receive(request_iterator, str(caller_of(context).identity))
        return launch_pb2.StoreSnapshotResponse()

    async def TerminateRun(
        self, request: launch_pb2.TerminateRunRequest, context: Context
    ) -> launch_pb2.TerminateRunResponse:
        run_id = check_run_id(request.run_id)
        self._require_seen(run_id, self._scope(context))
        reason = request.reason or "stopped on request"
        with audited(self._audit, TerminationRequested(by=actor_of(context), run=run_id, message=reason)):
            stopping = await self._runtime.decide(lambda fleet, at: on_terminate(fleet, at, run_id, reason))
        run = self._runtime.fleet.runs.get(run_id)
        return launch_pb2.TerminateRunResponse(stopping=stopping, run=self._view(run) if run else None)

    async def GetRun(self, request: launch_pb2.GetRunRequest, context: Context) -> launch_pb2.GetRunResponse:
        run_id = check_run_id(request.run_id)
        await self._runtime.until_durable()
        run = self._find(run_id, self._scope(context))
        rows = await self._runtime.in_writer(lambda: self._runtime.store.events(run_id))
        return launch_pb2.GetRunResponse(run=self._view(run), events=[event_view(row) for row in rows])

    async def ExplainRun(
        self, request: launch_pb2.ExplainRunRequest, context: Context
    ) -> launch_pb2.ExplainRunResponse:
        run_id = check_run_id(request.run_id)
        await self._runtime.until_durable()
        explanation = explain_run(self._runtime.fleet, now(), self._find(run_id, self._scope(context)))
        return launch_pb2.ExplainRunResponse(explanation=explanation)

    async def ExplainLaunch(
        self, request: launch_pb2.ExplainLaunchRequest, context: Context
    ) -> launch_pb2.ExplainLaunchResponse:
        scope = self._scope(context)
        launch = await dry_run_launch(request, self._snapshots, self._seen_by(scope), scope.who)
        await self._runtime.until_durable()
        explanation = explain_launch(self._runtime.fleet, now(), launch)
        return launch_pb2.ExplainLaunchResponse(explanation=explanation)

    async def ListRuns(
        self, request: launch_pb2.ListRunsRequest, context: Context
    ) -> launch_pb2.ListRunsResponse:
        size = _page_size(request.page_size)
        await self._runtime.until_durable()
        runs = [run for run in self._seen_by(self._scope(context)) if matches(request.filter, run)]
        runs.sort(key=_newest_first)
        if request.page_token:
            after = _page_start(request.page_token)
            runs = [run for run in runs if _newest_first(run) > after]
        page, more = runs[:size], len(runs) > size
        return launch_pb2.ListRunsResponse(
            runs=[self._view(run) for run in page],
            next_page_token=_page_token(page[-1]) if more else "",
        )

    async def WatchRuns(
        self, request: launch_pb2.WatchRunsRequest, context: Context
    ) -> AsyncIterator[launch_pb2.WatchRunsResponse]:
        scope = self._scope(context)
        with self._runtime.watchers.watching() as watcher:
            await self._runtime.until_durable()
            for run in self._seen_by(scope):
                if matches(request.filter, run):
                    yield launch_pb2.WatchRunsResponse(run=self._view(run))
            while True:
                run = await watcher.next()
                if scope.includes(run.launch) and matches(request.filter, run):
                    yield launch_pb2.WatchRunsResponse(run=self._view(run))

    async def ReadLogs(
        self, request: launch_pb2.ReadLogsRequest, context: Context
    ) -> AsyncIterator[launch_pb2.ReadLogsResponse]:
        check_run_id(request.run_id)
        await self._runtime.until_durable()
        async for piece in self._logs.read(request, self._find(request.run_id, self._scope(context))):
            yield piece

    async def FollowReports(
        self, request_iterator: AsyncIterator[launch_pb2.FollowReportsRequest], context: Context
    ) -> AsyncIterator[launch_pb2.FollowReportsResponse]:
        async for run in self._reports.follow(request_iterator, self._scope(context)):
            yield launch_pb2.FollowReportsResponse(run=self._view(run))

    def _scope(self, context: Context) -> ClientScope:
        who = str(caller_of(context).identity)
        return ClientScope(who, self._runtime.fleet.config.client_clusters.get(who))

    def _seen_by(self, scope: ClientScope) -> list[Run]:
        return [run for run in self._runtime.fleet.runs.values() if scope.includes(run.launch)]

    def _require_seen(self, run_id: str, scope: ClientScope) -> None:
        """Raise `NotFound` if the caller may not see the run."""
        run = self._runtime.fleet.runs.get(run_id)
        if run is not None and not scope.includes(run.launch):
            raise NotFound(f"run {run_id} was never launched by {scope.who}, or has expired")

    def _find(self, run_id: str, scope: ClientScope) -> Run:
        self._require_seen(run_id, scope)
        run = self._runtime.fleet.runs.get(run_id)
        if run is not None:
            return run
        if self._runtime.fleet.recovering(now()):
            raise Unavailable(
                f"run {run_id} is not known yet; the coordinator has just started and nodes are reconnecting"
            )
        raise NotFound(f"run {run_id} was never launched through this coordinator, or has expired")

    def _view(self, run: Run) -> run_pb2.Run:
        return run_view(self._runtime.fleet, run)


def _newest_first(run: Run) -> tuple[float, str]:
    return (-run.times.launched, run.run_id)


def _page_size(requested: int) -> int:
    if not 0 <= requested <= PAGE_LIMIT:
        raise InvalidField("page_size", f"is {requested}; give 1 to {PAGE_LIMIT}, or 0 for {PAGE_DEFAULT}")
    return requested or PAGE_DEFAULT


def _page_token(last: Run) -> str:
    return f"{last.times.launched!r}/{last.run_id}"


def _page_start(token: str) -> tuple[float, str]:
    launched, _, run_id = token.partition("/")
    try:
        return (-float(launched), run_id)
    except ValueError:
        raise InvalidField("page_token", "was not returned by ListRuns") from None
