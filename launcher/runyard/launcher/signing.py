"""Signatures of launches, so that nodes can verify who made them. Needs `cryptography` when used."""

from pathlib import Path
from typing import Final

from runyard.client import RunyardError
from runyard.common.protobuf_time import to_timestamp
from runyard.launcher.errors import InvalidLauncherConfig
from runyard.v1 import run_pb2

FIELD: Final = "signing_key"


def signed(spec: run_pb2.LaunchSpec, key_file: Path, now: float, lifetime: float) -> run_pb2.LaunchSpec:
    """Sign a launch. The key is read every time, so it may be replaced at any time.

    Args:
        spec: The launch.
        key_file: A private key, as `runyard signing-key create` makes it.
        now: Unix time in seconds.
        lifetime: Seconds for which nodes accept the launch.

    Raises:
        InvalidLauncherConfig: The key cannot be read, or the package is missing.
    """
    try:
        from runyard.common.security.signing import read_signing_key
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "cryptography":
            raise
        raise InvalidLauncherConfig(
            FIELD, "needs the package cryptography", "Install it with: pip install 'runyard[signing]'"
        ) from None
    try:
        key = read_signing_key(key_file)
    except RunyardError as error:
        raise InvalidLauncherConfig(FIELD, f"cannot be used: {error}", "The run was not launched") from None
    statement = run_pb2.LaunchStatement(
        spec=spec, signed_at=to_timestamp(now), expires_at=to_timestamp(now + lifetime)
    )
    payload = statement.SerializeToString(deterministic=True)
    whole = run_pb2.LaunchSpec()
    whole.CopyFrom(spec)
    whole.signed.payload = payload
    whole.signed.signature = key.sign(payload)
    whole.signed.key_id = key.public.key_id
    return whole
