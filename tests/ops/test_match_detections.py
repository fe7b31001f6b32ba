"""match_detections against the official ActivityNet loop, written out in NumPy, one class and video at a time."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wtal.ops import _library
from wtal.ops.matching import match_detections


def overlap(one, many):
    """tIoU of one segment with ``[G, 2]``; 0 / 0 is 1 for the same point, else 0."""
    inter = np.maximum(np.minimum(one[1], many[:, 1]) - np.maximum(one[0], many[:, 0]), 0)
    union = (many[:, 1] - many[:, 0]) + (one[1] - one[0]) - inter
    same = (many == one).all(axis=1)
    return np.where(union > 0, inter / np.where(union > 0, union, 1), same.astype(float))


def reference(segments, scores, videos, classes, truth_segments, truth_videos, truth_classes, tiou):
    matched = np.full((len(tiou), len(scores)), -1)
    taken = np.zeros((len(tiou), len(truth_videos)), dtype=bool)
    for detection in np.argsort(-scores, kind="stable"):
        own = np.flatnonzero((truth_videos == videos[detection]) & (truth_classes == classes[detection]))
        overlaps = overlap(segments[detection], truth_segments[own])
        for k, threshold in enumerate(tiou):
            for candidate in np.argsort(overlaps, kind="stable")[::-1]:
                if overlaps[candidate] < threshold:
                    break
                if not taken[k, own[candidate]]:
                    taken[k, own[candidate]] = True
                    matched[k, detection] = own[candidate]
                    break
    return matched


def draw_case(seed, num_detections, num_truth, num_videos, num_classes, grid):
    """A coarse grid makes equal tIoU, equal scores, duplicates and segments of length zero common."""
    random = np.random.default_rng(seed)

    def segments(count):
        return np.sort(random.integers(0, grid, (count, 2)) / 4.0, axis=1)

    return (
        segments(num_detections),
        random.integers(-2, 3, num_detections) / 2,
        random.integers(0, num_videos, num_detections),
        random.integers(0, num_classes, num_detections),
        segments(num_truth),
        random.integers(0, num_videos, num_truth),
        random.integers(0, num_classes, num_truth),
        np.array([0.7, 0.1, 0.3, 0.5, 1.0]),
    )


@settings(deadline=None, max_examples=200)
@given(
    st.integers(0, 2**32),
    st.integers(0, 60),
    st.integers(0, 25),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from([2, 12, 1000]),
)
def test_equals_the_official_rule(seed, num_detections, num_truth, num_videos, num_classes, grid):
    case = draw_case(seed, num_detections, num_truth, num_videos, num_classes, grid)
    matched = match_detections(*case)
    assert matched.dtype == np.int64
    np.testing.assert_array_equal(matched, reference(*case))


def one(segments, scores, truth, tiou=(0.5,)):
    """All in one video and class."""
    here, there = np.zeros(len(segments), np.int64), np.zeros(len(truth), np.int64)
    return match_detections(segments, scores, here, here, truth, there, there, tiou).tolist()


def test_equal_scores_go_by_input_order():
    assert one([(0, 1), (0, 1)], [0.5, 0.5], [(0, 1)]) == [[0, -1]]


def test_equal_overlap_takes_the_higher_ground_truth():
    assert one([(0, 2), (0, 2)], [0.9, 0.8], [(0, 1), (1, 2)]) == [[1, 0]]
    # and so the second of these finds nothing left, which would have taken the higher one
    assert one([(0, 2), (1, 2)], [0.9, 0.8], [(0, 1), (1, 2)]) == [[1, -1]]


def test_falls_back_to_the_next_best_ground_truth():
    assert one([(0, 10), (0, 9)], [0.9, 0.8], [(0, 10), (0, 12)]) == [[0, 1]]


def test_thresholds_do_not_share_what_is_taken():
    assert one([(0, 6), (0, 10)], [0.9, 0.8], [(0, 10)], (0.5, 0.7)) == [[0, -1], [-1, 0]]


def test_a_threshold_is_met_when_it_is_reached():
    assert one([(0, 3)], [1.0], [(0, 10)], (0.3,)) == [[0]]


def test_length_zero():
    assert one([(4, 4), (5, 5)], [1.0, 1.0], [(4, 4)], (0.1, 1.0)) == [[0, -1], [0, -1]]


def test_nothing_to_match():
    assert one(np.zeros((0, 2)), [], [(0, 1)]) == [[]]
    assert one([(0, 1)], [1.0], np.zeros((0, 2)), (0.1, 0.2)) == [[-1], [-1]]
    assert one([(0, 1)], [1.0], [(0, 1)], ()) == []


def test_strided_views_and_other_types():
    case = draw_case(0, 30, 10, 2, 2, 12)
    expected = match_detections(*case)
    wide = np.repeat(case[0], 2, axis=0)[::2]
    other = (np.asfortranarray(wide), case[1].astype(np.float32), case[2].astype(np.int32), *case[3:])
    np.testing.assert_array_equal(match_detections(*other), expected)


ARGUMENTS = {
    "segments": [(0.0, 1.0)],
    "scores": [1.0],
    "videos": [0],
    "classes": [0],
    "truth_segments": [(0.0, 1.0), (2.0, 3.0)],
    "truth_videos": [0, 0],
    "truth_classes": [0, 0],
    "tiou": [0.5],
}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("segments", [0.0, 1.0], r"segments has shape \[2\], expected \[N, 2\]"),
        ("segments", [(0.0, 1.0, 2.0)], r"segments has shape \[1, 3\], expected \[N, 2\]"),
        ("segments", [(2.0, 1.0)], r"segments\[0\] is \(2.*, 1.*\), expected finite start <= end"),
        ("truth_segments", [(0.0, 1.0), (0.0, np.nan)], r"truth_segments\[1\] is .*nan.*expected finite"),
        ("scores", [1.0, 2.0], r"scores has shape \[2\], expected \[1\], as many as segments"),
        ("scores", [np.inf], r"scores\[0\] is inf, expected a finite number"),
        ("videos", [[0]], r"videos has shape \[1, 1\], expected \[1\]"),
        ("classes", [0.5], r"classes has dtype float64 .*expected int64"),
        ("classes", ["a"], r"classes has dtype <U1 .*expected int64"),
        ("truth_videos", [0], r"truth_videos has shape \[1\], expected \[2\], as many as truth_segments"),
        ("truth_classes", [0, 0, 0], r"truth_classes has shape \[3\], expected \[2\]"),
        ("tiou", 0.5, r"tiou has shape \[\], expected \[K\]"),
        ("tiou", [0.5, 0.0], r"tiou\[1\] is 0.*, expected above 0 and up to 1"),
        ("tiou", [np.nan], r"tiou\[0\] is nan, expected above 0"),
    ],
)
def test_wrong_arguments_are_named(name, value, message):
    with pytest.raises(ValueError, match="^match_detections: " + message):
        match_detections(**{**ARGUMENTS, name: value})


def test_the_native_function_checks_on_its_own():
    """The C++ side must not trust its caller: a wrong length there would read beyond an array."""
    arrays = [np.asarray(value) for value in ARGUMENTS.values()]
    arrays[5] = np.zeros(1, np.int64)
    with pytest.raises(ValueError, match="truth_videos has shape"):
        _library._native.match_detections(*arrays)


def test_threads_may_match_at_once():
    cases = [draw_case(seed, 2000, 300, 10, 5, 200) for seed in range(4)]
    found: dict[int, np.ndarray] = {}
    threads = [threading.Thread(target=lambda i=i: found.update({i: match_detections(*cases[i])})) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, case in enumerate(cases):
        np.testing.assert_array_equal(found[index], match_detections(*case))
