"""Generated features for real annotations: their lengths and grids, and what they show of the annotation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wtal.data.annotations import Annotations, read_annotations
from wtal.data.catalog import DATASETS, open_dataset
from wtal.data.features import read_clip, read_features
from wtal.data.open import open_data
from wtal.data.synthetic import DEFAULT, FULL_SIZE, synthetic_dataset, synthetic_features
from wtal.data.synthetic.dataset import class_names
from wtal.data.synthetic.world import make_world
from wtal.data.synthetic.write_layouts import Layout
from wtal.data.timebase import Timebase
from wtal.errors import WtalError

LAYOUTS: tuple[Layout, ...] = ("wtalc", "basnet", "actionformer")
NARROW = replace(FULL_SIZE, size=replace(FULL_SIZE.size, i3d_dim=8, clip_dim=4))
THUMOS14 = DATASETS["thumos14"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Layout, Path]:
    """A small data set in each layout, for its annotations."""
    root = tmp_path_factory.mktemp("synthetic")
    size = replace(DEFAULT.size, training_videos=4, test_videos=3, i3d_dim=24, clip_dim=16)
    return {layout: synthetic_dataset(2, root / layout, layout, replace(DEFAULT, size=size)) for layout in LAYOUTS}


def written(folder: Path) -> dict[Path, int]:
    """When each file below a folder was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def annotations_in(folder: Path) -> Annotations:
    """The ground truth of a folder in any layout."""
    places = ("gt.json", "annotations/thumos14.json", "Thumos14reduced-Annotations")
    return read_annotations(next(folder / place for place in places if (folder / place).exists()))


def read_all(root: Path, annotations: Annotations) -> dict[str, np.ndarray]:
    """I3D features by video, read with NumPy alone."""
    if annotations.kind == "wtalc":
        joint = np.load(root / "Thumos14reduced-I3D-JOINTFeatures.npy", allow_pickle=True)
        return dict(zip(annotations.videos, joint, strict=True))
    if annotations.kind == "actionformer":
        return {name: np.load(root / "i3d_features" / f"{name}.npy") for name in annotations.videos}
    return {
        name: np.hstack(
            [
                np.load(root / "features" / annotations.split_of(video) / part / f"{name}.npy")
                for part in ("rgb", "flow")
            ]
        )
        for name, video in annotations.videos.items()
    }


def check_full_size(root: Path, annotations: Annotations, whole: Annotations, i3d_dim: int, clip_dim: int) -> None:
    """``annotations`` are what was generated of the ``whole`` file."""
    features = read_all(root, annotations)
    assert list(features) == list(annotations.videos)
    for video in annotations.videos.values():
        dense = annotations.kind == "actionformer"
        time = Timebase(video.fps or 25.0, 4, 16) if dense else Timebase(25.0, 16, 16)
        x, y = features[video.id], np.load(root / "clip" / f"{video.id}.npy")
        assert x.dtype == y.dtype == np.float16
        assert x.shape == (len(y), i3d_dim)
        assert y.shape[1] == clip_dim
        assert np.isfinite(x).all()
        np.testing.assert_allclose(np.linalg.norm(y.astype(float), axis=1), 1.0, atol=2e-3)
        assert all(instance.end <= time.edge(len(x)) + 1e-6 for instance in video.instances or ())
        if video.duration is not None:
            last = max((instance.end for instance in video.instances or ()), default=0.0)
            assert time.edge(len(x) - 1) <= max(video.duration, last)
            assert time.edge(len(x) + 4) >= video.duration - 16 / time.fps
    copied = annotations_in(root)
    assert copied.videos == whole.videos
    assert copied.classes == whole.classes


@pytest.mark.parametrize("layout", LAYOUTS)
def test_features_for_annotations_in_each_layout(layout: Layout, folders: dict[Layout, Path], tmp_path: Path) -> None:
    annotations = annotations_in(folders[layout])
    calls: list[tuple[int, int]] = []
    target = tmp_path / "full"
    root = synthetic_features(
        annotations, class_names(10), target, 1, THUMOS14, layout, NARROW, lambda *now: calls.append(now)
    )
    assert calls == [(done, 7) for done in range(1, 8)]
    check_full_size(root, annotations, annotations, 8, 4)
    opened = open_dataset("thumos14", root)
    assert opened.layout == layout
    assert opened.text_features is None
    for video in opened:
        assert read_features(video).shape == (len(read_clip(video)), 8)
    before = written(tmp_path)
    synthetic_features(annotations, class_names(10), target, 1, THUMOS14, layout, NARROW)
    assert written(tmp_path) == before
    with pytest.raises(WtalError, match="was generated with seed 1, expected 2"):
        synthetic_features(annotations, class_names(10), target, 2, THUMOS14, layout, NARROW)
    name, video = next(iter(annotations.videos.items()))
    changed = replace(annotations, videos={**annotations.videos, name: replace(video, instances=())})
    with pytest.raises(WtalError, match="was generated with annotations"):
        synthetic_features(changed, class_names(10), target, 1, THUMOS14, layout, NARROW)


def test_true_shapes_by_default(folders: dict[Layout, Path], tmp_path: Path) -> None:
    annotations = annotations_in(folders["basnet"])
    two = replace(annotations, videos=dict(list(annotations.videos.items())[:2]))
    root = synthetic_features(two, annotations.classes, tmp_path / "full", 0, THUMOS14, "basnet")
    for name, x in read_all(root, two).items():
        assert x.shape[1] == 2048
        assert np.load(root / "clip" / f"{name}.npy").shape == (len(x), 512)
        assert 1.0 < x.std(dtype=np.float64) < 1.5


def test_annotated_instances_show_in_the_features(folders: dict[Layout, Path], tmp_path: Path) -> None:
    """Noise-free: a class's core prototype is where the annotation says, on the dense grid too."""
    parameters = replace(
        FULL_SIZE,
        size=replace(FULL_SIZE.size, i3d_dim=512, clip_dim=4),
        control=replace(FULL_SIZE.control, difficulty=0.0, no_core_gap=True),
    )
    core = make_world(3, 10, parameters.resolved()).i3d.core
    for layout in LAYOUTS:
        annotations = annotations_in(folders[layout])
        root = synthetic_features(annotations, class_names(10), tmp_path / layout, 3, THUMOS14, layout, parameters)
        time = Timebase(25.0, 4 if layout == "actionformer" else 16, 16)
        for name, x in read_all(root, annotations).items():
            seen = x.astype(np.float64) @ core.T / (512**0.5 / 1.5)  # [T, C]
            centers = time.center(np.arange(len(x)))
            for index, label in enumerate(class_names(10)):
                inside = np.zeros(len(x), dtype=bool)
                for instance in annotations.videos[name].instances or ():
                    if instance.label == label:
                        inside |= (centers >= instance.start) & (centers < instance.end)
                assert inside.any() == (label in annotations.videos[name].labels)
                if inside.any():
                    others = seen[~inside, index].max()
                    assert np.mean(seen[inside, index] > others) > 0.7


def test_unsuitable_annotations_are_refused(folders: dict[Layout, Path], tmp_path: Path) -> None:
    annotations = annotations_in(folders["basnet"])
    with pytest.raises(WtalError, match="generated features for bsn annotations are not offered"):
        synthetic_features(replace(annotations, kind="bsn"), class_names(10), tmp_path / "full", 0, THUMOS14, "basnet")
    with pytest.raises(WtalError, match=r"class '.*', expected one of the 1 of the data set"):
        synthetic_features(annotations, ["Diving"], tmp_path / "full", 0, THUMOS14, "basnet")
    assert not (tmp_path / "full").exists()


@pytest.mark.parametrize(
    ("place", "layout", "spacing"),
    [("gt.json", "basnet", 16 / 25), ("annotations/activity_net.v1-3.min.json", "actionformer", 16 / 25)],
)
@pytest.mark.parametrize("allow_missing", [False, True])
def test_activitynet_annotations(
    place: str, layout: str, spacing: float, allow_missing: bool, tmp_path: Path, monkeypatch
) -> None:
    """They have durations in every layout, and ActionFormer's grid for them is not THUMOS14's."""
    monkeypatch.setenv("WTAL_CACHE", str(tmp_path / "cache"))
    records = {
        f"v{number}": {
            "duration": 60.0 + number,
            "subset": "training" if number < 3 else "validation",
            "annotations": [{"label": "Diving", "segment": [10.0, 20.0 + number]}],
        }
        for number in range(5)
    }
    if allow_missing:
        records["v1"]["annotations"] = []
    truth = tmp_path / "root" / place
    truth.parent.mkdir(parents=True)
    truth.write_text(json.dumps({"database": records}))
    found = open_data("activitynet13", tmp_path / "root", features="synthetic", allow_missing=allow_missing)
    assert (found.layout, len(found.videos)) == (layout, 4 if allow_missing else 5)
    assert found.unlabelled == (("v1",) if allow_missing else ())
    for video in found:
        assert (video.timebase.edge(1) - video.timebase.edge(0)) == pytest.approx(spacing)
        assert len(read_features(video)) == (records[video.id]["duration"] * 25 - 16) // 16 + 1
        assert len(read_clip(video)) == len(read_features(video))


@pytest.mark.parametrize(
    "place",
    ["basnet/gt.json", "wtalc/Thumos14reduced-Annotations", "actionformer/thumos14.json"],
    ids=["basnet", "wtalc", "actionformer"],
)
def test_features_for_the_real_annotations(place: str, test_data: Path, tmp_path: Path) -> None:
    """THUMOS14 has instances that overlap, that are shorter than a snippet, and videos of 24 to 30 fps."""
    whole = read_annotations(test_data / "thumos14" / place)
    some = replace(whole, videos={name: whole.videos[name] for name in list(whole.videos)[::5]})
    root = synthetic_features(some, whole.classes, tmp_path / "full", 0, THUMOS14, whole.kind, NARROW)
    check_full_size(root, some, whole, 8, 4)
