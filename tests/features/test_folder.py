"""What a run says, leaves in the folder, and takes away: mistakes are told at once and can be mended."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from videos import damaged, lossless, numbered

import wtal.features.extract
from wtal.cli.extract import command
from wtal.data.dataset_toml import open_own
from wtal.data.synthetic.write_layouts import Record, write_annotations
from wtal.data.timebase import Timebase
from wtal.data.video import Instance
from wtal.errors import WtalError
from wtal.features.extract import Summary
from wtal.features.extraction_progress import ExtractionProgress
from wtal.features.options import Extraction, unused
from wtal.features.shard import Shard
from wtal.features.snippets import Piece
from wtal.features.video_list import own_targets
from wtal.platform.progress import Reporter

Extract = Callable[..., Summary]
CHEAP = {"modality": "rgb", "clip": False, "i3d_flow": None, "workers": None, "clip_model": Extraction.clip_model}
CHEAP["clip_weights"] = None


def video(path: Path, frames: int = 17) -> Path:
    path.parent.mkdir(exist_ok=True)
    return lossless(path, numbered(frames, 32, 32))


def test_bad_videos_do_not_end_the_run(clips: Path, go: Extract, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    data = (clips / "carphone_pristine.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    videos = [tmp_path / "broken.mp4", video(tmp_path / "good.mkv"), tmp_path / "cut.mp4"]
    summary = go(videos, tmp_path / "out", **CHEAP)
    assert (summary.extracted, [path.name for path, _ in summary.failed]) == (1, ["broken.mp4", "cut.mp4"])
    assert "cannot be opened" in summary.failed[0][1]
    assert {path.stem for path in (tmp_path / "out" / "manifest").iterdir()} == {"good"}
    assert {path.stem for path in (tmp_path / "out" / "i3d").iterdir()} == {"good"}


def test_a_broken_video_does_not_keep_the_features_of_the_one_before(go: Extract, tmp_path: Path) -> None:
    path = video(tmp_path / "v" / "x.mkv")
    go(path, tmp_path / "out", **CHEAP)
    assert (tmp_path / "out" / "i3d" / "x.npy").exists()
    path.write_bytes(b"no video")
    assert len(go(path, tmp_path / "out", **CHEAP).failed) == 1
    assert not list((tmp_path / "out").rglob("x.*"))


def test_damage_is_told_and_counted(go: Extract, tmp_path: Path) -> None:
    summary = go(damaged(tmp_path / "v.mp4", numbered(40, 32, 32), 20), tmp_path / "out", **CHEAP)
    assert summary == Summary(extracted=1, damaged=1)
    assert "v.mp4: 2 damaged packets; 2 of 40 frames are the frame before again" in go.said
    assert json.loads((tmp_path / "out" / "manifest" / "v.json").read_text())["source"]["filled_frames"] == 2


def test_wrong_weights_do_not_claim_the_folder(go: Extract, tmp_path: Path, i3d_weights: dict[str, Path]) -> None:
    path = video(tmp_path / "x.mkv")
    out = tmp_path / "out"
    with pytest.raises(WtalError, match="--i3d-rgb"):
        go(path, out, **{**CHEAP, "i3d_rgb": i3d_weights["i3d_flow"]})
    with pytest.raises(WtalError, match="no-such"):
        go(path, out, **{**CHEAP, "clip": True, "clip_model": "no-such"})
    assert not out.exists()
    assert go(path, out, **CHEAP).extracted == 1


def test_features_of_lost_settings_are_not_mixed(go: Extract, tmp_path: Path) -> None:
    path, out = video(tmp_path / "x.mkv"), tmp_path / "out"
    go(path, out, **CHEAP)
    (out / "manifest.json").unlink()
    with pytest.raises(WtalError, match=r"manifest\.json: missing"):
        go(path, out, stride=8, **CHEAP)
    entry = (out / "manifest" / "x.json").read_bytes()
    (out / "manifest" / "x.json").unlink()
    go([video(tmp_path / "y.mkv")], out, stride=8, **CHEAP)
    (out / "manifest" / "x.json").write_bytes(entry)  # back from somewhere
    assert go([path, tmp_path / "y.mkv"], out, stride=8, **CHEAP) == Summary(extracted=1, skipped=1)


def test_labels_make_the_data_set(go: Extract, tmp_path: Path) -> None:
    videos = [video(tmp_path / f"{name}.mkv") for name in "abc"]
    out = tmp_path / "out"
    assert go(videos[:2], out, **CHEAP).form == out / "labels.csv"
    assert not (out / "dataset.toml").exists()
    (out / "labels.csv").write_text("video,label\na,Run\nb,Jump\nz,Run\n")
    summary = go(videos, out, **CHEAP)
    assert (summary.form, summary) == (None, Summary(extracted=1, skipped=2))
    assert f"{out / 'labels.csv'}: no label for 1 of 3 videos: c" in go.said
    assert f"{out / 'labels.csv'}: labels of 1 video not among these: z" in go.said
    assert open_own(out / "dataset.toml", allow_missing=True).classes == ("Jump", "Run")

    assert go(video(tmp_path / "d.mkv"), out, **CHEAP).form is None  # filled in, though for others
    assert "no label for 1 of 1 video: d" in go.said
    (tmp_path / "bad.csv").write_text("what,is\nthis,?\n")
    with pytest.raises(WtalError, match="first line"):
        go(videos, tmp_path / "new", labels=tmp_path / "bad.csv", **CHEAP)
    assert not (tmp_path / "new").exists()

    (tmp_path / "new.csv").write_text("video,label\na,Run\nb,Run\nc,Run\n")
    go(videos, out, labels=tmp_path / "new.csv", **CHEAP)
    assert "labels.csv was changed by hand and stays as it is" in go.said
    assert "Jump" in (out / "labels.csv").read_text()


def test_what_is_passed_over_and_what_does_nothing_is_told(go: Extract, tmp_path: Path) -> None:
    video(tmp_path / "v" / "x.mkv")
    (tmp_path / "v" / "x.srt").touch()
    go(tmp_path / "v", tmp_path / "out", **{**CHEAP, "flow_cache": tmp_path / "flow"})
    assert f"1 file with other endings than a video's, e.g. {tmp_path / 'v' / 'x.srt'}" in go.said
    assert "--flow-cache does nothing with --modality rgb" in go.said
    assert "know nothing of motion" in go.said
    with pytest.raises(WtalError, match="expected the same settings"):
        go(tmp_path / "v", tmp_path / "out", **{**CHEAP, "stride": 3})
    assert go.said == ""  # an error comes alone
    assert unused(Extraction(dataset="activitynet12", clip=False, clip_weights=tmp_path)) == [
        "--dataset does nothing with --layout own",
        "--clip-weights does nothing with --no-clip",
    ]
    assert not unused(Extraction(i3d_flow=tmp_path, flow_cache=tmp_path, clip_weights=tmp_path))


def test_one_process_of_torchrun_writes_the_joint_file(
    go: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wtal.features.extract, "wait_for_other_shards", lambda shard: None)
    out = tmp_path / "out"
    out.mkdir()
    records = [Record(n, "train" if n == "a" else "test", 1.0, (Instance(0.1, 0.6, "Run"),)) for n in "ab"]
    write_annotations(out, "wtalc", records, ["Run"])
    videos = [video(tmp_path / "v" / f"{name}.mkv") for name in "abc"]
    joint = out / "Thumos14reduced-I3D-JOINTFeatures.npy"
    options = {**CHEAP, "layout": "wtalc"}
    assert go(videos, out, Shard(0, 2, launched=True), **options).extracted == 1
    assert "JOINTFeatures.npy is written once 1 annotated video more have features" in go.said
    assert "1 video passed over, which the annotations do not train or test on: c" in go.said
    assert go(videos, out, Shard(1, 2, launched=True), **options).extracted == 1
    assert not joint.exists()
    go(videos, out, Shard(0, 2, launched=True), **options)
    found = np.load(joint, allow_pickle=True)
    assert [array.shape for array in found] == [(1, 1024), (1, 1024)]

    by_hand = joint.with_name(f".{joint.name}.77.tmp")  # of another shard, at work
    by_hand.touch()
    go(videos, out, Shard(0, 2), **options)
    assert by_hand.exists()


def test_leftovers_in_a_cache_go_and_its_key_knows_the_decoder(
    go: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cache = video(tmp_path / "x.mkv"), tmp_path / "flow"
    options = {**CHEAP, "modality": "both", "workers": 1, "flow_cache": cache}
    del options["i3d_flow"]
    go(path, tmp_path / "1", **options)
    (block, *_) = sorted(cache.rglob("*.npy"))
    old, new = (block.with_name(f".{block.name}.{pid}.tmp") for pid in (77, 78))
    old.touch()
    new.touch()
    os.utime(old, (0, 0))
    go(path, tmp_path / "2", **options)
    assert (old.exists(), new.exists(), len(list(cache.iterdir()))) == (False, True, 1)
    monkeypatch.setattr("av.__version__", "999.0")
    go(path, tmp_path / "3", **options)
    assert len(list(cache.iterdir())) == 2


def test_the_command_says_what_to_do_next(
    tmp_path: Path, i3d_weights: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--short-side", "32", "--crop", "32", "--modality", "rgb", "--no-clip"]
    arguments = [str(video(tmp_path / "x.mkv")), "--out", str(tmp_path / "out"), *small]
    arguments += ["--i3d-rgb", str(i3d_weights["i3d_rgb"])]
    assert command(arguments) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-2] == f"{tmp_path / 'out'}: 1 video extracted, 0 done before, 0 failed"
    assert said[-1].startswith(f"Now fill in {tmp_path / 'out' / 'labels.csv'} and run this command again")
    (tmp_path / "out" / "labels.csv").write_text("video,label\nx,Run\n")
    assert command(arguments) == 0
    assert "Now fill in" not in capsys.readouterr().out
    with pytest.raises(WtalError, match="--threads 0: expected 1 or more"):
        command([*arguments, "--threads", "0"])


def test_progress_fits_a_usual_terminal() -> None:
    screen = StringIO()
    console = Console(file=screen, force_terminal=True, width=80, color_system=None)
    targets = own_targets({"x": Path("x.mp4")}, Path(), Timebase(25, 16, 16))
    with Reporter(console).work("extracting", 2_345_678, "frames") as work:
        ExtractionProgress(work, targets, {"x": 93_827.1}, "rgb").piece(targets[0], Piece("rgb", 0, np.zeros(0)))
        assert work._bar is not None
        work._bar.refresh()
    line = re.sub(r"\x1b\[[0-9?]*[a-zA-Z]", "", screen.getvalue()).replace("\r", "\n").strip().splitlines()[-1]
    for whole in ("extracting", "16/2345678", " frames/s  videos/s 0"):
        assert whole in line
    assert "…" not in line
