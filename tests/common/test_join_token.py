"""Join tokens as people hand them around: whole, damaged, or something else altogether."""

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import example, given
from hypothesis import strategies as st

from runyard.common.security.join_token import (
    InvalidToken,
    JoinCredential,
    JoinToken,
    parse_join_credential,
    parse_join_token,
)
from runyard.coordinator.ca.authority import Authority
from runyard.coordinator.ca.tokens import make_token

AUTHORITY = Authority.make("runyard", 1_800_000_000.0).certificate
CREDENTIAL = make_token("east", "", 900.0, 1, created_by="local", now=0.0)[1]
TOKEN = JoinToken(CREDENTIAL, AUTHORITY.public_bytes(Encoding.DER))

LETTERS = st.characters(codec="utf-8")
NEARLY = st.builds(
    lambda at, put: TOKEN.text[:at] + put + TOKEN.text[at + len(put) :],
    st.integers(0, len(TOKEN.text) - 1),
    st.text(LETTERS, max_size=3),
)
PARTS = st.lists(
    st.one_of(
        st.just("ryj1"),
        st.just(CREDENTIAL.token_id),
        st.just(CREDENTIAL.secret),
        st.text(LETTERS, max_size=60),
    ),
    max_size=6,
).map(".".join)


def test_token_is_read_as_it_was_written() -> None:
    assert parse_join_token(TOKEN.text) == TOKEN
    assert parse_join_token(f"\n {TOKEN.text}\n") == TOKEN
    assert parse_join_credential(CREDENTIAL.text) == CREDENTIAL
    assert TOKEN.authority_pem == AUTHORITY.public_bytes(Encoding.PEM)


def test_token_is_one_word_of_plain_letters_that_a_shell_leaves_alone() -> None:
    assert TOKEN.text.isascii()
    assert set(TOKEN.text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
    assert len(TOKEN.text) < 1_200


def test_secret_does_not_show_in_logs() -> None:
    assert CREDENTIAL.secret not in f"{TOKEN!r} {TOKEN} {CREDENTIAL!r}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "there is no join token"),
        ("  \n", "there is no join token"),
        ("hello", "a join token begins with `ryj1.`"),
        (CREDENTIAL.text, "a join token has 4 parts with dots between, not 3"),
        (TOKEN.text[:-40], "the join token's last part is not a certificate"),
        (TOKEN.text + "!", "the join token's last part is not a certificate"),
        (f"ryj1.{CREDENTIAL.token_id}.short.{'A' * 80}", "the join token's last part is not a certificate"),
        (TOKEN.text.replace(CREDENTIAL.secret, "short"), "the join token is damaged"),
        (TOKEN.text.replace(CREDENTIAL.token_id, "UPPER-CASE"), "the join token is damaged"),
        (TOKEN.text + "A" * 20_000, "one line of at most 16384"),
        (TOKEN.text.replace("A", "Ä"), "one line of at most 16384 letters and digits"),
    ],
    ids=[
        "nothing",
        "blanks",
        "a word",
        "no authority",
        "cut",
        "longer",
        "no secret",
        "short secret",
        "capital ID",
        "huge",
        "umlauts",
    ],
)
def test_what_is_no_token_is_refused_with_the_reason_and_the_remedy(text: str, problem: str) -> None:
    with pytest.raises(InvalidToken) as refusal:
        parse_join_token(text)
    assert problem in str(refusal.value)
    assert "`runyard token create`" in str(refusal.value)


@given(st.one_of(st.text(LETTERS), NEARLY, PARTS))
@example("ryj1...")
@example("ryj1.000000000000." + "A" * 43 + ".")
@example("\x00")
@example("." * 16_000)
def test_any_text_is_a_token_or_a_clear_refusal_that_gives_nothing_away(text: str) -> None:
    for parse in (parse_join_token, parse_join_credential):
        said = read_or_refused(parse, text)
        assert isinstance(said, JoinToken | JoinCredential) or "`runyard token create`" in said
        assert isinstance(said, str) or parse(said.text) == said
        assert not isinstance(said, str) or CREDENTIAL.secret not in said


def read_or_refused(
    parse: Callable[[str], JoinToken] | Callable[[str], JoinCredential], text: str
) -> JoinToken | JoinCredential | str:
    try:
        return parse(text)
    except InvalidToken as refusal:
        return str(refusal)
