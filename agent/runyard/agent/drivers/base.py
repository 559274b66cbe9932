"""The contract between the agent and its drivers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from runyard.agent.core.model import AttemptKey, AttemptPhase, HeldAttempt
from runyard.agent.node.capacity import Capacity
from runyard.agent.node.facts import WorkerUsage
from runyard.agent.supervisor.records import Cause, SpecRecord

OnChange = Callable[[AttemptKey, AttemptPhase], None]
"""Called in the event loop for every phase that an attempt enters, each at most once and never going back.

`Starting` may come again with other progress of a start that takes long: seldom, for each is written down.
`Finished` is called only when the exit record is on disk.
"""


class Driver(Protocol):
    """Starts workers from run directories and reports their phases.

    Order of calls: `open`, `recover`, then `start`, `stop` and `usage` in any order and number, `close`; all
    in one event loop. After `close` the workers go on, and a later driver recovers them.
    """

    @property
    def name(self) -> str:
        """The name by which a launch asks for this driver."""
        ...

    async def open(self) -> None:
        """Make the driver ready to start workers.

        Raises:
            DriverError: This machine cannot run it; the message names the remedy.
        """
        ...

    async def recover(self) -> list[HeldAttempt]:
        """Resume every attempt on disk that is this driver's and not acknowledged.

        Attempts that were started before are watched from here on, and `on_change` reports them. Those that
        provably never were are given as `Accepted`, and are started by `start` as any other.
        """
        ...

    async def start(self, key: AttemptKey) -> None:
        """Start the worker of an attempt, from the `spec` in its run directory, exactly once.

        Returns before the worker runs; `on_change` reports that, and every failure. A repeat changes nothing.

        Raises:
            UnknownAttempt: There is no such run directory.
        """
        ...

    async def stop(
        self, key: AttemptKey, grace_seconds: float, reason: str, cause: Cause = "stopped"
    ) -> None:
        """Stop the worker of an attempt, or prevent its start; on disk when this returns.

        A repeat can only shorten the grace period. An attempt that is over stays as it is.

        Args:
            key: The attempt.
            grace_seconds: Between SIGTERM and SIGKILL.
            reason: Who asks and why, in one sentence; becomes part of the outcome's message.
            cause: Becomes the cause of the exit, unless an earlier request has another.

        Raises:
            UnknownAttempt: There is no such run directory.
            RunDirectoryError: The request cannot be written to disk.
        """
        ...

    async def usage(self) -> dict[AttemptKey, WorkerUsage]:
        """Usage of each live worker and its descendants; CPU is measured since the previous call."""
        ...

    async def close(self) -> None:
        """Stop watching. The workers continue."""
        ...


@runtime_checkable
class ClusterDriver(Driver, Protocol):
    """A driver that hands workers to the scheduler of a whole cluster, for which its agent then stands."""

    async def capacity(self) -> Capacity:
        """The present capacity, in use or not. Called after `open`, and periodically.

        Raises:
            DriverError: The cluster does not answer; its last answer stays valid.
        """
        ...


class WarmKeeper(Protocol):
    """Processes of which workers can be forks."""

    def snapshot(self) -> list[dict[str, Any]]:
        """Every one as plain data, the most recently used first; see `wire.warm_server_of`."""
        ...

    def refresh(self, name: str | None = None) -> None:
        """Replace one of them, or all that are not resting. An unknown name means none."""
        ...


@runtime_checkable
class WarmDriver(Driver, Protocol):
    """A driver whose workers may be forks of processes that have imported things ahead."""

    @property
    def warm_servers(self) -> WarmKeeper:
        """The processes that runs are forked from."""
        ...


@runtime_checkable
class DependentDriver(Driver, Protocol):
    """A driver that depends on something beside this machine's kernel, which may come and go."""

    @property
    def trouble(self) -> str:
        """The problem that prevents starts; empty if there is none. The driver is not offered meanwhile."""
        ...


@dataclass(frozen=True)
class MissingPrerequisite:
    """Reason why a worker could not start on this node."""

    message: str
    """One sentence for people."""
    reason_code: str = ""
    """One word for programs, as in `ExitRecord`."""


@runtime_checkable
class CheckingDriver(Driver, Protocol):
    """A driver that can check beforehand what a worker needs."""

    def missing(self, spec: SpecRecord) -> MissingPrerequisite | None:
        """The missing prerequisite of a worker; None if none is known. Blocks."""
        ...


class DriverError(Exception):
    """The driver cannot do its work on this machine; the message names the remedy."""


class UnknownAttempt(DriverError):
    """No run directory holds the attempt."""
