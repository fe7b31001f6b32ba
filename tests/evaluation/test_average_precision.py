"""wtal.evaluate against the official ActivityNet algorithm, and on the field's own files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import wtal
from wtal.data.annotations import read_annotations
from wtal.data.predictions import Detection, to_official, write_predictions
from wtal.data.timebase import Timebase
from wtal.data.video import Instance, Video, VideoSet
from wtal.errors import WtalError

DATA = Path(os.environ.get("WTAL_TEST_DATA", "/nowhere"))
needs_data = pytest.mark.skipif(
    "WTAL_TEST_DATA" not in os.environ, reason="WTAL_TEST_DATA does not name a folder of real annotation files"
)
THUMOS14 = {  # videos, instances, instances that round to nothing
    "thumos14/basnet/gt.json": (210, 3311, 16),
    "thumos14/wtalc": (212, 3358, 17),
    "thumos14/actionformer/thumos14.json": (212, 3358, 17),
}


# ---- the official rule ----------------------------------------------------------------------------------


def official_iou(target, candidates):
    start = np.maximum(target[0], candidates[:, 0])
    end = np.minimum(target[1], candidates[:, 1])
    inter = (end - start).clip(0)
    union = (candidates[:, 1] - candidates[:, 0]) + (target[1] - target[0]) - inter
    with np.errstate(invalid="ignore"):
        tiou = inter / union
    # 0 / 0 is ours to define: the same point, or not.
    return np.where(union == 0, (candidates == target).all(axis=1), tiou)


def official_area(precision, recall):
    precision = np.hstack([[0], precision, [0]])
    recall = np.hstack([[0], recall, [1]])
    for i in range(len(precision) - 1)[::-1]:
        precision[i] = max(precision[i], precision[i + 1])
    steps = np.where(recall[1:] != recall[:-1])[0] + 1
    return np.sum((recall[steps] - recall[steps - 1]) * precision[steps])


def official_ap(truth, detections, tiou):
    """truth: [(video, start, end)], detections: [(video, start, end, score)] of one class."""
    by_video = defaultdict(list)
    for index, (video, start, end) in enumerate(truth):
        by_video[video].append((index, start, end))
    ranked = sorted(detections, key=lambda row: -row[3])
    result = []
    for threshold in tiou:
        lock = np.full(len(truth), -1)
        tp, fp = np.zeros(len(ranked)), np.zeros(len(ranked))
        for rank, (video, start, end, _) in enumerate(ranked):
            own = np.array(by_video.get(video, np.zeros((0, 3)))).reshape(-1, 3)
            overlaps = official_iou(np.array([start, end]), own[:, 1:])
            for candidate in np.argsort(overlaps, kind="stable")[::-1]:
                if overlaps[candidate] < threshold:
                    break
                if lock[int(own[candidate, 0])] >= 0:
                    continue
                tp[rank] = 1
                lock[int(own[candidate, 0])] = rank
                break
            fp[rank] = 1 - tp[rank]
        hits, misses = np.cumsum(tp), np.cumsum(fp)
        result.append(official_area(hits / (hits + misses), hits / len(truth)) if len(ranked) else 0.0)
    return result


def official(predictions, truth, tiou, snippets):
    def segment(item):
        if not snippets:
            return item.start, item.end
        if isinstance(item, Detection):
            return round(item.start * 25 / 16, 9), round(item.end * 25 / 16, 9)
        start, end = round(item.start * 25 / 16), round(item.end * 25 / 16)
        # 0 / 0 matches in the official code; what rounds to nothing lies where no detection is.
        return (start, end) if start < end else (-9, -9)

    labels = sorted({item.label for listed in truth.values() for item in listed})
    return {
        label: official_ap(
            [(v, *segment(item)) for v, listed in truth.items() for item in listed if item.label == label],
            [
                (v, *segment(item), item.score)
                for v, listed in predictions.items()
                for item in listed
                if item.label == label
            ],
            tiou,
        )
        for label in labels
    }


def times(grid):
    """Pairs of seconds on a coarse grid, where ties and empty segments are common, or anywhere."""
    second = st.integers(0, 24).map(lambda n: n / 4) if grid else st.floats(0, 500)
    return st.tuples(second, second).map(sorted)


@st.composite
def cases(draw):
    segment = times(draw(st.booleans()))
    score = st.sampled_from([0.1, 0.5, 0.9]) if draw(st.booleans()) else st.floats(-10, 10)
    label, video = st.sampled_from("abc"), st.sampled_from(["v1", "v2", "v3", "v4"])
    instance = st.builds(lambda s, c: Instance(*s, c), segment, label)
    detection = st.builds(lambda s, c, p: Detection(*s, c, p), segment, st.sampled_from("abcz"), score)
    truth = draw(st.dictionaries(video.filter(lambda v: v != "v4"), st.lists(instance, max_size=8), min_size=1))
    truth["v0"] = draw(st.lists(instance, min_size=1, max_size=4))
    return truth, draw(st.dictionaries(st.one_of(st.just("v0"), video), st.lists(detection, max_size=20)))


@pytest.mark.parametrize("protocol", ["seconds", "snippets"])
@settings(deadline=None, max_examples=200)
@given(cases())
def test_equals_the_official_rule(protocol, case):
    truth, predictions = case
    tiou = [0.1, 0.3, 0.5, 0.95]
    result = wtal.evaluate(predictions, truth, protocol, tiou)
    expected = official(predictions, truth, tiou, protocol == "snippets")
    assert [*result.per_class] == [*expected]
    for label, values in expected.items():
        assert [*result.per_class[label]] == tiou
        np.testing.assert_allclose([*result.per_class[label].values()], 100 * np.array(values), rtol=0, atol=1e-9)
    table = 100 * np.array([*expected.values()])
    np.testing.assert_allclose([*result.per_tiou.values()], table.mean(axis=0), rtol=0, atol=1e-9)
    assert result.mean == pytest.approx(table.mean(), abs=1e-9)


def as_predictions(videos):
    return {
        video.id: [Detection(item.start, item.end, item.label, 1.0) for item in video.instances] for video in videos
    }


@needs_data
@pytest.mark.parametrize("protocol", ["seconds", "snippets"])
@pytest.mark.parametrize("file", THUMOS14)
def test_thumos14_fed_back_is_100_in_seconds(file, protocol, tmp_path):
    videos, instances, empty = THUMOS14[file]
    truth = read_annotations(DATA / file)
    write_predictions(tmp_path / "p.json", as_predictions(truth.split("test")))
    result = wtal.evaluate(tmp_path / "p.json", DATA / file, protocol)
    if protocol == "seconds":
        assert {result.mean, *result.per_tiou.values()} == {100.0}
    else:
        assert 80 < result.mean < result.per_tiou[0.1] < 100
    assert (result.videos, result.instances, result.detections) == (videos, instances, instances)
    assert len(result.per_class) == 20
    assert result.subset.lower() == "test"
    assert any(f"this is on {videos}" in note for note in result.notes)
    told = f"{empty} instances round to nothing, so that nothing can match them"
    assert (told in result.notes) == (protocol == "snippets")


@needs_data
def test_cliff_diving_is_evaluated_as_both():
    truth = read_annotations(DATA / "thumos14/basnet/gt.json")
    predictions = as_predictions(truth.split("test"))
    for found in predictions.values():
        found[:] = [item for item in found if item.label != "CliffDiving"]
    result = wtal.evaluate(predictions, truth, tiou=0.5)
    assert result.per_class["CliffDiving"] == {0.5: 0.0}
    assert result.per_class["Diving"] == {0.5: 100.0}
    assert result.mean == pytest.approx(95.0)
    assert any("1 of 20 classes have no detection: 'CliffDiving'" in note for note in result.notes)


@needs_data
def test_official_sample_submission():
    """The sample is the ground truth of the full validation subset. BSN's list lacks 198 of its 4926 videos, and the
    detections there are false positives by the official rule; everything else matches."""
    sample = DATA / "activitynet/sample_detection_prediction.json"
    truth = DATA / "activitynet/anet_anno_action.json"
    result = wtal.evaluate(sample, truth, tiou=np.linspace(0.5, 0.95, 10))
    assert (result.subset, result.videos, result.instances, result.detections) == ("validation", 4728, 7293, 7654)
    assert [*result.per_tiou] == [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
    assert result.mean == pytest.approx(97.7387710533)
    assert result.notes[0].startswith("4728 video ids differ by the prefix 'v_'")
    assert result.notes[1].startswith("361 detections in 198 videos that the subset lacks are false positives")
    content = json.loads(sample.read_text())
    known = read_annotations(truth).videos
    content["results"] = {video: found for video, found in content["results"].items() if "v_" + video in known}
    assert wtal.evaluate(content, truth, tiou=[0.5, 0.95]).mean == 100.0


# ---- protocols ------------------------------------------------------------------------------------------


def test_snippets_round_the_ground_truth_alone_half_to_even():
    truth = {"v": [Instance(0.32, 0.96, "a")]}  # 0.5 to 1.5 snippets: 0 to 2
    predictions = {"v": [Detection(0.0, 1.28, "a", 1.0)]}
    assert wtal.evaluate(predictions, truth, "snippets", tiou=1.0).mean == 100.0
    assert wtal.evaluate(predictions, truth, "seconds", tiou=0.6).mean == 0.0
    assert wtal.evaluate({"v": [Detection(0.32, 0.96, "a", 1.0)]}, truth, "snippets", tiou=0.5).mean == 100.0
    assert wtal.evaluate({"v": [Detection(0.32, 0.96, "a", 1.0)]}, truth, "snippets", tiou=0.51).mean == 0.0


def test_nothing_matches_what_rounds_to_nothing():
    truth = {"v": [Instance(10.0, 10.1, "a"), Instance(20.0, 30.0, "a")]}  # 15.6 to 15.8 snippets: 16 to 16
    for found in ((10.0, 10.1), (10.24, 10.24), (10.24, 10.88), (9.6, 10.88)):
        predictions = {"v": [Detection(*found, "a", 0.1), Detection(20.48, 30.08, "a", 1.0)]}
        result = wtal.evaluate(predictions, truth, "snippets", tiou=[0.1, 0.9])
        assert {*result.per_tiou.values()} == {50.0}
        assert result.instances == 2
        assert "1 instances round to nothing, so that nothing can match them" in result.notes


@given(st.integers(0, 10_000), st.integers(1, 500))
def test_detections_on_the_grid_stay(start, length):
    edge = Timebase(25.0).edge
    truth = {"v": [Instance(edge(start), edge(start + length), "a")]}
    predictions = {"v": [Detection(edge(start), edge(start + length), "a", 1.0)]}
    assert wtal.evaluate(predictions, truth, "snippets", tiou=1.0).mean == 100.0
    if length > 1:
        longer = {"v": [Detection(edge(start), edge(start + 2 * length), "a", 1.0)]}
        assert wtal.evaluate(longer, truth, "snippets", tiou=0.5).mean == 100.0
        assert wtal.evaluate(longer, truth, "snippets", tiou=0.5001).mean == 0.0


# ---- forms, subsets, notes ------------------------------------------------------------------------------


TRUTH = {
    "database": {
        "t1": {"subset": "test", "annotations": [{"segment": ["1.0", "2.0"], "label": "a"}]},
        "t2": {"subset": "test", "annotations": [{"segment": [3, 5], "label": "b"}]},
        "t3": {"subset": "test", "annotations": []},
        "r1": {"subset": "train", "annotations": [{"segment": [3, 5], "label": "c"}]},
    }
}
PERFECT = {"t1": [Detection(1, 2, "a", 0.3)], "t2": [Detection(3, 5, "b", 0.2)], "t3": []}


def video(name, subset, *instances):
    return Video(name, subset, ("a",), Timebase(25.0), (), instances=instances)


VIDEOS = (
    video("t1", "test", Instance(1.0, 2.0, "a")),
    video("t2", "test", Instance(3.0, 5.0, "b")),
    video("t3", "test"),
    video("r1", "train", Instance(3.0, 5.0, "c")),
)


def test_every_form_gives_the_same(tmp_path):
    json_truth, json_predictions, table = tmp_path / "gt.json", tmp_path / "p.json", tmp_path / "p.csv"
    json_truth.write_text(json.dumps(TRUTH))
    write_predictions(json_predictions, PERFECT)
    write_predictions(table, PERFECT)
    for predictions in (PERFECT, to_official(PERFECT), json_predictions, str(json_predictions), table):
        for truth in (TRUTH, json_truth, read_annotations(json_truth), VIDEOS, VideoSet("x", "own", (), VIDEOS)):
            result = wtal.evaluate(predictions, truth)
            assert (result.mean, result.subset, result.videos, result.instances) == (100.0, "test", 3, 2)
    by_video = {item.id: item.instances for item in VIDEOS if item.subset == "test"}
    result = wtal.evaluate(PERFECT, by_video)
    assert (result.mean, result.subset, result.videos) == (100.0, "all", 3)


def test_subset_by_name():
    result = wtal.evaluate({"r1": [Detection(3, 5, "c", 1.0)]}, TRUTH, subset="Train")
    assert (result.mean, result.subset, result.videos) == (100.0, "train", 1)
    with pytest.raises(WtalError, match=r"no subset 'val', it has: test \(3 videos\), train \(1 videos\)"):
        wtal.evaluate(PERFECT, TRUTH, subset="val")


def test_what_does_not_fit_is_noted():
    predictions = {
        "v_t1": [Detection(1, 2, "a", 0.3)],
        "t2": [Detection(3, 5, "b", 0.2), Detection(0, 1, "zebra", 0.9)],
        "r1": [Detection(3, 5, "b", 0.9)],
        "elsewhere": [Detection(3, 5, "b", 0.8)],
    }
    result = wtal.evaluate(predictions, TRUTH, tiou=0.5)
    assert result.per_class == {"a": {0.5: 100.0}, "b": {0.5: pytest.approx(100 / 3)}}
    assert result.detections == 4
    assert result.notes == (
        "1 video ids differ by the prefix 'v_' alone and were taken for the same",
        "2 detections in 2 videos that the subset lacks are false positives: 'r1', 'elsewhere'",
        "1 detections of 1 classes without ground truth in the subset change nothing: 'zebra'",
        "1 of 3 videos are not among the predictions",
    )


def test_withheld_videos_are_left_out():
    unlabelled = Video("u", "test", ("a",), Timebase(25.0), ())
    result = wtal.evaluate({**PERFECT, "u": [Detection(0, 1, "a", 1.0)]}, (*VIDEOS, unlabelled))
    assert (result.mean, result.videos, result.detections) == (100.0, 3, 2)
    assert result.notes == ("1 detections in 1 videos without temporal annotation were left out: 'u'",)


def test_no_detection_is_zero():
    for predictions in ({}, {"t1": []}, {"results": {}}):
        result = wtal.evaluate(predictions, TRUTH)
        assert (result.mean, result.detections) == (0.0, 0)
        assert {*result.per_tiou.values()} == {0.0}


@pytest.mark.parametrize(
    ("predictions", "truth", "options", "message"),
    [
        (PERFECT, TRUTH, {"protocol": "frames"}, "protocol 'frames', expected one of seconds, snippets"),
        (PERFECT, TRUTH, {"tiou": []}, "expected one or more above 0"),
        (PERFECT, TRUTH, {"tiou": [0.5, 1.5]}, r"tIoU thresholds \[0.5, 1.5\], expected"),
        (PERFECT, TRUTH, {"tiou": "half"}, "tIoU thresholds 'half', expected numbers"),
        (PERFECT, [], {}, "subset all has 0 videos"),
        (PERFECT, 5, {}, "ground truth is 5, expected a path"),
        (
            PERFECT,
            {"t1": [{"segment": [1, 2]}]},
            {},
            r"ground truth: video 't1': \[\{.*expected a list of wtal.Detection",
        ),
        (PERFECT, TRUTH, {"subset": 3}, "subset is 3, expected a name"),
        ([1], TRUTH, {}, r"predictions are \[1\], expected a path"),
        ({"t1": [Detection(2, 1, "a", 1.0)]}, TRUTH, {}, "predictions: video 't1': detection 0: .*ends before"),
        ({"t1": [Detection(1, 2, "a", np.nan)]}, TRUTH, {}, "video 't1': detection 0: score is nan, expected"),
        ({1: []}, TRUTH, {}, "predictions: video is 1, expected a name"),
        (PERFECT, {"t1": [Instance(2, 1, "a")]}, {}, "ground truth: video 't1': .*ends before"),
        ({"r1": PERFECT["t1"]}, TRUTH, {}, "none of the predicted videos .*but 1 are in subset train"),
        (
            {"t1": [Detection(1, 2, "A", 1.0)]},
            TRUTH,
            {},
            r"none of the predicted classes \('A' \(did you mean 'a'\?\)\) is a",
        ),
        (PERFECT, [video("t1", "train", Instance(1, 2, "a"))], {}, r"no subset 'test', it has: train \(1 videos\)"),
        (PERFECT, [Video("t1", "test", (), Timebase(25.0), ())], {}, "1 videos, 0 of them temporally annotated"),
        ("/nowhere/p.json", TRUTH, {}, "/nowhere/p.json: no such file"),
        (PERFECT, "/nowhere/gt.json", {}, "/nowhere/gt.json: no such file"),
    ],
)
def test_faults_are_one_line(predictions, truth, options, message):
    with pytest.raises(WtalError, match=message) as caught:
        wtal.evaluate(predictions, truth, **options)
    assert "\n" not in str(caught.value)


def test_result_as_json_and_text():
    result = wtal.evaluate({"t1": PERFECT["t1"]}, TRUTH, tiou=(0.5, 0.75))
    assert json.loads(json.dumps(result.to_json())) == {
        "mean": 50.0,
        "per_tiou": {"0.5": 50.0, "0.75": 50.0},
        "per_class": {"a": {"0.5": 100.0, "0.75": 100.0}, "b": {"0.5": 0.0, "0.75": 0.0}},
        "protocol": "seconds",
        "subset": "test",
        "videos": 3,
        "instances": 2,
        "detections": 1,
        "ambiguous": "keep",
        "notes": ["2 of 3 videos are not among the predictions", "1 of 2 classes have no detection: 'b'"],
    }
    assert result.table(per_class=True).splitlines() == [
        "mAP in percent, protocol seconds, subset test: 3 videos, 2 instances, 1 detections",
        "tIoU    0.5   0.75   mean",
        "mAP    50.0   50.0   50.0",
        "a     100.0  100.0  100.0",
        "b       0.0    0.0    0.0",
        "note: 2 of 3 videos are not among the predictions",
        "note: 1 of 2 classes have no detection: 'b'",
    ]
    assert str(result) == result.table()


def test_default_thresholds_and_nominal_keys():
    assert [*wtal.evaluate(PERFECT, TRUTH).per_tiou] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert [*wtal.evaluate(PERFECT, TRUTH, tiou=np.linspace(0.1, 0.7, 7)).per_tiou][2] == 0.3


def test_importing_loads_no_torch_and_the_name_stays_the_function():
    code = (
        "import sys, wtal, wtal.data.predictions, wtal.data.annotations; "
        "from wtal.evaluation.average_precision import TIOU; "
        "assert 'torch' not in sys.modules and 'pandas' not in sys.modules; assert callable(wtal.evaluate)"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
