"""Acknowledgements on their way to the coordinator: pure, shared by both report followers."""

from collections.abc import Iterable
from typing import Final

from runyard.client.errors import ResourceExhausted
from runyard.v1 import launch_pb2

# FollowReports wants a message at least this often; after 15 s of silence it serves the next reporter.
KEEPALIVE_SECONDS: Final = 5.0

MAX_PENDING: Final = 10_000
MAX_PER_MESSAGE: Final = 1_000


class PendingAcknowledgements:
    """A bounded set of attempts that are settled and not sent yet, in the order of their settling."""

    def __init__(self, deployment: str, reporter: str) -> None:
        """Starts empty.

        Args:
            deployment: Name of the Dagster deployment that is reported for.
            reporter: Who reports, for people: host name and process ID.

        Raises:
            ValueError: `deployment` is empty.
        """
        if not deployment:
            raise ValueError("deployment: is empty; give the name under which the runs were launched")
        self._deployment = deployment
        self._reporter = reporter
        self._keys: dict[tuple[str, int], None] = {}

    def __bool__(self) -> bool:
        return bool(self._keys)

    def add(self, keys: Iterable[launch_pb2.AttemptKey]) -> None:
        """Takes settled attempts.

        Raises:
            ResourceExhausted: The coordinator has long stopped to take acknowledgements; it will send those
                runs again to the next stream.
        """
        self._keys.update(((key.run_id, key.attempt), None) for key in keys)
        if len(self._keys) > MAX_PENDING:
            raise ResourceExhausted(
                f"{len(self._keys)} acknowledgements wait to be sent: the stream is stuck, follow anew"
            )

    def opening(self) -> launch_pb2.FollowReportsRequest:
        """The first message of the stream."""
        return launch_pb2.FollowReportsRequest(deployment=self._deployment, reporter=self._reporter)

    def next_request(self) -> launch_pb2.FollowReportsRequest:
        """Takes out the oldest acknowledgements as one message; without any, it only shows that we live."""
        taken = [key for key, _ in zip(self._keys, range(MAX_PER_MESSAGE), strict=False)]
        for key in taken:
            del self._keys[key]
        keys = [launch_pb2.AttemptKey(run_id=run_id, attempt=attempt) for run_id, attempt in taken]
        return launch_pb2.FollowReportsRequest(acknowledged=keys)
