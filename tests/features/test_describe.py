"""The labels that a data set needs, and its ``dataset.toml``."""

from __future__ import annotations

import hashlib
import tomllib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from wtal.data.dataset_toml import open_own
from wtal.data.timebase import Timebase
from wtal.errors import WtalError
from wtal.features.describe import Coverage, coverage, place_labels, write_description

GRID = Timebase(25, 16, 16)


def test_a_form_for_labels_then_a_data_set(tmp_path: Path) -> None:
    labels, _ = place_labels(tmp_path, None, ["a b"])
    assert place_labels(tmp_path, None, ["a b", "c"]) == (labels, False)  # a video more, and nothing filled in yet
    assert labels.read_text() == "video,label\na b,\nc,\n"
    assert not write_description(tmp_path, "my 'set'", labels, GRID, True, None)
    assert not (tmp_path / "dataset.toml").exists()  # it would have no classes, which is no data set

    labels.write_text('video,label\na b,Tür;"Y"\nc,Tür\n'.replace('"Y"', "Y"))
    assert place_labels(tmp_path, None, ["a b", "c", "d"]) == (labels, False)
    assert "d," not in labels.read_text()  # what somebody filled in stays
    assert not write_description(tmp_path, "my 'set'", labels, GRID, True, 5.0)
    for id in ("a b", "c"):
        for folder in ("i3d", "clip"):
            (tmp_path / folder).mkdir(exist_ok=True)
            np.save(tmp_path / folder / f"{id}.npy", np.zeros((4, 3), np.float32))
    data = open_own(tmp_path / "dataset.toml")
    assert (data.name, data.classes, data.videos[0].clip_fps) == ("my 'set'", ("Tür", "Y"), 5.0)
    assert {video.id: video.labels for video in data.videos} == {"a b": ("Tür", "Y"), "c": ("Tür",)}
    assert data.videos[0].timebase == GRID


def test_a_changed_description_is_left_alone(tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("video,label\na,Run\n")
    write_description(tmp_path, "n", labels, GRID, False, None)
    path = tmp_path / "dataset.toml"
    assert "clip" not in tomllib.loads(path.read_text())
    path.write_text(path.read_text() + 'test = ["a"]\n')
    changed = path.read_bytes()
    assert write_description(tmp_path, "n", labels, GRID, True, None)
    assert path.read_bytes() == changed


def test_given_labels_are_copied_and_checked(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text('{"a": ["Run"]}')
    root = tmp_path / "out"
    assert place_labels(root, tmp_path / "mine.json", ["a"])[0].read_text() == '{"a": ["Run"]}'
    (tmp_path / "bad.csv").write_text("vid,label\n")
    with pytest.raises(WtalError, match="first line"):
        place_labels(root, tmp_path / "bad.csv", ["a"])
    with pytest.raises(WtalError, match=r"does not go into a CSV file; expected --labels FILE\.json"):
        place_labels(tmp_path / "new", None, ["a,b"])


def test_labels_that_somebody_changed_are_left_alone(tmp_path: Path) -> None:
    given, root = tmp_path / "mine.csv", tmp_path / "out"
    given.write_text("video,label\na,Run\n")
    place, kept = place_labels(root, given, ["a"])
    assert (place.read_text(), kept) == (given.read_text(), False)
    digest = hashlib.sha256(given.read_bytes()).hexdigest()
    assert (root / "labels.sha256").read_text() == f"{digest}  labels.csv\n"

    given.write_text("video,label\na,Jump\n")  # a copy follows its original ...
    assert not place_labels(root, given, ["a"])[1]
    assert "Jump" in place.read_text()
    place.write_text("video,label\na,Run;Jump\n")  # ... until it is changed itself
    assert place_labels(root, given, ["a"]) == (place, True)
    assert "Run;Jump" in place.read_text()
    place.write_bytes(given.read_bytes())
    assert not place_labels(root, given, ["a"])[1]

    place.unlink()
    (root / "labels.sha256").unlink()
    place_labels(root, None, ["a"])
    assert not place_labels(root, given, ["a"])[1]  # a form with nothing in it is nobody's
    assert "Jump" in place.read_text()


def test_the_labels_that_were_copied_last_count(tmp_path: Path) -> None:
    (tmp_path / "first.json").write_text('{"a": ["Run"]}')
    (tmp_path / "second.csv").write_text("video,label\na,Jump\n")
    for given in ("first.json", "second.csv", "first.json"):
        place, _ = place_labels(tmp_path / "out", tmp_path / given, ["a"])
        assert place_labels(tmp_path / "out", None, ["a"]) == (place, False)
        assert place.suffix == Path(given).suffix


def test_labels_in_their_place_are_no_copy(tmp_path: Path) -> None:
    place = tmp_path / "labels.csv"
    place.write_text("video,label\na,Run\n")
    assert place_labels(tmp_path, place, ["a"]) == (place, False)
    (tmp_path / "other.csv").write_text("video,label\na,Jump\n")
    assert place_labels(tmp_path, tmp_path / "other.csv", ["a"]) == (place, True)
    assert "Run" in place.read_text()


def test_whom_labels_speak_of(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("video,label\na,Run\nb,\nz,Run\ny,\n")
    assert coverage(tmp_path / "l.csv", ["a", "b", "c"]) == Coverage(["b", "c"], ["z"])


def test_rates_are_written_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("video,label\na,Run\n")
    rate = float(Fraction(30000, 1001))
    write_description(tmp_path, "n", tmp_path / "labels.csv", Timebase(rate, 4, 16), True, rate / 3)
    text = (tmp_path / "dataset.toml").read_text()
    assert "stride = 4\nwindow = 16\n" in text
    found = tomllib.loads(text)
    assert (found["fps"], found["clip_fps"]) == (rate, rate / 3)
