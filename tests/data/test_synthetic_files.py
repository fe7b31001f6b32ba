"""Generated data on disk: the three layouts read back, real annotations with generated features, whole folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wtal.data.annotations import Annotations, read_annotations
from wtal.data.catalog import DATASETS, open_dataset
from wtal.data.features import read_clip, read_features
from wtal.data.open import open_data
from wtal.data.synthetic import (
    DEFAULT,
    FULL_SIZE,
    GENERATOR_VERSION,
    Parameters,
    open_synthetic,
    synthetic_dataset,
    synthetic_features,
)
from wtal.data.synthetic.dataset import TEXT_FEATURES, class_names, make_video, video_ids
from wtal.data.synthetic.events import SnippetKind
from wtal.data.synthetic.world import make_world
from wtal.data.synthetic.write_layouts import Layout
from wtal.data.timebase import Timebase
from wtal.errors import WtalError

LAYOUTS: tuple[Layout, ...] = ("wtalc", "basnet", "actionformer")
SMALL = replace(DEFAULT, size=replace(DEFAULT.size, training_videos=4, test_videos=3, i3d_dim=24, clip_dim=16))
NOISY = replace(SMALL, i3d=replace(SMALL.i3d, noise=2.0))
NARROW = replace(FULL_SIZE, size=replace(FULL_SIZE.size, i3d_dim=8, clip_dim=4))
SEED = 2
THUMOS14 = DATASETS["thumos14"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WTAL_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Layout, Path]:
    root = tmp_path_factory.mktemp("synthetic")
    return {layout: synthetic_dataset(SEED, root / layout, layout, SMALL) for layout in LAYOUTS}


def snapshot(folder: Path) -> dict[Path, tuple[int, int]]:
    """Every file below a folder: when it was written, and its length."""
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*") if path.is_file()}


# ---- the benchmark through the real loaders -------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_loaders_give_back_what_was_generated(layout: Layout, folders: dict[Layout, Path]) -> None:
    data = open_synthetic(folders[layout])
    assert data.name == "synthetic"
    assert data.layout == layout
    assert data.classes == class_names(10)
    assert data.text_features is not None
    assert data.text_features.dtype == np.float32
    np.testing.assert_array_equal(data.text_features, make_world(SEED, 10, SMALL).clip.text)
    assert {(video.id, video.subset) for video in data} == set(video_ids(SMALL))
    world = make_world(SEED, 10, SMALL)
    for video in data:
        made = make_video(SEED, video.id, world, SMALL)
        np.testing.assert_array_equal(read_features(video), made.i3d)
        np.testing.assert_array_equal(read_clip(video), made.clip)
        assert video.labels == tuple(data.classes[label] for label in made.events.labels)
        assert video.instances is not None
        assert len(video.instances) == len(made.instances)
        for instance, span in zip(video.instances, made.instances, strict=True):
            assert instance.label == data.classes[span.label]
            assert video.timebase.position(instance.start) == pytest.approx(span.start, abs=1e-6)
            assert video.timebase.position(instance.end) == pytest.approx(span.end, abs=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_kinds_agree_with_the_annotation(layout: Layout, folders: dict[Layout, Path]) -> None:
    """By the layout's own formula for a snippet's centre, written out here."""
    stride = 4 if layout == "actionformer" else 16
    for video in open_synthetic(folders[layout]):
        kinds = np.load(folders[layout] / "kinds" / f"{video.id}.npy")
        centers = (np.arange(len(kinds)) * stride + 8) / 25
        acting = np.zeros(len(kinds), dtype=bool)
        for instance in video.instances or ():
            acting |= (centers >= instance.start) & (centers < instance.end)
        np.testing.assert_array_equal(kinds >= SnippetKind.PHASE, acting)


def test_features_are_the_same_in_every_layout(folders: dict[Layout, Path]) -> None:
    joint = np.load(folders["wtalc"] / "Thumos14reduced-I3D-JOINTFeatures.npy", allow_pickle=True)
    names = np.load(folders["wtalc"] / "Thumos14reduced-Annotations" / "videoname.npy")
    assert joint.dtype == object
    assert joint.shape == names.shape == (7,)
    for name, features in zip(names.astype(str), joint, strict=True):
        subset = name.split("_")[1]
        rgb, flow = (
            np.load(folders["basnet"] / "features" / subset / part / f"{name}.npy") for part in ("rgb", "flow")
        )
        assert rgb.shape == flow.shape == (len(features), 12)
        np.testing.assert_array_equal(np.hstack([rgb, flow]), features)
        np.testing.assert_array_equal(np.load(folders["actionformer"] / "i3d_features" / f"{name}.npy"), features)


def test_basnet_annotation_is_text_and_split(folders: dict[Layout, Path]) -> None:
    database = json.loads((folders["basnet"] / "gt.json").read_text())["database"]
    for record in database.values():
        assert all(isinstance(edge, str) for annotation in record["annotations"] for edge in annotation["segment"])
    for subset in ("train", "test"):
        listed = (folders["basnet"] / f"split_{subset}.txt").read_text().split()
        assert listed == [name for name, record in database.items() if record["subset"] == subset]


def test_durations_hold_the_instances(folders: dict[Layout, Path]) -> None:
    for layout in ("wtalc", "actionformer"):
        for video in open_synthetic(folders[layout]):
            assert video.duration is not None
            assert max(instance.end for instance in video.instances or ()) <= video.duration


def test_a_class_without_videos_is_still_a_class(tmp_path: Path) -> None:
    parameters = replace(SMALL, size=replace(SMALL.size, training_videos=1, test_videos=1))
    for layout in LAYOUTS:
        data = open_synthetic(synthetic_dataset(0, tmp_path / layout, layout, parameters))
        assert data.classes == class_names(10)
        assert data.text_features is not None
        assert data.text_features.shape == (10, 16)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "wtal-synthetic.json").unlink(), "no such file"),
        (lambda root: (root / "wtal-synthetic.json").write_text("{"), "cannot be read"),
        (lambda root: (root / "wtal-synthetic.json").write_text("[]"), "holds a list"),
        (lambda root: (root / "wtal-synthetic.json").write_text("{}"), "content is None, expected the 'benchmark'"),
        (
            lambda root: np.save(root / TEXT_FEATURES, np.ones((2, 16))),
            rf"{TEXT_FEATURES}: .*\[10, D\]",
        ),
        (lambda root: (root / TEXT_FEATURES).unlink(), f"{TEXT_FEATURES}: no such file"),
    ],
)
def test_a_damaged_folder_is_refused(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    root = synthetic_dataset(SEED, tmp_path / "data", "basnet", SMALL)
    damage(root)
    with pytest.raises(WtalError, match=message):
        open_synthetic(root)


# ---- a folder appears whole, once -----------------------------------------------------------------------------


def test_a_complete_folder_is_used_again(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    root = synthetic_dataset(SEED, tmp_path / "a" / "data", "basnet", SMALL, lambda *now: calls.append(now))
    assert calls == [(done, 7) for done in range(1, 8)]
    before = snapshot(tmp_path)
    assert synthetic_dataset(SEED, str(root), "basnet", SMALL, lambda *now: calls.append(now)) == root
    assert snapshot(tmp_path) == before
    assert len(calls) == 7
    described = json.loads((root / "wtal-synthetic.json").read_text())
    assert (described["generator_version"], described["seed"]) == (GENERATOR_VERSION, SEED)


@pytest.mark.parametrize(
    ("seed", "layout", "parameters", "message"),
    [
        (SEED + 1, "basnet", SMALL, "seed 2, expected 3"),
        (SEED, "wtalc", SMALL, "layout 'basnet', expected 'wtalc'"),
        (
            SEED,
            "basnet",
            replace(SMALL, i3d=replace(SMALL.i3d, noise=2.0)),
            r"parameters\.i3d\.noise 1\.4, expected 2\.0",
        ),
    ],
)
def test_another_set_in_the_folder_is_an_error(
    tmp_path: Path, seed: int, layout: Layout, parameters: Parameters, message: str
) -> None:
    root = synthetic_dataset(SEED, tmp_path / "data", "basnet", SMALL)
    before = snapshot(tmp_path)
    with pytest.raises(WtalError, match=f"{root}: was generated with {message}"):
        synthetic_dataset(seed, root, layout, parameters)
    assert snapshot(tmp_path) == before


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(WtalError, match="holds something that wtal did not generate"):
        synthetic_dataset(SEED, tmp_path, "basnet", SMALL)
    with pytest.raises(WtalError, match="holds something that wtal did not generate"):
        synthetic_dataset(SEED, tmp_path / "notes.txt", "basnet", SMALL)
    with pytest.raises(WtalError, match="cannot write generated features"):
        synthetic_dataset(SEED, tmp_path / "notes.txt" / "data", "basnet", SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_empty_folder_is_filled_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    synthetic_dataset(SEED, tmp_path / "data", "actionformer", SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_interrupted_generation_leaves_nothing(tmp_path: Path, layout: Layout) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthetic_dataset(SEED, tmp_path / "data", layout, SMALL, interrupt)
    assert list(tmp_path.iterdir()) == []


def test_another_process_may_be_faster(tmp_path: Path) -> None:
    def race(done: int, total: int) -> None:
        if done == total:
            synthetic_dataset(SEED, tmp_path / "data", "basnet", SMALL)

    synthetic_dataset(SEED, tmp_path / "data", "basnet", SMALL, race)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]

    def conflict(done: int, total: int) -> None:
        if done == total:
            synthetic_dataset(SEED + 1, tmp_path / "other", "basnet", SMALL)

    with pytest.raises(WtalError, match="was generated with seed 3, expected 2"):
        synthetic_dataset(SEED, tmp_path / "other", "basnet", SMALL, conflict)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "other"]


def test_unknown_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WtalError, match="layout is 'numpy': expected one of wtalc, basnet, actionformer"):
        synthetic_dataset(0, tmp_path / "data", "numpy", SMALL)  # type: ignore[arg-type]


# ---- generated features for real annotations ------------------------------------------------------------------


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
    before = snapshot(tmp_path)
    synthetic_features(annotations, class_names(10), target, 1, THUMOS14, layout, NARROW)
    assert snapshot(tmp_path) == before
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
