"""What an attempt has on its machine beside its run directory: a scratch directory, a control group.

Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from runyard.agent.limits.enforcement import Unlimited, resume
from runyard.agent.limits.plan import plan_of
from runyard.agent.privileges import find_user
from runyard.agent.records import SpecRecord, UnreadableRecord
from runyard.agent.rundir import RunDirectory

SCRATCH_NAME = "TMPDIR"
"""Environment variable that tells the worker its scratch directory, as everybody understands it."""


def make_scratch(spec: SpecRecord) -> dict[str, str]:
    """Makes the worker's scratch directory, if it is to have one.

    Returns:
        The variables that tell of it.

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


def limits_of(directory: RunDirectory, worker: int | None) -> Unlimited:
    """For those who stand in for a dead shim: the limits of an attempt, as they are in force."""
    try:
        spec = directory.read_spec()
    except UnreadableRecord:
        return Unlimited()
    return resume(plan_of(spec.limits) if spec else None, worker)


def clear_away(directory: RunDirectory, limits: Unlimited) -> None:
    """Removes what the attempt has. Called when nothing of it runs; what fails is left to a sweep."""
    limits.remove()
    with contextlib.suppress(UnreadableRecord, OSError):
        spec = directory.read_spec()
        if spec is not None and spec.scratch:
            shutil.rmtree(spec.scratch, ignore_errors=True)
