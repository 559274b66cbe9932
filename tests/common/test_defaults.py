"""Values that must be equal in several parts of Runyard."""

from runyard.agent.supervisor.records import SpecRecord
from runyard.common import defaults


def test_the_supervisor_repeats_the_defaults_of_a_launch() -> None:
    record = SpecRecord(argv=["true"], env={})
    assert record.driver == defaults.DRIVER
    assert record.grace_seconds == defaults.GRACE_SECONDS
