"""Tables for people."""

import sys
import time
from collections.abc import Iterable, Mapping

from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from runyard.cli.output import words
from runyard.cli.output.amounts import in_order, taken, taken_of_the_rest
from runyard.cli.output.json_output import enum_word
from runyard.common.humanize import byte_size, short_duration
from runyard.common.protobuf_time import to_seconds
from runyard.common.quantities import show_quantity
from runyard.common.requirement_words import in_one_line
from runyard.v1 import fleet_pb2, launch_pb2, run_pb2

# Wide enough for any line when the output is no terminal: pipes get whole lines.
_UNLIMITED_WIDTH = 10_000


def console() -> Console:
    """Writes to stdout; cuts lines only for a terminal."""
    width = None if sys.stdout.isatty() else _UNLIMITED_WIDTH
    return Console(width=width, highlight=False, soft_wrap=False)


def print_runs(runs: Iterable[run_pb2.Run], when_none: str = "no runs match") -> None:
    """One line a run, or `when_none`."""
    table = new_table("run", "job", "cluster", "node", "attempt", "state", "age", "start", "message")
    now = time.time()
    for run in runs:
        table.add_row(
            run.run_id[:8],
            escape(run.job),
            escape(run.cluster),
            escape(run.node),
            str(run.attempt),
            words.run_state(run),
            words.age(run.launched_at, now),
            time_to_start(run),
            escape(_message(run)),
        )
    print_table(table, when_none)


def print_run(response: launch_pb2.GetRunResponse) -> None:
    """All that is known of a run, its events, and the last lines of its stderr."""
    out, run, now = console(), response.run, time.time()
    facts = {
        "run": run.run_id,
        "job": escape(f"{run.job} in {run.location}" if run.location else run.job),
        "deployment": escape(run.deployment),
        "launched by": escape(run.launched_by),
        "state": words.run_state(run),
        "message": escape(_message(run)),
        "node": escape(f"{run.node} in cluster {run.cluster}" if run.node else ""),
        "placed because": escape(run.placed_because),
        "requirements": escape(in_one_line(run.requirements) if run.HasField("requirements") else ""),
        "rule": escape(run.rule),
        "attempt": f"{run.attempt} (resume {run.resume_number})" if run.resume_number else str(run.attempt),
        "pid": str(run.pid or ""),
        "launched": _moment(run.launched_at, now),
        "time to start": time_to_start(run),
        "finished": _moment(run.finished_at, now),
        "exit": _exit(run.outcome),
        "memory": _memory(run),
        "cpu": f"{run.usage.cpu_cores:.2f} cores" if run.HasField("usage") else "",
    }
    _print_facts(out, facts)
    if response.events:
        out.print()
        events = new_table("at", "attempt", "phase", "node", "event")
        for event in response.events:
            phase = enum_word(run_pb2.Phase.DESCRIPTOR, event.phase)
            at = event.at.ToDatetime().isoformat(sep=" ", timespec="milliseconds")
            events.add_row(at, str(event.attempt), phase, escape(event.node), escape(event.message))
        out.print(events)
    if run.outcome.stderr_tail:
        out.print("\n[bold]last lines of stderr[/]")
        out.print(escape(run.outcome.stderr_tail.rstrip("\n")), soft_wrap=True)


def print_nodes(nodes: Iterable[fleet_pb2.Node]) -> None:
    """One line a node."""
    table = new_table(
        "node", "cluster", "state", "slots", "cpu", "memory", "others", "heard", "agent", "labels"
    )
    now = time.time()
    for node in nodes:
        offered, allocated = node.offer.resources, node.allocated
        table.add_row(
            escape(node.node_id),
            escape(node.cluster),
            words.node_state(node),
            taken("slots", allocated, offered),
            taken("cpu", allocated, offered),
            taken("memory", allocated, offered),
            escape(taken_of_the_rest(allocated, offered)),
            words.age(node.last_heard_at, now),
            escape(node.facts.agent_version),
            escape(words.labels(_chosen(node.offer.labels))),
        )
    print_table(table, "no nodes; start one with `runyard agent`")


def print_node(node: fleet_pb2.Node, runs: Iterable[run_pb2.Run]) -> None:
    """All that is known of a node, and the runs that live on it."""
    out, now = console(), time.time()
    facts = {
        "node": escape(node.node_id),
        "cluster": escape(node.cluster),
        "state": words.node_state(node),
        "stands for": "a whole cluster" if node.offer.gateway else "",
        "labels": escape(words.labels(dict(node.offer.labels))),
        "taints": escape(" ".join(node.offer.taints)),
        "drivers": escape(" ".join(node.offer.drivers)),
        "host": escape(node.facts.hostname),
        "agent": escape(f"{node.facts.agent_version}, Python {node.facts.python_version}"),
        "machine": f"{node.facts.cpu_count} cores, {byte_size(node.facts.memory_bytes)}",
        "load": _load(node),
        "short of": escape("\n".join(f"{words.pressure(each)}: {each.message}" for each in node.pressures)),
        "last heard": _moment(node.last_heard_at, now),
        "session": str(node.epoch),
        "boot": escape(node.boot_id),
    }
    _print_facts(out, facts)
    out.print()
    out.print(_resources(node))
    out.print()
    if node.warm_servers:
        print_warm_servers([node])
        out.print()
    print_runs(runs, "no live runs")


def print_warm_servers(nodes: Iterable[fleet_pb2.Node], when_none: str = "no warm servers") -> None:
    """One line a server; why its runs start cold, or did last, comes at the end, since it may be long."""
    columns = ("node", "server", "state", "for", "mode", "locations", "pid", "memory", "forks", "cold")
    table = new_table(*columns, "why cold")
    for node in nodes:
        for server in node.warm_servers:
            table.add_row(
                escape(node.node_id),
                escape(server.name),
                words.warm_server_state(server),
                short_duration(to_seconds(server.state_for)),
                enum_word(fleet_pb2.WarmMode.DESCRIPTOR, server.mode),
                escape(", ".join(server.code_locations)),
                str(server.pid or ""),
                byte_size(server.rss_bytes) if server.rss_bytes else "",
                str(server.all_forks),
                str(server.cold_starts),
                escape(" ".join((server.reason or server.last_cold_reason).split())),
            )
    print_table(table, when_none)


def print_clusters(clusters: Iterable[fleet_pb2.Cluster]) -> None:
    """One line a cluster."""
    table = new_table("cluster", "nodes", "ready", "slots", "cpu", "memory", "others")
    for cluster in clusters:
        table.add_row(
            escape(cluster.name),
            str(cluster.nodes),
            str(cluster.nodes_ready),
            taken("slots", cluster.allocated, cluster.resources),
            taken("cpu", cluster.allocated, cluster.resources),
            taken("memory", cluster.allocated, cluster.resources),
            escape(taken_of_the_rest(cluster.allocated, cluster.resources)),
        )
    print_table(table, "no clusters; they appear with their first node")


def time_to_start(run: run_pb2.Run) -> str:
    """From the launch until the worker ran; empty if it has not."""
    if not (run.HasField("running_at") and run.HasField("launched_at")):
        return ""
    return short_duration(to_seconds(run.running_at) - to_seconds(run.launched_at))


def _resources(node: fleet_pb2.Node) -> Table:
    """One line a resource. The last column is there for gateways that limit a single run."""
    offer = node.offer
    limited = ["largest run"] if offer.largest_run else []
    table = new_table("resource", "offered", "allocated", "free", "reserved", *limited)
    for name in in_order(offer.resources, node.allocated, offer.reserved):
        offered, allocated = offer.resources.get(name, 0), node.allocated.get(name, 0)
        cells = [show_quantity(name, amount) for amount in (offered, allocated, max(0, offered - allocated))]
        cells += [_amount(name, amounts) for amounts in (offer.reserved, offer.largest_run)]
        table.add_row(escape(name), *cells[: len(table.columns) - 1])
    return table


def _amount(name: str, amounts: Mapping[str, int]) -> str:
    return show_quantity(name, amounts[name]) if name in amounts else ""


def _chosen(labels: Mapping[str, str]) -> dict[str, str]:
    """Without the labels that every node has by itself."""
    return {key: value for key, value in labels.items() if not key.startswith("runyard/")}


def new_table(*columns: str) -> Table:
    """A table without lines, with these headings."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column.upper(), no_wrap=True)
    return table


def print_table(table: Table, when_empty: str) -> None:
    """The table, or `when_empty` if it has no rows."""
    console().print(table if table.rows else when_empty)


def _print_facts(out: Console, facts: dict[str, str]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        if value:
            table.add_row(name, value)
    out.print(table)


def _message(run: run_pb2.Run) -> str:
    """News in one line: why it waits, or how it ended."""
    return " ".join((run.outcome.message or run.message).split())


def _moment(at: Timestamp, now: float) -> str:
    if not at.ToNanoseconds():
        return ""
    return f"{at.ToDatetime().isoformat(sep=' ', timespec='seconds')} UTC, {words.age(at, now)} ago"


def _exit(outcome: run_pb2.Outcome) -> str:
    if outcome.HasField("signal"):
        return f"signal {outcome.signal}"
    return f"code {outcome.exit_code}" if outcome.HasField("exit_code") else ""


def _memory(run: run_pb2.Run) -> str:
    peak = max(run.outcome.peak_rss_bytes, run.usage.peak_rss_bytes)
    now = f"{byte_size(run.usage.rss_bytes)} now, " if run.usage.rss_bytes else ""
    return f"{now}{byte_size(peak)} at most" if peak else ""


def _load(node: fleet_pb2.Node) -> str:
    if not node.HasField("load"):
        return ""
    load = node.load
    memory, disk = byte_size(load.memory_available_bytes), byte_size(load.disk_available_bytes)
    return f"{load.cpu_fraction:.0%} of CPU, load {load.load_1m:.2f}, {memory} memory and {disk} disk free"
