"""Certificates that expire soon are logged in time, once a day."""

import pytest

from runyard.common.security.expiry import expires_soon
from runyard.common.security.identity import LOCAL, Identity, Role
from runyard.coordinator.auth.callers import Caller
from runyard.coordinator.auth.expiring_certificates import AGAIN_AFTER, REMEMBERED, ExpiringCertificates

HOUR = 3600.0
DAY = 24 * HOUR
YEAR = 365 * DAY


@pytest.mark.parametrize(
    ("life", "left", "is_soon"),
    [
        (YEAR, 14 * DAY + 1, False),
        (YEAR, 14 * DAY - 1, True),
        (90 * DAY, 9 * DAY + 1, False),
        (90 * DAY, 9 * DAY - 1, True),
        (60.0, 7.0, False),
        (60.0, 5.0, True),
        (60.0, -1.0, True),
    ],
)
def test_soon_is_the_last_tenth_of_a_life_and_a_fortnight_at_most(
    life: float, left: float, is_soon: bool
) -> None:
    assert expires_soon(1_000.0, 1_000.0 + life, 1_000.0 + life - left) is is_soon


def caller(serial: str) -> Caller:
    return Caller(Identity(Role.CLIENT, "dagster"), serial, "ipv4:192.0.2.1:1", 0.0, YEAR)


def test_each_certificate_is_logged_once_a_day() -> None:
    expiring, now = ExpiringCertificates(), YEAR - DAY * 3
    assert not expiring.is_due(caller("1"), YEAR / 2)
    assert expiring.is_due(caller("1"), now)
    assert not expiring.is_due(caller("1"), now + AGAIN_AFTER - 1)
    assert expiring.is_due(caller("2"), now + AGAIN_AFTER - 1)
    assert expiring.is_due(caller("1"), now + AGAIN_AFTER)


def test_of_a_flood_of_certificates_the_oldest_are_forgotten() -> None:
    expiring, now = ExpiringCertificates(), YEAR - DAY
    for serial in range(REMEMBERED + 1):
        assert expiring.is_due(caller(f"{serial}"), now)
    assert not expiring.is_due(caller("1"), now)
    assert expiring.is_due(caller("0"), now)


def test_local_callers_without_a_certificate_are_never_logged() -> None:
    assert not ExpiringCertificates().is_due(Caller(LOCAL, "", "unix:"), YEAR)
