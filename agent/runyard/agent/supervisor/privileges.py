"""User and privileges of a worker, set in its own process before its program begins.

Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import resource

from runyard.agent.supervisor import procfs
from runyard.agent.supervisor.records import SpecRecord

_NO_CORE = 1
"""Bytes: too few for a file, and the one limit that also keeps a core from a program (`man 5 core`)."""


class UnknownUser(Exception):
    """There is no such user on this machine, or the agent may not become it."""


def find_user(name: str) -> pwd.struct_passwd:
    """The user by whom a worker is to be run.

    Raises:
        UnknownUser: There is none, or this process may not become it.
    """
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        remedy = "create it there, or name another in isolation.run_as"
        raise UnknownUser(f"user {name} (run_as) does not exist on this node; {remedy}") from None
    if os.geteuid() not in (0, user.pw_uid):
        raise UnknownUser(f"user {name} (run_as): the agent must run as root to run workers as another user")
    return user


def settle(spec: SpecRecord) -> None:
    """Give this process the rights that the worker is to have. Nothing of it can be undone.

    Raises:
        UnknownUser: The user is gone.
        OSError: The kernel refuses.
    """
    if not spec.core_dumps:
        with contextlib.suppress(ValueError):  # a lower limit is in force already
            resource.setrlimit(resource.RLIMIT_CORE, (_NO_CORE, _NO_CORE))
    if spec.run_as:
        user = find_user(spec.run_as)
        if os.geteuid() != user.pw_uid:
            os.setgroups(os.getgrouplist(user.pw_name, user.pw_gid))
            os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
            os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    if spec.no_new_privs:
        procfs.give_up_new_privileges()
