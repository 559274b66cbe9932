"""Assembly of the coordinator's security from its settings."""

from dataclasses import dataclass

import structlog

from runyard.common.errors import InvalidTlsFiles
from runyard.common.transport.tls import WatchedTls
from runyard.coordinator.audit.audit import UNAUDITED, Audit
from runyard.coordinator.auth.authentication import Authenticator
from runyard.coordinator.auth.revocations import Revocations
from runyard.coordinator.auth.revoker import Revoker, load_revocations
from runyard.coordinator.auth.throttle import Throttle
from runyard.coordinator.ca.authority_directory import AuthorityDirectory, AuthorityError
from runyard.coordinator.ca.enrolment import Enrolment
from runyard.coordinator.config import CoordinatorSettings
from runyard.coordinator.runtime.runtime import Runtime

log = structlog.get_logger("runyard.coordinator.auth")


@dataclass(frozen=True)
class Security:
    """The parts that decide on callers.

    Attributes:
        authenticator: Authenticates callers.
        enrolment: Issues the certificates of nodes; None if another authority does.
        revoker: Revokes certificates.
        throttle: Applies rate limits.
        audit: Records the decisions.
    """

    authenticator: Authenticator
    enrolment: Enrolment | None
    revoker: Revoker
    throttle: Throttle
    audit: Audit


def open_security(settings: CoordinatorSettings, runtime: Runtime, audit: Audit = UNAUDITED) -> Security:
    """Return the parts that the settings ask for, with the revocations in the store.

    Raises:
        AuthorityError: The authority or the certificates cannot be used, or do not belong together.
    """
    revocations = load_revocations(runtime.store)
    return Security(
        Authenticator(settings.trust_domain, revocations),
        _open_enrolment(settings, runtime, revocations),
        Revoker(runtime, revocations),
        Throttle(settings.rates.by_limit()),
        audit,
    )


def _open_enrolment(
    settings: CoordinatorSettings, runtime: Runtime, revocations: Revocations
) -> Enrolment | None:
    """Return enrolment by the authority in the settings, after checking it. None if they name none."""
    files = settings.tls_files()
    if settings.ca_directory is None or files is None:
        return None
    authority = AuthorityDirectory(settings.ca_directory)
    try:
        watched = WatchedTls(files, lambda problem: log.error("certificates_not_renewed", problem=problem))
    except InvalidTlsFiles as error:
        raise AuthorityError(str(error)) from error
    authority.require_fit(settings.trust_domain, _certificate(watched))
    return Enrolment(
        runtime, authority, lambda: _certificate(watched), revocations, settings.certificate_lifetime
    )


def _certificate(watched: WatchedTls) -> bytes:
    certificate = watched.current().certificate
    assert certificate is not None, "the settings name one"
    return certificate
