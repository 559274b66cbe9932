"""The table of faults, for people."""

from collections.abc import Iterable

from chaos.scene import Report

_HEAD = ("fault", "tries", "runs", "noticed", "detected in", "lost", "doubled")


def table(reports: Iterable[Report]) -> str:
    """One line a fault."""
    rows = [_HEAD, *(_row(report) for report in reports)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def details(report: Report) -> str:
    """Everything that went wrong."""
    return "\n".join((*report.verdict.lost, *report.verdict.doubled))


def _row(report: Report) -> tuple[str, ...]:
    detected = "" if report.detected_in is None else f"{report.detected_in:.2f} s"
    verdict = report.verdict
    return (
        report.fault.name,
        str(report.tries),
        str(verdict.accepted),
        report.fault.noticed,
        detected,
        str(len(verdict.lost)),
        str(len(verdict.doubled)),
    )
