"""Predictions files: what is written reads back, and what is malformed is one line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wtal.data.predictions import (
    Detection,
    parse_predictions,
    read_predictions,
    to_official,
    write_predictions,
)
from wtal.errors import WtalError

DATA = Path(os.environ.get("WTAL_TEST_DATA", "/nowhere"))
FOUND = {
    "b": [Detection(1.5, 2.25, "High jump", 0.1), Detection(0.0, 1e-3, 'a, "b"', -3.5)],
    "a": [Detection(1 / 3, 2 / 3, "Tai chi", 1 / 7)],
}


@pytest.mark.parametrize("name", ["p.json", "p.csv", "deep/er/P.CSV", "no-suffix"])
def test_reads_back_the_same_in_the_same_order(tmp_path, name):
    path = tmp_path / name
    write_predictions(path, FOUND)
    read = read_predictions(path)
    assert read == FOUND
    assert [*read] == ["b", "a"]
    assert [item.name for item in path.parent.iterdir()] == [path.name]


finite = st.floats(allow_nan=False, allow_infinity=False)
names = st.text(st.characters(exclude_categories=["Cs"], min_codepoint=32), min_size=1).filter(
    lambda name: name == name.strip()  # CSV loses the spaces around a value
)
detections = st.builds(
    lambda times, label, score: Detection(*sorted(times), label, score), st.tuples(finite, finite), names, finite
)


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(names, st.lists(detections, min_size=1, max_size=3), max_size=3))
def test_any_names_and_numbers_survive(tmp_path_factory, found):
    folder = tmp_path_factory.mktemp("any")
    for name in ("p.json", "p.csv"):
        write_predictions(folder / name, found)
        assert read_predictions(folder / name) == found


@pytest.mark.parametrize("found", [{"": []}, {"a\r": []}, {"v": [Detection(0, 1, "a\nb", 1.0)]}])
def test_names_that_no_file_can_hold(tmp_path, found):
    with pytest.raises(WtalError, match="expected a name"):
        write_predictions(tmp_path / "p.csv", found)


def test_official_structure():
    assert to_official({"v": [Detection(1.0, 2.0, "a", 0.5)], "w": []}) == {
        "version": "VERSION 1.3",
        "results": {"v": [{"score": 0.5, "segment": [1.0, 2.0], "label": "a"}], "w": []},
        "external_data": {},
    }


def test_numpy_numbers_are_written(tmp_path):
    path = tmp_path / "p.json"
    write_predictions(path, {"v": [Detection(np.float32(0.5), np.float64(2), "a", np.float32(0.25))]})
    assert read_predictions(path) == {"v": [Detection(0.5, 2.0, "a", 0.25)]}


def test_a_csv_with_other_column_order_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("\ufefflabel,score,extra,end,start,video\r\na,0.5,x,2,1,v\r\n", encoding="utf-8")
    assert read_predictions(path) == {"v": [Detection(1.0, 2.0, "a", 0.5)]}


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "p.json"
    write_predictions(path, FOUND)
    with pytest.raises(WtalError, match=r"p.json: video 'v': detection 0: score is nan"):
        write_predictions(path, {"v": [Detection(0, 1, "a", float("nan"))]})

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WtalError, match=r"p.json: cannot be written \(No space left on device\)"):
        write_predictions(path, {})
    assert read_predictions(path) == FOUND
    assert [*tmp_path.iterdir()] == [path]


def result(**changes):
    return {"results": {"v7": [{"score": 1.0, "segment": [0, 1], "label": "a"} | changes]}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"unknown structure \[\], expected predictions as JSON"),
        ({"database": {}}, "unknown structure .*expected predictions"),
        ({"results": []}, "unknown structure"),
        ({"results": {"v7": {"score": 1}}}, "video 'v7': .*expected a list of detections"),
        ({"results": {"v7": [3]}}, "video 'v7': detection 0: expected an object with 'segment', got 3"),
        ({"results": {"v7": [{"segment": [0, 1]}]}}, "video 'v7': detection 0: no 'label', expected a class name"),
        (result(score="high"), "detection 0: score is 'high', expected a finite number"),
        (result(score=float("nan")), "detection 0: score is nan, expected a finite number"),
        (result(score=True), "detection 0: score is True, expected a finite number"),
        (result(segment=[2, 1]), r"detection 0: segment \[2, 1\] ends before it starts"),
        (result(segment=[2]), r"detection 0: segment is \[2\], expected \[start, end\] in seconds"),
        (result(segment="12"), r"detection 0: segment is '12', expected \[start, end\]"),
        (result(segment=None), "detection 0: segment is None"),
        (result(segment=[None, 1]), "detection 0: segment start is None, expected a finite number"),
        (result(segment=[0, 10**400]), "detection 0: segment end is 1000.*expected a finite number"),
        (result(label=""), "detection 0: label is '', expected a name"),
        (result(label=4), "detection 0: label is 4, expected a name"),
    ],
)
def test_malformed_json(tmp_path, content, message):
    path = tmp_path / "p.json"
    path.write_text(json.dumps(content))
    for read in (lambda: read_predictions(path), lambda: parse_predictions(content, path)):
        with pytest.raises(WtalError, match=message) as caught:
            read()
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.json", b'{"results": {"v": [', r"damaged or truncated JSON \(.*line 1, column"),
        ("p.json", b"", "damaged or truncated JSON"),
        ("p.json", b"\xff\xfe\x00", "not JSON text"),
        ("p.json", b"[" * 100_000, "not JSON text"),
        ("p.csv", b"", "no column video, start, end, label, score, expected"),
        ("p.csv", b"video,start,end,label\nv,0,1,a\n", "no column score, expected predictions as CSV"),
        ("p.csv", b"video,start,end,label,score\nv,0,1,a,1\nw,0,x,a,1\n", "line 3, video 'w': segment end is 'x'"),
        ("p.csv", b"video,start,end,label,score\nv,0,1\n", "line 2, video 'v': label is ''"),
        ("p.csv", b"video,start,end,label,score\nv,3,1,a,1\n", r"line 2, video 'v': segment \[3, 1\] ends before"),
        ("p.csv", b'video,start,end,label,score\n"v,0,1,a,1\n', "cannot be read"),
        ("p.csv", b"video,start,end,label,score\n\xff,0,1,a,1\n", "cannot be read"),
    ],
)
def test_malformed_files(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(WtalError, match=message) as caught:
        read_predictions(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["p.json", "p.csv"])
def test_no_file(tmp_path, name):
    with pytest.raises(WtalError, match="no such file, expected predictions as"):
        read_predictions(tmp_path / name)
    (tmp_path / name).mkdir()
    with pytest.raises(WtalError, match="cannot be read"):
        read_predictions(tmp_path / name)


@pytest.mark.skipif(
    "WTAL_TEST_DATA" not in os.environ, reason="WTAL_TEST_DATA does not name a folder of real annotation files"
)
def test_real_submission():
    found = read_predictions(DATA / "activitynet/sample_detection_prediction.json")
    assert (len(found), sum(map(len, found.values()))) == (4926, 7654)
    assert found["wONwHYy59Tc"][0] == Detection(94.52138901727746, 130.48707650118757, "Blow-drying hair", 1.0)
