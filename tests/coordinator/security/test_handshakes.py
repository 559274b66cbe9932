"""What gRPC writes of handshakes, read; and the descriptor that it is taken from."""

import json
import os
import subprocess
import sys

import pytest

from runyard.coordinator.auth.handshakes import Failure, Foreign, Noise, read_record

SSL = "I1123 12:16:02.07    5846 ssl_transport_security.cc:2563] Handshake failed with error SSL_ERROR_SSL: "
TRACE = "I1123 12:16:02.134038    5847 handshaker.cc:155] CallNextHandshakerLocked: error="
ARGS = (
    "\n=== Source Location Trace: === \nsrc/core/util/status_helper.cc:68\n shutdown=false index=2, args={"
    "grpc.internal.endpoint_local_address=ipv4:127.0.0.1:1, "
    "grpc.internal.endpoint_peer_address=ipv4:10.0.0.7:51280, grpc.internal.x=1}\n"
)
VERIFY = "error:1000007d:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: "


@pytest.mark.parametrize(
    ("record", "reason", "peer"),
    [
        (f"{SSL}{VERIFY}certificate has expired\n", "its certificate has expired, or the clocks differ", ""),
        (f"{SSL}{VERIFY}something new\n", "its certificate was refused: something new", ""),
        (
            f"{SSL}error:100000c0:SSL routines:OPENSSL_internal:PEER_DID_NOT_RETURN_A_CERTIFICATE: x\n",
            "it showed no certificate",
            "",
        ),
        (f"{SSL}error:1000:SSL routines:OPENSSL_internal:BRAND_NEW: x\n", "brand new", ""),
        (
            f"{TRACE}UNKNOWN: Ssl handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: {VERIFY}"
            f"unable to get local issuer certificate: OK{ARGS}",
            "its certificate is of an authority that is not trusted here",
            "ipv4:10.0.0.7:51280",
        ),
        (
            f"{TRACE}UNAVAILABLE: Handshake read failed (Socket closed){ARGS}",
            "it hung up before the handshake was over; it may not trust our certificate",
            "ipv4:10.0.0.7:51280",
        ),
        (
            f"{TRACE}UNAVAILABLE: Handshake read failed (Endpoint closing){ARGS}",
            "it did not finish the handshake in time",
            "ipv4:10.0.0.7:51280",
        ),
    ],
)
def test_failure_is_put_in_words(record: str, reason: str, peer: str) -> None:
    assert read_record(record) == Failure(reason, peer)


@pytest.mark.parametrize(
    "record",
    [
        f"{TRACE}OK shutdown=false index=0, args={{}}\n",
        "I1123 12:16:02.008260    5613 trace.cc:91] gRPC Tracers: handshaker\n",
        "I1123 12:16:02.1 5846 channel_trace.h:396] handshake manager 0x7f: calling handshaker security\n",
    ],
)
def test_what_is_traced_of_good_handshakes_is_noise(record: str) -> None:
    assert read_record(record) == Noise()


@pytest.mark.parametrize(
    "record", ["", "Traceback:\n  x\n", "E1123 12:16:02.1 5846 chttp2.cc:1] keepalive watchdog timeout\n"]
)
def test_all_else_is_left_alone(record: str) -> None:
    assert read_record(record) == Foreign()


PROGRAM = f"""
import os, sys
from runyard.common.service.log import configure_log
from runyard.coordinator.auth.handshake_log import handshake_failures_logged
configure_log("json")
with handshake_failures_logged(lambda: configure_log("json")):
    os.write(2, b"of somebody else\\n")
    os.write(2, b"E1123 12:16:02.1 1 x.cc:1] they said \\x82\\x1b[2J\\r\\n")
    for number in range(25):
        os.write(2, {SSL.encode()!r} + {VERIFY.encode()!r} + b"certificate has expired\\n")
    os.write(2, b"F1123 12:16:02.1 1 x.cc:1] the last word\\nof two lines\\n")
    print("from Python", file=sys.stderr)
os.write(2, b"afterwards\\n")
"""


WITH_PEER = f"{TRACE}UNKNOWN: Ssl failed: SSL_ERROR_SSL: {VERIFY}certificate has expired: OK{ARGS}"
TRACED = f"""
import os
from runyard.common.service.log import configure_log
from runyard.coordinator.auth.handshake_log import handshake_failures_logged
configure_log("json")
with handshake_failures_logged(lambda: configure_log("json")):
    os.write(2, {TRACE.encode()!r} + b"OK shutdown=false index=0, args={{}}\\n")
    for with_peer in (True, False, True):
        os.write(2, {SSL.encode()!r} + {VERIFY.encode()!r} + b"certificate has expired\\n")
        if with_peer:
            os.write(2, {WITH_PEER.encode()!r})
"""


def test_each_traced_failure_is_told_once_with_its_peer_if_that_is_known() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TRACED], capture_output=True, text=True, timeout=60, check=True, env=os.environ
    )
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert sorted(str(each["peer"]) for each in told) == [
        "None",
        "ipv4:10.0.0.7:51280",
        "ipv4:10.0.0.7:51280",
    ]
    assert {each["reason"] for each in told} == {"its certificate has expired, or the clocks differ"}


def test_standard_error_goes_on_but_for_handshakes_which_are_events_and_not_too_many() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=os.environ,
    )
    lines = done.stderr.splitlines()
    assert sum('"event": "handshake_failed"' in line for line in lines) == 20
    others = [line for line in lines if not line.startswith("{")]
    assert sorted(others) == sorted(
        [
            "of somebody else",
            r"E1123 12:16:02.1 1 x.cc:1] they said \x82\x1b[2J\r",
            "F1123 12:16:02.1 1 x.cc:1] the last word",
            "of two lines",
            "from Python",
            "afterwards",
        ]
    )
