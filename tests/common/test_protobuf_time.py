"""Seconds as protobuf messages."""

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from runyard.common.protobuf_time import to_duration, to_seconds, to_timestamp


def test_seconds_survive_the_way_through_a_duration() -> None:
    assert to_duration(90.25) == Duration(seconds=90, nanos=250_000_000)
    assert to_seconds(to_duration(90.25)) == 90.25


def test_seconds_survive_the_way_through_a_timestamp() -> None:
    assert to_timestamp(1_700_000_000.5) == Timestamp(seconds=1_700_000_000, nanos=500_000_000)
    assert to_seconds(to_timestamp(1_700_000_000.5)) == 1_700_000_000.5
