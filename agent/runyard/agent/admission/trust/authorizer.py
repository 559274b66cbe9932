"""Stands before every launch: first whose word it is, then whether the owner allows it."""

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from runyard.agent.admission.references import UnresolvedReference
from runyard.agent.admission.specs import UnusableLaunch
from runyard.agent.admission.trust.policy import Refused, decide, policy_of
from runyard.agent.admission.trust.requested import asked_by
from runyard.agent.admission.trust.signatures import Doubtful, examine
from runyard.agent.config.agent import AgentSettings
from runyard.agent.core.model import AttemptKey
from runyard.agent.drivers.docker.plan.context import BadContext
from runyard.agent.supervisor.rundir import RunDirectory
from runyard.common.security.signing import PublicKey, read_public_key
from runyard.v1 import run_pb2

log = structlog.get_logger("runyard.agent.admission.trust")


class NotTrusted(UnusableLaunch):
    """The owner of this node does not let the launch happen here; the message says which rule it is."""


@dataclass(frozen=True)
class Admission:
    """A launch that may go on to be looked at."""

    spec: run_pb2.LaunchSpec
    """What is to be done: where signatures count, what was signed."""
    unsigned_choices: frozenset[str] = frozenset()
    """See `policy.Asked`."""
    doubt: str = ""
    """Why it would be refused if signatures were required; empty if it would not, or they do not count."""


def trusted_keys(settings: AgentSettings) -> dict[str, PublicKey]:
    """The keys that the settings name, by ID.

    Raises:
        UnusableKey: One of them cannot be read.
    """
    keys = [read_public_key(written) for written in settings.signing_keys]
    return {key.key_id: key for key in keys}


def note_doubt(directory: RunDirectory, doubt: str) -> None:
    """Begins the stderr of an attempt with why nobody vouches for it, for all who look at the run."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory.stderr, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"runyard: nobody vouches for this launch: {doubt}\n")


class Gatekeeper:
    """Lets launches pass or not.

    Args:
        settings: The agent's.
        clock: Gives Unix time in seconds.

    Raises:
        UnusableKey: One of the signing keys cannot be read.
    """

    def __init__(self, settings: AgentSettings, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._keys = trusted_keys(settings)
        self._policy = policy_of(settings.policy, settings.docker)
        self._clock = clock

    def announce(self) -> None:
        """Logs what it lets pass, and what the owner may not have meant."""
        settings, profiles = self._settings, [profile.name for profile in self._policy.profiles]
        log.info("trust", profiles=profiles, signatures=settings.signatures, signing_keys=list(self._keys))
        if os.geteuid() == 0 and not settings.policy.allow_root and not settings.isolation.run_as:
            log.warning(
                "processes_refused",
                reason="they would run as root",
                remedy="set isolation.run_as, run the agent as another user, or set policy.allow_root: true",
            )

    def admit(self, key: AttemptKey, sent: run_pb2.LaunchSpec) -> Admission:
        """Looks at whose word a launch is.

        Args:
            key: The attempt for which it was sent.
            sent: As the coordinator sent it.

        Raises:
            NotTrusted: It is not signed by a key of the owner's, and has to be.
        """
        if self._settings.signatures == "off":
            return Admission(sent)
        match examine(key, sent, self._keys, self._clock()):
            case Doubtful(reason) if self._settings.signatures == "require":
                raise NotTrusted(f"this node takes signed launches only: {reason}")
            case Doubtful(reason):
                log.warning("launch_doubtful", attempt=str(key), reason=reason)
                return Admission(sent, doubt=reason)
            case genuine:
                return Admission(genuine.spec, genuine.unsigned_choices)

    def require_allowed(self, admission: Admission) -> Admission:
        """Holds a launch against the owner's policy.

        Returns:
            The admission, perhaps with another doubt.

        Raises:
            NotTrusted: No profile allows it.
        """
        try:
            asked = asked_by(self._settings, admission.spec, admission.unsigned_choices)
        except (BadContext, UnresolvedReference) as error:
            raise NotTrusted(str(error)) from error
        refusal = decide(self._policy, asked)
        if not isinstance(refusal, Refused):
            return admission
        if self._settings.signatures == "warn" and admission.unsigned_choices:
            again = decide(self._policy, replace(asked, unsigned_choices=frozenset()))
            if not isinstance(again, Refused):
                log.warning("launch_doubtful", run=admission.spec.run_id, reason=refusal.reason)
                return replace(admission, doubt=refusal.reason)
        raise NotTrusted(str(refusal))
