"""What must not be seen: in reprs, in texts, in logs."""

import copy
import json
import pickle
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.common.secrets import (
    MASK,
    SHORTEST,
    KnownSecrets,
    Secret,
    is_secret_name,
    remember,
    secret_values,
)
from runyard.common.service.log import mask_secrets

CANARY = "canary-5e1f09"


def logged(**event: Any) -> Any:
    return mask_secrets(None, "info", event)


@pytest.mark.parametrize(
    "show", [str, repr, "{}".format, "{:>20}".format, lambda it: f"{it!r} {it!s}", lambda it: repr([it])]
)
def test_a_secret_shows_itself_to_nobody_who_does_not_ask(show: Any) -> None:
    secret = Secret(CANARY)
    assert CANARY not in show(secret)
    assert MASK in show(secret)
    assert secret.reveal() == CANARY


def test_a_secret_is_not_written_down() -> None:
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(Secret(CANARY))
    with pytest.raises(TypeError):
        json.dumps(Secret(CANARY))


def test_secrets_compare_by_what_they_are_and_cannot_be_changed() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert {Secret("a"), Secret("a")} == {Secret("a")}
    with pytest.raises(AttributeError):
        Secret("a")._value = "b"  # type: ignore[misc]


@pytest.mark.parametrize(
    "name", ["API_TOKEN", "db_password", "SecretThing", "SSH_KEY", "AWS_CREDENTIALS", "PASSWD"]
)
def test_secrets_are_known_by_their_names(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["PATH", "DAGSTER_HOME", "LANG", "TOKYO", ""])
def test_other_names_tell_of_no_secret(name: str) -> None:
    assert not is_secret_name(name)


def test_of_an_environment_secrets_are_values_of_secret_names_and_passwords_in_urls() -> None:
    environment = {
        "TOKEN": " abcdefgh ",
        "SHORT_KEY": "abc",
        "PEM_KEY": "--BEGIN--\nfirst-line\nsecond-line\n",
        "DATABASE": "postgresql://user:from-url@db:5432/x",
        "PLAIN": "nothing to hide",
    }
    names = ["TOKEN", "SHORT_KEY", "PEM_KEY"]
    values = secret_values(environment, names)
    assert values == ["abcdefgh", "--BEGIN--", "first-line", "second-line", "from-url"]


def test_text_is_masked_wherever_a_remembered_value_stands() -> None:
    known = KnownSecrets()
    known.remember(["hunter-two", "hunter-two-longer"])
    assert known.masked("a hunter-two-longer b xhunter-twox") == f"a {MASK} b x{MASK}x"


@given(st.text(min_size=SHORTEST, max_size=30), st.text(max_size=40), st.text(max_size=40))
def test_no_remembered_value_is_left_in_any_text(value: str, before: str, after: str) -> None:
    known = KnownSecrets()
    known.remember([value])
    without = known.masked(before + value + after)
    assert value not in without or value in MASK * 3


def test_what_is_remembered_is_bounded_and_the_oldest_goes_first() -> None:
    known = KnownSecrets(most=10)
    for number in range(100):
        known.remember([f"value-{number:03}"])
    assert known.masked("value-000 value-090") == f"value-000 {MASK}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dial postgresql://me:pass-word@db/x failed", f"dial postgresql://me:{MASK}@db/x failed"),
        ("DB_PASSWORD=abc next", f"DB_PASSWORD={MASK} next"),
        ("env {'A_TOKEN=x y'}", f"env {{'A_TOKEN={MASK} y'}}"),
        ('API_KEY="two words"; B', f"API_KEY={MASK}; B"),
        ("http://host:80/path a=b", "http://host:80/path a=b"),
        ("write KEY=VALUE", "write KEY=VALUE"),
    ],
)
def test_texts_that_look_like_secrets_are_masked_without_being_known(text: str, expected: str) -> None:
    assert KnownSecrets().masked(text) == expected


def test_logs_mask_what_is_called_like_a_secret_at_any_depth() -> None:
    event = logged(
        event="x", password=CANARY, token_id="t1", depth={"api_key": CANARY, "n": [{"secret": CANARY}]}
    )
    assert event["password"] == MASK
    assert event["token_id"] == "t1"
    assert CANARY not in repr(event)


def test_logs_mask_remembered_values_in_texts_objects_and_tracebacks() -> None:
    remember([CANARY])

    class Odd:
        def __repr__(self) -> str:
            return f"Odd({CANARY})"

    event = logged(event=f"got {CANARY}", exception=f"Traceback\n  {CANARY}", odd=Odd(), many=(CANARY,), n=1)
    assert CANARY not in repr(event)
    assert event["n"] == 1


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_log_line_of_a_service_shows_a_secret(log_format: str) -> None:
    program = f"""
import structlog
from runyard.common.secrets import remember
from runyard.common.service.log import configure_log
configure_log({log_format!r})
remember([{CANARY!r}])
log = structlog.get_logger()
log.info("one {CANARY}", api_token="{CANARY}", url="x://u:{CANARY}@h")
try:
    value = "{CANARY}"
    raise ValueError(f"no good: {{value}}")
except ValueError:
    log.exception("two")
    log.error("three", exc_info=True)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    shown = [line for line in done.stderr.splitlines() if CANARY in line]
    # A traceback shows the lines of the program, as it does everywhere; not what they came to.
    assert shown == [], done.stderr
    assert "no good" in done.stderr


def test_a_copy_of_a_secret_is_as_silent() -> None:
    assert copy.copy([Secret(CANARY)]) == [Secret(CANARY)]
