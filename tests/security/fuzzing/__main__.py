"""Fuzzes all readers, each for so long: by atheris, which sees what code it reaches, or by Hypothesis.

cd tests && python -m security.fuzzing --seconds 60
cd tests && python -m security.fuzzing --seconds 600 routing_files
"""

import argparse
import importlib
import importlib.util
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from security.fuzzing.targets import Target  # not imported here, where nothing would see its branches

sys.path.insert(0, str(Path(__file__).parents[2]))

MEMORY_MIB: Final = 2_048
"""A target that needs more has found something."""

SLOW: Final = 10
"""Seconds; so has one that takes longer over one input."""


def main() -> int:
    """Fuzzes. The exit code is 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="security.fuzzing", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument(
        "--seed", type=int, default=random.SystemRandom().getrandbits(30), help="default: any"
    )
    parser.add_argument("--under-atheris", metavar="TARGET", help=argparse.SUPPRESS)
    parser.add_argument("targets", nargs="*", help="default: all")
    arguments, rest = parser.parse_known_args()
    if arguments.under_atheris:
        return _become_fuzzer(arguments.under_atheris, rest)
    from security.fuzzing.targets import TARGETS

    names = arguments.targets or list(TARGETS)
    if unknown := set(names) - set(TARGETS):
        parser.error(f"no target {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    by_atheris = importlib.util.find_spec("atheris") is not None
    fuzz = _by_atheris if by_atheris else _by_hypothesis
    print(f"{len(names)} targets, {arguments.seconds} s each, by {'atheris' if by_atheris else 'Hypothesis'}")
    with ThreadPoolExecutor(os.cpu_count()) as side_by_side:
        kept = list(side_by_side.map(lambda name: fuzz(name, arguments.seconds, arguments.seed), names))
    failed = [name for name, is_kept in zip(names, kept, strict=True) if not is_kept]
    print(f"found something in: {', '.join(failed)}" if failed else "found nothing")
    return 1 if failed else 0


def _by_hypothesis(name: str, seconds: int, seed: int) -> bool:
    """Whether a target kept its promises."""
    command = [
        *(sys.executable, "-m", "pytest", "-q", f"--timeout={3 * seconds + 300}"),
        *("security/test_readers.py", "-k", f"keeps_its_promise and {name}-"),
    ]
    chosen = {"RUNYARD_FUZZ_SECONDS": str(seconds), "RUNYARD_FUZZ_SEED": str(seed)}
    done = _finished(command, {**os.environ, **chosen})
    _tell(name, done.stdout if done.returncode else "")
    return done.returncode == 0


def _by_atheris(name: str, seconds: int, seed: int) -> bool:
    """Whether a target kept its promises."""
    from security.fuzzing.targets import TARGETS

    with tempfile.TemporaryDirectory(prefix="ry-fuzz-") as folder:
        limits = [f"-max_total_time={seconds}", f"-seed={seed + 1}"]  # libFuzzer takes 0 for any
        prepared = _prepared(TARGETS[name], Path(folder))
        command = [sys.executable, "-m", "security.fuzzing", "--under-atheris", name, *prepared, *limits]
        done = _finished(command, os.environ)
    said = [
        line for line in done.stdout.splitlines() if line and not line.startswith(("INFO: Instr", "WARN"))
    ]
    shown = "number_of_executed_units", "peak_rss_mb", "slowest_unit"
    _tell(name, "\n".join(line for line in said if done.returncode or any(word in line for word in shown)))
    return done.returncode == 0


def _finished(command: Sequence[str], environment: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )


def _tell(name: str, said: str) -> None:
    print(f"--- {name}\n{said}".rstrip(), flush=True)


def _prepared(target: "Target", folder: Path) -> list[str]:
    """The fuzzer's arguments for a target, whose seeds and words are put into a folder."""
    corpus, words = folder / "corpus", folder / "words"
    corpus.mkdir()
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    words.write_text("\n".join(map(_quoted, target.words)))
    return [
        str(corpus),
        f"-timeout={SLOW}",
        f"-rss_limit_mb={MEMORY_MIB}",
        f"-artifact_prefix={os.getcwd()}/found-{target.name}-",
        "-max_len=20000",
        "-verbosity=0",
        "-print_final_stats=1",
        *([f"-dict={words}"] if target.words else []),
    ]


def _quoted(word: bytes) -> str:
    """A word as libFuzzer's dictionaries have it."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in word) + '"'


def _become_fuzzer(name: str, arguments: Sequence[str]) -> int:
    atheris: Any = importlib.import_module("atheris")

    with atheris.instrument_imports(include=["runyard", "yaml", "json"]):
        from security.fuzzing.targets import TARGETS
    atheris.Setup([sys.argv[0], *arguments], TARGETS[name].probe)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
