"""A Docker engine of the tests' own, to be killed: in a temporary folder, and in a network of its own.

The network namespace keeps it from every registry, and its rules out of this machine's firewall.
"""

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import docker
import psutil
from docker.errors import DockerException, NotFound
from requests.exceptions import RequestException

from harness.waiting import wait_until

IMAGE = "runyard-test/empty:1"
"""Holds nothing at all: what a worker needs is mounted from this machine, see `HOST`."""

HOST = sorted(
    f"{path}:{path}:ro"
    for path in {"/usr", "/lib", "/lib64", "/bin", "/etc", sys.base_prefix, sys.prefix}
    if Path(path).exists()
)
"""Volumes that make this machine's own Python available in a container."""

LABEL = "runyard.run"
"""Of every container that Runyard made."""


def missing() -> str:
    """Why no Docker engine can be had here, in one line; empty if one can."""
    if os.geteuid() != 0:
        return "no Docker engine: starting one needs root"
    programs = [name for name in ("dockerd", "containerd", "ip", "nsenter") if shutil.which(name) is None]
    if programs:
        return f"no Docker engine: {', '.join(programs)} not found; apt-get install docker.io iproute2"
    return ""


class Dockerd:
    """One engine, whose images and containers survive its restarts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "docker.sock"
        self.address = f"unix://{self.socket}"
        self.log = folder / "dockerd.log"
        self._network = f"ryd{os.getpid()}"
        self._process: subprocess.Popen[bytes] | None = None
        self._containerd: subprocess.Popen[bytes] | None = None

    def open(self) -> None:
        """Makes the network and starts the engine for the first time, with the test image."""
        subprocess.run(["ip", "netns", "add", self._network], check=True)
        subprocess.run(["ip", "-n", self._network, "link", "set", "lo", "up"], check=True)
        self._start_containerd()
        self.start()
        with self.client() as client:
            client.api.import_image_from_data(_empty_archive(), *IMAGE.split(":"))

    def start(self, *options: str) -> None:
        """Starts the engine, and returns when it answers.

        Args:
            *options: Further ones, such as `--live-restore`.
        """
        self._pid_file.unlink(missing_ok=True)
        self._process = self._run(
            *("nsenter", f"--net=/run/netns/{self._network}", "dockerd", "--pidfile", str(self._pid_file)),
            *("--data-root", str(self.folder / "data"), "--exec-root", str(self.folder / "exec")),
            *("--host", self.address, "--containerd", str(self._containerd_socket), *options),
        )
        wait_until(self._answers, lambda: self.log.read_text()[-2000:], timeout=60)

    def kill(self) -> None:
        """Ends the engine by SIGKILL. Containers go on, for as long as it is not started again."""
        self.signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Sends the engine a signal; SIGSTOP makes it accept connections and never answer."""
        assert self._process is not None
        self._process.send_signal(number)

    @contextlib.contextmanager
    def client(self) -> Iterator[docker.DockerClient]:
        """A client of the tests' own."""
        with contextlib.closing(docker.DockerClient(self.address, version="auto", timeout=20)) as client:
            yield client

    @contextlib.contextmanager
    def neighbour(self, script: str, *arguments: str) -> Iterator[None]:
        """Runs a script of this folder in the engine's network, until the end of the block."""
        path = str(Path(__file__).parent / script)
        process = self._run("nsenter", f"--net=/run/netns/{self._network}", sys.executable, path, *arguments)
        try:
            yield
        finally:
            process.kill()
            process.wait()

    def remove_containers(self) -> None:
        """Ends and removes every container."""
        with self.client() as client:
            for container in client.containers.list(all=True, ignore_removed=True):
                with contextlib.suppress(NotFound):
                    container.remove(force=True, v=True)

    def close(self) -> None:
        """Ends the engine and everything that it started."""
        if self._process is not None:
            self.signal(signal.SIGCONT)
            with contextlib.suppress(DockerException, RequestException):
                self.remove_containers()
        for process in (self._process, self._containerd):
            if process is not None:
                process.terminate()
                process.wait(30)
        wait_until(self._nothing_left, lambda: f"still there: {self._family()}")
        subprocess.run(["ip", "netns", "delete", self._network], check=True)

    @property
    def _pid_file(self) -> Path:
        return self.folder / "dockerd.pid"

    @property
    def _containerd_socket(self) -> Path:
        return self.folder / "containerd.sock"

    def _start_containerd(self) -> None:
        # As a distribution runs it: one that dockerd starts itself dies with it.
        settings = self.folder / "containerd.toml"
        settings.write_text('disabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
        self._containerd = self._run(
            *("containerd", "--config", str(settings), "--address", str(self._containerd_socket)),
            *("--root", str(self.folder / "containerd"), "--state", str(self.folder / "containerd-state")),
        )
        wait_until(self._containerd_socket.exists, "containerd has made no socket")

    def _run(self, *command: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()[-2000:]
        try:
            with self.client() as client:
                return bool(client.ping())
        except (DockerException, RequestException):
            return False

    def _family(self) -> list[psutil.Process]:
        # containerd outlives a killed dockerd; both it and its shims name our folder.
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                words = process.cmdline()
                if process.pid != os.getpid() and any(str(self.folder) in word for word in words):
                    found.append(process)
        return found

    def _nothing_left(self) -> bool:
        family = self._family()
        for process in family:
            with contextlib.suppress(psutil.Error):
                process.kill()
        return not family


@contextlib.contextmanager
def open_dockerd() -> Iterator[Dockerd]:
    """A running engine, in a folder with a name that is short enough for sockets.

    Not in `/tmp`, which containers get for the sake of the tests' files: with it they would get the engine.
    """
    folder = Path(tempfile.mkdtemp(prefix="ryd-", dir="/var/tmp"))
    engine = Dockerd(folder)
    try:
        engine.open()
        yield engine
    finally:
        engine.close()
        for place in ("exec", "data"):
            subprocess.run(["umount", "--quiet", "--recursive", str(folder / place)], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def _empty_archive() -> bytes:
    archive = io.BytesIO()
    tarfile.open(fileobj=archive, mode="w").close()
    return archive.getvalue()
