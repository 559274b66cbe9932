"""The launcher signs what it launches, if it has a key."""

import sys
import time
from pathlib import Path

import pytest
from dagster import DagsterRunStatus
from launcher.conftest import OpenShop
from launcher.placing_coordinator import PlacingCoordinator
from launcher.shop import Shop

from runyard.common.security.signing import PRIVATE_KEY, SigningKey, create_signing_key
from runyard.launcher.errors import InvalidLauncherConfig
from runyard.v1 import run_pb2


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return create_signing_key(tmp_path / "keys")


@pytest.fixture
def key_file(key: SigningKey, tmp_path: Path) -> Path:
    return tmp_path / "keys" / PRIVATE_KEY


def statement(spec: run_pb2.LaunchSpec, key: SigningKey) -> run_pb2.LaunchStatement:
    """What was signed, if the signature is the key's."""
    assert spec.signed.key_id == key.public.key_id
    assert key.public.has_signed(spec.signed.payload, spec.signed.signature)
    return run_pb2.LaunchStatement.FromString(spec.signed.payload)


def refusal(shop: Shop) -> str:
    """Why a run is not launched."""
    run = shop.new_run()
    with pytest.raises(InvalidLauncherConfig) as caught:
        shop.instance.launch_run(run.run_id, shop.workspace)
    assert shop.status(run.run_id) == DagsterRunStatus.FAILURE
    return str(caught.value)


def test_without_a_key_nothing_is_signed(shop: Shop, coordinator: PlacingCoordinator) -> None:
    assert not coordinator.launched(shop.launch()).HasField("signed")


def test_the_whole_launch_is_signed_for_a_day(
    new_shop: OpenShop, coordinator: PlacingCoordinator, key: SigningKey, key_file: Path
) -> None:
    before = int(time.time())
    shop = new_shop({"signing_key": str(key_file), "env_vars": ["MODE=night"]})
    sent = coordinator.launched(shop.launch())
    signed = statement(sent, key)
    sent.ClearField("signed")
    assert signed.spec == sent
    assert signed.spec.environment["MODE"] == "night"
    assert before <= signed.signed_at.seconds <= time.time()
    assert signed.expires_at.seconds - signed.signed_at.seconds == 86_400


def test_a_resume_is_signed_under_its_own_number(
    new_shop: OpenShop, coordinator: PlacingCoordinator, key: SigningKey, key_file: Path
) -> None:
    shop = new_shop({"signing_key": {"env": "SHOP_KEY"}, "signature_lifetime_seconds": 60})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOP_KEY", str(key_file))
        run_id = shop.launch_and_start()
        coordinator.end(run_id, run_pb2.Outcome(kind=run_pb2.OUTCOME_KIND_OOM_KILLED))
        shop.instance.resume_run(run_id, shop.workspace, 1)
    first, second = (statement(coordinator.launched(run_id, number), key) for number in (0, 1))
    assert (first.spec.resume_number, second.spec.resume_number) == (0, 1)
    assert second.spec.kind == run_pb2.LAUNCH_KIND_RESUME
    assert second.expires_at.seconds - second.signed_at.seconds == 60


def test_a_key_may_be_changed_while_the_launcher_lives(
    new_shop: OpenShop, coordinator: PlacingCoordinator, key_file: Path, tmp_path: Path
) -> None:
    shop = new_shop({"signing_key": str(key_file)})
    shop.launch()
    later = create_signing_key(tmp_path / "later")
    (tmp_path / "later" / PRIVATE_KEY).replace(key_file)
    statement(coordinator.launched(shop.launch()), later)


def test_a_key_that_others_may_read_fails_the_run_with_the_remedy(
    new_shop: OpenShop, coordinator: PlacingCoordinator, key_file: Path
) -> None:
    key_file.chmod(0o604)
    why = refusal(new_shop({"signing_key": str(key_file)}))
    assert "run_launcher.config.signing_key cannot be used" in why
    assert f"chmod 600 {key_file}" in why
    assert coordinator.calls == []


def test_a_key_that_is_not_there_fails_the_run_by_name(new_shop: OpenShop, tmp_path: Path) -> None:
    assert str(tmp_path / "none") in refusal(new_shop({"signing_key": str(tmp_path / "none")}))


def test_a_missing_package_fails_the_run_with_the_remedy(
    new_shop: OpenShop, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("cryptography")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "runyard.common.security.signing")
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert "pip install 'runyard[signing]'" in refusal(new_shop({"signing_key": str(key_file)}))
