"""Seconds as protobuf durations and timestamps, and back."""

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

_NANOSECONDS = 1_000_000_000


def to_seconds(message: Duration | Timestamp) -> float:
    """Return the length of a duration, or the Unix time of a timestamp, in seconds."""
    return message.ToNanoseconds() / _NANOSECONDS


def to_duration(seconds: float) -> Duration:
    """Return a duration of so many seconds, to the nanosecond."""
    message = Duration()
    message.FromNanoseconds(round(seconds * _NANOSECONDS))
    return message


def to_timestamp(seconds: float) -> Timestamp:
    """Return the timestamp of a Unix time in seconds, to the nanosecond."""
    message = Timestamp()
    message.FromNanoseconds(round(seconds * _NANOSECONDS))
    return message
