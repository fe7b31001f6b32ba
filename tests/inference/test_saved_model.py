from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from wtal.cli.eval import command as eval_command
from wtal.cli.report import command as report_command
from wtal.cli.train import command as train_command
from wtal.data.timebase import Timebase
from wtal.data.video import Video
from wtal.errors import WtalError
from wtal.inference.branches import common_grid
from wtal.inference.saved_model import known_grid
from wtal.runs.setup import Setup, moved

ONE = Video("a", "train", (), Timebase(30, 4, 16), (Path("a.npy"),), clip_fps=2.0)


def test_what_all_videos_share_is_known() -> None:
    other = dataclasses.replace(ONE, id="b")
    assert common_grid([ONE, other]) == {"fps": 30.0, "stride": 4.0, "window": 16.0, "clip_fps": 2.0}
    assert known_grid(common_grid([ONE, other])) == (Timebase(30, 4, 16), 2.0)


def test_videos_of_different_rates_need_a_rate_for_prediction() -> None:
    other = dataclasses.replace(ONE, timebase=Timebase(29.97, 4, 16), clip_fps=None)
    grid = common_grid([ONE, other])
    assert grid == {"fps": None, "stride": 4.0, "window": 16.0, "clip_fps": None}
    with pytest.raises(WtalError, match="videos that differ in fps: say --fps"):
        known_grid(grid)
    assert known_grid({**grid, "fps": 25.0}) == (Timebase(25, 4, 16), None)


@pytest.mark.parametrize("key", ["fps", "stride", "window", "clip_fps"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_grid_that_is_none_is_refused(key: str, value: float) -> None:
    with pytest.raises(WtalError, match="must be a positive number"):
        known_grid({**common_grid([ONE]), key: value})


@pytest.fixture(scope="module")
def without_segments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on own videos of which nobody knows where the actions are."""
    folder = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(0)
    for kind, width in (("i3d", 8), ("clip", 4)):
        (folder / kind).mkdir()
        for number in range(12):
            rows = rng.standard_normal((20, width)) + number % 2
            np.save(folder / kind / f"v{number}.npy", rows.astype(np.float32))
    np.save(folder / "text.npy", np.eye(2, 4, dtype=np.float32))
    labels = "".join(f"v{number},{'AB'[number % 2]}\n" for number in range(12))
    (folder / "labels.csv").write_text(f"video,label\n{labels}")
    (folder / "dataset.toml").write_text(
        'name = "own"\nclasses = ["A", "B"]\ni3d = "i3d"\nclip = "clip"\nlabels = "labels.csv"\nfps = 25\n'
        'text_features = "text.npy"\n'
    )
    small = ["--cbp.dim", "8", "--cbp.heads", "1", "--vlp.heads", "1", "--schedule.warmup-epochs", "1"]
    short = ["--schedule.b-epochs", "1", "--schedule.f-epochs", "1", "--device", "cpu", "--quiet"]
    arguments = ["--dataset", str(folder / "dataset.toml"), "--out", str(folder / "run"), *small, *short]
    assert train_command(arguments) == 0
    return folder / "run"


def test_a_run_without_segments_is_evaluated_by_video(without_segments: Path, capsys: pytest.CaptureFixture) -> None:
    rows = {row["name"]: row for row in json.loads((without_segments / "metrics.json").read_text())["rows"]}
    for branch, name in (("cbp", "CBP after F"), ("vlp", "VLP after B"), ("ensemble", "ensemble")):
        assert eval_command([str(without_segments), "--branch", branch, "--json", "--device", "cpu"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["kind"] == "video-level"
        assert found["videos"] == 2
        for key in ("mean", "proposals_per_video"):
            assert found[key] == rows[name][key]
    assert eval_command([str(without_segments), "--device", "cpu"]) == 0
    assert "own: video-level mAP (%), 2 held-out videos" in capsys.readouterr().out


def test_where_nothing_was_localized_no_tiou_is_asked_for(without_segments: Path) -> None:
    for option in (["--tiou", "0.5"], ["--protocol", "snippets"], ["--subset", "test"]):
        with pytest.raises(WtalError, match=rf"{option[0]}: the test videos of own have no temporal ground truth"):
            eval_command([str(without_segments), *option, "--device", "cpu"])


@pytest.mark.parametrize("command", [eval_command, report_command])
def test_data_that_have_moved_are_found_with_root(without_segments: Path, tmp_path: Path, capsys, command) -> None:
    folder = tmp_path / "own"
    shutil.copytree(without_segments.parent, folder)
    setup = folder / "run" / "config.toml"
    setup.write_text(setup.read_text().replace(str(without_segments.parent), str(tmp_path / "old")))
    told = f"{tmp_path / 'old'}/dataset.toml: no such file or folder; if the data of the run have moved, say --root NEW"
    if command is eval_command:
        with pytest.raises(WtalError) as caught:
            command([str(folder / "run"), "--device", "cpu"])
        assert str(caught.value) == told
    for root in (folder, folder / "dataset.toml"):
        assert command([str(folder / "run"), "--device", "cpu", "--root", str(root)]) == 0
    out = capsys.readouterr().out
    assert ("2 held-out videos" if command is eval_command else "scoring 2 test videos of own") in out


def test_a_run_goes_on_where_its_data_have_moved(without_segments: Path, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    shutil.copytree(without_segments.parent, folder)
    setup = folder / "run" / "config.toml"
    setup.write_text(setup.read_text().replace(str(without_segments.parent), str(tmp_path / "old")))
    with pytest.raises(WtalError, match=r"/old/dataset\.toml: no such file or folder; .*, say --root NEW$"):
        train_command(["--resume", str(folder / "run"), "--quiet"])
    assert train_command(["--resume", str(folder / "run"), "--root", str(folder), "--quiet"]) == 0
    assert f'dataset = "{folder / "dataset.toml"}"' in setup.read_text()
    assert eval_command([str(folder / "run"), "--device", "cpu"]) == 0


@pytest.mark.parametrize("command", [eval_command, report_command])
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("dataset.toml", '"A", "B"', '"B", "A"'), "on other classes: class 0 was 'A', in data set own it is 'B'"),
        (("dataset.toml", '"A", "B"', '"A", "B", "C"'), "on 2 classes, data set own has 3"),
        (("i3d", 8, 9), "on I3D features 8 wide, those of video v0 are 9 wide"),
        (("clip", 4, 5), "on CLIP features 4 wide, those of video v0 are 5 wide"),
    ],
)
def test_a_model_goes_with_the_data_that_it_was_trained_on(
    without_segments: Path, tmp_path: Path, command, change: tuple[str, object, object], told: str
) -> None:
    folder = tmp_path / "own"
    shutil.copytree(without_segments.parent, folder)
    where, before, after = change
    if where == "dataset.toml":
        text = (folder / where).read_text()
        assert str(before) in text
        (folder / where).write_text(text.replace(str(before), str(after)))
        np.save(folder / "text.npy", np.eye(str(after).count('"') // 2, 4, dtype=np.float32))
    else:
        for path in (folder / where).iterdir():
            np.save(path, np.zeros((20, after), np.float32))
        if where == "clip":
            np.save(folder / "text.npy", np.eye(2, after, dtype=np.float32))
    with pytest.raises(WtalError) as caught:
        command([str(folder / "run"), "--device", "cpu", "--root", str(folder)])
    assert str(caught.value) == f"{folder / 'run'}: was trained {told}"


def test_generated_data_cannot_move() -> None:
    with pytest.raises(WtalError, match="--root x: the data of this run are generated"):
        moved(Setup(), "x")
    assert moved(Setup(dataset="thumos14", root="/old"), "/new").root == "/new"
    assert moved(Setup(dataset="thumos14", root="/old"), None).root == "/old"
