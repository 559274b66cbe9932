"""Authorization of launches: first the signature, then the owner's policy."""

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from runyard.agent.admission.errors import NotAuthorized
from runyard.agent.admission.references import UnresolvedReference
from runyard.agent.admission.trust.policy import Refused, decide, policy_of
from runyard.agent.admission.trust.requested import requested_access
from runyard.agent.admission.trust.signatures import Doubtful, examine
from runyard.agent.config.agent import AgentSettings
from runyard.agent.core.model import AttemptKey
from runyard.agent.drivers.docker.plan.context import BadContext
from runyard.agent.supervisor.rundir import RunDirectory
from runyard.common.security.signing import PublicKey, read_public_key
from runyard.v1 import run_pb2

log = structlog.get_logger("runyard.agent.admission.trust")


@dataclass(frozen=True)
class AuthorizedLaunch:
    """Launch whose signature was checked."""

    spec: run_pb2.LaunchSpec
    """The launch to carry out; where signatures are checked, the signed one."""
    unsigned_choices: frozenset[str] = frozenset()
    """See `policy.RequestedAccess`."""
    doubt: str = ""
    """Reason to refuse it if signatures were required; empty if there is none, or they are not checked."""


def trusted_keys(settings: AgentSettings) -> dict[str, PublicKey]:
    """Return the keys that the settings name, by ID.

    Raises:
        UnusableKey: One of them cannot be read.
    """
    keys = [read_public_key(written) for written in settings.signing_keys]
    return {key.key_id: key for key in keys}


def note_doubt(directory: RunDirectory, doubt: str) -> None:
    """Write the reason for doubt at the start of the attempt's stderr, where users of the run see it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory.stderr, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"runyard: the signature of this launch is not trusted: {doubt}\n")


class LaunchAuthorizer:
    """Authorizes launches, or refuses them.

    Args:
        settings: The agent's.
        clock: Returns Unix time in seconds.

    Raises:
        UnusableKey: One of the signing keys cannot be read.
    """

    def __init__(self, settings: AgentSettings, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._keys = trusted_keys(settings)
        self._policy = policy_of(settings.policy, settings.docker)
        self._clock = clock

    def announce(self) -> None:
        """Log the rules, and a warning about settings that the owner may not have intended."""
        settings, profiles = self._settings, [profile.name for profile in self._policy.profiles]
        log.info("trust", profiles=profiles, signatures=settings.signatures, signing_keys=list(self._keys))
        if os.geteuid() == 0 and not settings.policy.allow_root and not settings.isolation.run_as:
            log.warning(
                "processes_refused",
                reason="they would run as root",
                remedy="set isolation.run_as, run the agent as another user, or set policy.allow_root: true",
            )

    def check_signature(self, key: AttemptKey, sent: run_pb2.LaunchSpec) -> AuthorizedLaunch:
        """Check the signature of a launch.

        Args:
            key: The attempt that it was sent for.
            sent: The launch as the coordinator sent it.

        Raises:
            NotAuthorized: It is not signed by a trusted key, and has to be.
        """
        if self._settings.signatures == "off":
            return AuthorizedLaunch(sent)
        match examine(key, sent, self._keys, self._clock()):
            case Doubtful(reason) if self._settings.signatures == "require":
                raise NotAuthorized(f"this node takes signed launches only: {reason}")
            case Doubtful(reason):
                log.warning("launch_doubtful", attempt=str(key), reason=reason)
                return AuthorizedLaunch(sent, doubt=reason)
            case genuine:
                return AuthorizedLaunch(genuine.spec, genuine.unsigned_choices)

    def check_policy(self, launch: AuthorizedLaunch) -> AuthorizedLaunch:
        """Check a launch against the owner's policy.

        Returns:
            The launch, possibly with another doubt.

        Raises:
            NotAuthorized: No profile allows it.
        """
        try:
            asked = requested_access(self._settings, launch.spec, launch.unsigned_choices)
        except (BadContext, UnresolvedReference) as error:
            raise NotAuthorized(str(error)) from error
        refusal = decide(self._policy, asked)
        if not isinstance(refusal, Refused):
            return launch
        if self._settings.signatures == "warn" and launch.unsigned_choices:
            again = decide(self._policy, replace(asked, unsigned_choices=frozenset()))
            if not isinstance(again, Refused):
                log.warning("launch_doubtful", run=launch.spec.run_id, reason=refusal.reason)
                return replace(launch, doubt=refusal.reason)
        raise NotAuthorized(str(refusal))
