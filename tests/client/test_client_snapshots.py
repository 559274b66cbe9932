"""What clients hear of a snapshot that a real coordinator does not take."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from client.tls_coordinator import tls_coordinator
from coordinator.auth.secured import Secured
from coordinator.serving import make_spec, run_id
from harness.certificates import CLIENT

from runyard.client import Client, ResourceExhausted
from runyard.client.requests import SNAPSHOT_PIECE_BYTES
from runyard.coordinator.grpc import snapshot_uploads


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Secured]:
    with tls_coordinator(tmp_path) as opened:
        yield opened


def test_a_refusal_in_the_middle_of_a_snapshot_is_heard_every_time(
    coordinator: Secured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_uploads, "MAX_SNAPSHOT", SNAPSHOT_PIECE_BYTES)
    large = hashlib.shake_128(b"seed").digest(16 * SNAPSHOT_PIECE_BYTES)
    files = coordinator.authority.holder(tmp_path / "mine", CLIENT)
    with Client(coordinator.address, tls=files, timeout=30.0) as client:
        for number in range(30):
            with pytest.raises(ResourceExhausted, match=f"more than the {SNAPSHOT_PIECE_BYTES} bytes"):
                client.launch_run(make_spec(run_id(number), job_snapshot_id="large"), snapshot=lambda: large)
