"""The modules of benchmarks/real, and a small data set of features, for the tests of both."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np

ROOT = Path(__file__).parents[2]


def real(name: str) -> ModuleType:
    """A module of benchmarks/real; the root is not on the path, since its wtal/ may have no kernels."""
    package = "real_baselines"
    if package not in sys.modules:
        folder = ROOT / "benchmarks/real"
        spec = importlib.util.spec_from_file_location(
            package, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[package] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return importlib.import_module(f"{package}.{name}")


CLASSES = ("jump", "throw", "swim")
WIDTH = 12


def write_dataset(folder: Path, seed: int = 0) -> Path:
    """24 videos of one class each, two or three instances in each, every class a direction of the features."""
    random = np.random.default_rng(seed)
    (folder / "features").mkdir(parents=True)
    labels, segments, train_segments, test = ["video,label"], ["video,start,end,label"], ["video,start,end,label"], []
    for number in range(24):
        name, label = f"v{number:02}", number % 3
        features = random.normal(size=(int(random.integers(40, 70)), WIDTH))
        start = int(random.integers(2, 6))
        while start + 8 < len(features):
            end = start + int(random.integers(4, 8))
            features[start:end, label] += 4.0
            (segments if number >= 15 else train_segments).append(f"{name},{start},{end},{CLASSES[label]}")
            start = end + int(random.integers(12, 20))
        np.save(folder / f"features/{name}.npy", features.astype(np.float16))
        labels.append(f"{name},{CLASSES[label]}")
        test += [name] if number >= 15 else []
    for file, lines in (
        ("labels.csv", labels),
        ("segments.csv", segments),
        ("train_segments.csv", train_segments),
        ("test.txt", test),
    ):
        (folder / file).write_text("\n".join(lines) + "\n")
    (folder / "dataset.toml").write_text(
        f'name = "tiny"\nclasses = {json.dumps(CLASSES)}\ni3d = "features"\nlabels = "labels.csv"\n'
        'segments = "segments.csv"\ntest = "test.txt"\nfps = 16\nstride = 16\nwindow = 16\n'
    )
    return folder / "dataset.toml"
