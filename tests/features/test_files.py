"""Where features go and what is written beside them: targets, manifest, description, joint file."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

import numpy as np
import pytest

from wtal.data.catalog import open_folder
from wtal.data.features import read_features
from wtal.data.own import open_own
from wtal.data.synthetic.layouts import Record, write_annotations
from wtal.data.timebase import Timebase
from wtal.data.video import Instance
from wtal.errors import WtalError
from wtal.features.describe import place_labels, write_description
from wtal.features.manifest import claim, entry_path, is_complete
from wtal.features.targets import Target, find_videos, layout_targets, own_targets
from wtal.features.write import remove_leftovers, write_features, write_joint

GRID = Timebase(25, 16, 16)


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode())


def test_videos_are_found_in_folders_lists_and_by_name(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("a/x.mp4", "a/deep/y.MKV", "a/notes.md", "a/.z.mp4", "b/odd.name")))
    (tmp_path / "list.txt").write_text("a/x.mp4\n\nb/odd.name\n")
    assert find_videos([tmp_path / "a"]) == {"x": tmp_path / "a/x.mp4", "y": tmp_path / "a/deep/y.MKV"}
    assert list(find_videos([tmp_path / "list.txt", tmp_path / "a"])) == ["odd", "x", "y"]
    with pytest.raises(WtalError, match="no video, expected files such as"):
        find_videos([tmp_path / "b"])
    touch(tmp_path / "a/deep/x.webm")
    with pytest.raises(WtalError, match=r"x\.mp4 and .*x\.webm have the same name|x\.webm and .*x\.mp4 have the same"):
        find_videos([tmp_path / "a"])


def target(root: Path, id: str = "x") -> Target:
    return own_targets({id: root / f"{id}.mp4"}, root, GRID)[0]


def features(rows: int = 3, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    widths = {"rgb": 4, "flow": 4, "clip": 2}
    return {name: rng.standard_normal((rows, width), dtype=np.float32) for name, width in widths.items()}


def write(root: Path, id: str = "x", dtype: str = "float32") -> Target:
    one = target(root, id)
    touch(one.source)
    facts = {"source": {"bytes": one.source.stat().st_size, "sha256": sha(one.source)}}
    write_features(root, one, features(), dtype, facts)
    return one


def sha(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rgb_and_flow_lie_side_by_side(tmp_path: Path, dtype: str) -> None:
    one = write(tmp_path, dtype=dtype)
    made = features()
    stored = np.load(one.i3d[0])
    assert stored.dtype == dtype
    assert np.array_equal(stored, np.concatenate([made["rgb"], made["flow"]], axis=1).astype(dtype))
    assert np.array_equal(np.load(one.clip), made["clip"].astype(dtype))
    entry = json.loads(entry_path(tmp_path, one).read_text())
    assert entry["files"]["i3d/x.npy"] == {
        "shape": [3, 8],
        "dtype": dtype,
        "bytes": one.i3d[0].stat().st_size,
        "sha256": sha(one.i3d[0]),
    }


def test_complete_is_what_is_there_whole_and_of_this_video(tmp_path: Path) -> None:
    one = write(tmp_path)
    assert is_complete(tmp_path, one, verify=False)
    assert is_complete(tmp_path, one, verify=True)
    good = one.clip.read_bytes()

    one.clip.write_bytes(good[:-1])
    assert not is_complete(tmp_path, one, verify=False)
    one.clip.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert is_complete(tmp_path, one, verify=False)
    assert not is_complete(tmp_path, one, verify=True)
    one.clip.unlink()
    assert not is_complete(tmp_path, one, verify=False)
    one.clip.write_bytes(good)

    video = one.source.read_bytes()
    one.source.write_bytes(video[::-1])
    assert is_complete(tmp_path, one, verify=False)
    assert not is_complete(tmp_path, one, verify=True)
    one.source.write_bytes(video + b"more")
    assert not is_complete(tmp_path, one, verify=False)
    one.source.write_bytes(video)

    entry = entry_path(tmp_path, one)
    for damaged in (b"", b"{", b"[]", b"{}", b'{"source": 3, "files": {}}'):
        entry.write_bytes(damaged)
        assert not is_complete(tmp_path, one, verify=False)


@pytest.mark.parametrize(("value", "dtype"), [(np.nan, "float32"), (1e6, "float16")])
def test_features_that_are_not_finite_are_not_written(tmp_path: Path, value: float, dtype: str) -> None:
    one = target(tmp_path)
    bad = features()
    bad["flow"][1, 2] = value
    with pytest.raises(WtalError, match=f"not finite as {dtype}"):
        write_features(tmp_path, one, bad, dtype, {})
    assert not list(tmp_path.rglob("*.npy"))


def test_leftovers_of_killed_processes_go_and_nothing_else(tmp_path: Path) -> None:
    names = [".x.npy.77.tmp", ".x.npy.1.tmp", "x.npy", ".xy.npy.1.tmp", ".[x].npy.5.tmp"]
    touch(*(tmp_path / name for name in names))
    remove_leftovers(tmp_path / "x.npy", older_than=60)
    assert len(list(tmp_path.iterdir())) == 5
    os.utime(tmp_path / names[0], (0, 0))
    remove_leftovers(tmp_path / "x.npy", older_than=60)
    assert not (tmp_path / names[0]).exists()
    remove_leftovers(tmp_path / "x.npy")
    assert {path.name for path in tmp_path.iterdir()} == set(names[2:])


def test_a_folder_keeps_its_settings(tmp_path: Path) -> None:
    claim(tmp_path, {"fps": 25.0, "grid": (16, 16)})
    claim(tmp_path, {"fps": 25.0, "grid": (16, 16)})
    with pytest.raises(WtalError, match=r"made with fps 25\.0, now 30; expected the same settings, or another --out"):
        claim(tmp_path, {"fps": 30, "grid": (16, 16)})
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(WtalError, match="damaged"):
        claim(tmp_path, {})


def test_a_form_for_labels_then_a_data_set(tmp_path: Path) -> None:
    labels = place_labels(tmp_path, None, ["a b", "c"])
    assert labels.read_text() == "video,label\na b,\nc,\n"
    assert write_description(tmp_path, "my 'set'", labels, GRID, True, None) == ((), False)
    with pytest.raises(WtalError, match="classes"):
        open_own(tmp_path / "dataset.toml")

    labels.write_text('video,label\na b,Tür;"Y"\nc,Tür\n'.replace('"Y"', "Y"))
    assert place_labels(tmp_path, None, ["a b", "c"]) == labels  # what somebody filled in stays
    assert write_description(tmp_path, "my 'set'", labels, GRID, True, 5.0) == (("Tür", "Y"), False)
    for id in ("a b", "c"):
        for folder in ("i3d", "clip"):
            (tmp_path / folder).mkdir(exist_ok=True)
            np.save(tmp_path / folder / f"{id}.npy", np.zeros((4, 3), np.float32))
    data = open_own(tmp_path / "dataset.toml")
    assert (data.name, data.classes, data.videos[0].clip_fps) == ("my 'set'", ("Tür", "Y"), 5.0)
    assert {video.id: video.labels for video in data.videos} == {"a b": ("Tür", "Y"), "c": ("Tür",)}
    assert data.videos[0].timebase == GRID


def test_a_changed_description_is_left_alone(tmp_path: Path) -> None:
    labels = place_labels(tmp_path, None, ["a"])
    write_description(tmp_path, "n", labels, GRID, False, None)
    path = tmp_path / "dataset.toml"
    assert "clip" not in tomllib.loads(path.read_text())
    path.write_text(path.read_text() + 'test = ["a"]\n')
    changed = path.read_bytes()
    assert write_description(tmp_path, "n", labels, GRID, True, None)[1]
    assert path.read_bytes() == changed


def test_given_labels_are_copied_and_checked(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text('{"a": ["Run"]}')
    root = tmp_path / "out"
    assert place_labels(root, tmp_path / "mine.json", ["a"]).read_text() == '{"a": ["Run"]}'
    (tmp_path / "bad.csv").write_text("vid,label\n")
    with pytest.raises(WtalError, match="first line"):
        place_labels(root, tmp_path / "bad.csv", ["a"])
    with pytest.raises(WtalError, match=r"does not go into a CSV file; expected --labels FILE\.json"):
        place_labels(tmp_path / "new", None, ["a,b"])


RECORDS = [
    Record(f"v{n}", "train" if n < 3 else "test", 10.0, (Instance(1.0, 2.0, "Run"),)) for n in range(5)
]  # v0 to v4


@pytest.mark.parametrize("layout", ["wtalc", "basnet", "actionformer"])
def test_each_layouts_own_reader_reads_what_was_written(tmp_path: Path, layout: str) -> None:
    write_annotations(tmp_path, layout, RECORDS, ["Run"])  # type: ignore[arg-type]
    videos = {f"v{n}": tmp_path / "videos" / f"v{n}.mp4" for n in (3, 0, 1, 2, 7)}
    targets, absent = layout_targets(videos, tmp_path, layout, "thumos14")
    assert ([one.id for one in targets], absent) == (["v0", "v1", "v2", "v3"], ["v4"])
    if layout == "wtalc":
        assert write_joint(tmp_path, "thumos14")[1] == 5
    targets, absent = layout_targets(videos | {"v4": tmp_path / "v4.mp4"}, tmp_path, layout, "thumos14")
    for seed, one in enumerate(targets):
        write_features(tmp_path, one, features(4, seed), "float32", {"source": {}})
    if layout == "wtalc":
        path, missing = write_joint(tmp_path, "thumos14")
        assert (path.name, missing) == ("Thumos14reduced-I3D-JOINTFeatures.npy", 0)
    data = open_folder(tmp_path, "thumos14")
    assert (data.layout, len(data.videos)) == (layout, 5)
    for seed, video in enumerate(sorted(data.videos, key=lambda video: video.id)):
        made = features(4, seed)
        assert np.array_equal(read_features(video), np.concatenate([made["rgb"], made["flow"]], axis=1))
        assert video.clip is not None
        assert np.array_equal(np.load(video.clip), made["clip"])
        assert video.timebase == targets[seed].timebase == Timebase(25, 4 if layout == "actionformer" else 16, 16)


def test_layouts_want_their_annotations_first(tmp_path: Path) -> None:
    with pytest.raises(WtalError, match="of thumos14 in the layout basnet, expected them there first: gt"):
        layout_targets({"x": tmp_path / "x.mp4"}, tmp_path, "basnet", "thumos14")
    write_annotations(tmp_path, "basnet", RECORDS, ["Run"])
    with pytest.raises(WtalError, match="has none of the 1 videos"):
        layout_targets({"x": tmp_path / "x.mp4"}, tmp_path, "basnet", "thumos14")
