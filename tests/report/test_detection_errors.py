"""The error taxonomy, precision curves and missed instances against loops that follow the text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wtal.data.predictions import Detection
from wtal.data.timebase import Timebase
from wtal.data.video import Instance, Video
from wtal.evaluation.average_precision import evaluate
from wtal.report.analysis import RECALLS, Analysis, analyse
from wtal.report.detection_errors import COUNT_EDGES, KINDS, RANKS, length_edges

CLASSES = ("jump", "run", "swim")
Detections = dict[str, list[Detection]]


def tiou(a: Detection | Instance, b: Detection | Instance) -> float:
    shared = max(0.0, min(a.end, b.end) - max(a.start, b.start))
    union = (a.end - a.start) + (b.end - b.start) - shared
    return shared / union if union > 0 else float((a.start, a.end) == (b.start, b.end))


def taken(found: Detections, videos: list[Video], alpha: float) -> dict[tuple[str, int], int]:
    """(video, index of detection) -> index of its instance: greedily by falling score; of equal tIoU, the last one."""
    result = {}
    for video in videos:
        free = set(range(len(video.instances)))
        listed = found[video.id]
        for index in sorted(range(len(listed)), key=lambda i: (-listed[i].score, i)):
            fits = [
                (tiou(listed[index], video.instances[g]), g)
                for g in free
                if video.instances[g].label == listed[index].label and tiou(listed[index], video.instances[g]) >= alpha
            ]
            if fits:
                result[video.id, index] = max(fits)[1]
                free.remove(max(fits)[1])
    return result


def kind(detection: Detection, matched: bool, video: Video, alpha: float) -> str:
    own = [tiou(detection, i) for i in video.instances if i.label == detection.label]
    other = [tiou(detection, i) for i in video.instances if i.label != detection.label]
    if matched:
        return "true positive"
    if max(own, default=0) >= alpha:
        return "double detection"
    if max(other, default=0) >= alpha:
        return "wrong label"
    if max(own, default=0) >= 0.1:
        return "localization"
    if max(other, default=0) >= 0.1:
        return "confusion"
    return "background"


def scene(seed: int) -> tuple[Detections, list[Video]]:
    """A few videos on a coarse grid, so that segments coincide and scores tie."""
    random = np.random.default_rng(seed)
    found: Detections = {}
    videos = []

    def segment() -> tuple[float, float]:
        start = float(random.integers(0, 20))
        return start, start + float(random.integers(1, 8))

    for index in range(int(random.integers(1, 5))):
        instances = tuple(Instance(*segment(), CLASSES[random.integers(3)]) for _ in range(int(random.integers(1, 6))))
        videos.append(
            Video(
                f"v{index}", "test", tuple(sorted({i.label for i in instances})), Timebase(25), (), instances=instances
            )
        )
        found[f"v{index}"] = [
            Detection(*segment(), CLASSES[random.integers(3)], float(random.integers(1, 12)) / 12)
            for _ in range(int(random.integers(0, 25)))
        ]
    return found, videos


def examined(found: Detections, videos: list[Video]) -> Analysis:
    return analyse(found, videos, "seconds", (0.3, 0.5, 0.7))


@settings(max_examples=60)
@given(st.integers(0, 2**31))
def test_every_detection_has_the_kind_that_the_text_says(seed: int) -> None:
    found, videos = scene(seed)
    by_id = {video.id: video for video in videos}
    present = {instance.label for video in videos for instance in video.instances}
    matched = taken(found, videos, 0.5)
    wanted = np.zeros((RANKS, len(KINDS)), dtype=int)
    for label in present:
        total = sum(instance.label == label for video in videos for instance in video.instances)
        own = [(v, i) for v in found for i, detection in enumerate(found[v]) if detection.label == label]
        own.sort(key=lambda key: -found[key[0]][key[1]].score)  # stable
        for rank, (v, i) in enumerate(own):
            if rank // total < RANKS:
                wanted[rank // total, KINDS.index(kind(found[v][i], (v, i) in matched, by_id[v], 0.5))] += 1
    np.testing.assert_array_equal(examined(found, videos).by_rank, wanted)


@settings(max_examples=40)
@given(st.integers(0, 2**31))
def test_values_are_those_of_the_evaluation(seed: int) -> None:
    found, videos = scene(seed)
    analysis = examined(found, videos)
    result = evaluate(found, videos, tiou=(0.3, 0.5, 0.7))
    assert analysis.classes == tuple(result.per_class)
    np.testing.assert_allclose(analysis.ap, [[*row.values()] for row in result.per_class.values()], atol=1e-9)
    assert analysis.mean == pytest.approx(result.mean, abs=1e-9)
    assert analysis.detections == result.detections


@settings(max_examples=40)
@given(st.integers(0, 2**31))
def test_removing_an_error_gains_what_evaluating_without_it_shows(seed: int) -> None:
    found, videos = scene(seed)
    by_id = {video.id: video for video in videos}
    matched = taken(found, videos, 0.5)
    analysis = examined(found, videos)
    now = evaluate(found, videos, tiou=0.5).mean
    for name in KINDS[1:]:
        without = {
            v: [d for i, d in enumerate(listed) if kind(d, (v, i) in matched, by_id[v], 0.5) != name]
            for v, listed in found.items()
        }
        assert analysis.gains[name] == pytest.approx(evaluate(without, videos, tiou=0.5).mean - now, abs=1e-9)


@settings(max_examples=40)
@given(st.integers(0, 2**31))
def test_missed_instances_are_counted_by_length_and_number(seed: int) -> None:
    found, videos = scene(seed)
    matched = taken(found, videos, 0.5)
    hit = {(v, g) for (v, _), g in matched.items()}
    lengths = [i.end - i.start for video in videos for i in video.instances]
    edges = length_edges(np.array(lengths))
    by_length, by_count = np.zeros((5, 2), int), np.zeros((5, 2), int)
    for video in videos:
        for g, instance in enumerate(video.instances):
            missed = (video.id, g) not in hit
            by_length[sum(instance.end - instance.start > edge for edge in edges)] += (1, missed)
            alike = sum(other.label == instance.label for other in video.instances)
            by_count[sum(alike > edge for edge in COUNT_EDGES)] += (1, missed)
    analysis = examined(found, videos)
    assert [(b.instances, b.missed) for b in analysis.by_length] == [tuple(row) for row in by_length.tolist()]
    assert [(b.instances, b.missed) for b in analysis.by_count] == [tuple(row) for row in by_count.tolist()]


@settings(max_examples=40)
@given(st.integers(0, 2**31))
def test_precision_is_the_highest_at_any_recall_from_there_on(seed: int) -> None:
    found, videos = scene(seed)
    analysis = examined(found, videos)
    for k, alpha in enumerate(analysis.tiou):
        matched = taken(found, videos, alpha)
        for c, label in enumerate(analysis.classes):
            own = [(v, i) for v in found for i, detection in enumerate(found[v]) if detection.label == label]
            own.sort(key=lambda key: -found[key[0]][key[1]].score)
            points, hits = [(0.0, 0.0)], 0
            for rank, key in enumerate(own, 1):
                hits += key in matched
                points.append((hits / analysis.instances[c], hits / rank))
            for at, recall in enumerate(RECALLS):
                best = max((p for r, p in points[1:] if r >= recall - 1e-12), default=0.0)
                assert analysis.precision[c, k, at] == pytest.approx(best, abs=1e-12), (label, alpha, recall)


def test_an_action_annotated_under_two_names_is_found_under_both() -> None:
    """THUMOS14's CliffDiving is also Diving: neither detection is a wrong label."""
    instances = (Instance(1, 5, "jump"), Instance(1, 5, "swim"))
    video = Video("v", "test", ("jump", "swim"), Timebase(25), (), instances=instances)
    found = {"v": [Detection(1, 5, "jump", 0.9), Detection(1, 5, "swim", 0.8)]}
    assert examined(found, [video]).by_rank[0].tolist() == [2, 0, 0, 0, 0, 0]


def test_rounding_to_snippets_is_applied_where_the_protocol_says_so() -> None:
    instances = (Instance(0.30, 0.90, "run"),)  # snippets 0 to 1
    video = Video("v", "test", ("run",), Timebase(25), (), instances=instances)
    found = {"v": [Detection(0.0, 0.64, "run", 1.0)]}
    assert analyse(found, [video], "seconds", (0.7,)).mean == 0
    assert analyse(found, [video], "snippets", (0.7,)).mean == evaluate(found, [video], "snippets", 0.7).mean == 100
