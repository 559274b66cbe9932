"""Secrets are recognised by what is left of them."""

from hypothesis import given
from hypothesis import strategies as st

from runyard.agent.spec_record.redaction import redacted, redaction_fingerprints
from runyard.common.secrets import MASK

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)


def test_nothing_of_the_secret_is_kept() -> None:
    assert "hunter" not in str(redaction_fingerprints(["hunter-two"]))
    assert all(
        len(entry) == 2 and entry[1] < 1 << 24 for entry in redaction_fingerprints(["hunter-two", "x" * 100])
    )


@given(
    before=texts,
    secret=st.text(st.characters(exclude_categories=["Cs"]), min_size=6, max_size=40),
    after=texts,
)
def test_a_secret_is_masked_wherever_it_stands(before: str, secret: str, after: str) -> None:
    without = redacted(redaction_fingerprints([secret]), before + secret + after)
    assert MASK in without
    assert secret.encode() not in without.encode().replace(MASK.encode(), b"") or secret in before + after


def test_many_secrets_also_overlapping_and_side_by_side_are_masked() -> None:
    fingerprints = redaction_fingerprints(["abcdef", "defghi", "zzzzzzzz", "ü-secret"])
    assert (
        redacted(fingerprints, "1 abcdefghi 2 zzzzzzzzabcdef 3 ü-secret")
        == f"1 {MASK} 2 {MASK}{MASK} 3 {MASK}"
    )


def test_other_text_stays_as_it_is() -> None:
    text = "a line of a log\n" * 500
    assert redacted(redaction_fingerprints(["hunter-two", "correct horse"]), text) == text
    assert redacted([], text) is text
    assert redacted(redaction_fingerprints(["longer than the text"]), "short") == "short"
