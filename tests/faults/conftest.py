"""The drills: quick by default, long with ``-m faults``. All of them train the same tiny data set."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from forked.commands import Commands

from wtal.runs.run import Run

WIDTHS = {"i3d": 24, "clip": 16}
CLASSES = ("Hop", "Skip", "跳")
SETTINGS = {
    "threads": 1,
    "cbp.networks": 1,
    "cbp.dim": 16,
    "cbp.heads": 2,
    "cbp.levels": 2,
    "vlp.heads": 2,
    "vlp.blocks": 1,
    "batch.size": 3,
    "batch.snippets": 48,
    "optimizer.lr": 1e-3,
    "schedule.warmup-epochs": 3,
    "schedule.b-epochs": 3,
    "schedule.f-epochs": 3,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.faults)


@pytest.fixture(scope="session")
def long_form(pytestconfig: pytest.Config) -> bool:
    """Whether the drills were asked for by name (``-m faults``) and may take their time."""
    return "faults" in pytestconfig.getoption("markexpr")


@dataclass(frozen=True)
class Ended:
    """A command that has ended: its exit code (minus the signal that killed it) and all that it printed."""

    code: int
    text: str


class Drills:
    """Runs commands of wtal in processes that may be told to strike themselves (``strike.py``)."""

    def __init__(self, commands: Commands) -> None:
        self.commands = commands

    def __call__(self, command: str, *arguments: object, strike: tuple[int, str, int] | None = None) -> Ended:
        """Run a command to its end."""
        self.start(command, *arguments, strike=strike)
        return self.end()

    def start(self, command: str, *arguments: object, strike: tuple[int, str, int] | None = None) -> int:
        """Begin a command; returns its process id. Call :meth:`end` before the next."""
        prepare = strike and (Path(__file__).with_name("strike.py"), "arm", strike)
        return self.commands.start(command, *arguments, prepare=prepare, joined=True)

    def end(self) -> Ended:
        """Wait for the command."""
        code, text, _ = self.commands.end()
        return Ended(code, text)


@pytest.fixture(scope="session")
def wtal(commands: Commands) -> Drills:
    """Runs commands."""
    return Drills(commands)


@dataclass(frozen=True)
class Tiny:
    """A data set of eleven short videos, and what to say to train on it."""

    toml: Path

    def arguments(self, out: Path, **settings: object) -> list[str]:
        """Arguments of ``wtal-train`` for a new run; ``batch__size=4`` is ``--batch.size 4``."""
        given = {**SETTINGS, **{name.replace("__", ".").replace("_", "-"): value for name, value in settings.items()}}
        options = [word for name, value in given.items() for word in (f"--{name}", str(value))]
        return ["--dataset", str(self.toml), "--out", str(out), "--schedule.control", *options]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The data set."""
    return Tiny(write_tiny(tmp_path_factory.mktemp("tiny") / "data", videos=11))


@pytest.fixture
def tiny_of(tmp_path: Path) -> Callable[[dict[str, int]], Tiny]:
    """The same with features of other widths."""
    return lambda widths: Tiny(write_tiny(tmp_path / "data", videos=11, widths=widths))


def write_tiny(folder: Path, videos: int, widths: dict[str, int] = WIDTHS) -> Path:
    """A ``dataset.toml`` with segments and text features, the last four videos for testing."""
    random = np.random.default_rng(7)
    labels, segments, names = ["video,label"], ["video,start,end,label"], []
    for kind in widths:
        (folder / kind).mkdir(parents=True)
    for number in range(videos):
        name, label, length = f"v{number:03d}", CLASSES[number % len(CLASSES)], 40 + 5 * (number % 7)
        names.append(name)
        labels.append(f"{name},{label}")
        segments.append(f"{name},{5 * 0.64:g},{15 * 0.64:g},{label}")
        for kind, width in widths.items():
            features = random.standard_normal((length, width), dtype=np.float32)
            features[5:15, CLASSES.index(label)] += 3
            np.save(folder / kind / f"{name}.npy", features)
    np.save(folder / "text.npy", np.eye(len(CLASSES), widths["clip"], dtype=np.float32))
    (folder / "labels.csv").write_text("\n".join(labels), encoding="utf-8")
    (folder / "segments.csv").write_text("\n".join(segments), encoding="utf-8")
    path = folder / "dataset.toml"
    path.write_text(
        f'name = "tiny"\nclasses = {json.dumps(CLASSES)}\ni3d = "i3d"\nclip = "clip"\nlabels = "labels.csv"\n'
        f'segments = "segments.csv"\ntext_features = "text.npy"\nfps = 25\ntest = {json.dumps(names[-4:])}\n',
        encoding="utf-8",
    )
    return path


@dataclass(frozen=True)
class Outcome:
    """What a finished run left behind, for comparing bit by bit."""

    tensors: dict[str, torch.Tensor]
    metrics: str
    predictions: dict[str, bytes]

    @classmethod
    def of(cls, folder: Path) -> Outcome:
        """Read it."""
        found = Run.open(folder).checkpoints.load(pytest.fail)
        assert found is not None
        files = sorted((folder / "predictions").glob("*.json"))
        return cls(found[0].tensors, (folder / "metrics.json").read_text(), {f.name: f.read_bytes() for f in files})

    def differences(self, other: Outcome) -> list[str]:
        """Names of what differs in any bit; empty if nothing does."""
        names = self.tensors.keys() | other.tensors.keys()
        found = [n for n in names if n not in self.tensors or n not in other.tensors]
        found += [n for n in names if n not in found and not torch.equal(self.tensors[n], other.tensors[n])]
        found += ["metrics.json"] * (self.metrics != other.metrics)
        return found + ["predictions"] * (self.predictions != other.predictions)


@pytest.fixture(scope="session")
def outcome() -> type[Outcome]:
    """The class, for tests (which cannot import a conftest)."""
    return Outcome


@pytest.fixture(scope="session")
def whole(tiny: Tiny, wtal: Drills, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an undisturbed run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    done = wtal("train", *tiny.arguments(folder))
    assert done.code == 0, done.text
    return folder


MEMORY = 600 * 2**20
"""No file of a few KB may make a reader take more than this; a header that is believed asks for far more."""


@pytest.fixture
def little_memory() -> Iterator[None]:
    """An allocation of what a header promises fails here, whatever the machine has."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- written by pytest -m faults -->", "<!-- end -->"
_rows: list[tuple[str, str, str]] = []
_left_out: list[str] = []  # drills that were deselected or skipped


def pytest_deselected(items: list[pytest.Item]) -> None:
    _left_out.extend(item.nodeid for item in items if Path(__file__).parent in item.path.parents)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and "faults/" in report.nodeid:
        _left_out.append(report.nodeid)


def why_partial(asked: Sequence[str], collected: Collection[Path], left_out: Sequence[str]) -> str | None:
    """Why a session is not of all drills, None if it is: what was asked for, files collected, drills left out."""
    if single := [word for word in asked if "::" in word]:
        return f"only {single[0]} was asked for"
    if missing := sorted(path.name for path in Path(__file__).parent.glob("test_*.py") if path not in collected):
        return f"{missing[0]} was not asked for"
    return f"{left_out[0]} did not run" if left_out else None


@pytest.fixture(scope="session")
def partial() -> Callable[..., str | None]:
    """The function above."""
    return why_partial


@pytest.fixture(scope="session")
def record() -> Callable[[str, str, str], None]:
    """``record(fault, where, outcome)`` adds a row to the table that the long form writes into docs/reliability.md."""

    def add(fault: str, where: str, outcome: str) -> None:
        _rows.append((fault, where, outcome))

    return add


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """After a complete and green long form, write the table."""
    if "faults" not in session.config.getoption("markexpr") or exitstatus or not _rows or not PAGE.is_file():
        return
    if why := why_partial(session.config.args, {item.path for item in session.items}, _left_out):
        print(f"\n{PAGE.name} stays as it is: {why}")
        return
    lines = ["| fault | where | outcome |", "| --- | --- | --- |"]
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in dict.fromkeys(_rows)]
    text = PAGE.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    table = "\n".join(lines)
    PAGE.write_text(f"{head}{BEGIN}\n\n{table}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")
