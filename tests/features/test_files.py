"""Where features go and what is written beside them: targets, manifest, description, joint file."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from wtal.data.catalog import open_folder
from wtal.data.features import read_features
from wtal.data.synthetic.write_layouts import Record, write_annotations
from wtal.data.timebase import Timebase
from wtal.data.video import Instance
from wtal.errors import WtalError
from wtal.features.manifest import check_own, claim, entry_path, forget, hash_of, is_complete
from wtal.features.video_list import Target, layout_targets, own_targets
from wtal.features.write import joint_path, write_features, write_joint
from wtal.platform.files import remove_temporaries, write_atomically

GRID = Timebase(25, 16, 16)


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode())


def target(root: Path, id: str = "x") -> Target:
    return own_targets({id: root / f"{id}.mp4"}, root, GRID)[0]


def features(rows: int = 3, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    widths = {"rgb": 4, "flow": 4, "clip": 2}
    return {name: rng.standard_normal((rows, width), dtype=np.float32) for name, width in widths.items()}


def write(root: Path, id: str = "x", dtype: str = "float32") -> Target:
    one = target(root, id)
    touch(one.source)
    facts = {"settings": "1", "source": {"bytes": one.source.stat().st_size, "sha256": sha(one.source)}}
    write_features(root, one, features(), dtype, facts)
    return one


def complete(root: Path, one: Target, clip: bool = True, settings: str = "1", verify: bool = False) -> bool:
    return is_complete(root, one, clip, settings, verify)


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
    assert complete(tmp_path, one, verify=False)
    assert complete(tmp_path, one, verify=True)
    good = one.clip.read_bytes()

    one.clip.write_bytes(good[:-1])
    assert not complete(tmp_path, one, verify=False)
    one.clip.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert complete(tmp_path, one, verify=False)
    assert not complete(tmp_path, one, verify=True)
    one.clip.unlink()
    assert not complete(tmp_path, one, verify=False)
    one.clip.write_bytes(good)

    video = one.source.read_bytes()
    one.source.write_bytes(video[::-1])
    assert complete(tmp_path, one, verify=False)
    assert not complete(tmp_path, one, verify=True)
    one.source.write_bytes(video + b"more")
    assert not complete(tmp_path, one, verify=False)
    one.source.write_bytes(video)

    entry = entry_path(tmp_path, one)
    for damaged in (b"", b"{", b"[]", b"{}", b'{"source": 3, "files": {}}'):
        entry.write_bytes(damaged)
        assert not complete(tmp_path, one, verify=False)


@pytest.mark.parametrize(
    ("value", "dtype", "hint"),
    [
        (np.nan, "float32", "are these the right weights?"),
        (np.inf, "float16", "are these the right weights?"),
        (1e6, "float16", "expected --dtype float32"),
    ],
)
def test_features_that_are_not_finite_are_not_written(tmp_path: Path, value: float, dtype: str, hint: str) -> None:
    one = target(tmp_path)
    bad = features()
    bad["flow"][1, 2] = value
    with pytest.raises(WtalError, match=f"not finite as {dtype}; {re.escape(hint)}"):
        write_features(tmp_path, one, bad, dtype, {})
    assert not list(tmp_path.rglob("*.npy"))


def test_leftovers_of_killed_processes_go_and_nothing_else(tmp_path: Path) -> None:
    names = [".x.npy.77.tmp", ".x.npy.1.tmp", "x.npy", ".xy.npy.1.tmp", ".[x].npy.5.tmp"]
    touch(*(tmp_path / name for name in names))
    remove_temporaries(tmp_path, "x.npy", older_than=60)
    assert len(list(tmp_path.iterdir())) == 5
    os.utime(tmp_path / names[0], (0, 0))
    remove_temporaries(tmp_path, "x.npy", older_than=60)
    assert not (tmp_path / names[0]).exists()
    remove_temporaries(tmp_path, "x.npy")
    assert {path.name for path in tmp_path.iterdir()} == set(names[2:])


def test_complete_is_with_these_settings_and_these_files(tmp_path: Path) -> None:
    one = write(tmp_path)
    assert complete(tmp_path, one)
    assert not complete(tmp_path, one, settings="2")
    assert not complete(tmp_path, one, clip=False)
    entry = entry_path(tmp_path, one)
    content = json.loads(entry.read_text())
    del content["files"]["clip/x.npy"]
    entry.write_text(json.dumps(content))
    assert not complete(tmp_path, one)
    assert complete(tmp_path, one, clip=False)


def test_what_is_forgotten_is_ours(tmp_path: Path) -> None:
    one, other = write(tmp_path), write(tmp_path, "y")
    forget(tmp_path, one)
    assert {path.stem for path in tmp_path.rglob("*.npy")} == {"y"}
    entry_path(tmp_path, other).unlink()
    forget(tmp_path, other)  # features that somebody put there are not
    assert len(list(tmp_path.rglob("*.npy"))) == 2


def test_what_somebody_put_there_is_not_overwritten(tmp_path: Path) -> None:
    mine, other, new = write(tmp_path), write(tmp_path, "y"), target(tmp_path, "z")
    check_own(tmp_path, [mine, other, new], clip=True)
    entry_path(tmp_path, other).unlink()
    check_own(tmp_path, [mine, new], clip=True)
    with pytest.raises(
        WtalError, match=r"i3d/y\.npy, and 1 more: there already, and not .*; --modality none adds CLIP"
    ):
        check_own(tmp_path, [mine, other, new], clip=True)
    only_clip = dataclasses.replace(other, i3d=())
    with pytest.raises(WtalError, match=r"clip/y\.npy: there already, and not from wtal-extract; .* --out$"):
        check_own(tmp_path, [mine, only_clip], clip=True)
    check_own(tmp_path, [mine, only_clip], clip=False)


def test_files_of_a_killed_run_are_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before each of the writes: what is there is never complete, never taken for somebody else's, and goes."""
    for after in range(4):
        root = tmp_path / str(after)
        one, left = target(root), iter([True] * after)

        def killed(path: Path, data: bytes, left: Iterator[bool] = left) -> None:
            if not next(left, False):
                raise KeyboardInterrupt
            write_atomically(path, data)

        monkeypatch.setattr("wtal.features.write.write_atomically", killed)
        with pytest.raises(KeyboardInterrupt):
            write_features(root, one, features(), "float32", {})
        assert len(list(root.rglob("*.npy"))) == max(after - 1, 0)
        assert not complete(root, one, verify=False)
        check_own(root, [one], clip=True)
        forget(root, one)
        assert not list(root.rglob("*.npy"))


def test_a_folder_keeps_its_settings(tmp_path: Path) -> None:
    entry = entry_path(tmp_path, target(tmp_path))
    touch(entry)
    with pytest.raises(WtalError, match=r"manifest\.json: missing, expected the settings of the features beside it"):
        claim(tmp_path, {"fps": 25.0})
    entry.unlink()
    claim(tmp_path, {"fps": 3.0})
    settings = {"fps": 25.0, "grid": (16, 16), "weights": {"rgb": "a" * 64, "flow": "b" * 64}}
    claim(tmp_path, settings)  # there is not one feature yet that the others would fit
    touch(entry)
    claim(tmp_path, settings)
    with pytest.raises(WtalError, match=r"made with fps 25\.0, now 30; expected the same settings, or another --out"):
        claim(tmp_path, {**settings, "fps": 30})
    with pytest.raises(WtalError, match=r'with weights of flow "b{12}\.\.\.", now "c{12}\.\.\."; expected the same'):
        claim(tmp_path, {**settings, "weights": {"rgb": "a" * 64, "flow": "c" * 64}})
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(WtalError, match="damaged"):
        claim(tmp_path, {})
    assert hash_of(settings) == hash_of({**settings, "grid": [16, 16]}) != hash_of({**settings, "fps": 30})


RECORDS = [
    Record(f"v{n}", "train" if n < 3 else "test", 10.0, (Instance(1.0, 2.0, "Run"),)) for n in range(5)
]  # v0 to v4


def joint_is_written_only_when_it_changes(root: Path, path: Path, one: Target) -> None:
    others = path.with_name(f".{path.name}.77.tmp")  # another shard is writing it this moment
    others.touch()
    before, good = path.stat(), one.i3d[0].read_bytes()
    write_joint(root, "thumos14", older_than=60)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert others.exists()
    for changed in (good[:-1] + bytes([good[-1] ^ 1]), good):
        content = path.read_bytes()
        one.i3d[0].write_bytes(changed)
        write_joint(root, "thumos14")
        assert path.read_bytes() != content
    path.write_bytes(path.read_bytes() + b"more")
    write_joint(root, "thumos14")
    assert path.stat().st_size == before.st_size
    assert not others.exists()


@pytest.mark.parametrize("layout", ["wtalc", "basnet", "actionformer"])
def test_each_layouts_own_reader_reads_what_was_written(tmp_path: Path, layout: str) -> None:
    write_annotations(tmp_path, layout, RECORDS, ["Run"])  # type: ignore[arg-type]
    videos = {f"v{n}": tmp_path / "videos" / f"v{n}.mp4" for n in (3, 0, 1, 2, 7)}
    planned = layout_targets(videos, tmp_path, layout, "thumos14")
    assert ([one.id for one in planned.targets], planned.absent) == (["v0", "v1", "v2", "v3"], ("v4",))
    if layout == "wtalc":
        assert write_joint(tmp_path, "thumos14")[1] == 5
    targets = layout_targets(videos | {"v4": tmp_path / "v4.mp4"}, tmp_path, layout, "thumos14").targets
    for seed, one in enumerate(targets):
        write_features(tmp_path, one, features(4, seed), "float32", {"source": {}})
    if layout == "wtalc":
        path, missing = write_joint(tmp_path, "thumos14")
        assert (path.name, missing) == ("Thumos14reduced-I3D-JOINTFeatures.npy", 0)
        joint_is_written_only_when_it_changes(tmp_path, path, targets[0])
    data = open_folder(tmp_path, "thumos14")
    assert (data.layout, len(data.videos)) == (layout, 5)
    for seed, video in enumerate(sorted(data.videos, key=lambda video: video.id)):
        made = features(4, seed)
        assert np.array_equal(read_features(video), np.concatenate([made["rgb"], made["flow"]], axis=1))
        assert video.clip is not None
        assert np.array_equal(np.load(video.clip), made["clip"])
        assert video.timebase == targets[seed].timebase == Timebase(25, 4 if layout == "actionformer" else 16, 16)


def test_a_joint_file_of_somebody_else_is_not_overwritten(tmp_path: Path) -> None:
    joint = joint_path(tmp_path, "thumos14")
    assert joint.name == "Thumos14reduced-I3D-JOINTFeatures.npy"
    check_own(tmp_path, [], clip=True, joint=joint)
    touch(joint)
    with pytest.raises(WtalError, match=r"JOINTFeatures\.npy: there already, .*; --modality none adds CLIP"):
        check_own(tmp_path, [], clip=True, joint=joint)
    claim(tmp_path, {"fps": 25.0})
    check_own(tmp_path, [], clip=True, joint=joint)
