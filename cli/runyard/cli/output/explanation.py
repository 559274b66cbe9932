"""Explanation of a placement for people: the result first, then the reasons."""

from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from runyard.cli.output.tables import console
from runyard.common.humanize import reason_list
from runyard.v1 import placement_pb2


def print_explanation(explanation: placement_pb2.Explanation, out: Console | None = None) -> None:
    """The verdict, the queue, what is asked for, the route, the nodes; what is empty is left out.

    Args:
        explanation: As the coordinator gave it.
        out: Where to print; stdout if None.
    """
    out = out or console()
    out.print(f"[bold]{escape(_sentence(explanation.verdict))}[/]", soft_wrap=True, highlight=False)
    _print_summary(out, explanation)
    _print_table(out, _fields(explanation.fields))
    _print_table(out, _clusters(explanation.clusters))
    _print_table(out, _nodes(explanation.nodes))


def filters_line(filters: Iterable[placement_pb2.FilterCount]) -> str:
    """`8 did not match label zone=a, 3 insufficient memory`; empty if no node is excluded."""
    return reason_list({count.reason: count.nodes for count in filters})


def _print_summary(out: Console, explanation: placement_pb2.Explanation) -> None:
    summary = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    summary.add_column(style="bold", no_wrap=True)
    summary.add_column(overflow="fold")
    for name, value in _summary(explanation):
        if value:
            summary.add_row(name, escape(value))
    _print_table(out, summary)


def _summary(explanation: placement_pb2.Explanation) -> Iterator[tuple[str, str]]:
    yield "waits for", explanation.waits_for
    yield "queue", _queue(explanation)
    yield "priority", _priority(explanation)
    excluded = filters_line(explanation.filters)
    yield "excluded", "" if excluded in explanation.verdict else excluded
    yield "rule", explanation.rule or "none matched"


def _queue(explanation: placement_pb2.Explanation) -> str:
    if not explanation.queue_position:
        return ""
    place = f"place {explanation.queue_position} of {explanation.queue_length}"
    return f"{place}, in the share of {explanation.share}" if explanation.share else place


def _priority(explanation: placement_pb2.Explanation) -> str:
    priority, effective = explanation.priority, explanation.effective_priority
    if priority == effective:
        return str(priority) if priority else ""
    return f"{priority}, {effective} for having waited"


def _fields(fields: Iterable[placement_pb2.ExplainedField]) -> Table:
    table = _table("requirement", "value", "from", "overrides")
    for field in fields:
        overridden = ", ".join(field.overridden)
        table.add_row(*map(escape, (field.name, field.value, field.source, overridden)))
    return table


def _clusters(clusters: Iterable[placement_pb2.ClusterChoice]) -> Table:
    table = _table("cluster", "in use", "nodes ready", "open")
    for cluster in clusters:
        is_open = f"[yellow]{escape(cluster.closed)}[/]" if cluster.closed else "[green]yes[/]"
        table.add_row(escape(cluster.name), f"{cluster.utilization:.0%}", str(cluster.nodes_ready), is_open)
    return table


def _nodes(nodes: Iterable[placement_pb2.NodeScore]) -> Table:
    """Best first; a column for each mark."""
    scored = list(nodes)
    marks = sorted({name for node in scored for name in node.marks})
    table = _table("best nodes", "cluster", "total", *marks)
    for node in scored:
        values = [f"{node.marks[name]:.2f}" if name in node.marks else "" for name in marks]
        table.add_row(escape(node.node), escape(node.cluster), f"{node.total:.2f}", *values)
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(escape(column.upper()), overflow="fold")
    return table


def _print_table(out: Console, table: Table) -> None:
    if table.rows:
        out.print()
        out.print(table, highlight=False)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"
