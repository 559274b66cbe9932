"""`make chaos`: inflicts every fault and prints the table.

Exit code 0 if no run was lost and none doubled, 1 if one was or a fault went otherwise than promised.
"""

import argparse
import signal
import sys
import time
import traceback

from chaos import machine_faults, network_faults, process_faults
from chaos.scene import Fault, Report, try_out
from chaos.table import details, table

FAULTS = (*process_faults.FAULTS, *network_faults.FAULTS, *machine_faults.FAULTS)


def main() -> int:
    """Runs the suite; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make chaos", description="Break everything, lose nothing.")
    parser.add_argument("--only", default="", metavar="TEXT", help="only faults with this in their names")
    parser.add_argument("--tries", type=int, metavar="N", help="how often each; by default as each one says")
    parser.add_argument("--seed", type=int, default=0, help="for what is left to chance")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as after Ctrl-C, everything is cleared away
    reports: list[Report] = []
    broken: list[str] = []
    for fault in (fault for fault in FAULTS if args.only in fault.name):
        if reason := fault.why_not_here():
            print(f"left out: {fault.name}: {reason}", file=sys.stderr, flush=True)
        elif report := _tried(fault, args.tries, args.seed):
            reports.append(report)
        else:
            broken.append(fault.name)
    print(table(reports))
    wrong = [text for report in reports if (text := details(report))]
    print("".join(f"\nPROMISE BROKEN: {name}" for name in broken) + "\n".join(["", *wrong]))
    return 1 if broken or wrong else 0


def _tried(fault: Fault, tries: int | None, seed: int) -> Report | None:
    print(f"{fault.name} ...", file=sys.stderr, end=" ", flush=True)
    started = time.monotonic()
    try:
        report = try_out(fault, tries=tries, seed=seed)
    except Exception:  # the others are to be tried all the same
        print("FAILED", file=sys.stderr)
        traceback.print_exc()
        return None
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return report


if __name__ == "__main__":
    sys.exit(main())
