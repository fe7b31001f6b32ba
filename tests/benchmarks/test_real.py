"""benchmarks/real: every model learns to localise, and the command behind ``python -m benchmarks.real``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from benchmarks.real_data import CLASSES, real, write_dataset

from wtal.errors import WtalError

MODELS = real("models").MODELS


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("real") / "data")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fraction of the width and of the steps."""
    for kind in MODELS.values():
        settings = replace(kind.training_settings, epochs=20, learning_rate=1e-2, batch=5)
        monkeypatch.setattr(kind, "training_settings", settings)
        if hasattr(kind, "hidden"):
            monkeypatch.setattr(kind, "hidden", 24)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("model", MODELS)
def test_learns_from_video_labels(model: str, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = real("job").Job(dataset, None, model, 0, 0)
    found = real("job").execute(job)
    settings = replace(MODELS[model].training_settings, learning_rate=0.0, epochs=1)
    monkeypatch.setattr(MODELS[model], "training_settings", settings)
    untrained = real("job").execute(job)
    assert found["mean"] > 50.0, found
    assert found["mean"] > 2 * untrained["mean"]
    assert found["videos"] == 9
    assert found["snippets"]["false_positive"] < untrained["snippets"]["false_positive"]


@pytest.mark.usefixtures("quick")
def test_same_seed_same_result(dataset: Path) -> None:
    job = real("job").Job(dataset, None, "cola", 3, 0)
    first, second = real("job").execute(job), real("job").execute(job)
    assert first["per_tiou"] == second["per_tiou"]


@pytest.mark.usefixtures("quick")
def test_several_networks_are_the_mean_of_networks_with_their_seeds(dataset: Path) -> None:
    job = real("job")
    data, kind = real("data").Data.read(dataset, False, None), MODELS["cola"]
    training, test = (data.videos.subset(name) for name in ("train", "test"))
    together, *alone = (
        job._fit(data, kind, job.Job(dataset, None, "cola", seed, 0, networks), training, test)
        for seed, networks in ((7, 2), (7, 1), (1007, 1))
    )
    for video in test:
        for name in ("frames", "video", "actionness"):
            own = [getattr(found[video], name) for found in alone]
            assert not torch.equal(*own)
            torch.testing.assert_close(getattr(together[video], name), sum(own) / 2)
    assert str(job.Job(dataset, None, "cola", 7, 0, 2)) == "cola, 2 networks, seed 7, test"


@pytest.mark.usefixtures("quick")
def test_folds_measure_every_training_video_once(dataset: Path) -> None:
    found = real("job").execute(real("job").Job(dataset, None, "conv", 0, 3))
    assert found["videos"] == 15
    assert found["mean"] > 50.0


def test_packed_convolution_is_a_convolution_of_each_video() -> None:
    random = np.random.default_rng()
    for lengths in ((1,), (1, 1, 3), tuple(random.integers(1, 9, 5).tolist())):
        width, out = int(random.integers(1, 6)), int(random.integers(1, 6))
        layer = real("packed").PackedConv(width, out)
        rows = torch.randn(sum(lengths), width)
        weight = torch.stack(layer.weight.chunk(3, dim=1), dim=2).transpose(0, 1)  # [out, width, 3]
        plain = [F.conv1d(part.T[None], weight, layer.bias, padding=1)[0].T for part in rows.split([*lengths])]
        torch.testing.assert_close(layer(rows, lengths), torch.cat(plain), atol=1e-5, rtol=1e-4)


def test_contrast_is_its_plain_definition() -> None:
    random = np.random.default_rng()
    curves = torch.rand(int(random.integers(3, 40)), 3)
    start = torch.from_numpy(random.integers(0, len(curves) - 1, 20))
    end = torch.minimum(start + torch.from_numpy(random.integers(1, 20, 20)), torch.tensor(len(curves)))
    owner = torch.from_numpy(random.integers(0, 3, 20))
    expected = []
    for a, b, c in zip(start.tolist(), (end - 1).tolist(), owner.tolist(), strict=True):
        reach = 0.25 * (b - a + 1)
        low, high = max(0, int(a - reach)), min(len(curves) - 1, int(b + reach))
        outer = [float(curves[t, c]) for t in (*range(low, a), *range(b + 1, high + 1))]
        expected.append(float(curves[a : b + 1, c].double().mean()) - (np.mean(outer) if outer else 0.0))
    found = real("rules").contrast(curves, torch.stack([start, end], 1), owner)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_rims_are_erosion_and_dilation() -> None:
    random = np.random.default_rng()
    mask = torch.from_numpy(random.random(int(random.integers(1, 60))) > 0.4)

    def window(at: int, size: int) -> list[bool]:
        around = range(at - (size - 1) // 2, at + size // 2 + 1)
        return [bool(mask[t]) if 0 <= t < len(mask) else False for t in around]

    inside, outside = real("models.cola").rims(mask, 3, 6)
    for at in range(len(mask)):
        assert bool(inside[at]) == (all(window(at, 3)) and not all(window(at, 6)))
        assert bool(outside[at]) == (any(window(at, 6)) and not any(window(at, 3)))


@pytest.mark.parametrize(("stride", "window"), [(16.0, 16.0), (4.0, 16.0), (16.0, 1.0)])
def test_finer_grid_subdivides_the_snippets(stride: float, window: float) -> None:
    rules = real("rules")
    timebase = rules.Timebase(25.0, stride, window)
    finer = rules._FinerGrid.of(timebase, 8)
    for snippet in range(5):
        assert finer.edge(8 * snippet) == pytest.approx(timebase.edge(snippet))
    assert finer.edge(9) - finer.edge(8) == pytest.approx(stride / 25.0 / 8)


def test_a_rule_places_a_plateau_in_seconds() -> None:
    """One stretch of one class stands out: the best detection is where it is, whatever the rule."""
    timebase = real("rules").Timebase(25.0, 4.0, 16.0)
    frames = torch.zeros(60, 3)
    frames[20:32, 1] = 1.0
    scored = real("models").Scored(frames, torch.tensor([0.1, 0.8, 0.1]), frames.sum(1))
    for rule in (real("rules").Contrast(), real("rules").TwoCurves()):
        best = rule(scored, timebase, CLASSES)[0]
        assert best.label == CLASSES[1]
        assert best.start == pytest.approx(timebase.edge(20), abs=0.1)
        assert best.end == pytest.approx(timebase.edge(32), abs=0.1)


@pytest.mark.usefixtures("quick")
def test_command_goes_on_where_it_stopped(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, out = real("run"), tmp_path / "out.json"
    monkeypatch.setattr("wtal.ablation.process_pool.ProcessPoolExecutor", InPlace)
    options = ["--data", str(dataset), "--models", "conv", "--out", str(out)]
    module.command([*options, "--seeds", "0"])
    before = json.loads(out.read_text())["runs"]
    module.command([*options, "--seeds", "0-1"])
    after = json.loads(out.read_text())["runs"]
    assert after[0] == before[0]
    assert [run["seed"] for run in after] == [0, 1]
    assert "has 1 of the 2 runs already" in capsys.readouterr().out
    module.command([*options, "--seeds", "0", "--folds", "2"])
    table = out.with_suffix(".md").read_text()
    assert "Test videos" in table
    assert "2 folds" in table
    assert "own code" not in table  # measured on other data
    settings = replace(MODELS["conv"].training_settings, epochs=1)
    monkeypatch.setattr(MODELS["conv"], "training_settings", settings)
    module.command([*options, "--seeds", "1"])
    renewed = json.loads(out.read_text())["runs"]
    assert renewed[0] == before[0]
    assert renewed[1] != after[1]
    assert len(renewed) == 3


class InPlace:
    """A pool of this process, which the test's smaller models are in."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def submit(self, function, job):
        from concurrent.futures import Future

        future = Future()
        future.set_result(function(job))
        return future

    def shutdown(self, **_: object) -> None: ...


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--jobs", "0"], "--jobs 0: expected at least 1"),
        (["--folds", "1"], "--folds 1: expected at least 2"),
        (["--seeds", "x"], "--seeds x: expected numbers"),
        (["--out", "results.txt"], "ends in .json"),
        (["--folds", "2", "--train-segments", "nowhere.csv"], "nowhere.csv: no such file"),
        (["--train-segments", "nowhere.csv"], "goes with --folds"),
        (["--models", "transformer"], "transformer"),
        (["--networks", "0"], "--networks 0: expected at least 1"),
        (["--data", "nowhere.toml"], "nowhere.toml"),
    ],
)
def test_bad_options_are_told_in_one_line(options: list[str], message: str, dataset: Path, tmp_path: Path) -> None:
    given = [] if "--data" in options else ["--data", str(dataset)]
    out = [] if "--out" in options else ["--out", str(tmp_path / "out.json")]
    with pytest.raises(WtalError, match=message) as error:
        real("run").command([*given, *out, *options])
    assert "\n" not in str(error.value)


def test_results_of_other_data_are_left_alone(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    for content in ('{"format": 1, "data": "other", "runs": []}', '{"format": 9}', "[]"):
        out.write_text(content)
        with pytest.raises(WtalError, match=r"out\.json: "):
            real("run").command(["--data", str(dataset), "--out", str(out)])
        assert out.read_text() == content


# ---- the order of designs ---------------------------------------------------------------------------------------


def test_rank_correlation() -> None:
    """By its definition on ranks without ties, and with shared ranks by hand."""
    spearman, random = real("order").spearman, np.random.default_rng(4)
    for count in (3, 8, 17):
        first, second = random.permutation(count), random.permutation(count)
        squares = float(((first - second) ** 2).sum())
        expected = 1 - 6 * squares / (count * (count**2 - 1))
        assert spearman(first.tolist(), (3.5 * second).tolist()) == pytest.approx(expected)
    assert spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(4.5 / (4.5 * 5) ** 0.5)


def test_agreement_compares_what_both_columns_have() -> None:
    order, titles = real("order"), list(real("designs").DESIGNS)
    columns = {
        "real": dict(zip(titles[:4], [4.0, 3.0, 2.0, 1.0], strict=True)),
        "other": dict(zip(titles[1:6], [9.0, 8.0, 7.0, 1.0, 99.0], strict=True)),
    }
    assert order.agreement(columns) == {"other": 1.0}
    assert order.means({"a": {"0": {titles[0]: 1.0, titles[1]: 5.0}, "1": {titles[0]: 2.0}}}) == {"a": {titles[0]: 1.5}}


def test_every_design_gives_detections(tmp_path: Path) -> None:
    """Two epochs of each network, then every reading of it gives detections inside the video, of its classes."""
    designs, data = real("designs"), real("data").Data.read(write_dataset(tmp_path))
    training, video = data.videos.subset("train"), data.videos.subset("test")[0]
    for network, kind in designs.NETWORKS.items():
        settings = replace(kind.training_settings, epochs=2, batch=8)
        rows = data.features_of(kind, training, training)
        model = real("loop").train(kind, rows, data.labels(training), 0, settings)
        (own,) = data.features_of(kind, training, [video])
        for title, design in designs.DESIGNS.items():
            if design.network == network:
                found = designs.detections(design, model, own, video.timebase, data.videos.classes)
                assert found, title
                assert all(0 <= one.start < one.end <= video.timebase.edge(len(own)) + 1e-6 for one in found)
                assert {one.label for one in found} <= set(CLASSES)
                assert all(np.isfinite(one.score) for one in found)
    assert {design.network for design in designs.DESIGNS.values()} == set(designs.NETWORKS)
