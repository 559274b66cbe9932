"""Prerequisites of a worker process: program, working directory, user, Dagster."""

import os
import subprocess
from collections.abc import Mapping

from runyard.agent.drivers.base import MissingPrerequisite
from runyard.agent.drivers.process.installed import InstalledDagster
from runyard.agent.supervisor import worker as worker_script
from runyard.agent.supervisor.privileges import UnknownUser, find_user
from runyard.agent.supervisor.records import SpecRecord
from runyard.agent.supervisor.shim import StartFailure, find_executable

ANSWER_WITHIN = 4.0
"""Seconds for the look through the eyes of another user; it takes milliseconds."""

_LOOK = """
if [ -n "$1" ]; then cd -- "$1" || exit 101; fi
[ -x "$2" ] || exit 102
[ -z "$3" ] || [ -r "$3" ] || exit 103
"""


class Prerequisites:
    """Looks for what workers need."""

    def __init__(self) -> None:
        self._dagster = InstalledDagster()

    def missing(self, spec: SpecRecord) -> MissingPrerequisite | None:
        """The missing prerequisite of a worker; None if none is known. Blocks."""
        try:
            program = find_executable(spec)
            closed = closed_to_its_user(spec, program)
        except StartFailure as failure:
            return MissingPrerequisite(str(failure), failure.reason_code)
        except UnknownUser as failure:
            return MissingPrerequisite(str(failure))
        reason = closed or (self._dagster.trouble(program, spec.env) if _script_of(spec) else "")
        return MissingPrerequisite(reason) if reason else None


def closed_to_its_user(spec: SpecRecord, program: str) -> str:
    """A path that the agent can reach and the user of the worker cannot, in a sentence; empty if none.

    Args:
        spec: Of the worker.
        program: Path of what it executes.

    Raises:
        UnknownUser: There is no such user, or the agent may not become it.
    """
    user = find_user(spec.run_as) if spec.run_as else None
    if user is None or user.pw_uid == os.geteuid():
        return ""
    # Modes are not all there is: access lists, and disks of the network that mistrust root.
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", _LOOK, "look", spec.cwd, program, _script_of(spec)],
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=os.getgrouplist(user.pw_name, user.pw_gid),
            cwd="/",
            env={},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=ANSWER_WITHIN,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""  # nothing is known; the worker finds out
    return _refusals(spec, program).get(done.returncode, "")


def _refusals(spec: SpecRecord, program: str) -> Mapping[int, str]:
    whom, remedy = f"user {spec.run_as} (run_as)", "; give it access on this node"
    return {
        101: f"working directory {spec.cwd} cannot be entered by {whom}{remedy}",
        102: f"executable {program} is not executable by {whom}{remedy}",
        103: f"the agent's own {_script_of(spec)} cannot be read by {whom}; install the agent where it can",
    }


def _script_of(spec: SpecRecord) -> str:
    """The script by which the interpreter becomes a run worker of Dagster; empty for any other program."""
    return worker_script.__file__ if spec.argv[1:2] == [worker_script.__file__] else ""
