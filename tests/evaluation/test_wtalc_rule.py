"""The evaluation of W-TALC's family (CO2-Net, P-MIL) on real annotation files, written out from its description."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import wtal
from wtal.data.annotations import read_annotations
from wtal.errors import WtalError

TIOU = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]

# A detection here is (label, first snippet, last snippet (exclusive), score): the units of those projects.


def detections_of(random, videos, classes):
    """Noisy copies of the ground truth, wrong labels and chance, on the grid; many segments and overlaps are equal."""
    found = {}
    for video in videos:
        rows = []
        for item in video.instances:
            for _ in range(int(random.integers(0, 4))):
                start, end = (round(second * 25 / 16 + random.normal(0, 2)) for second in (item.start, item.end))
                label = item.label if random.random() < 0.8 else classes[int(random.integers(len(classes)))]
                rows.append((label, max(start, 0), max(end, start + 1, 1)))
        for _ in range(int(random.integers(0, 5))):
            start = int(random.integers(0, 300))
            rows.append((classes[int(random.integers(len(classes)))], start, start + int(random.integers(1, 20))))
        found[video.id] = rows
    order = random.permutation(sum(map(len, found.values()))) / 1e4  # all scores distinct
    scores = iter(order.tolist())
    return {video: [(*row, next(scores)) for row in rows] for video, rows in found.items()}


def dropped(rows, intervals):
    """Without those of whatever label that share a snippet with an ambiguous interval."""
    kept = []
    for row in rows:
        own = set(range(int(row[1]), int(row[2])))
        if not any(own & set(range(round(a * 25 / 16), round(b * 25 / 16))) for a, b in intervals):
            kept.append(row)
    return kept


def area(hits, count):
    """Under the interpolated curve, point by point."""
    found, precision, recall = 0, [], []
    for rank, hit in enumerate(hits, 1):
        found += hit
        precision.append(found / rank)
        recall.append(found / count)
    total, before = 0.0, 0.0
    for place, level in enumerate(recall):
        total += (level - before) * max(precision[place:])
        before = level
    return total


def theirs(found, videos, classes):
    """mAP in percent at each threshold."""
    table = []
    for label in classes:
        truth = {
            video.id: [
                (round(item.start * 25 / 16), round(item.end * 25 / 16))
                for item in video.instances
                if item.label == label
            ]
            for video in videos
        }
        count = sum(map(len, truth.values()))
        ranked = sorted(
            ((row[3], video, row[1], row[2]) for video, rows in found.items() for row in rows if row[0] == label),
            reverse=True,
        )
        line = []
        for threshold in TIOU:
            taken, hits = set(), []
            for _, video, start, end in ranked:
                best = None
                for place, (low, high) in enumerate(truth[video]):
                    shared = max(0, min(end, high) - max(start, low))
                    overlap = shared / (end - start + high - low - shared)
                    if overlap >= threshold and (video, place) not in taken and (best is None or overlap >= best[0]):
                        best = (overlap, place)
                hits.append(best is not None)
                if best:
                    taken.add((video, best[1]))
            line.append(area(hits, count))
        table.append(line)
    return 100 * np.array(table).mean(0)


def in_seconds(found):
    return {
        video: [wtal.Detection(start * 16 / 25, end * 16 / 25, label, score) for label, start, end, score in rows]
        for video, rows in found.items()
    }


def ambiguous_of(path: Path):
    found: dict[str, list[tuple[float, float]]] = {}
    for line in path.read_text().splitlines():
        video, start, end = line.split()
        found.setdefault(video, []).append((float(start), float(end)))
    return found


@pytest.mark.parametrize("ambiguous", ["keep", "drop"])
def test_equals_their_rule_on_the_real_files(test_data: Path, ambiguous: str) -> None:
    folder = test_data / "thumos14/wtalc/Thumos14reduced-Annotations"
    truth = read_annotations(folder)
    videos = truth.split("test")
    random = np.random.default_rng(np.random.SeedSequence().entropy)
    found = detections_of(random, videos, truth.classes)
    result = wtal.evaluate(in_seconds(found), folder, "snippets", TIOU, ambiguous=ambiguous)
    if ambiguous == "drop":
        intervals = ambiguous_of(folder / "Ambiguous_test.txt")
        assert (sum(map(len, intervals.values())), len(intervals)) == (99, 37)
        before = sum(map(len, found.values()))
        found = {video: dropped(rows, intervals.get(video, [])) for video, rows in found.items()}
        gone = before - sum(map(len, found.values()))
        assert gone > 0
        assert any(note.startswith(f"{gone} detections that meet an ambiguous interval") for note in result.notes)
    else:
        assert any("96 ambiguous intervals in 36 videos" in note and "not used" in note for note in result.notes)
    np.testing.assert_allclose([*result.per_tiou.values()], theirs(found, videos, truth.classes), rtol=0, atol=1e-9)


@pytest.mark.parametrize("ambiguous", ["keep", "drop"])
def test_equals_their_rule_on_small_files(tmp_path: Path, ambiguous: str) -> None:
    for _ in range(20):
        random = np.random.default_rng(np.random.SeedSequence().entropy)
        lines, database = [], {}
        for video in ("a", "b", "c"):
            starts = random.integers(0, 200, 6) / 4
            segments = [[start, start + int(random.integers(0, 40)) / 8] for start in starts.tolist()]
            rows = [{"segment": one, "label": "xyz"[int(random.integers(3))]} for one in segments]
            rows.append({"segment": [1.0, 9.0], "label": "x"})
            database[video] = {"subset": "test", "annotations": rows}
            lines += [f"{video}  {start} {start + 1.5}\r\n" for start in (random.integers(0, 200, 2) / 4).tolist()]
        (tmp_path / "Ambiguous_test.txt").write_bytes(b"\xef\xbb\xbf" + "".join(lines).encode())
        truth_file = tmp_path / "gt.json"
        truth_file.write_text(json.dumps({"database": database}))
        truth = read_annotations(truth_file)
        found = detections_of(random, [*truth.videos.values()], truth.classes)
        result = wtal.evaluate(in_seconds(found), truth_file, "snippets", TIOU, ambiguous=ambiguous)
        if ambiguous == "drop":
            intervals = {video.id: video.ambiguous for video in truth.videos.values()}
            assert sum(map(len, intervals.values())) == 6
            found = {video: dropped(rows, intervals[video]) for video, rows in found.items()}
        expected = theirs(found, [*truth.videos.values()], truth.classes)
        np.testing.assert_allclose([*result.per_tiou.values()], expected, rtol=0, atol=1e-9)


# ---- ambiguous intervals ----------------------------------------------------------------------------------

RECORD = {"subset": "test", "annotations": [{"segment": [10, 20], "label": "a"}, {"segment": [40, 50], "label": "b"}]}
FOUND = {"v": [wtal.Detection(10, 20, "a", 0.9), wtal.Detection(40, 50, "b", 0.9), wtal.Detection(30, 33, "b", 0.95)]}


def test_a_label_ambiguous_is_told_and_can_be_an_interval() -> None:
    record = {**RECORD, "annotations": [*RECORD["annotations"], {"segment": [32, 35], "label": "Ambiguous"}]}
    truth = {"database": {"v": record}}
    kept = wtal.evaluate(FOUND, truth, tiou=0.5)
    assert "Ambiguous" in kept.per_class
    assert any("1 instances are labelled 'Ambiguous'" in note for note in kept.notes)
    result = wtal.evaluate(FOUND, truth, tiou=0.5, ambiguous="drop")
    assert result.per_class == {"a": {0.5: 100.0}, "b": {0.5: 100.0}}
    assert (result.detections, result.instances, result.ambiguous) == (2, 2, "drop")
    assert "ambiguous ones dropped" in str(result)


def test_without_intervals_drop_is_an_error_and_keep_says_nothing() -> None:
    truth = {"database": {"v": RECORD}}
    assert not any("mbiguous" in note for note in wtal.evaluate(FOUND, truth, tiou=0.5).notes)
    with pytest.raises(WtalError, match=r"there is no interval: expected Ambiguous_test.txt beside it"):
        wtal.evaluate(FOUND, truth, tiou=0.5, ambiguous="drop")
    with pytest.raises(WtalError, match="ambiguous 'away', expected one of keep, drop"):
        wtal.evaluate(FOUND, truth, tiou=0.5, ambiguous="away")


@pytest.mark.parametrize("line", ["v 1", "v 1 x", "v 2 1", "v 1 2 3"])
def test_a_line_that_is_none_is_named(line: str, tmp_path: Path) -> None:
    (tmp_path / "segments.csv").write_text("video,start,end,label\nv,1,2,a\n")
    (tmp_path / "Ambiguous_test.txt").write_text(f"v 0 1\n\n{line}\n")
    with pytest.raises(WtalError, match=r"Ambiguous_test.txt: line 3: "):
        wtal.evaluate(FOUND, tmp_path / "segments.csv", tiou=0.5)


def test_an_id_with_spaces_is_known_by_the_ground_truth(tmp_path: Path) -> None:
    (tmp_path / "segments.csv").write_text("video,start,end,label\nmy video 3,1,2,a\nmy video 3,5,6,a\n")
    (tmp_path / "Ambiguous_test.txt").write_text("my video 3  4.0\t7.0\nanother 4 7\n")
    found = {"my video 3": [wtal.Detection(5, 6, "a", 0.9), wtal.Detection(1, 2, "a", 0.8)]}
    result = wtal.evaluate(found, tmp_path / "segments.csv", tiou=0.5, ambiguous="drop")
    assert (result.detections, result.instances) == (1, 2)


# ---- OpenTAD's names for the parts of THUMOS14 -------------------------------------------------------------


def test_validation_is_the_test_part_beside_training_whatever_the_ids() -> None:
    database = {
        "video_validation_0000051": {"subset": "training", "annotations": [{"segment": [0, 1], "label": "a"}]},
        "video_test_0000004": {"subset": "validation", "annotations": [{"segment": [2, 3], "label": "a"}]},
    }
    found = {"video_test_0000004": [wtal.Detection(2, 3, "a", 1.0)]}
    result = wtal.evaluate(found, {"database": database})
    assert (result.mean, result.subset, result.videos) == (100.0, "validation", 1)
