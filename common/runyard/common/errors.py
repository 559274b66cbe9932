"""Errors that the services and the client library share; `runyard.client.errors` has the rest of the tree."""


class RunyardError(Exception):
    """Base of all errors that Runyard raises for its callers."""


class InvalidAddress(RunyardError, ValueError):
    """The address cannot be understood. Write host:port, [ipv6]:port or unix:/path."""

    def __init__(self, field: str, text: str, problem: str) -> None:
        self.field = field
        self.text = text
        self.problem = problem
        super().__init__(f"{field}: {text!r} {problem}; write host:port, [ipv6]:port or unix:/path")


class InsecureAddress(RunyardError):
    """The address is on another machine, and the connection would be neither encrypted nor authenticated."""

    def __init__(self, address: str, verb: str) -> None:
        self.address = address
        self.verb = verb
        super().__init__(
            f"will not {verb} {address} without certificates: it is reachable beyond this machine. Name "
            "them by `tls` (--tls-authority, --tls-certificate, --tls-key; `runyard ca init` makes an "
            "authority that issues them), or use a loopback address or unix:/path"
        )


class InvalidTlsFiles(RunyardError, ValueError):
    """A certificate or key cannot be used; the message names the file and the remedy."""
