"""The engine's API as the driver calls it: in threads, each call with a deadline, each error with a name.

An engine that hangs holds up no more than these few threads: neither heartbeats nor other drivers.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import docker
import requests
import urllib3
from docker.errors import (
    APIError,
    DockerException,
    ImageNotFound,
    NotFound,
    create_api_error_from_http_exception,
)
from docker.tls import TLSConfig

from runyard.agent.config.docker import DockerSettings
from runyard.agent.drivers.docker.engine.threads import DaemonThreads

ANSWER_WITHIN = 20.0
"""Seconds for the engine to answer a call. On a busy disk, creating and starting take several."""

THREADS = 8
"""How many calls are made at the same time."""

PULLS_AT_ONCE = 2
"""How many images are pulled at the same time: further ones would share the same network and disk."""

T = TypeVar("T")


class EngineError(Exception):
    """The engine did not do what it was asked to; the message says what it said."""


class Unreachable(EngineError):
    """The engine gave no answer, so the effect of the request is unknown."""


class NoAnswer(Unreachable):
    """The engine is there, and takes longer than it was given."""


class NotThere(EngineError):
    """There is no such container, network or file."""


class NoSuchImage(NotThere):
    """The engine does not have the image."""


class NameTaken(EngineError):
    """There is such a container already, or it is in a state that forbids what was asked."""


class Engine:
    """One Docker engine.

    Args:
        settings: Where it is.
    """

    def __init__(self, settings: DockerSettings) -> None:
        self.host = settings.host
        self._tls_directory = settings.tls_directory
        self._threads = DaemonThreads(THREADS)
        self._pulls = DaemonThreads(PULLS_AT_ONCE)
        self._connecting = threading.Lock()
        self._client: docker.DockerClient | None = None

    async def call(self, ask: Callable[[docker.DockerClient], T], within: float = ANSWER_WITHIN) -> T:
        """Ask the engine something.

        Args:
            ask: Called in a thread with a client.
            within: Seconds, waiting for a thread included.

        Raises:
            EngineError: See the classes above.
        """
        return await self._run(self._threads, ask, within)

    async def pull(self, ask: Callable[[docker.DockerClient], T], within: float) -> T:
        """As `call`, for what may take long without harm.

        Raises:
            EngineError: See the classes above.
        """
        return await self._run(self._pulls, ask, within)

    async def _run(self, threads: DaemonThreads, ask: Callable[[docker.DockerClient], T], within: float) -> T:
        try:
            async with asyncio.timeout(within):
                return await threads.run(lambda: self.ask(ask))
        except TimeoutError:
            raise NoAnswer(f"{self.host} does not answer within {within:g} s") from None

    def ask(self, ask: Callable[[docker.DockerClient], T]) -> T:
        """As `call`, in the caller's own thread.

        Raises:
            EngineError: See the classes above.
        """
        with self.named_errors():
            return ask(self._connected())

    @contextmanager
    def named_errors(self) -> Iterator[None]:
        """Turn what the `docker` package raises into the classes above."""
        try:
            yield
        except ImageNotFound as error:
            raise NoSuchImage(_said(error)) from error
        except NotFound as error:
            raise NotThere(_said(error)) from error
        except APIError as error:
            raise (NameTaken if error.status_code == 409 else EngineError)(_said(error)) from error
        except requests.exceptions.ReadTimeout as error:
            raise NoAnswer(f"{self.host}: {_root(error)}") from error
        except (
            requests.exceptions.RequestException,
            urllib3.exceptions.HTTPError,
            OSError,
        ) as error:
            raise Unreachable(f"{self.host}: {_root(error)}") from error
        except DockerException as error:
            # The client asks for the version when it is made; other errors of the package are ours to fix.
            is_contact = "version" in str(error)
            raise (Unreachable if is_contact else EngineError)(f"{self.host}: {_root(error)}") from error
        except (TypeError, ValueError) as error:  # the package itself looks at some arguments
            raise EngineError(f"container_kwargs: {error}") from error

    def look(self, path: str, within: float) -> None:
        """Ask whether the engine has something. Blocks.

        Args:
            path: Of the API, after the version.
            within: Seconds.

        Raises:
            EngineError: See the classes above; `NotThere` if it has not.
        """
        self.ask(lambda client: _get(client, path, {}, (within, within)).close())

    def stream(self, path: str, parameters: dict[str, Any], silence: float) -> requests.Response:
        """Open a streaming response. Blocks.

        Args:
            path: Of the API, after the version.
            parameters: Of the query.
            silence: Seconds without a byte after which reading from it fails.

        Raises:
            EngineError: See the classes above.
        """
        return self.ask(lambda client: _get(client, path, parameters, (ANSWER_WITHIN, silence)))

    def _connected(self) -> docker.DockerClient:
        with self._connecting:
            if self._client is None:
                self._client = docker.DockerClient(
                    self.host,
                    version="auto",
                    timeout=int(ANSWER_WITHIN),
                    tls=self._tls() or False,
                    max_pool_size=THREADS,
                )
            return self._client

    def _tls(self) -> TLSConfig | None:
        folder = self._tls_directory
        if folder is None:
            return None
        pair = (str(folder / "cert.pem"), str(folder / "key.pem"))
        return TLSConfig(client_cert=pair, ca_cert=str(folder / "ca.pem"), verify=True)


def _get(
    client: docker.DockerClient, path: str, parameters: dict[str, Any], within: tuple[float, float]
) -> requests.Response:
    """An answer to be read piece by piece; `within` is for the connection and for each piece, in seconds."""
    api = client.api
    address = f"{api.base_url}/v{api.api_version}/{path}"
    response = api.get(address, params=parameters, stream=True, timeout=within)
    try:
        response.raise_for_status()
    except requests.exceptions.HTTPError as error:
        create_api_error_from_http_exception(error)
    return response


def _said(error: APIError) -> str:
    return str(error.explanation or error)


def _root(error: BaseException) -> str:
    """The innermost reason: the package wraps a refused connection five times."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return str(error) or type(error).__name__
