"""benchmarks/real/stand_in.py: class means by an independent definition, and nothing of a video that is held out."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from benchmarks.real_data import CLASSES, ROOT, real, write_dataset
from forked.commands import Commands

from wtal.data.folds import fold_of
from wtal.data.open import open_data
from wtal.errors import WtalError


def make(dataset: Path, out: Path, *options: str) -> Path:
    assert real("stand_in").command([str(dataset), str(out), *options]) == 0
    return out


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """24 videos; v00 to v14 are for training. Two of them have two classes, and a dimension does not vary."""
    path = write_dataset(tmp_path / "data", seed=int(np.random.default_rng().integers(1 << 30)))
    with (path.parent / "labels.csv").open("a") as file:
        file.write(f"v01,{CLASSES[0]}\nv05,{CLASSES[1]}\n")
    for place in (path.parent / "features").iterdir():
        rows = np.load(place)
        rows[:, 7] = 3
        np.save(place, rows)
    return path


@pytest.fixture(autouse=True)
def with_train(dataset: Path) -> None:
    """Beside it the same data set, which names the annotation of its training videos."""
    text = dataset.read_text() + 'train_segments = "train_segments.csv"\n'
    dataset.with_name("with_train.toml").write_text(text)


def labels_of(folder: Path) -> dict[str, set[str]]:
    labels: dict[str, set[str]] = {}
    for line in (folder / "labels.csv").read_text().splitlines()[1:]:
        name, label = line.split(",")
        labels.setdefault(name, set()).add(label)
    return labels


def held_out(part: int, folds: int) -> list[str]:
    """The ids of one part of the training videos, by the words of docs/ablation.md."""
    order = sorted((f"v{number:02}" for number in range(15)), key=lambda id: hashlib.sha256(id.encode()).digest())
    return order[part - 1 :: folds]


@pytest.mark.parametrize("fold", [None, "2/4"])
def test_is_what_its_definition_says(fold: str | None, dataset: Path, tmp_path: Path) -> None:
    out = make(dataset, tmp_path / "out", *(["--fold", fold] if fold else []))
    test = held_out(2, 4) if fold else [f"v{number:02}" for number in range(15, 24)]
    training = [name for name in (f"v{number:02}" for number in range(15)) if name not in test]
    features = {name: np.load(dataset.parent / f"features/{name}.npy").astype(float) for name in (*training, *test)}
    every = np.concatenate([features[name] for name in training])
    deviation = every.std(axis=0)
    deviation[7] = 1.0
    standardised = {name: (rows - every.mean(axis=0)) / deviation for name, rows in features.items()}
    labels = labels_of(dataset.parent)
    means = [
        np.mean([standardised[name].mean(axis=0) for name in training if label in labels[name]], axis=0)
        for label in CLASSES
    ]

    assert {place.stem for place in (out / "clip").iterdir()} == {*training, *test}
    for name, rows in standardised.items():
        np.testing.assert_allclose(np.load(out / f"clip/{name}.npy"), rows, atol=1e-5)
    np.testing.assert_allclose(np.load(out / "text.npy"), means, atol=1e-5)

    whole = open_data(str(dataset.with_name("with_train.toml")) if fold else str(dataset))
    expected, found = fold_of(whole, fold) if fold else whole, open_data(str(out / "dataset.toml"))
    assert found.has_clip
    assert found.text_features is not None
    assert found.classes == expected.classes
    assert {video.id for video in found.subset("test")} == set(test)
    for video, other in zip(sorted(found, key=str), sorted(expected, key=str), strict=True):
        assert (video.id, video.subset, video.labels) == (other.id, other.subset, other.labels)
        assert (video.timebase, video.i3d, video.snippets) == (other.timebase, other.i3d, other.snippets)
        assert video.instances == (other.instances if video.subset == "test" else None)


@pytest.mark.parametrize("fold", [None, "1/3"])
def test_no_held_out_video_enters(fold: str | None, dataset: Path, tmp_path: Path) -> None:
    """Other features and labels of test videos and held-out videos change neither text features nor other videos."""
    options = ["--fold", fold] if fold else []
    before = make(dataset, tmp_path / "before", *options)
    changed = [*(held_out(1, 3) if fold else []), *(f"v{number:02}" for number in range(15, 24))]
    for name in changed:
        place = dataset.parent / f"features/{name}.npy"
        np.save(place, np.load(place) * -30 + 7)
    for file in ("labels.csv", "segments.csv", "train_segments.csv"):
        lines = (dataset.parent / file).read_text().splitlines()
        turned = {CLASSES[0]: CLASSES[1], CLASSES[1]: CLASSES[2], CLASSES[2]: CLASSES[0]}
        other = [
            ",".join([*line.split(",")[:-1], turned[line.split(",")[-1]]]) if line.split(",")[0] in changed else line
            for line in lines
        ]
        (dataset.parent / file).write_text("\n".join(other) + "\n")
    after = make(dataset, tmp_path / "after", *options)
    assert (before / "text.npy").read_bytes() == (after / "text.npy").read_bytes()
    for number in range(15):
        if (name := f"v{number:02}") not in changed:
            assert (before / f"clip/{name}.npy").read_bytes() == (after / f"clip/{name}.npy").read_bytes()

    # It would be seen if one entered:
    place = dataset.parent / f"features/{next(f'v{n:02}' for n in range(15) if f'v{n:02}' not in changed)}.npy"
    np.save(place, np.load(place) * -30 + 7)
    assert (before / "text.npy").read_bytes() != (make(dataset, tmp_path / "c", *options) / "text.npy").read_bytes()


def test_parts_are_held_out_by_fold_alone(dataset: Path, tmp_path: Path) -> None:
    """The class means of a whole data set have seen every part of its training videos, so nothing measures on one."""
    for name in ("dataset.toml", "with_train.toml"):
        out = make(dataset.with_name(name), tmp_path / name)
        with pytest.raises(WtalError, match="no training video in part 1/2 has temporal annotation"):
            fold_of(open_data(str(out / "dataset.toml")), "1/2")


def test_keeps_what_the_old_one_says(dataset: Path, tmp_path: Path) -> None:
    """Two folders of features, odd class names, no grid of its own, ambiguous intervals."""
    folder, odd = dataset.parent, 'a "b"; c\x7f, 🤸'
    shutil.copytree(folder / "features", folder / "flow")
    table = tomllib.loads(dataset.read_text())
    (folder / "labels.json").write_text(json.dumps({f"v{n:02}": [odd] if n % 2 else ["x"] for n in range(24)}))
    (folder / "segments.json").write_text(
        json.dumps({f"v{n:02}": [{"segment": [0.1, 5.3], "label": odd if n % 2 else "x"}] for n in range(15, 24)})
    )
    (folder / "Ambiguous_test.txt").write_text("v20 1.25 2.5\nv20 3 4\n")
    dataset.write_text(
        f'name = "odd"\nclasses = ["x", {json.dumps(odd, ensure_ascii=False)!s}]\ni3d = ["features", "flow"]\n'.replace(
            "\x7f", "\\u007f"
        )
        + f'labels = "labels.json"\nsegments = "segments.json"\ntest = "test.txt"\nfps = {table["fps"]}\n'
    )
    out = make(dataset, tmp_path / "out")
    old, new = open_data(str(dataset)), open_data(str(out / "dataset.toml"))
    assert new.classes == old.classes == ("x", odd)
    for video, other in zip(sorted(new, key=str), sorted(old, key=str), strict=True):
        assert (video.i3d, video.labels, video.timebase) == (other.i3d, other.labels, other.timebase)
        assert (video.ambiguous, video.instances) == (other.ambiguous, other.instances)
    assert np.load(out / "clip/v03.npy").shape[1] == 2 * np.load(folder / "flow/v03.npy").shape[1]


def without_a_class(folder: Path) -> None:
    path = folder / "dataset.toml"
    path.write_text(path.read_text().replace('"swim"]', '"swim", "fly"]'))


def damaged(folder: Path) -> None:
    np.save(folder / "features/v20.npy", np.full((50, 12), np.nan, np.float32))


def of_no_direction(folder: Path) -> None:
    for place in (folder / "features").iterdir():
        np.save(place, np.ones((70, 12), np.float32))


@pytest.mark.parametrize(
    ("spoil", "options", "message"),
    [
        (without_a_class, [], r"dataset\.toml: no training video has fly, expected one of each class"),
        (damaged, [], r"v20\.npy: nan in row 0"),
        (of_no_direction, [], r"dataset\.toml: the mean of 'jump' has norm 0"),
        (None, ["--fold", "5/4"], r"--fold 5/4: expected a part"),
        (None, ["--fold", "1/16"], r"16 parts of 15 training videos"),
        (lambda folder: (folder / "train_segments.csv").unlink(), ["--fold", "1/3"], "has temporal annotation"),
        (lambda folder: (folder / "features/v03.npy").unlink(), [], r"no features for 1 of 24 videos \(v03\)"),
        (
            lambda folder: (folder.parent / "out").mkdir(),
            [],
            "out: is there already, expected the name of a new",
        ),
    ],
)
def test_an_error_is_one_line_and_leaves_nothing(
    spoil: Callable[[Path], object] | None, options: list[str], message: str, dataset: Path, tmp_path: Path
) -> None:
    if spoil is not None:
        spoil(dataset.parent)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(WtalError, match=message) as error:
        make(dataset, tmp_path / "out", *options)
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.iterdir()) == before


def test_a_failed_write_leaves_nothing(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in, save = real("stand_in"), real("stand_in")._save

    def full(path: Path, rows: np.ndarray) -> None:
        if path.stem == "v17":
            raise OSError(28, "No space left on device", str(path))
        save(path, rows)

    monkeypatch.setattr(stand_in, "_save", full)
    with pytest.raises(WtalError, match=r"out: cannot be written \(No space left on device\)"):
        make(dataset, tmp_path / "out")
    assert [place.name for place in tmp_path.iterdir()] == ["data"]


def test_another_command_reads_it(dataset: Path, tmp_path: Path, commands: Commands) -> None:
    """One epoch of each step, and a comparison of one seed."""
    made = subprocess.run(
        [sys.executable, "-m", "benchmarks.real.stand_in", str(dataset), str(tmp_path / "out")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    assert (
        made.stdout == f"{tmp_path}/out/dataset.toml: 3 classes, 15 training and 9 test videos, 12 features a snippet\n"
    )
    epochs = [f"--schedule.{step}-epochs" for step in ("warmup", "b", "f")]
    small = [*(word for option in epochs for word in (option, 1)), "--cbp.dim", 8, "--cbp.heads", 1, "--vlp.heads", 1]
    again = ["--dataset", tmp_path / "out/dataset.toml", "--threads", 1, "--device", "cpu"]
    trained = commands("train", *again, *small, "--out", tmp_path / "run")
    assert trained.returncode == 0, trained.stderr
    assert "VLP zero-shot" in trained.stdout
    assert "CBP after F" in trained.stdout

    recipe = tmp_path / "tiny.toml"
    settings = (tmp_path / "run/config.toml").read_text()
    recipe.write_text(settings[settings.index("[schedule]") :])
    out = tmp_path / "found"
    compared = commands(
        "ablate",
        *again[:2],
        "--recipes",
        recipe,
        "--seeds",
        0,
        "--runs",
        tmp_path / "runs",
        "--out",
        out,
    )
    assert compared.returncode == 0, compared.stderr
    assert (tmp_path / "found.md").is_file()
