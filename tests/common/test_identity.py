"""Identities: how they are written, and what is none."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.common.names import NAME
from runyard.common.security.identity import LOCAL, Identity, InvalidIdentity, Role, parse_identity

NAMES = st.from_regex(NAME, fullmatch=True).filter(str.isascii)
ROLES = st.sampled_from([Role.COORDINATOR, Role.CLIENT, Role.OPERATOR, Role.ADMIN])
IDENTITIES = st.builds(Identity, ROLES, NAMES) | st.builds(Identity, st.just(Role.AGENT), NAMES, NAMES)


@given(IDENTITIES)
def test_what_was_written_is_read(identity: Identity) -> None:
    assert parse_identity(identity.uri) == identity
    assert parse_identity(identity.uri, "runyard") == identity


@given(st.text())
def test_other_text_is_refused_or_means_itself(text: str) -> None:
    for uri in (text, f"spiffe://{text}", f"spiffe://runyard/{text}"):
        with contextlib.suppress(InvalidIdentity):
            assert parse_identity(uri).uri == uri


@pytest.mark.parametrize(
    "uri",
    [
        "spiffe://runyard/client",
        "spiffe://runyard/client/",
        "spiffe://runyard/client/a/b",
        "spiffe://runyard/agent/node",
        "spiffe://runyard/agent/east/n1/x",
        "spiffe://runyard/local/local",
        "spiffe://runyard/../admin/a",
        "spiffe://runyard/Client/a",
        "spiffe://RUNYARD/client/a",
        "spiffe:///client/a",
        "spiffe://runyard/client/a?x",
        "spiffe://runyard/client/%61",
        "SPIFFE://runyard/client/a",
        "https://runyard/client/a",
    ],
)
def test_almost_an_identity_is_none(uri: str) -> None:
    with pytest.raises(InvalidIdentity):
        parse_identity(uri)


def test_identity_of_another_trust_domain_is_refused_where_one_is_asked_for() -> None:
    with pytest.raises(InvalidIdentity, match="of the trust domain 'elsewhere', not 'runyard'"):
        parse_identity("spiffe://elsewhere/client/a", "runyard")


def test_only_agents_have_a_cluster() -> None:
    with pytest.raises(InvalidIdentity, match="belongs to no cluster"):
        Identity(Role.CLIENT, "a", "east")
    with pytest.raises(InvalidIdentity, match="cluster ''"):
        Identity(Role.AGENT, "a")


def test_whoever_is_local_is_shown_so() -> None:
    assert str(LOCAL) == "local"
