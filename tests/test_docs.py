"""The pages: their links lead somewhere, every page is reachable, and the commands that they show exist."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer

from runyard.cli.app import app

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
COMMAND = re.compile(r"^(?:    |\$ )*(?:\$ )?runyard ((?:[a-z-]+ ?)+)", re.M)
OPTION_LINE = re.compile(r"^(?:    |\$ )*(?:\$ )?runyard ([^#|;&\n]+)", re.M)
FENCED = re.compile(r"^```.*?^```", re.M | re.S)
DAEMONS = {"coordinator", "agent", "dagster-reporter"}
"""Their options are those of the services, which `docs/reference` lists."""


def pages() -> list[Path]:
    """Every page under version control."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", "*.md"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in done.stdout.splitlines() if (ROOT / name).exists()]


def links(page: Path) -> list[str]:
    """The relative links of a page."""
    targets = LINK.findall(FENCED.sub("", page.read_text()))
    return [target for target in targets if "://" not in target and not target.startswith("mailto:")]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as hosting sites make them."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{link} leads nowhere"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{link}: there is no such heading"


def test_every_page_is_reachable_from_the_index() -> None:
    reached: set[Path] = set()
    waiting = [DOCS / "index.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        targets = [(page.parent / link.partition("#")[0]).resolve() for link in links(page)]
        waiting += [target for target in targets if target.suffix == ".md" and target.exists()]
    missed = [str(page.relative_to(ROOT)) for page in DOCS.rglob("*.md") if page not in reached]
    assert not missed


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_a_page_shows_exists(page: Path) -> None:
    for shown in COMMAND.findall(page.read_text()):
        command: Any = typer.main.get_command(app)
        for word in shown.split():
            if not hasattr(command, "commands") or word in DAEMONS:
                break
            assert word in command.commands, f"runyard {shown.strip()}: there is no {word}"
            command = command.commands[word]


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_option_of_a_command_that_a_page_shows_exists(page: Path) -> None:
    for shown in OPTION_LINE.findall(page.read_text()):
        command: Any = typer.main.get_command(app)
        options: set[str] = {"--help"}
        words = shown.split()
        if any(word in DAEMONS for word in words[:1]):
            continue
        for word in words:
            options |= {
                name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)
            }
            if word.startswith("--"):
                assert word.partition("=")[0] in options, (
                    f"runyard {shown.strip()}: there is no option {word}"
                )
            elif hasattr(command, "commands") and word in command.commands:
                command = command.commands[word]
