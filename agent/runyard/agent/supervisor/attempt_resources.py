"""Resources of an attempt beside its run directory: a scratch directory, a control group.

Standard library only.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from runyard.agent.supervisor.limits.enforcement import Unlimited, resume
from runyard.agent.supervisor.limits.plan import plan_of
from runyard.agent.supervisor.privileges import find_user
from runyard.agent.supervisor.records import SpecRecord, UnreadableRecord
from runyard.agent.supervisor.rundir import EXCEEDED_NAME, RunDirectory

SCRATCH_NAME = "TMPDIR"
"""Environment variable that names the worker's scratch directory, as programs expect it."""


def make_scratch(spec: SpecRecord) -> dict[str, str]:
    """Create the worker's scratch directory, if the spec has one.

    Returns:
        The variables that name it.

    Raises:
        OSError: It cannot be made.
    """
    if not spec.scratch:
        return {}
    Path(spec.scratch).mkdir(mode=0o700)
    if spec.run_as:
        user = find_user(spec.run_as)
        os.chown(spec.scratch, user.pw_uid, user.pw_gid)
    return {SCRATCH_NAME: spec.scratch}


@dataclass(frozen=True)
class AttemptResources:
    """Resources of one attempt."""

    limits: Unlimited
    scratch: str = ""
    """Path of its scratch directory; empty for none."""

    def release(self) -> None:
        """Remove all of it. Called when nothing of the attempt runs; what fails is left to a sweep."""
        self.limits.remove()
        if self.scratch:
            shutil.rmtree(self.scratch, ignore_errors=True)


NO_RESOURCES = AttemptResources(Unlimited())


def attempt_resources_of(directory: RunDirectory, worker: int | None) -> AttemptResources:
    """For those who stand in for a dead shim: what the attempt has, with its limits as they are in force.

    Args:
        directory: The attempt.
        worker: PID of its worker, which may be over; None if there never was one.
    """
    try:
        spec = directory.read_spec()
    except UnreadableRecord:
        return NO_RESOURCES
    if spec is None:
        return NO_RESOURCES
    return AttemptResources(
        resume(plan_of(spec.limits), worker, directory.path / EXCEEDED_NAME), spec.scratch
    )
