"""What all tests share: hypothesis profiles, the gpu marker, the folder of real annotation files."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from forked.commands import Commands
from hypothesis import settings

# 'python -m pytest' puts this source tree first, whose wtal has no kernels: the tests are about the installed one.
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != Path(__file__).parents[1]]

# Beside another process of the tests, a thread that waits must leave its core; read when torch is loaded.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

LONGEST = Path(__file__).with_name("longest.txt")
"""Files of tests, the one that takes longest first; which others there are makes no difference."""

# Fresh examples in every run, also where CI is set; a failure prints the line that brings its example back.
settings.register_profile("default", deadline=None, derandomize=False, print_blob=True, database=None)
settings.register_profile("quick", settings.get_profile("default"), max_examples=15)
settings.register_profile("sanitized", settings.get_profile("default"), max_examples=8)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Let each process of pytest-xdist take whole files, in the order in which they were collected.

    What a file's tests share is then made once.
    """
    if getattr(config.option, "dist", "no") == "load":
        config.option.dist = "loadfile"
        config.option.loadscopereorder = False  # that order would be by number of tests


def longest_first(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the files of several processes: were a long one the last, all other processes would wait for it."""
    if not hasattr(config, "workerinput"):
        return
    places = {name: place for place, name in enumerate(LONGEST.read_text().split())}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(places)))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "slow" not in config.getoption("markexpr"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="a long drill; pytest -m slow runs it"))
    longest_first(config, items)
    needs_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not needs_gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in needs_gpu:
            item.add_marker(pytest.mark.skip(reason="torch finds no CUDA device here"))


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real annotation files that WTAL_TEST_DATA names."""
    folder = os.environ.get("WTAL_TEST_DATA")
    if not folder:
        pytest.skip("WTAL_TEST_DATA is unset; it names a folder of real annotation files")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"WTAL_TEST_DATA={folder} is not a folder")
    return path


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """Runs commands of wtal, each in a process of its own."""
    running = Commands(tmp_path_factory.mktemp("commands"))
    yield running
    running.close()


@pytest.fixture(scope="session")
def write_own() -> Callable[..., Path]:
    """Makes a small data set without CLIP features in a folder, and returns its ``dataset.toml``."""
    return write_own_data


def write_own_data(folder: Path, training: int = 7, testing: int = 4, seed: int = 0, extra: str = "") -> Path:
    """Videos of 24 to 60 snippets, two classes and both, one or two actions each; ``extra`` are further keys.

    ``segments.csv`` has the test videos, ``train_segments.csv`` (no key names it unless ``extra`` does) the others.
    """
    random = np.random.default_rng(seed)
    direction = random.normal(size=(2, 12))
    (folder / "i3d").mkdir(parents=True)
    labels, segments = ["video,label"], {"segments": ["video,start,end,label"], "train_segments": []}
    segments["train_segments"] = [*segments["segments"]]
    names = [f"v{number:02}" for number in range(training + testing)]
    for number, name in enumerate(names):
        length = int(random.integers(24, 61))
        features = random.normal(size=(length, 12))
        present = [(0,), (1,), (0, 1)][number % 3]
        labels.append(f"{name},{';'.join('AB'[c] for c in present)}")
        for place, c in enumerate(present):
            start = int(random.integers(1, 5)) + place * length // 2
            end = start + int(random.integers(4, 8))
            features[start:end] += 2 * direction[c]
            row = f"{name},{start * 16 / 25:g},{end * 16 / 25:g},{'AB'[c]}"
            segments["train_segments" if number < training else "segments"].append(row)
        np.save(folder / "i3d" / f"{name}.npy", features.astype(np.float32))
    (folder / "labels.csv").write_text("\n".join(labels))
    for kind, rows in segments.items():
        (folder / f"{kind}.csv").write_text("\n".join(rows))
    path = folder / "dataset.toml"
    path.write_text(
        f'name = "{folder.name}"\nclasses = ["A", "B"]\ni3d = "i3d"\nlabels = "labels.csv"\n'
        f'segments = "segments.csv"\ntest = {names[training:]!r}\nfps = 25\n{extra}\n'
    )
    return path
