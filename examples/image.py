"""Builds an image of the example project, without any registry: `python -m examples.image` or `make image`.

It holds what this interpreter runs on, its packages, and the project, each where it is here: so it needs no
base image, and a code server outside finds its code inside. A real project has a Dockerfile instead.
"""

import argparse
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

QUICKSTART = Path(__file__).resolve().parent / "quickstart"

TAG = "runyard-example/quickstart:1"

_PROGRAMS = ("/bin/sh", "/bin/cat", "/bin/ls", "/bin/sleep", "/usr/bin/env")
_LEFT_OUT = {
    "__pycache__",
    "include",
    "share",
    "node_modules",
    "webapp",
    ".git",
    "mypy",
    "mypyc",
    "hypothesis",
}
_LEFT_OUT_OF_PYTHON = {"test", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "site-packages"}
"""The packages beside a base interpreter are not those of the environment."""
_LEFT_OUT_SUFFIXES = (".a", ".pyc", ".pyi", ".html")
_LIBRARY = re.compile(r"(/\S+) \(0x")  # as ldd prints what a program is linked with
_NAME_LOOKUP = (
    "libnss_files.so.2",
    "libnss_dns.so.2",
    "libresolv.so.2",
)  # opened by name, so ldd has them not
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nrun:x:1000:1000::/tmp:/bin/sh\n",
    "etc/group": "root:x:0:\nrun:x:1000:\n",
}


def build(host: str, tag: str = TAG) -> int:
    """Builds the image.

    Args:
        host: Of the Docker engine.
        tag: Name and version of the image.

    Returns:
        Its size in bytes.
    """
    import docker  # not needed to see what the options are

    repository, _, version = tag.rpartition(":")
    with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
        _Packer(archive.name).pack()
        client = docker.DockerClient(host, version="auto", timeout=300)
        client.api.import_image(
            src=archive.name,
            repository=repository,
            tag=version,
            changes=[f"ENV PATH={sys.prefix}/bin:/usr/bin:/bin", f"WORKDIR {QUICKSTART}"],
        )
        return int(client.images.get(tag).attrs["Size"])


class _Packer:
    """Packs files into an archive, each once, with the libraries that they are linked with."""

    def __init__(self, path: str) -> None:
        self._archive = tarfile.open(path, "w")  # noqa: SIM115
        self._packed: set[str] = set()
        self._libraries = {"/lib64/ld-linux-x86-64.so.2", *_looked_up_by_name()}

    def pack(self) -> None:
        with self._archive:
            for root in _roots():
                for path in _files_below(root):
                    self._add(path, str(path))
                    self._note_libraries(path)
            for program in _PROGRAMS:
                self._add(Path(os.path.realpath(program)), program)
                self._note_libraries(Path(program))
            for path in _files_below(QUICKSTART):
                self._add(path, str(path))
            for library in sorted(self._libraries):
                self._add(Path(os.path.realpath(library)), library)
            for name, text in _FILES.items():
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(text), 0o644
                self._archive.addfile(entry, io.BytesIO(text.encode()))
            entry = tarfile.TarInfo("tmp")
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777
            self._archive.addfile(entry)

    def _add(self, path: Path, name: str) -> None:
        if name not in self._packed and (path.exists() or path.is_symlink()):
            self._packed.add(name)
            self._archive.add(path, arcname=name.lstrip("/"), recursive=False)

    def _note_libraries(self, path: Path) -> None:
        is_linked = ".so" in path.name or (os.access(path, os.X_OK) and path.suffix == "")
        if path.is_file() and is_linked and path.open("rb").read(4) == b"\x7fELF":
            listed = subprocess.run(["ldd", str(path)], capture_output=True, text=True, check=False).stdout
            # A library that another one brings along is listed by way of that one's folder.
            self._libraries.update(map(os.path.normpath, _LIBRARY.findall(listed)))


def _roots() -> list[Path]:
    """Interpreter, environment, and wherever else this interpreter finds packages."""
    elsewhere = [Path(entry) for entry in sys.path if entry and Path(entry).is_dir()]
    roots = [Path(sys.base_prefix), Path(sys.prefix), *elsewhere]
    here = Path(__file__).parents[1]
    return [
        root
        for root in dict.fromkeys(roots)
        if root != here and not any(root != other and root.is_relative_to(other) for other in roots[:2])
    ]


def _files_below(root: Path) -> Iterator[Path]:
    is_base = root == Path(sys.base_prefix) != Path(sys.prefix)
    left_out = _LEFT_OUT | (_LEFT_OUT_OF_PYTHON if is_base else set())
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in left_out]
        links = [name for name in folders if Path(folder, name).is_symlink()]
        for name in (*files, *links):
            if not name.endswith(_LEFT_OUT_SUFFIXES):
                yield Path(folder, name)


def _looked_up_by_name() -> list[str]:
    folders = ("/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64")
    found = [Path(folder, name) for folder in folders for name in _NAME_LOOKUP]
    return [str(path) for path in found if path.exists()]


def main() -> None:
    """Builds the image with the engine that DOCKER_HOST names."""
    parser = argparse.ArgumentParser(prog="make image", description=__doc__)
    parser.add_argument("--host", default=os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"))
    parser.add_argument("--tag", default=TAG)
    given = parser.parse_args()
    began = time.monotonic()
    size = build(given.host, given.tag)
    print(f"{given.tag}: {size / 2**20:.0f} MiB, built in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
