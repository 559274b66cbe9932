"""Tables of tokens, certificates and authorities."""

import time
from collections.abc import Iterable
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from rich.markup import escape

from runyard.cli.output import words
from runyard.cli.output.tables import new_table, print_table
from runyard.common.humanize import short_duration
from runyard.common.protobuf_time import to_seconds
from runyard.v1 import security_pb2


def print_tokens(tokens: Iterable[security_pb2.Token]) -> None:
    """One line a token."""
    table = new_table("token", "cluster", "node", "used", "state", "age", "made by")
    now = time.time()
    for token in tokens:
        table.add_row(
            escape(token.token_id),
            escape(token.cluster),
            escape(token.node_id or "any"),
            f"{token.used}/{token.uses}",
            _token_state(token, now),
            words.age(token.created_at, now),
            escape(token.created_by),
        )
    print_table(table, "no tokens; make one with `runyard token create`")


def print_certificates(certificates: Iterable[security_pb2.Certificate]) -> None:
    """One line a certificate."""
    table = new_table("node", "cluster", "state", "since", "serial", "authority", "joined with")
    now = time.time()
    for certificate in certificates:
        table.add_row(
            escape(certificate.node_id),
            escape(certificate.cluster),
            "[red]revoked[/]" if certificate.revoked else _until(certificate.not_after, now),
            words.age(certificate.not_before, now),
            escape(certificate.serial),
            escape(certificate.authority),
            escape(certificate.token_id or "a renewal"),
        )
    print_table(table, "no certificates; nodes get theirs with `runyard token create`")


def day(seconds: float) -> str:
    """A moment, given in seconds since 1970, to the minute."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _token_state(token: security_pb2.Token, now: float) -> str:
    if token.used >= token.uses:
        return "used up"
    return _until(token.expires_at, now)


def _until(end: Timestamp, now: float) -> str:
    left = to_seconds(end) - now
    return f"[green]valid[/] for {short_duration(left)}" if left > 0 else "expired"
