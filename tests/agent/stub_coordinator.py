"""A coordinator that the test controls, and whole agents as processes that connect to it."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from harness.services import ROOT_TOO
from harness.waiting import await_until

from runyard.v1 import agent_pb2, agent_pb2_grpc, placement_pb2, run_pb2

BEAT = 0.1
"""Seconds between two heartbeats."""

LEASE = 5.0
RUN_ID = "run-a"


def seconds(value: float) -> Duration:
    """Seconds as the protocol writes them."""
    duration = Duration()
    duration.FromNanoseconds(round(value * 1e9))
    return duration


@dataclass
class StubSession:
    """One session, from the coordinator's side."""

    hello: agent_pb2.Hello
    epoch: int
    beats: list[agent_pb2.Heartbeat] = field(default_factory=list)
    reports: list[agent_pb2.AttemptReport] = field(default_factory=list)
    goodbye: agent_pb2.AgentGoodbye | None = None
    is_over: bool = False
    to_agent: asyncio.Queue[agent_pb2.SessionResponse] = field(default_factory=asyncio.Queue)

    def send(self, **message: Any) -> None:
        """Says something to the agent."""
        self.to_agent.put_nowait(agent_pb2.SessionResponse(**message))

    def assign(
        self,
        program: Path,
        *,
        run_id: str = RUN_ID,
        attempt: int = 1,
        within: float = 10.0,
        after: int = 0,
        requirements: placement_pb2.Requirements | None = None,
        **policies: float,
    ) -> None:
        """Offers an attempt whose worker is that program."""
        spec = run_pb2.LaunchSpec(
            run_id=run_id,
            kind=run_pb2.LAUNCH_KIND_EXECUTE,
            code_origin=run_pb2.CodeOrigin(executable=str(program)),
            requirements=requirements,
            policies=run_pb2.Policies(**{name: seconds(value) for name, value in policies.items()}),
        )
        offer = agent_pb2.Assign(
            run_id=run_id, attempt=attempt, spec=spec, start_within=seconds(within), after_heartbeat=after
        )
        self.send(assign=offer)

    def stop(self, *, run_id: str = RUN_ID, attempt: int = 1, grace: float = 1.0, reason: str = "") -> None:
        """Tells the agent to stop an attempt."""
        self.send(stop=agent_pb2.Stop(run_id=run_id, attempt=attempt, grace=seconds(grace), reason=reason))

    def statuses(self) -> list[agent_pb2.AttemptStatus]:
        """All that was said of attempts: in Hello, in reports, and in the last heartbeat."""
        reported = [each.status for each in self.reports if each.HasField("status")]
        return [*self.hello.attempts, *reported, *(self.beats[-1].attempts if self.beats else ())]

    def finished(self, run_id: str) -> list[agent_pb2.AttemptStatus]:
        """Return the statuses that report the end of a run."""
        return [
            each for each in self.statuses() if each.run_id == run_id and each.phase == run_pb2.PHASE_FINISHED
        ]

    async def beat(self, number: int) -> agent_pb2.Heartbeat:
        """The heartbeat with that sequence, as soon as it is there."""
        await await_until(lambda: len(self.beats) >= number, lambda: f"{len(self.beats)} heartbeats")
        return self.beats[number - 1]

    async def status(self, phase: run_pb2.Phase.ValueType) -> agent_pb2.AttemptStatus:
        """The first report of an attempt in that phase."""
        found = await await_until(
            lambda: [each for each in self.statuses() if each.phase == phase], lambda: self.reports
        )
        return found[0]


class StubCoordinator(agent_pb2_grpc.AgentServiceServicer):
    """Welcomes every agent.

    Attributes:
        sessions: All that there were.
        acknowledges: Whether heartbeats are acknowledged, and the ends of attempts.
    """

    def __init__(self, sockets: Path) -> None:
        self.address = f"unix:{sockets / 'coordinator'}"
        self.sessions: list[StubSession] = []
        self.acknowledges = True
        self._server = grpc.aio.server()
        agent_pb2_grpc.add_AgentServiceServicer_to_server(self, self._server)
        self._server.add_insecure_port(self.address)

    async def __aenter__(self) -> "StubCoordinator":
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(0)

    async def session(self, number: int = 1) -> StubSession:
        """The session with that number, as soon as there is one."""
        await await_until(lambda: len(self.sessions) >= number, lambda: f"{len(self.sessions)} sessions")
        return self.sessions[number - 1]

    async def Session(
        self, requests: AsyncIterator[agent_pb2.SessionRequest], context: Any
    ) -> AsyncIterator[agent_pb2.SessionResponse]:
        """See `AgentService.Session`."""
        first = await anext(requests)
        session = StubSession(first.hello, epoch=len(self.sessions) + 1)
        welcome = agent_pb2.Welcome(
            node_epoch=session.epoch,
            protocol=1,
            heartbeat_interval=seconds(BEAT),
            lease=seconds(LEASE),
        )
        session.send(welcome=welcome)
        self.sessions.append(session)
        hearing = asyncio.create_task(self._hear(session, requests))
        try:
            while not (session.goodbye and session.to_agent.empty()):
                with contextlib.suppress(TimeoutError):
                    yield await asyncio.wait_for(session.to_agent.get(), BEAT)
        finally:
            session.is_over = True
            hearing.cancel()

    async def PushLogs(
        self, requests: AsyncIterator[agent_pb2.PushLogsRequest], context: Any
    ) -> agent_pb2.PushLogsResponse:
        """Nobody asked for logs."""
        raise NotImplementedError

    async def _hear(self, session: StubSession, requests: AsyncIterator[agent_pb2.SessionRequest]) -> None:
        async for request in requests:
            match request.WhichOneof("message"):
                case "heartbeat":
                    session.beats.append(request.heartbeat)
                    if self.acknowledges:
                        ack = agent_pb2.HeartbeatAck(sequence=request.heartbeat.sequence)
                        session.send(heartbeat_ack=ack)
                    for status in request.heartbeat.attempts:
                        self._acknowledge_end(session, status)
                case "report":
                    session.reports.append(request.report)
                    self._acknowledge_end(session, request.report.status)
                case "goodbye":
                    session.goodbye = request.goodbye

    def _acknowledge_end(self, session: StubSession, status: agent_pb2.AttemptStatus) -> None:
        if self.acknowledges and status.phase == run_pb2.PHASE_FINISHED:
            session.send(report_ack=agent_pb2.ReportAck(run_id=status.run_id, attempt=status.attempt))


class Agent:
    """A whole agent, as a process.

    Args:
        state: Its state directory.
        address: Of the coordinator.
        **settings: Further settings, as in the agent's configuration file.
    """

    def __init__(self, state: Path, address: str, **settings: Any) -> None:
        self.state = state
        self._log = state.parent / f"{state.name}.log"
        self._environment = {
            **os.environ,
            **{
                f"RUNYARD_AGENT_{name.upper()}": json.dumps(value)
                for name, value in {**ROOT_TOO, **settings}.items()
            },
        }
        self._command = [sys.executable, "-m", "runyard.agent", "--coordinator", address]
        self._command += ["--state", str(state), "--node", "node-a", "--slots", "4"]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **environment: str) -> None:
        """Starts it, with these variables in its environment."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, env={**self._environment, **environment}, stdout=log, stderr=log
            )

    def signal(self, number: int) -> None:
        """Sends it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Its exit code, as soon as it ends."""
        process = self.process
        assert process is not None
        await await_until(lambda: process.poll() is not None, self.log)
        assert process.returncode is not None
        return process.returncode

    async def kill(self) -> None:
        """Kills it."""
        self.signal(signal.SIGKILL)
        await self.ended()

    def log(self) -> str:
        """Return its log."""
        return self._log.read_text()

    def close(self) -> None:
        """Ends it, however it is."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
