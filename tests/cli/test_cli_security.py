"""What admins do from the command line: tokens and revocations against a fake, the authority on disk."""

import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.commands import Command, Result
from client.fake_security import TEXT, FakeSecurity

from runyard.cli.main import main
from runyard.client import TlsFiles


@pytest.fixture
def security() -> Iterator[FakeSecurity]:
    fake = FakeSecurity().start()
    yield fake
    fake.stop()


@pytest.fixture
def runyard(
    security: FakeSecurity, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Command:
    monkeypatch.setenv("RUNYARD_ADDRESS", security.address)

    def run(*argv: str) -> Result:
        capfd.readouterr()
        code = main(list(argv))
        seen = capfd.readouterr()
        return Result(code, seen.out, seen.err)

    return run


# Tokens


def test_token_is_printed_alone_so_that_it_can_be_piped(security: FakeSecurity, runyard: Command) -> None:
    made = runyard("token", "create", "--cluster", "east", "--node", "n1", "--ttl", "1h30m", "--uses", "3")
    assert (made.code, made.out) == (0, f"{TEXT}\n")
    assert "join.token_file" in made.err
    (request,) = security.created
    assert (request.cluster, request.node_id, request.ttl.seconds, request.uses) == ("east", "n1", 5400, 3)


def test_token_is_for_one_node_and_a_quarter_of_an_hour_unless_told_otherwise(
    security: FakeSecurity, runyard: Command
) -> None:
    assert runyard("token", "create", "--cluster", "east").code == 0
    (request,) = security.created
    assert (request.node_id, request.ttl.seconds, request.uses) == ("", 900, 1)


def test_token_as_json_holds_its_text_and_what_it_is_good_for(runyard: Command) -> None:
    made = runyard("token", "create", "--cluster", "east", "-o", "json").json()
    assert made["text"] == TEXT
    assert (made["token"]["cluster"], made["token"]["uses"], made["token"]["used"]) == ("east", 1, 0)


@pytest.mark.parametrize("ttl", ["soon", "-5m", ""])
def test_time_that_makes_no_sense_is_a_usage_error(runyard: Command, ttl: str) -> None:
    made = runyard("token", "create", "--cluster", "east", "--ttl", ttl)
    assert made.code == 2
    assert "--ttl: " in made.err


def test_refusal_of_the_coordinator_is_told_in_its_words(runyard: Command) -> None:
    made = runyard("token", "create", "--cluster", "west")
    assert (made.code, made.out, made.err) == (1, "", "runyard: this coordinator signs no certificates\n")


def test_tokens_are_listed_and_deleted(security: FakeSecurity, runyard: Command) -> None:
    assert runyard("token", "list").out == "no tokens; make one with `runyard token create`\n"
    runyard("token", "create", "--cluster", "east", "--node", "n1")
    runyard("token", "create", "--cluster", "east")
    security.tokens[0].used = 1
    header, *lines = runyard("token", "list").out.splitlines()
    assert header.split() == ["TOKEN", "CLUSTER", "NODE", "USED", "STATE", "AGE", "MADE", "BY"]
    assert lines[0].split()[:6] == ["00c0ffee0001", "east", "any", "1/1", "used", "up"]
    assert lines[1].split()[:5] == ["00c0ffee0000", "east", "n1", "0/1", "valid"]
    assert [each["token_id"] for each in runyard("token", "list", "-o", "json").json()] == [
        "00c0ffee0001",
        "00c0ffee0000",
    ]
    assert runyard("token", "delete", "00c0ffee0000") == Result(0, "token 00c0ffee0000 is deleted\n", "")
    assert runyard("token", "delete", "00c0ffee0000").code == 4
    assert len(security.tokens) == 1


# Certificates of nodes


def test_certificates_of_nodes_are_listed_and_revoked(security: FakeSecurity, runyard: Command) -> None:
    security.give("n1", serial="a1", authority="5eed", token_id="00c0ffee0000")
    security.give("n2", serial="a2", authority="5eed")
    revoked = runyard("node", "revoke", "n1", "--reason", "stolen")
    assert revoked.out == (
        "node n1 is refused from now on (1 certificate); it may come back with a new token\n"
    )
    header, first, second = runyard("node", "certificates").out.splitlines()
    assert header.split()[:6] == ["NODE", "CLUSTER", "STATE", "SINCE", "SERIAL", "AUTHORITY"]
    assert first.split() == ["n1", "east", "revoked", "1h00m", "a1", "5eed", "00c0ffee0000"]
    assert second.split()[:3] == ["n2", "east", "valid"]
    assert second.split()[-4:] == ["a2", "5eed", "a", "renewal"]
    (only,) = runyard("node", "certificates", "n2", "-o", "json").json()
    assert (only["node_id"], only["revoked"]) == ("n2", False)
    assert runyard("node", "certificates", "n3").out.startswith("no certificates")


def test_single_certificate_is_revoked_by_its_serial(security: FakeSecurity, runyard: Command) -> None:
    assert runyard("ca", "revoke", "aff01").code == 0
    assert security.revoked == ["aff01"]


# The authority


def files_in(folder: Path) -> TlsFiles:
    return TlsFiles(folder / "authority.pem", folder / "certificate.pem", folder / "key.pem")


@pytest.fixture
def authority(runyard: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "ca"
    made = runyard("ca", "init", str(directory), "--host", "cluster.example", "--host", "10.0.0.7")
    assert (made.code, made.err) == (0, "")
    monkeypatch.setenv("RUNYARD_CA_DIRECTORY", str(directory))
    return directory


def test_new_authority_comes_with_certificates_and_the_next_steps(runyard: Command, tmp_path: Path) -> None:
    directory = tmp_path / "ca"
    made = runyard("ca", "init", str(directory), "--host", "cluster.example")
    assert "spiffe://runyard/coordinator/main is good until " in made.out
    assert f"ca_directory: {directory}" in made.out
    assert "export RUNYARD_ADDRESS=cluster.example:7171" in made.out
    for own in ("coordinator", "admin"):
        assert files_in(directory / own).read().certificate
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_second_authority_in_the_same_place_is_refused(runyard: Command, authority: Path) -> None:
    again = runyard("ca", "init", str(authority), "--host", "cluster.example")
    assert again.code == 1
    assert "holds an authority already" in again.err


@pytest.mark.parametrize("host", ["", "cluster.example:7171", "https://cluster", "a b", "-x", "ü"])
def test_host_that_can_be_none_is_a_usage_error_and_nothing_is_made(
    runyard: Command, tmp_path: Path, host: str
) -> None:
    made = runyard("ca", "init", str(tmp_path / "ca"), "--host", host)
    assert made.code == 2
    assert "is no name of a host and no IP address; leave the port out" in made.err
    assert not (tmp_path / "ca").exists()


def test_authority_without_a_host_says_what_is_missing(runyard: Command, tmp_path: Path) -> None:
    made = runyard("ca", "init", str(tmp_path / "ca"))
    assert made.code == 2
    assert "--host is missing" in made.err


@pytest.mark.usefixtures("authority")
@pytest.mark.parametrize("role", ["client", "operator", "admin"])
def test_certificates_of_each_role_are_made_and_listed(runyard: Command, tmp_path: Path, role: str) -> None:
    out = tmp_path / "out"
    made = runyard("ca", "issue", f"--{role}", "ada", "--out", str(out), "--days", "7")
    assert (made.code, made.err) == (0, "")
    assert f"spiffe://runyard/{role}/ada is good until " in made.out
    assert files_in(out).read().certificate
    shown = runyard("ca", "show")
    assert f"spiffe://runyard/{role}/ada" in shown.out
    content = runyard("ca", "show", "-o", "json").json()
    assert content["trust_domain"] == "runyard"
    assert [each["signs"] for each in content["authorities"]] == [True]
    (mine,) = [each for each in content["issued"] if each["uri"] == f"spiffe://runyard/{role}/ada"]
    assert mine["directory"] == str(out)
    assert round((mine["not_after"] - mine["not_before"]) / 86_400) == 7


@pytest.mark.usefixtures("authority")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "name one of --client, --operator, --admin and --coordinator"),
        (["--client", "a", "--admin", "b"], "name one of --client, --operator, --admin and --coordinator"),
        (["--client", "a/b"], "name 'a/b' must be letters, digits and ._-"),
        (["--client", "a", "--host", "cluster"], "--host is for coordinators only"),
        (["--coordinator", "a"], "--host is missing"),
    ],
)
def test_certificate_that_cannot_be_meant_is_a_usage_error(
    runyard: Command, tmp_path: Path, options: list[str], said: str
) -> None:
    made = runyard("ca", "issue", *options, "--out", str(tmp_path / "out"))
    assert made.code == 2
    assert said in made.err
    assert not (tmp_path / "out").exists()


def test_rotation_says_who_is_left_behind_before_it_cuts_them_off(
    runyard: Command, authority: Path, tmp_path: Path
) -> None:
    runyard("ca", "issue", "--client", "dagster", "--out", str(tmp_path / "out"))
    begun = runyard("ca", "rotate")
    assert begun.code == 0
    assert "A new authority signs from now on" in begun.out
    early = runyard("ca", "rotate", "--finish")
    assert early.code == 2
    assert "1 certificate of the old authority is still good" in early.err
    assert f"spiffe://runyard/client/dagster in {tmp_path / 'out'}" in early.err
    assert "admin" not in early.err.partition("Make them")[0]
    runyard("ca", "issue", "--client", "dagster", "--out", str(tmp_path / "out"))
    assert runyard("ca", "rotate", "--finish").code == 0
    assert len(runyard("ca", "show", "-o", "json").json()["authorities"]) == 1
    assert files_in(authority / "admin").read().certificate


@pytest.mark.usefixtures("authority")
def test_rotation_that_is_confirmed_gives_up_those_left_behind(runyard: Command, tmp_path: Path) -> None:
    runyard("ca", "issue", "--client", "dagster", "--out", str(tmp_path / "out"))
    runyard("ca", "rotate")
    assert runyard("ca", "rotate", "--finish", "--confirm").code == 0


def test_directory_without_an_authority_is_refused_with_a_remedy(runyard: Command, tmp_path: Path) -> None:
    shown = runyard("ca", "show", "--ca", str(tmp_path))
    assert shown.code == 1
    assert f"make one with `runyard ca init {tmp_path}`" in shown.err


def test_authority_needs_what_the_coordinators_extra_brings(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from runyard.cli.main import main\n"
        f"sys.exit(main(['ca', 'show', '--ca', {str(tmp_path)!r}]))"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert shown.returncode == 1
    assert shown.stderr == (
        "runyard: `runyard ca` needs cryptography, which is not installed.\n"
        "Install it with: pip install 'runyard[coordinator]'\n"
    )
