"""README and docs: every block runs or at least parses, and the site builds without a warning.

* ``sh`` and ``python`` blocks, and files (blocks with a title), are executed; all of ten_minutes.md first, in one
  folder, then the other pages in a copy of it.
* Lines of ``console`` blocks, and of README's indented ones, need data or time that a test lacks: their ``wtal-*``
  options are parsed by the command itself, so that no page names an option that is not there.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

TREE = Path(__file__).parents[2]
PAGES = [TREE / "README.md", *sorted((TREE / "docs").glob("*.md"))]
EXECUTED = {"sh", "python"}
READ = {"console", "text", "toml", "csv", "json", "bibtex", ""}
FENCE = re.compile(r"^```(\w*)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    language: str
    title: str
    text: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    assert text.count("\n```") % 2 == 0, f"{page.name}: a block is not closed"
    return [Block(language, title, body) for language, title, body in FENCE.findall(text)]


def environment(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "WTAL_CACHE": str(folder / "cache"),
        "COLUMNS": "100",
        "OMP_NUM_THREADS": "1",  # small work: a second thread only waits where the machine is busy
    }


def run_pages(pages: list[Path], folder: Path) -> str:
    """Write each page's files and run its commands, in one process; python blocks share a namespace within a page."""
    program = ["import subprocess", "from pathlib import Path"]
    for page in pages:
        program.append("page = {'__name__': 'page'}")
        for number, block in enumerate(blocks(page), 1):
            if block.title:
                path = folder / block.title
                path.parent.mkdir(parents=True, exist_ok=True)
                program.append(f"Path({str(path)!r}).write_text({block.text!r}, encoding='utf-8')")
            elif block.language == "sh" and page.name != "README.md":  # .ci/run runs README's, in an empty environment
                program.append(f"subprocess.run(['bash', '-euo', 'pipefail', '-c', {block.text!r}], check=True)")
            elif block.language == "python":
                program.append(f"exec(compile({block.text!r}, '{page.name}, block {number}', 'exec'), page)")
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error::DeprecationWarning:page", "-c", "\n".join(program)],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment(folder),
        timeout=500,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def kitchen(tmp_path_factory) -> tuple[Path, str]:
    """The folder in which ten_minutes.md has been followed, and what that printed."""
    folder = tmp_path_factory.mktemp("kitchen")
    printed = run_pages([TREE / "docs" / "ten_minutes.md"], folder)
    # Files that README's example speaks of.
    found = {"score": 0.9, "segment": [1.0, 4.0], "label": "Chop"}
    (folder / "predictions.json").write_text(json.dumps({"version": "1", "results": {"a": [found]}}))
    truth = {"a": {"subset": "test", "annotations": [{"segment": [1.0, 4.0], "label": "Chop"}]}}
    (folder / "gt.json").write_text(json.dumps({"database": truth}))
    return folder, printed


def test_own_videos_in_ten_minutes(kitchen: tuple[Path, str]) -> None:
    folder, printed = kitchen
    assert (folder / "runs" / "kitchen" / "report.html").stat().st_size > 50_000
    assert (folder / "detections.csv").read_text().startswith("video,start,end,label,score\n")
    assert "CBP after F" in printed
    assert re.search(r"s to +\d+\.\d\d s  (Chop|Stir)", printed)


def test_blocks_of_all_other_pages_run(kitchen: tuple[Path, str], tmp_path) -> None:
    shutil.copytree(kitchen[0], tmp_path / "copy")
    # extract.md starts from video files and network weights; tests/features runs its blocks on some.
    run_pages([page for page in PAGES if page.name not in ("ten_minutes.md", "extract.md")], tmp_path / "copy")


def console_lines(page: Path) -> list[str]:
    fenced = [line for block in blocks(page) if block.language == "console" for line in block.text.splitlines()]
    outside = re.sub(r"\\\n\s+", " ", FENCE.sub("", page.read_text(encoding="utf-8")))  # continued lines in one
    indented = re.findall(r"^    (\S.*)$", outside, re.MULTILINE)
    inline = re.findall(r"`(wtal-\w+ [^`]+)`", outside)
    first = [line for block in blocks(page) if block.language == "sh" for line in block.text.splitlines()]
    lines = "\n".join((*fenced, *indented, *inline, *first)).replace("\\\n", " ")
    return [line.rstrip("\\ ") for line in lines.splitlines() if line.strip()]


def commands(page: Path) -> list[list[str]]:
    """Its ``wtal-*`` command lines, as words."""
    found = []
    for line in console_lines(page):
        for part in re.split(r"&&|\|", line):
            words = shlex.split(part, comments=True)
            if words and words[0].startswith("wtal-"):
                found.append(words)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_option_that_a_page_names_is_there(page: Path) -> None:
    from wtal.cli.parsing import parse

    for command, *arguments in commands(page):
        module = import_module(f"wtal.cli.{command.removeprefix('wtal-')}")
        if {"--help", "--version"} & set(arguments):
            continue
        arguments = [re.sub("^[A-Z]$", "1", argument) for argument in arguments if argument != "..."]
        parse(module.Options, command, arguments)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_say_what_they_are(page: Path) -> None:
    for block in blocks(page):
        assert block.language in EXECUTED | READ, f"{page.name}: a block of {block.language!r}"
        assert block.language or page.name == "README.md", (
            f"{page.name}: a block without a language: {block.text[:60]!r}"
        )


def test_the_site_builds_and_every_link_leads_somewhere(tmp_path) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed (it is in [dev])")
    command = [
        sys.executable,
        "-P",
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--site-dir",
        str(tmp_path / "site"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=TREE)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("ops", "api", "report", "ten_minutes"):
        assert (tmp_path / "site" / name / "index.html").is_file()
    assert "max_per_group" in (tmp_path / "site" / "ops" / "index.html").read_text(encoding="utf-8")


def test_links_of_the_readme_lead_somewhere() -> None:
    text = (TREE / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    missing = [name for name in (*links, *re.findall(r"\bdocs/\w+\.md\b", text)) if not (TREE / name).exists()]
    assert missing == []
