"""The pipeline that accepts or rejects an assignment."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from runyard.agent.admission.confinement import confined
from runyard.agent.admission.errors import DISK_FULL, NotAdmitted, Unfit, UnusableLaunch
from runyard.agent.admission.preflight import Preflight
from runyard.agent.admission.specs import build_spec_record
from runyard.agent.admission.trust.authorizer import LaunchAuthorizer, note_doubt
from runyard.agent.config.agent import AgentSettings
from runyard.agent.core.gpu_allotment import allot, taken
from runyard.agent.core.model import Assignment, AttemptKey, HeldAttempt, LaunchIdentity
from runyard.agent.drivers.base import Driver
from runyard.agent.node.gpus import devices_of, required_gpus, with_gpus, without_gpus
from runyard.agent.node.isolation_backends import IsolationBackend
from runyard.agent.spec_record.identities import identity_of
from runyard.agent.supervisor.records import SpecRecord
from runyard.agent.supervisor.rundir import (
    AttemptExists,
    NoRoom,
    RunDirectories,
    RunDirectory,
    RunDirectoryError,
)
from runyard.common.defaults import DRIVER
from runyard.common.service.failpoints import failpoint
from runyard.v1 import run_pb2


@dataclass(frozen=True)
class Admitted:
    """The attempt is on disk and can start."""

    identity: LaunchIdentity
    devices: tuple[str, ...]
    """GPUs that are reserved for it."""


@dataclass(frozen=True)
class AlreadyOnDisk:
    """The attempt was on disk before, and may have run: it must not be rejected."""


@dataclass(frozen=True)
class Rejected:
    """The attempt is not on disk and will never start here."""

    message: str
    reason_code: str = ""
    """One word for programs, as in `runyard.v1.Rejection`."""


Decision = Admitted | AlreadyOnDisk | Rejected


class Admission:
    """Checks assignments and writes those that are admitted to disk.

    Args:
        settings: The agent's settings.
        directories: The attempts on this disk.
        drivers: The configured drivers, by name.
        authorizer: Checks signatures and the owner's policy.
        preflight: Checks what workers need on this node.
        isolation: Mechanism that enforces limits on this machine.
        gpus: Devices that runs may use.
    """

    def __init__(
        self,
        settings: AgentSettings,
        directories: RunDirectories,
        drivers: Mapping[str, Driver],
        authorizer: LaunchAuthorizer,
        preflight: Preflight,
        isolation: IsolationBackend,
        gpus: Sequence[str],
    ) -> None:
        self._settings = settings
        self._directories = directories
        self._drivers = drivers
        self._authorizer = authorizer
        self._preflight = preflight
        self._isolation = isolation
        self._gpus = gpus

    async def admit(self, assignment: Assignment, held: Iterable[HeldAttempt]) -> Decision:
        """Take an assignment through all steps. Only one call may run at a time.

        An attempt that is on disk is never rejected. The caller checks the start deadline when this returns:
        the steps may have taken longer.

        Args:
            assignment: The attempt, its launch and its start deadline.
            held: All attempts of the node.
        """
        key = assignment.key
        try:
            if self._directories.open(key) is not None:
                return AlreadyOnDisk()
            launch = self._authorizer.check_signature(key, assignment.spec)
            identity = identity_of(launch.spec)
            record = await self._spec_record(identity, launch.spec)
            driver = self._known_driver(record)
            launch = self._authorizer.check_policy(launch)
            record = self._confined(record, key, launch.spec)
            await self._preflight.check(driver, record)
            record = self._with_gpus(record, identity, held)
            directory = await self._run_directory(key, record)
        except AttemptExists:
            return AlreadyOnDisk()
        except (NotAdmitted, RunDirectoryError) as error:
            return _rejected(error)
        if launch.doubt:
            await asyncio.to_thread(note_doubt, directory, launch.doubt)
        return Admitted(identity, devices_of(record))

    async def _spec_record(self, identity: LaunchIdentity, spec: run_pb2.LaunchSpec) -> SpecRecord:
        build = partial(build_spec_record, self._settings, identity, spec)
        return await self._preflight.in_time(build, "the values that the run refers to")

    def _known_driver(self, record: SpecRecord) -> Driver:
        driver = self._drivers.get(record.driver)
        if driver is None:
            raise UnusableLaunch(f"this agent has no driver {record.driver!r}")
        return driver

    def _confined(self, record: SpecRecord, key: AttemptKey, spec: run_pb2.LaunchSpec) -> SpecRecord:
        if record.driver != DRIVER:
            return record
        return confined(record, key, spec, self._settings.isolation, self._isolation)

    def _with_gpus(
        self, record: SpecRecord, identity: LaunchIdentity, held: Iterable[HeldAttempt]
    ) -> SpecRecord:
        """Reserve devices that no other attempt has."""
        if not self._gpus:
            return record
        count = required_gpus(identity.requirements.resources)
        if count == 0:
            # A container sees only the devices it is given, also by its owner's own arguments.
            return without_gpus(record) if record.driver != "docker" else record
        attempts = list(held)
        devices = allot(self._gpus, attempts, count)
        if devices is None:
            free = len(self._gpus) - len(taken(attempts))
            raise Unfit(f"the run asks for {count} GPUs, and {free} of {len(self._gpus)} are free")
        return with_gpus(record, devices)

    async def _run_directory(self, key: AttemptKey, record: SpecRecord) -> RunDirectory:
        failpoint("agent.before_accept")
        directory = await asyncio.to_thread(self._directories.create, key, record)
        failpoint("agent.after_accept")
        return directory


def _rejected(error: NotAdmitted | RunDirectoryError) -> Rejected:
    match error:
        case NotAdmitted():
            return Rejected(str(error), error.reason_code)
        case NoRoom():
            return Rejected(str(error), DISK_FULL)
        case _:
            return Rejected(str(error))
