"""Secrets are recognised by what is left of them."""

from hypothesis import given
from hypothesis import strategies as st

from runyard.agent.spec_record.redaction import fingerprints_of, masked_by
from runyard.common.secrets import MASK

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)


def test_nothing_of_the_secret_is_kept() -> None:
    assert "hunter" not in str(fingerprints_of(["hunter-two"]))
    assert all(len(entry) == 2 and entry[1] < 1 << 24 for entry in fingerprints_of(["hunter-two", "x" * 100]))


@given(
    before=texts,
    secret=st.text(st.characters(exclude_categories=["Cs"]), min_size=6, max_size=40),
    after=texts,
)
def test_a_secret_is_masked_wherever_it_stands(before: str, secret: str, after: str) -> None:
    without = masked_by(fingerprints_of([secret]), before + secret + after)
    assert MASK in without
    assert secret.encode() not in without.encode().replace(MASK.encode(), b"") or secret in before + after


def test_many_secrets_also_overlapping_and_side_by_side_are_masked() -> None:
    fingerprints = fingerprints_of(["abcdef", "defghi", "zzzzzzzz", "ü-secret"])
    assert (
        masked_by(fingerprints, "1 abcdefghi 2 zzzzzzzzabcdef 3 ü-secret")
        == f"1 {MASK} 2 {MASK}{MASK} 3 {MASK}"
    )


def test_other_text_stays_as_it_is() -> None:
    text = "a line of a log\n" * 500
    assert masked_by(fingerprints_of(["hunter-two", "correct horse"]), text) == text
    assert masked_by([], text) is text
    assert masked_by(fingerprints_of(["longer than the text"]), "short") == "short"
