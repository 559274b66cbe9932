"""A registry of images for tests: `python image_registry.py PORT`. Blocks until it is killed.

open/etl:1      anybody may pull
secret/etl:1    needs the name `puller` and the password `hunter2`
slow:1          sends its layer in some parts, within seconds
crawl:1         takes three times as long
"""

import base64
import gzip
import hashlib
import io
import json
import random
import sys
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CREDENTIALS = "Basic " + base64.b64encode(b"puller:hunter2").decode()
PARTS = 8
PAUSES = {"etl": 0.0, "slow": 0.4, "crawl": 1.2}
"""The repositories, each with the seconds between two parts of its layer."""


def _layer() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        content = random.Random(0).randbytes(4 << 20)  # does not get smaller by compression
        entry = tarfile.TarInfo("etl")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _blobs() -> tuple[bytes, dict[str, bytes]]:
    """The manifest of the one image, and what it consists of."""
    tar = _layer()
    layer = gzip.compress(tar, 1, mtime=0)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [_digest(tar)]},
        }
    ).encode()
    kind = "application/vnd.docker"
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": f"{kind}.distribution.manifest.v2+json",
            "config": {
                "mediaType": f"{kind}.container.image.v1+json",
                "size": len(config),
                "digest": _digest(config),
            },
            "layers": [
                {
                    "mediaType": f"{kind}.image.rootfs.diff.tar.gzip",
                    "size": len(layer),
                    "digest": _digest(layer),
                }
            ],
        }
    ).encode()
    return manifest, {_digest(config): config, _digest(layer): layer}


MANIFEST, BLOBS = _blobs()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        repository = self.path.removeprefix("/v2/").partition("/manifests/")[0].partition("/blobs/")[0]
        name = self.path.rpartition("/")[2]
        if (
            self.connection.getsockname()[1] == CLOSED_PORT
            and self.headers.get("Authorization") != CREDENTIALS
        ):
            self._answer(401, b'{"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}')
        elif self.path == "/v2/":
            self._answer(200, b"{}")
        elif repository in PAUSES and "/manifests/" in self.path and name in ("1", _digest(MANIFEST)):
            self._answer(200, MANIFEST, "application/vnd.docker.distribution.manifest.v2+json")
        elif repository in PAUSES and name in BLOBS:
            self._answer(200, BLOBS[name], pause=PAUSES[repository])
        else:
            self._answer(404, b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}')

    def _answer(
        self, status: int, content: bytes, kind: str = "application/json", *, pause: float = 0.0
    ) -> None:
        self.send_response(status)
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Docker-Content-Digest", _digest(content))
        if status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="etl"')
        self.end_headers()
        if self.command == "HEAD":
            return
        part = -(-len(content) // PARTS)
        for start in range(0, len(content), part):
            self.wfile.write(content[start : start + part])
            self.wfile.flush()
            time.sleep(pause)

    def log_message(self, format: str, *args: object) -> None:
        pass


if __name__ == "__main__":
    PORT, CLOSED_PORT = map(int, sys.argv[1:])
    closed = ThreadingHTTPServer(("127.0.0.1", CLOSED_PORT), _Handler)
    threading.Thread(target=closed.serve_forever, daemon=True).start()
    ThreadingHTTPServer(("127.0.0.1", PORT), _Handler).serve_forever()
