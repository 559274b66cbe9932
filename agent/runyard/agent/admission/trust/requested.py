"""Extraction of the access that a launch requests, for the policy's decision."""

import os
import pwd

from runyard.agent.admission.references import variables_of
from runyard.agent.admission.trust.policy import AsContainer, AsOther, AsProcess, RequestedAccess
from runyard.agent.config.agent import AgentSettings
from runyard.agent.drivers.docker.plan.context import read_context
from runyard.agent.drivers.docker.plan.plan import DRIVER_NAME
from runyard.common.defaults import DRIVER
from runyard.v1 import run_pb2


def requested_access(
    settings: AgentSettings, spec: run_pb2.LaunchSpec, unsigned_choices: frozenset[str] = frozenset()
) -> RequestedAccess:
    """Return the access that a launch requests on this node.

    Args:
        settings: The agent's settings.
        spec: The launch.
        unsigned_choices: See `RequestedAccess`.

    Raises:
        BadContext: The container_context of its code location has another form.
        UnresolvedReference: A variable is written in a form that this agent does not know.
    """
    driver = spec.requirements.driver or DRIVER
    resources = spec.requirements.resources
    names = list(variables_of(spec))
    worker: AsProcess | AsContainer | AsOther
    match driver:
        case "process":
            worker = _as_process(settings, spec)
        case _ if driver == DRIVER_NAME and settings.docker is not None:
            context = read_context(spec.code_origin.container_context_json)
            names += [entry.partition("=")[0] for entry in context.env_vars]
            image = spec.requirements.image or spec.code_origin.image
            worker = AsContainer(image, context, settings.docker.host)
        case _:
            worker = AsOther()
    return RequestedAccess(
        code_location=spec.code_origin.location,
        driver=driver,
        environment=tuple(names),
        memory=resources.get("memory", 0),
        cpu=resources.get("cpu", 0),
        worker=worker,
        unsigned_choices=unsigned_choices,
    )


def _as_process(settings: AgentSettings, spec: run_pb2.LaunchSpec) -> AsProcess:
    origin = spec.code_origin
    user = settings.isolation.user_of(origin.location)
    name, is_root = _whom(user)
    return AsProcess(
        interpreter="" if settings.interpreters.get(origin.location) else origin.executable,
        working_directory=origin.working_directory,
        user=name,
        is_root=is_root,
        is_limited=spec.requirements.isolation != "none",
    )


def _whom(user: str) -> tuple[str, bool]:
    """Return the name of a user, or of the agent's own if it is empty, and true if it is root."""
    try:
        found = pwd.getpwnam(user) if user else pwd.getpwuid(os.geteuid())
    except KeyError:  # a later step rejects a user that does not exist
        return (user, False) if user else (str(os.geteuid()), os.geteuid() == 0)
    return found.pw_name, found.pw_uid == 0
