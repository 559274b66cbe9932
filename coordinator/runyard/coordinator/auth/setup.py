"""Puts the coordinator's security together, as the settings have it."""

from dataclasses import dataclass

from runyard.coordinator.audit.audit import UNAUDITED, Audit
from runyard.coordinator.auth.admission import Admission
from runyard.coordinator.auth.revoking import Expulsion, load_revocations
from runyard.coordinator.auth.throttle import Throttle
from runyard.coordinator.ca.enrolment import Enrolment
from runyard.coordinator.ca.opening import open_enrolment
from runyard.coordinator.runtime.config import CoordinatorSettings
from runyard.coordinator.runtime.runtime import Runtime


@dataclass(frozen=True)
class Security:
    """Who decides on callers.

    Attributes:
        admission: Whether they may speak at all.
        enrolment: Gives nodes their certificates; None where others do.
        expulsion: Takes certificates back.
        throttle: Holds back those who call too often.
        audit: Notes what they decide.
    """

    admission: Admission
    enrolment: Enrolment | None
    expulsion: Expulsion
    throttle: Throttle
    audit: Audit

    @classmethod
    def of(cls, settings: CoordinatorSettings, runtime: Runtime, audit: Audit = UNAUDITED) -> "Security":
        """As the settings have it, with what was revoked before.

        Raises:
            AuthorityError: The authority or the certificates cannot be used, or do not belong together.
        """
        revocations = load_revocations(runtime.store)
        enrolment = open_enrolment(settings, runtime, revocations)
        return cls(
            Admission(settings.trust_domain, revocations),
            enrolment,
            Expulsion(runtime, revocations),
            Throttle(settings.rates.by_limit()),
            audit,
        )
