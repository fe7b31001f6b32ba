"""The embedded benchmark on disk: the three layouts read back, whole folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wtal.data.features import read_clip, read_features
from wtal.data.synthetic import (
    DEFAULT,
    GENERATOR_VERSION,
    Parameters,
    open_synthetic,
    synthetic_dataset,
)
from wtal.data.synthetic.dataset import TEXT_FEATURES, class_names, make_video, video_ids
from wtal.data.synthetic.events import SnippetKind
from wtal.data.synthetic.world import make_world
from wtal.data.synthetic.write_layouts import Layout
from wtal.errors import WtalError

LAYOUTS: tuple[Layout, ...] = ("wtalc", "basnet", "actionformer")
SMALL = replace(DEFAULT, size=replace(DEFAULT.size, training_videos=4, test_videos=3, i3d_dim=24, clip_dim=16))
SEED = 2


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
