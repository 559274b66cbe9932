"""Has nodes enrolled here, where the settings say so."""

import structlog

from runyard.common.errors import InvalidTlsFiles
from runyard.common.transport.tls import WatchedTls
from runyard.coordinator.auth.revocations import Revocations
from runyard.coordinator.ca.authority_directory import AuthorityDirectory, AuthorityError
from runyard.coordinator.ca.enrolment import Enrolment
from runyard.coordinator.runtime.config import CoordinatorSettings
from runyard.coordinator.runtime.runtime import Runtime

log = structlog.get_logger("runyard.coordinator.auth")


def open_enrolment(
    settings: CoordinatorSettings, runtime: Runtime, revocations: Revocations
) -> Enrolment | None:
    """Enrolment by the authority of the settings, once it was looked at. None if they name none.

    Raises:
        AuthorityError: The authority cannot be used, is of another trust domain, or did not sign the
            certificate that the coordinator shows.
    """
    files = settings.tls_files()
    if settings.ca_directory is None or files is None:
        return None
    authority = AuthorityDirectory(settings.ca_directory)
    try:
        shown = WatchedTls(files, lambda problem: log.error("certificates_not_renewed", problem=problem))
    except InvalidTlsFiles as error:
        raise AuthorityError(str(error)) from error
    authority.require_fit(settings.trust_domain, _certificate(shown))
    return Enrolment(
        runtime, authority, lambda: _certificate(shown), revocations, settings.certificate_lifetime
    )


def _certificate(shown: WatchedTls) -> bytes:
    certificate = shown.current().certificate
    assert certificate is not None, "the settings name one"
    return certificate
