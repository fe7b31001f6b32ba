"""Where the real annotation files are, and a writer of small data sets in each of the layouts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def real_data() -> Path:
    folder = os.environ.get("WTAL_TEST_DATA")
    if not folder:
        pytest.skip("WTAL_TEST_DATA is not set: it names the folder with real annotation files")
    return Path(folder)


@pytest.fixture(autouse=True)
def own_places(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds a user's data or writes into a user's cache."""
    monkeypatch.setenv("WTAL_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("WTAL_DATA", raising=False)


# id -> (train or test, features [T, D], [(start, end, label)])
Content = Mapping[str, tuple[str, np.ndarray, Sequence[tuple[float, float, str]]]]


def save_objects(path: Path, values: Sequence[object]) -> None:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array, allow_pickle=True)


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def write_wtalc(root: Path, content: Content, thumos: bool) -> None:
    prefix = "Thumos14reduced" if thumos else "ActivityNet1.2"
    words = ("validation", "test") if thumos else ("training", "validation")
    folder = root / f"{prefix}-Annotations"
    labels = {video: sorted({row[2] for row in rows}) for video, (_, _, rows) in content.items()}
    save(folder / "videoname.npy", np.array([video.encode() for video in content]))
    save(folder / "subset.npy", np.array([words[kind == "test"].encode() for kind, _, _ in content.values()]))
    classes = sorted({label for names in labels.values() for label in names}, reverse=True)
    save(folder / "classlist.npy", np.array([label.encode() for label in classes]))
    save_objects(folder / "segments.npy", [[[start, end] for start, end, _ in rows] for _, _, rows in content.values()])
    save_objects(folder / "labels.npy", [[label.encode() for _, _, label in rows] for _, _, rows in content.values()])
    save_objects(folder / "labels_all.npy", [[label.encode() for label in names] for names in labels.values()])
    save_objects(root / f"{prefix}-I3D-JOINTFeatures.npy", [features for _, features, _ in content.values()])


def write_basnet(root: Path, content: Content, thumos: bool) -> None:
    words = ("train", "test") if thumos else ("training", "validation")
    database = {}
    for video, (kind, features, rows) in content.items():
        annotations = [{"segment": [str(start), str(end)], "label": label} for start, end, label in rows]
        database[video] = {"subset": words[kind == "test"], "annotations": annotations}
        half = features.shape[1] // 2
        save(root / "features" / kind / "rgb" / f"{video}.npy", features[:, :half])
        save(root / "features" / kind / "flow" / f"{video}.npy", features[:, half:])
    (root / "gt.json").write_text(json.dumps({"database": database}))


def write_actionformer(root: Path, content: Content, thumos: bool) -> None:
    words = ("Validation", "Test") if thumos else ("training", "validation")
    database = {}
    for video, (kind, features, rows) in content.items():
        annotations = [{"segment": [start, end], "label": label} for start, end, label in rows]
        database[video] = {"subset": words[kind == "test"], "duration": 60.0, "fps": 29.97, "annotations": annotations}
        save(root / "i3d_features" / f"{video}.npy", features)
    path = root / "annotations" / ("thumos14.json" if thumos else "anet1.2_i3d_filtered.json")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"version": "test", "database": database}))


@pytest.fixture
def write_layout(tmp_path: Path) -> Callable[..., Path]:
    """``write_layout(layout, content, thumos=True)`` writes a data set into a new folder and returns it."""

    def write(layout: str, content: Content, thumos: bool = True) -> Path:
        root = tmp_path / f"{layout}-{len(list(tmp_path.iterdir()))}"
        root.mkdir()
        {"wtalc": write_wtalc, "basnet": write_basnet, "actionformer": write_actionformer}[layout](
            root, content, thumos
        )
        return root

    return write


@pytest.fixture
def content() -> Content:
    """Four videos of three classes; every value of the features tells where it belongs."""
    rng = np.random.default_rng(0)

    def features(length: int) -> np.ndarray:
        return rng.normal(size=(length, 6)).astype(np.float32)

    return {
        "video_validation_0000001": ("train", features(7), [(1.0, 2.5, "Diving"), (1.0, 2.5, "CliffDiving")]),
        "video_test_0000001": ("test", features(5), [(0.5, 2.0, "Billiards")]),
        "video_validation_0000002": ("train", features(11), [(3.0, 4.0, "Billiards")]),
        "video_test_0000002": ("test", features(3), [(0.25, 1.5, "Diving")]),
    }
