"""A small network of its own: the coordinator in one namespace, every node in another, a wire to each."""

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum

_SERIAL = itertools.count()


class Direction(StrEnum):
    """Which way a wire is cut or bad, named by the chain of the node's firewall."""

    TO_NODE = "INPUT"
    FROM_NODE = "OUTPUT"


BOTH = (Direction.TO_NODE, Direction.FROM_NODE)


def why_no_network() -> str:
    """Why namespaces cannot be had here; empty if they can."""
    if os.geteuid() != 0:
        return "network namespaces need root; run these tests as root in a container or a virtual machine"
    missing = [tool for tool in ("ip", "iptables", "nsenter") if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)}; apt-get install iproute2 iptables util-linux"
    name = f"ryprobe{os.getpid()}"
    probe = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if probe.returncode:
        return f"this machine gives no network namespaces: {probe.stderr.strip()}"
    _run("ip", "netns", "del", name)
    return ""


class Wire:
    """The wire between one node and the coordinator.

    Args:
        namespace: Of the node.
        address: Of the coordinator, as this node dials it.
    """

    def __init__(self, namespace: str, address: str) -> None:
        self.namespace = namespace
        self.address = address

    def cut(self, directions: Sequence[Direction] = BOTH) -> None:
        """Drops every packet, without a word to either side."""
        for direction in directions:
            self._firewall("-I", direction, "-j", "DROP")

    def lose(self, share: float, directions: Sequence[Direction] = BOTH) -> None:
        """Drops that share of all packets, by chance."""
        chance = ("-m", "statistic", "--mode", "random", "--probability", str(share))
        for direction in directions:
            self._firewall("-I", direction, *chance, "-j", "DROP")

    def mend(self) -> None:
        """Ends everything that was done to the wire."""
        self._firewall("-F")

    def pids(self) -> list[int]:
        """Every process on the node."""
        listed = subprocess.run(
            ["ip", "netns", "pids", self.namespace], capture_output=True, text=True, check=True
        )
        return [int(pid) for pid in listed.stdout.split()]

    def _firewall(self, *arguments: str) -> None:
        _run(*inside(self.namespace), "iptables", "-w", *arguments)


class Network:
    """Namespaces of one cluster; they are deleted with everything in them by `networked`."""

    PORT = 7171
    MOST_WIRES = 100

    def __init__(self) -> None:
        self._prefix = f"ry{os.getpid()}x{next(_SERIAL)}"
        self._numbers = itertools.count(1)
        self.hub = self._new("hub")
        self.wires: dict[str, Wire] = {}

    def wire(self, node: str) -> Wire:
        """Gives a node a namespace and a wire to the coordinator."""
        number = next(self._numbers)
        namespace = self._new(f"n{number}")
        ours, theirs = f"10.210.{number}.1", f"10.210.{number}.2"
        device = f"n{number}"
        _run(
            *("ip", "-n", namespace, "link", "add", "eth", "type", "veth"),
            *("peer", "name", device, "netns", self.hub),
        )
        for place, name, address in ((self.hub, device, ours), (namespace, "eth", theirs)):
            _run("ip", "-n", place, "addr", "add", f"{address}/24", "dev", name)
            _run("ip", "-n", place, "link", "set", name, "up")
        self.wires[node] = Wire(namespace, f"{ours}:{self.PORT}")
        return self.wires[node]

    def unplug(self, node: str) -> None:
        """Deletes the node's namespace, and the wire with it. `wire` gives the node another."""
        _run("ip", "netns", "del", self.wires.pop(node).namespace)

    def remove(self) -> None:
        """Deletes all that is left."""
        for name in (self.hub, *(wire.namespace for wire in self.wires.values())):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def _new(self, name: str) -> str:
        namespace = f"{self._prefix}{name}"
        _run("ip", "netns", "add", namespace)
        _run("ip", "-n", namespace, "link", "set", "lo", "up")
        return namespace


@contextmanager
def networked() -> Iterator[Network]:
    """A network for the length of the block."""
    network = Network()
    try:
        yield network
    finally:
        network.remove()


def inside(namespace: str) -> tuple[str, ...]:
    """The beginning of a command that runs in a namespace, and keeps its process ID."""
    return ("nsenter", f"--net=/run/netns/{namespace}", "--")


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)} failed: {done.stderr.strip()}")
