"""A user's own data set; the example is the one in docs/own_data.md."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wtal.data.catalog import open_dataset
from wtal.data.clip_alignment import read_aligned_clip
from wtal.data.dataset_toml import held_out_fifth, open_own
from wtal.data.features import read_features
from wtal.data.timebase import Timebase
from wtal.data.video import Instance
from wtal.errors import WtalError
from wtal.evaluation.average_precision import evaluate

PAGE = Path(__file__).parents[2] / "docs" / "own_data.md"
VIDEOS = ("monday", "tuesday", "wednesday", "thursday", "friday")


@pytest.fixture
def kitchen(tmp_path: Path) -> Path:
    """The folder that the page describes, with the page's own text in the files."""
    text = PAGE.read_text(encoding="utf-8")
    blocks = dict(re.findall(r"## (\S+)\n.*?```\w+\n(.*?)```", text, re.DOTALL))
    for name in ("dataset.toml", "labels.csv", "segments.csv"):
        (tmp_path / name).write_text(blocks[name])
    for index, video in enumerate(VIDEOS):
        for folder, width in (("i3d", 4), ("clip", 2)):
            (tmp_path / folder).mkdir(exist_ok=True)
            np.save(tmp_path / folder / f"{video}.npy", np.full((10 + index, width), index, np.float32))
    return tmp_path / "dataset.toml"


@pytest.fixture
def edited(kitchen: Path) -> Callable[..., Path]:
    def edit(old: str, new: str, name: str = "dataset.toml") -> Path:
        path = kitchen.with_name(name)
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        return kitchen

    return edit


def message(path: Path, **options) -> str:
    with pytest.raises(WtalError) as caught:
        open_own(path, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_the_page_as_it_stands(kitchen: Path) -> None:
    data = open_dataset(str(kitchen))
    assert (data.name, data.layout, data.classes) == ("kitchen", "own", ("Chop", "Pour", "Stir"))
    assert [video.id for video in data] == list(VIDEOS)
    assert {video.id for video in data.subset("test")} == held_out_fifth({video.id: video.labels for video in data})
    assert len(data.subset("train")) + len(data.subset("test")) == 5
    tuesday = data.videos[1]
    assert tuesday.labels == ("Pour", "Stir")
    assert tuesday.instances == (Instance(0.5, 4.25, "Pour"), Instance(6.0, 12.5, "Stir"))
    assert tuesday.timebase == Timebase(25, 16, 16)
    assert tuesday.clip_fps == 2.0
    assert read_features(tuesday).shape == (11, 4)
    assert (read_aligned_clip(tuesday, 11) == 1).all()


def test_json_files_of_the_page(kitchen: Path, edited: Callable[..., Path]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    labels = json.loads(re.search(r"`labels.json`: `(.*?)`\.", text).group(1))
    segments = json.loads(re.search(r"`segments.json`: `(.*?)`\.", text).group(1))
    kitchen.with_name("labels.json").write_text(json.dumps(labels))
    kitchen.with_name("segments.json").write_text(json.dumps(segments))
    edited("labels.csv", "labels.json")
    data = open_own(edited('segments = "segments.csv"', 'segments = "segments.json"\ntest = ["monday"]'))
    assert [(video.id, video.subset, video.labels) for video in data] == [
        ("monday", "test", ("Chop",)),
        ("tuesday", "train", ("Pour", "Stir")),
    ]
    assert data.videos[0].instances == (Instance(3.2, 9.0, "Chop"),)
    assert data.videos[1].instances is None


def test_without_segments_no_video_has_instances(edited: Callable[..., Path]) -> None:
    assert all(video.instances is None for video in open_own(edited('segments = "segments.csv"', "")))


def test_labels_on_several_lines_and_folders_side_by_side(kitchen: Path, edited: Callable[..., Path]) -> None:
    edited("tuesday,Pour;Stir\n", "tuesday, Stir\ntuesday,Pour\n\n", "labels.csv")
    data = open_own(edited('i3d = "i3d"', 'i3d = ["i3d", "clip"]'))
    assert data.videos[1].labels == ("Pour", "Stir")
    assert read_features(data.videos[1]).shape == (11, 6)


def test_test_list_in_a_file(kitchen: Path, edited: Callable[..., Path]) -> None:
    kitchen.with_name("test.txt").write_text("friday\n\nmonday\n")
    data = open_own(edited("fps = 25", 'test = "test.txt"\nfps = 25'))
    assert [video.id for video in data.subset("test")] == ["monday", "friday"]


@pytest.mark.parametrize(
    ("old", "new", "name", "expected"),
    [
        ("stride = 16", "strid = 16", "dataset.toml", "unknown key 'strid' (did you mean 'stride'?)"),
        ("fps = 25", "", "dataset.toml", "no 'fps', expected frames a second"),
        ("fps = 25", "fps = 0", "dataset.toml", "fps is 0, expected a number above 0"),
        ("fps = 25", 'fps = "25"', "dataset.toml", "fps is '25', expected a number above 0"),
        ("fps = 25", "fps = inf", "dataset.toml", "fps is inf, expected a number above 0"),
        ("fps = 25", "fps = ", "dataset.toml", "dataset.toml: not TOML"),
        ('name = "kitchen"', "name = 3", "dataset.toml", "name is 3, expected text"),
        ('"Chop", "Pour"', '"Chop", "Chop"', "dataset.toml", "expected different names"),
        ('["Chop", "Pour", "Stir"]', '"Chop"', "dataset.toml", "classes is 'Chop', expected a list of class names"),
        ('i3d = "i3d"', 'i3d = "nowhere"', "dataset.toml", "nowhere: no such folder ('i3d' in "),
        ('i3d = "i3d"', "i3d = []", "dataset.toml", "i3d is [], expected a folder"),
        ('clip = "clip"', "", "dataset.toml", "clip_fps without clip"),
        ("labels.csv", "label.csv", "dataset.toml", "label.csv: no such file ('labels' in "),
        (
            "tuesday,Pour;Stir",
            "tuesday,Pour;Stirr",
            "labels.csv",
            "line 3: unknown class 'Stirr' (did you mean 'Stir'?)",
        ),
        ("video,label", "id,label", "labels.csv", "first line 'id,label', expected 'video,label'"),
        ("friday,Chop", "friday", "labels.csv", "line 6: ['friday'], expected video,label"),
        ("friday,", "../friday,", "labels.csv", "an id is part of file names"),
        (
            "friday,4.0,6.5,Chop",
            "fridy,4.0,6.5,Chop",
            "segments.csv",
            "'fridy' (did you mean 'friday'?) is not in labels.csv",
        ),
        (
            "friday,4.0,6.5,Chop",
            "friday,4.0,6.5,Stir",
            "segments.csv",
            "a segment of 'Stir', expected one of the video's",
        ),
        ("4.0,6.5", "6.5,4.0", "segments.csv", "line 8: segment [6.5, 4] ends before it starts"),
        ("4.0,6.5", "-4.0,6.5", "segments.csv", "segment starts at -4, expected seconds from 0"),
        ("4.0,6.5", "four,6.5", "segments.csv", "segment start is 'four', expected a finite number"),
        ("fps = 25", 'fps = 25\ntest = ["x"]', "dataset.toml", "test video 'x' is not in labels.csv"),
        ("fps = 25", 'fps = 25\ntest = ["thurday"]', "dataset.toml", "'thurday' (did you mean 'thursday'?)"),
    ],
)
def test_faults_are_one_line(old: str, new: str, name: str, expected: str, edited: Callable[..., Path]) -> None:
    text = message(edited(old, new, name))
    assert expected in text
    assert ".toml" in text or ".csv" in text


def test_a_test_video_needs_segments_where_there_are_any(edited: Callable[..., Path]) -> None:
    edited("friday,4.0,6.5,Chop\n", "", "segments.csv")
    text = message(edited("fps = 25", 'fps = 25\ntest = ["friday"]'))
    assert "test video 'friday' is labelled 'Chop' but has no segment" in text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[1]", "expected {"),
        ('{"monday": "Chop"}', "video 'monday': 'Chop', expected a list of labels"),
        ('{"monday": ["Chopp"]}', "video 'monday': unknown class 'Chopp' (did you mean 'Chop'?)"),
        ('{"monday": [["Chop"]]}', "unknown class ['Chop']"),
        ("{}", "no video, expected some"),
        ('{"monday', "damaged or truncated JSON"),
    ],
)
def test_malformed_labels_json(content: str, expected: str, kitchen: Path, edited: Callable[..., Path]) -> None:
    kitchen.with_name("labels.json").write_text(content)
    assert expected in message(edited("labels.csv", "labels.json"))


def test_missing_features_and_files(kitchen: Path) -> None:
    kitchen.with_name("i3d").joinpath("monday.npy").unlink()
    assert "no features for 1 of 5 videos (monday), expected" in message(kitchen)
    assert open_own(kitchen, allow_missing=True).missing == ("monday",)
    kitchen.unlink()
    assert "dataset.toml: no such file" in message(kitchen)


@given(st.dictionaries(st.text(min_size=1, max_size=4), st.sets(st.sampled_from("abcde")), max_size=40))
def test_the_held_out_fifth_leaves_every_class_for_training(labels: dict[str, set[str]]) -> None:
    held_out = held_out_fifth(labels)
    assert held_out_fifth(dict(reversed(labels.items()))) == held_out
    fifth = max(1, round(len(labels) / 5))
    assert len(held_out) <= fifth + (sum(not labels[video] for video in held_out) == fifth)
    if len(labels) > 1:
        assert 0 < len(held_out) < len(labels)
    everywhere = set().union(*labels.values())
    left = set().union(*(own for video, own in labels.items() if video not in held_out))
    replaceable = any(all(sum(c in other for other in labels.values()) > 1 for c in own) for own in labels.values())
    assert left == everywhere or not replaceable


def test_the_held_out_fifth_is_a_fifth_and_hardly_moves() -> None:
    labels = {f"video{index}": [f"class{index % 7}"] for index in range(1000)}
    held_out = held_out_fifth(labels)
    assert len(held_out) == 200
    assert len(held_out_fifth({**labels, "another": ["class1"]}) ^ held_out) <= 2
    assert held_out_fifth({"only": ["class1"]}) == frozenset()


@pytest.mark.parametrize(("old", "told"), [("labels.csv", "no such file"), ('"clip"', "no such folder")])
def test_a_name_that_no_file_can_have_is_not_there(edited: Callable[..., Path], old: str, told: str) -> None:
    assert told in message(edited(old, old.replace("l", "l" * 5000, 1)))


@pytest.mark.parametrize("truth", ["dataset.toml", "segments.csv", "segments.json"])
def test_ground_truth_fed_back_scores_everything(kitchen: Path, truth: str) -> None:
    """Of a dataset.toml the test videos count, of a segments file all that it names."""
    data = open_own(kitchen)
    listed = {
        video.id: [{"segment": [found.start, found.end], "label": found.label} for found in video.instances or ()]
        for video in data
    }
    kitchen.with_name("segments.json").write_text(json.dumps(listed))
    if truth == "dataset.toml":
        kitchen.write_text(kitchen.read_text() + 'test = ["tuesday", "friday"]\n')
        data = open_own(kitchen)
        videos = [video.id for video in data.subset("test")]
    else:
        videos = [video.id for video in data if video.instances]
    results = {video: [{**row, "score": 0.5} for row in listed[video]] for video in videos}
    result = evaluate({"version": "1", "results": results, "external_data": {}}, kitchen.with_name(truth))
    assert result.mean == 100.0
    assert result.videos == len(videos)
    assert result.subset == ("test" if truth == "dataset.toml" else "all")


def test_a_data_set_without_segments_is_no_ground_truth(edited: Callable[..., Path]) -> None:
    path = edited('segments = "segments.csv"', "#")
    with pytest.raises(WtalError, match=r"dataset.toml: no 'segments', expected .* to evaluate against"):
        evaluate({"version": "1", "results": {}, "external_data": {}}, path)


def test_segments_of_training_videos_in_a_file_of_their_own(kitchen: Path, edited: Callable[..., Path]) -> None:
    whole = {video.id: video.instances for video in open_own(kitchen)}
    rows = kitchen.with_name("segments.csv").read_text().splitlines()
    test = {video.id for video in open_own(kitchen).subset("test")}
    for name, kept in (("segments", test), ("train_segments", whole.keys() - test)):
        lines = [rows[0], *(row for row in rows[1:] if row.split(",")[0] in kept)]
        kitchen.with_name(f"{name}.csv").write_text("\n".join(lines))
    assert {video.instances for video in open_own(kitchen).subset("train")} == {None}
    edited("fps = 25", 'fps = 25\ntrain_segments = "train_segments.csv"')
    assert {video.id: video.instances for video in open_own(kitchen)} == whole
    # without 'segments' the test videos have none, and there is nothing to evaluate against
    edited('segments = "segments.csv"            # optional\n', "")
    assert all((video.instances is None) == (video.subset == "test") for video in open_own(kitchen))


def test_faults_of_segments_of_training_videos(kitchen: Path, edited: Callable[..., Path]) -> None:
    (test,) = (video.id for video in open_own(kitchen).subset("test"))
    other = next(video for video in open_own(kitchen).subset("train"))
    edited("fps = 25", 'fps = 25\ntrain_segments = "more.csv"')
    assert "more.csv: no such file ('train_segments' in " in message(kitchen)
    more = kitchen.with_name("more.csv")
    for row, told in (
        (f"{test},0,1,Chop", f"more.csv: video {test!r}: a segment of 'Chop', expected one"),
        (f"{other.id},0,1,{other.labels[0]}", f"more.csv: video {other.id!r} is annotated in segments.csv, too"),
        ("fridy,0,1,Chop", "more.csv: video 'fridy' (did you mean 'friday'?) is not in labels.csv"),
    ):
        more.write_text(f"video,start,end,label\n{row}\n")
        assert told in message(kitchen)
    own = next(video.labels[0] for video in open_own(edited('train_segments = "more.csv"', "")).subset("test"))
    edited("fps = 25", 'fps = 25\ntrain_segments = "more.csv"')
    more.write_text(f"video,start,end,label\n{test},0,1,{own}\n")
    assert f"more.csv: video {test!r} is for testing, expected training videos alone" in message(kitchen)
