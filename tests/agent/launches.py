"""Launches as a launcher makes and signs them."""

from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runyard.agent.core.model import AttemptKey
from runyard.common.security.signing import SigningKey
from runyard.v1 import placement_pb2, run_pb2

RUN_ID = "00000000-0000-4000-8000-000000000001"
KEY = AttemptKey(RUN_ID, 0)
NOW = 1_800_000_000
"""Unix time in seconds at which they are signed."""

SIGNER = SigningKey(Ed25519PrivateKey.generate())


def launch(**fields: Any) -> run_pb2.LaunchSpec:
    """A launch with something in every field but `signed`."""
    spec = run_pb2.LaunchSpec(
        run_id=RUN_ID,
        resume_number=2,
        kind=run_pb2.LAUNCH_KIND_RESUME,
        worker_args="{}",
        code_origin=run_pb2.CodeOrigin(location="shop", job="orders", executable="/opt/shop/bin/python"),
        tags={"team": "shop"},
        requirements=placement_pb2.Requirements(labels=["zone=a"]),
        environment={"SHOP_MODE": "night"},
        deployment="prod",
        job_snapshot_id="snapshot-1",
        step_keys=["a", "b"],
        execution_config_json="{}",
    )
    spec.policies.grace.FromSeconds(30)
    spec.MergeFrom(run_pb2.LaunchSpec(**fields))
    return spec


def statement(
    spec: run_pb2.LaunchSpec, signed_at: int = NOW, lifetime: int = 3600
) -> run_pb2.LaunchStatement:
    """Return the statement that the launcher signs."""
    made = run_pb2.LaunchStatement(spec=spec)
    made.signed_at.FromSeconds(signed_at)
    made.expires_at.FromSeconds(signed_at + lifetime)
    return made


def sign(
    spec: run_pb2.LaunchSpec, payload: bytes | None = None, signer: SigningKey = SIGNER
) -> run_pb2.LaunchSpec:
    """The launch with a signature, by default of all that it holds.

    Args:
        spec: The launch.
        payload: What is signed instead.
        signer: Whose signature it is.
    """
    payload = statement(spec).SerializeToString() if payload is None else payload
    signed = run_pb2.SignedLaunch(
        payload=payload, signature=signer.sign(payload), key_id=signer.public.key_id
    )
    whole = run_pb2.LaunchSpec(signed=signed)
    whole.MergeFrom(spec)
    return whole
