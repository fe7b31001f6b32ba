"""wtal-predict on a folder as people have it: bad files among good ones, hidden ones, links, several rates."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import wtal
from wtal.cli.predict import command
from wtal.errors import WtalError
from wtal.inference.saved_model import read_rates
from wtal.runs.checkpoint import save_checkpoint
from wtal.settings.config import CBPConfig, RunConfig, VLPConfig

GRID = {"fps": 25.0, "stride": 16.0, "window": 16.0, "clip_fps": None}


def write_model(path: Path, grid: dict[str, float | None]) -> Path:
    """A small untrained model of two classes, on 6-d I3D and 4-d CLIP features."""
    torch.manual_seed(0)
    config = dataclasses.replace(RunConfig(), cbp=CBPConfig(dim=8, heads=1), vlp=VLPConfig(heads=1, mlp_ratio=1.0))
    text = torch.nn.functional.normalize(torch.randn(2, 4), dim=1)
    cbp = wtal.models.CBP(6, 2, config.cbp)
    vlp = wtal.models.VLP(wtal.models.FixedText(text), 4, config.vlp)
    tensors = {f"cbp.{key}": value for key, value in cbp.state_dict().items()}
    tensors |= {f"vlp.{key}": value for key, value in vlp.state_dict().items() if not key.startswith("text.")}
    facts = {"config": dataclasses.asdict(config), "classes": ["a", "b"], "i3d_dim": 6, "clip_dim": 4, "grid": grid}
    save_checkpoint(path, {**tensors, "text_features": text}, facts)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model.safetensors", GRID)


@pytest.fixture
def features(tmp_path: Path) -> Path:
    """Four videos of 40 snippets."""
    random = np.random.default_rng(0)
    (tmp_path / "i3d").mkdir()
    for video in "wxyz":
        np.save(tmp_path / "i3d" / f"{video}.npy", random.normal(size=(40, 6)).astype(np.float32))
    return tmp_path / "i3d"


def predict(model: Path, features: Path, *options: object) -> tuple[int, dict[str, list[dict]]]:
    """Exit code, and what was written."""
    out = features.parent / "p.json"
    out.unlink(missing_ok=True)
    code = command([*map(str, (model, features, "--out", out, "--device", "cpu", *options))])
    return code, json.loads(out.read_text())["results"]


def test_bad_files_are_named_and_the_others_predicted(model, features, capsys) -> None:
    _, expected = predict(model, features)
    np.save(features / "empty.npy", np.zeros((0, 6), np.float32))
    np.save(features / "nan.npy", np.full((5, 6), np.nan, np.float32))
    np.save(features / "wide.npy", np.zeros((5, 7), np.float32))
    (features / "text.npy").write_text("no array")
    np.save(features / "cut.npy", np.zeros((5, 6), np.float32))
    (features / "cut.npy").write_bytes((features / "cut.npy").read_bytes()[:-1])
    (features / "gone.npy").symlink_to(features / "nowhere")
    (features / "folder.npy").mkdir()
    capsys.readouterr()
    code, found = predict(model, features)
    assert code == 1
    assert found == expected
    assert set(found) == set("wxyz")
    captured = capsys.readouterr()
    told = captured.err.splitlines()
    assert "4 videos, 7 failed" in captured.out
    names = ("cut", "empty", "folder", "gone", "nan", "text", "wide")
    for name, line in zip(names, told, strict=True):
        assert line.startswith("wtal-predict: failed: ")
        assert line.count(str(features / f"{name}.npy")) == 1


def test_a_folder_of_bad_files_writes_nothing(model, features, capsys) -> None:
    for video in "wxyz":
        np.save(features / f"{video}.npy", np.zeros((0, 6), np.float32))
    with pytest.raises(WtalError, match="none of its 4 feature files can be used"):
        predict(model, features)
    assert len(capsys.readouterr().err.splitlines()) == 4
    assert not (features.parent / "p.json").exists()


def test_one_bad_file_alone_is_an_error(model, features) -> None:
    np.save(features / "w.npy", np.full((5, 6), np.nan, np.float32))
    with pytest.raises(WtalError, match=r"w\.npy: nan in row 0, column 0"):
        predict(model, features / "w.npy")


def test_bad_clip_features_are_those_of_their_video(model, features, capsys) -> None:
    clip = features.parent / "clip"
    clip.mkdir()
    for video, rows in (("w", np.ones((40, 4))), ("x", np.ones((0, 4))), ("y", np.ones((40, 5)))):
        np.save(clip / f"{video}.npy", rows.astype(np.float32))
    code, found = predict(model, features, "--clip", clip, "--branch", "ensemble")
    assert (code, set(found)) == (1, {"w"})
    told = capsys.readouterr().err.splitlines()
    assert [f"clip/{video}.npy" in line for video, line in zip("xyz", told, strict=True)] == [True] * 3


def test_hidden_files_are_left_alone(model, features, capsys) -> None:
    (features / "._w.npy").write_bytes(b"\x00\x05\x16\x07 what macOS leaves")
    (features / ".npy").write_bytes(b"")
    code, found = predict(model, features)
    assert (code, set(found)) == (0, set("wxyz"))
    assert capsys.readouterr().err == ""


def test_a_rate_for_each_video(features, capsys, tmp_path) -> None:
    model = write_model(tmp_path / "mixed.safetensors", {**GRID, "fps": None})
    with pytest.raises(WtalError, match=r"differ in fps: say --fps \(a number, or a CSV video,fps\)"):
        predict(model, features)
    rates = {"w": 25, "x": 29.97, "y": 50}
    with (tmp_path / "rates.csv").open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([("video", " fps", "frames"), *((f" {v} ", fps, 9) for v, fps in rates.items())])
    code, found = predict(model, features, "--fps", tmp_path / "rates.csv")
    assert (code, set(found)) == (1, set("wxy"))
    assert "video 'z' is not in --fps" in capsys.readouterr().err
    for video, fps in rates.items():
        _, alone = predict(model, features / f"{video}.npy", "--fps", fps)
        assert sorted(one["segment"] for one in found[video]) == sorted(one["segment"] for one in alone[video])
        assert max(one["segment"][1] for one in found[video]) == pytest.approx(40 * 16 / fps)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("video,fps\na,fast\n", r"line 2, video 'a': fps is 'fast', expected a finite number"),
        ("video,fps\na,0\n", r"line 2, video 'a': fps is 0, expected a number above 0"),
        ("video,fps\na,25\na,30\n", r"line 3, video 'a': fps is 30, expected one a video"),
    ],
)
def test_wrong_rates_are_named(tmp_path, text: str, told: str) -> None:
    (tmp_path / "rates.csv").write_text(text)
    rates = read_rates(tmp_path / "rates.csv")
    assert rates.fps == {}
    (fault,) = rates.faults.values()
    assert re.search(told, fault)
    assert fault.startswith(f"{tmp_path}/rates.csv: ")


def test_a_file_of_another_form_has_no_rates(tmp_path) -> None:
    (tmp_path / "rates.csv").write_text("name,fps\na,25\n")
    with pytest.raises(WtalError, match="no column video, expected frames a second as CSV"):
        read_rates(tmp_path / "rates.csv")


def test_neither_a_bad_rate_nor_a_bad_file_hides_the_other(model, features, capsys, tmp_path) -> None:
    rates = tmp_path / "rates.csv"
    rates.write_text("video,fps\nw,25\nx,fast\ny,0\nq,-1\n")
    np.save(features / "y.npy", np.full((5, 6), np.nan, np.float32))
    np.save(features / "z.npy", np.zeros((0, 6), np.float32))
    code, found = predict(model, features, "--fps", rates)
    assert (code, set(found)) == (1, {"w"})
    note, x, y, z = capsys.readouterr().err.splitlines()
    start, number = "wtal-predict: failed: ", "expected a number above 0"
    unused = f"{rates}: line 5, video 'q': fps is -1, {number}; {features} has no such video"
    assert note == f"wtal-predict: note: {unused}"
    assert x.startswith(f"{start}{features}/x.npy: {rates}: line 3, video 'x': fps is 'fast', expected a finite number")
    bad = f"{features}/y.npy: nan in row 0, column 0"
    assert y.startswith(f"{start}{rates}: line 4, video 'y': fps is 0, {number}; video y: {bad}")
    assert z.startswith(f"{start}video 'z' is not in --fps; {features}/z.npy: shape [0, 6], expected")
    with pytest.raises(WtalError, match=rf"line 4, video 'y': fps is 0, {number}; video y: .*y\.npy: nan in row 0"):
        predict(model, features / "y.npy", "--fps", rates)


def test_a_rate_that_is_neither_number_nor_file(model, features) -> None:
    with pytest.raises(WtalError, match="fast: no such file, expected frames a second as CSV"):
        predict(model, features, "--fps", "fast")


def test_hardly_a_clip_row_is_told(model, features, capsys) -> None:
    clip = features.parent / "clip"
    clip.mkdir()
    for video in "wxyz":
        np.save(clip / f"{video}.npy", np.ones((1 if video == "x" else 25, 4), np.float32))
    code, _ = predict(model, features, "--clip", clip, "--branch", "vlp")
    assert code == 0
    told = capsys.readouterr().err
    assert "note: hardly a CLIP row to tell snippets apart in 1 of 4 videos: x has 1 for 40 snippets" in told
    predict(model, features, "--clip", clip, "--branch", "vlp", "--clip-fps", 1)
    assert "note: CLIP and I3D" not in capsys.readouterr().err  # 25 rows last 25 s, 40 snippets 25.6 s
    predict(model, features, "--clip", clip, "--branch", "vlp", "--clip-fps", 5)
    told = capsys.readouterr().err
    assert "CLIP and I3D features differ in length in 3 of 4 videos: those of w last 5.0 s at 5 rows a second" in told


def test_a_video_of_one_snippet_can_be_detected(model, features) -> None:
    np.save(features / "one.npy", np.ones((1, 6), np.float32))
    _, found = predict(model, features)
    assert [one["segment"] for one in found["one"]] == [[0.0, 0.64]]


def test_the_same_folder_behind_a_link(model, features) -> None:
    link = features.parent / "linked"
    os.symlink(features, link)
    assert predict(model, link) == predict(model, features)


def test_a_folder_of_clip_features_that_is_not_there_is_told_once(model, features) -> None:
    with pytest.raises(WtalError, match=r"^--clip nowhere: no such folder"):
        predict(model, features, "--clip", "nowhere", "--branch", "ensemble")
