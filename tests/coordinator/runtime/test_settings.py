"""The coordinator's settings: from a file, the environment and the command line, and checked by key."""

from collections.abc import Callable
from pathlib import Path

import pytest
from harness.certificates import Authority, tls_settings

from runyard.coordinator.__main__ import main

Check = Callable[..., tuple[int, str]]


@pytest.fixture
def check(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Check:
    """Runs `--check` on a file with that content; gives the exit code and what was printed."""

    def run(content: str, *arguments: str, **environment: str) -> tuple[int, str]:
        file = tmp_path / "coordinator.yaml"
        file.write_text(content)
        for name, value in environment.items():
            monkeypatch.setenv(f"RUNYARD_COORDINATOR_{name.upper()}", value)
        code = main(["--config", str(file), "--check", *arguments])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


@pytest.mark.parametrize(
    "content",
    [
        "",
        "listen: 127.0.0.1:7171",
        "listen: '[::1]:7171'",
        "listen: unix:/run/runyard.sock",
        "{trust_domain: example.org, access: {clients: {night: {clusters: [rack1]}, day: {}}}}",
        "{reflection: true, audit: /tmp/audit.jsonl, certificate_lifetime: 86400}",
        "{heartbeat_interval: 1, lease: 3.5, recovery: 0, keep_finished: 60, shutdown_grace: 0}",
        "{state_directory: /tmp/x, log_format: json, log_level: debug}",
    ],
)
def test_good_settings_are_fine(check: Check, content: str) -> None:
    assert check(content) == (0, "the settings are fine\n")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("lisen: 127.0.0.1:7171", "lisen: there is no such setting; known settings: access,"),
        ("lease: soon", "lease: Input should be a valid number"),
        ("lease: 0", "lease: Input should be greater than 0"),
        ("heartbeat_interval: -1", "heartbeat_interval: Input should be greater than 0"),
        ("recovery: -1", "recovery: Input should be greater than or equal to 0"),
        ("log_format: xml", "log_format: Input should be 'console' or 'json'"),
        ("insecure: true", "insecure: there is no such setting"),
        ("tls: {authority: a.pem}", "tls.certificate: is required"),
        ("trust_domain: Example", "trust_domain: 'Example' must be lower-case letters"),
        ("access: {clients: {night: {clusters: [a b]}}}", "'a b' is not a valid cluster name"),
        ("access: {clients: {a b: {}}}", "'a b' is not a valid client name"),
        ("join_listen: '0.0.0.0:7172'", "join_listen needs tls and ca_directory: `runyard ca init`"),
        ("join_listen: unix:/run/join", "join_listen: 'unix:/run/join' must be host:port"),
        ("listen: 7171", "listen: Input should be a valid string"),
        ("listen: localhost", "listen: 'localhost' has no port; write host:port"),
        ("listen: http://localhost:7171", "listen: 'http://localhost:7171' is a URL or a path"),
        ("listen: unix:runyard.sock", "listen: 'unix:runyard.sock' needs an absolute path"),
        ("listen: localhost:99999", "listen: 'localhost:99999' has no port number"),
        ("[1, 2]", "must hold a mapping of settings"),
        ("listen: [", "is not valid YAML"),
        ("rates: {launch: {burst: 0, per_second: 1}}", "rates.launch.burst: Input should be greater than"),
        ("rates: {join: {per_second: 0, burst: 1}}", "rates.join.per_second: Input should be greater than 0"),
        ("{lease: x, lisen: y}", "lisen: there is no such setting"),
    ],
)
def test_setting_that_cannot_be_used_is_named_with_its_file(
    check: Check, content: str, expected: str
) -> None:
    code, printed = check(content)
    assert code == 2
    assert printed.startswith("runyard coordinator: ")
    assert "coordinator.yaml: " in printed
    assert expected in printed


def test_file_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--check", "--config", str(tmp_path / "none.yaml")]) == 2
    assert f"{tmp_path / 'none.yaml'}: cannot be read (No such file or directory)" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["0.0.0.0:7171", "[::]:7171", "runyard.example:7171", "10.0.0.1:7171"])
def test_address_beyond_this_machine_needs_certificates(check: Check, tmp_path: Path, address: str) -> None:
    code, printed = check("", "--listen", address)
    assert code == 2
    assert f"will not listen on {address} without certificates" in printed
    assert "`runyard ca init` makes an authority" in printed
    files = Authority().coordinator(tmp_path / "tls")
    named = (f"--tls-{part}={path}" for part, path in tls_settings(files).items())
    assert check("", "--listen", address, *named)[0] == 0


def test_no_setting_allows_plain_text_over_the_network(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--check", "--listen", "0.0.0.0:7171", "--insecure"])
    assert "--insecure" in capsys.readouterr().err


def test_certificates_that_cannot_be_used_are_found_by_the_check(check: Check, tmp_path: Path) -> None:
    files = Authority().coordinator(tmp_path / "tls")
    assert files.key is not None
    files.key.chmod(0o644)
    code, printed = check(f"tls: {tls_settings(files)}")
    assert code == 2
    assert f"others may read or change {files.key} (mode 0644); run: chmod 600 {files.key}" in printed


def test_environment_wins_over_the_file_and_the_command_line_over_both(check: Check) -> None:
    file = "listen: one.example:1"
    assert "one.example:1" in check(file)[1]
    assert "two.example:2" in check(file, listen="two.example:2")[1]
    assert "three.example:3" in check(file, "--listen", "three.example:3", listen="two.example:2")[1]


def test_environment_is_read_as_yaml_and_checked_alike(check: Check) -> None:
    assert check("", reflection="true", listen="127.0.0.1:7171")[0] == 0
    assert "lease: Input should be a valid number" in check("", lease="soon")[1]


def test_flag_that_does_not_exist_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--lisen", "127.0.0.1:7171"])
    assert ended.value.code == 2
    assert "--lisen" in capsys.readouterr().err
