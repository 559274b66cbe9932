"""Addresses: what is understood, what is refused with which words, and what counts as local."""

import pytest

from runyard.client.errors import InsecureAddress, InvalidAddress, RunyardError
from runyard.common.transport.address import HostPort, UnixSocket, is_local, parse_address, require_local
from runyard.common.transport.channel import open_channel


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:7171", HostPort("127.0.0.1", 7171)),
        ("coordinator.example:7171", HostPort("coordinator.example", 7171)),
        ("[::1]:7171", HostPort("::1", 7171)),
        ("[0:0:0:0:0:0:0:1]:1", HostPort("::1", 1)),
        ("127.0.0.1:0", HostPort("127.0.0.1", 0)),
        ("unix:/run/runyard.sock", UnixSocket("/run/runyard.sock")),
        ("unix:///run/runyard.sock", UnixSocket("/run/runyard.sock")),
        (" localhost:7171\n", HostPort("localhost", 7171)),
    ],
)
def test_addresses_in_every_form_are_understood(text: str, address: object) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["127.0.0.1:7171", "[::1]:7171", "unix:/run/runyard.sock", "[fe80::1]:80"])
def test_an_address_is_written_as_it_was_read(text: str) -> None:
    assert str(parse_address(text)) == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "has no port"),
        ("localhost", "has no port"),
        (":7171", "has no host"),
        ("host:", "no port number"),
        ("host:70000", "no port number"),
        ("host:-1", "no port number"),
        ("host:٣", "no port number"),
        ("::1:7171", "IPv6 without brackets"),
        ("[host]:7171", "no IPv6 address in its brackets"),
        ("http://host:7171", "is a URL"),
        ("/run/runyard.sock", "is a URL or a path"),
        ("unix:run.sock", "needs an absolute path"),
        ("unix:", "needs an absolute path"),
        ("unix:/" + "x" * 107, "too long"),
        ("ho st:7171", "a character that no host name has"),
    ],
)
def test_a_bad_address_is_refused_with_field_and_remedy(text: str, problem: str) -> None:
    with pytest.raises(InvalidAddress) as refusal:
        parse_address(text, field="listen")
    message = str(refusal.value)
    assert message.startswith("listen: ")
    assert problem in message
    assert message.endswith("write host:port, [ipv6]:port or unix:/path")
    assert isinstance(refusal.value, ValueError)
    assert isinstance(refusal.value, RunyardError)


@pytest.mark.parametrize(
    "text", ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "LOCALHOST:1", "unix:/s"]
)
def test_loopback_and_unix_sockets_are_local(text: str) -> None:
    assert is_local(text)
    require_local(text, "listen on")


@pytest.mark.parametrize(
    "text", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "localhost.example:1", "127.0.0.1.nip.io:1", "[fe80::1]:1"]
)
def test_nothing_else_is_local(text: str) -> None:
    assert not is_local(text)
    with pytest.raises(InsecureAddress, match="will not dial"):
        require_local(text, "dial")


def test_port_0_cannot_be_dialled() -> None:
    with pytest.raises(InvalidAddress, match="only a listener"):
        open_channel("127.0.0.1:0")
