"""Whole ablations of a tiny world, in this process."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch
from rich.console import Console

from wtal.ablation.claims import CLAIMS, CONTROLS, FURTHER, claims_of, violation
from wtal.ablation.figure import figure
from wtal.ablation.markdown import page
from wtal.ablation.reproduction import check
from wtal.ablation.results import collect, read_results
from wtal.ablation.variants import GROUPS, group_stages
from wtal.ablation.worlds import World, made_on, run_group
from wtal.data.open import BENCHMARKS
from wtal.data.synthetic.parameters import SizeParameters
from wtal.errors import WtalError
from wtal.platform.device import Device
from wtal.platform.files import WriteError, write_atomically
from wtal.platform.progress import Reporter
from wtal.runs.run import Run
from wtal.runs.setup import Setup
from wtal.settings.config import ScheduleConfig
from wtal.settings.recipe import load_recipe
from wtal.training.job import prepare
from wtal.training.trainer import Trainer

RECIPE = """extends = "synthetic"
[schedule]
warmup_epochs = 2
b_epochs = 1
f_epochs = 1
[batch]
size = 3
[cbp]
dim = 16
heads = 2
"""


@pytest.fixture
def world(monkeypatch, tmp_path) -> World:
    size = SizeParameters(
        classes=3, training_videos=7, test_videos=4, min_snippets=60, max_snippets=90, i3d_dim=32, clip_dim=16
    )
    monkeypatch.setitem(BENCHMARKS, "small", dataclasses.replace(BENCHMARKS["small"], size=size))
    monkeypatch.setenv("WTAL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tiny.toml").write_text(RECIPE)
    threads = torch.get_num_threads()
    yield World("small", 0, 0, str(tmp_path / "tiny.toml"))
    torch.set_num_threads(threads)


def test_every_comparison_is_of_rows_that_are_made() -> None:
    stages = [stage for group in GROUPS for stage in group_stages(group, ScheduleConfig())]
    rows = [stage.row for stage in stages]
    assert len(set(rows)) == len(rows)
    assert {title for c in (*CLAIMS, *FURTHER, *CONTROLS) for title in (c.row, c.to)} <= set(rows)


def test_negative_controls_have_their_own_claims() -> None:
    for name, parameters in BENCHMARKS.items():
        control = parameters.control
        violated = control.clip_without_action or control.i3d_with_scene or control.no_core_gap
        assert (violation(name) is not None) == violated, name
        assert claims_of(name) is (CONTROLS if violated else CLAIMS)


@pytest.mark.parametrize("benchmarks", [("small", "easy"), ("version-2", "version-2-no-core-gap"), ("no-core-gap",)])
def test_a_page_examines_each_benchmark_by_its_claims(benchmarks: tuple[str, ...]) -> None:
    titles = dict.fromkeys(title for c in (*CLAIMS, *CONTROLS) for title in (c.row, c.to))
    rows = {
        title: {"mAP": float(place), "per_tiou": {"0.5": 1.0}, "snippets": {"false_positive": 0.1}}
        for place, title in enumerate(titles)
    }
    about = {
        "generator": "1",
        "recipe": "synthetic",
        "threads": 1,
        "versions": {},
        "commits": [],
        "machines": [],
        "tiou": [0.5],
        "protocol": "seconds",
        "videos": {name: [1, 1] for name in benchmarks},
        "asked": {name: [0, 1] for name in benchmarks},
    }
    runs = [{"benchmark": name, "world": world, "seed": 0, "rows": rows} for name in benchmarks for world in (0, 1)]
    told = page({"format": 2, "about": about, "runs": runs}, None)
    violated = [name for name in benchmarks if violation(name)]
    assert told.count("| CBP after F minus CBP self-training | mAP | ") == len(benchmarks)
    assert len(re.findall(r"^\| CBP after F minus CBP self-training .* \| no gain \|", told, re.M)) == len(violated)
    assert ("The premise is meant to be false in" in told) == bool(violated and len(benchmarks) > 1)
    assert ("0.75 and 1.25" in told) == ("easy" in benchmarks)


@pytest.mark.parametrize("group", GROUPS)
def test_what_a_stage_needs_is_trained_before(group: str) -> None:
    there = {"random scores", "cbp", "vlp"}
    core = group_stages("core", ScheduleConfig())
    for stage in core if group == "core" else (*core, *group_stages(group, ScheduleConfig())):
        measured = [] if stage.length else stage.student.split("+")
        needs = {*(stage.teacher or "").split("+"), *stage.starts.values(), *measured}
        assert needs - {"", None} <= there, stage.name
        there |= stage.starts.keys()


def test_core_and_online_are_what_training_does(world: World, tmp_path) -> None:
    runs = tmp_path / "runs"
    rows = {row["name"]: row for group in ("core", "online") for row in run_group(runs, world, group)}
    recipe = load_recipe(world.recipe)
    online = dataclasses.replace(recipe.config.schedule, kind="online", control=False)
    for config, ensemble, count in (
        (recipe.config, "ensemble after F", 6),
        (dataclasses.replace(recipe.config, schedule=online), "ensemble after online", 5),
    ):
        run = Run.create(tmp_path / config.schedule.kind, Setup(recipe=world.recipe), config, {}, {})
        trained = prepare(run, Device(torch.device("cpu")), Reporter(Console(quiet=True), True, run.log)).fit()
        assert len(trained) == count
        for row in trained:
            same = rows[ensemble if row["name"] == "ensemble" else row["name"]]
            assert (row["per_tiou"], row["snippets"]) == (same["per_tiou"], same["snippets"])


class KilledError(Exception):
    pass


@pytest.mark.parametrize("saves", [3, 12])
def test_an_ablation_goes_on_where_it_was_cut_off(world: World, tmp_path, monkeypatch, saves: int) -> None:
    whole = run_group(tmp_path / "whole", world, "core")
    real, count = Trainer.save, 0

    def save(self: Trainer, optimizer: torch.optim.Optimizer | None) -> Path:
        nonlocal count
        path = real(self, optimizer)
        count += 1
        if count == saves:
            raise KilledError
        return path

    monkeypatch.setattr(Trainer, "save", save)
    with pytest.raises(KilledError):
        run_group(tmp_path / "cut", world, "core")
    monkeypatch.setattr(Trainer, "save", real)
    made_on_before = made_on()
    assert recorded_commits(tmp_path / "cut", world) == [str(made_on()["commit"])]
    monkeypatch.setattr("wtal.ablation.worlds.commit", lambda: "another")
    assert run_group(tmp_path / "cut", world, "core") == whole
    assert sorted([str(made_on_before["commit"]), "another"]) == recorded_commits(tmp_path / "cut", world)
    monkeypatch.setattr("wtal.ablation.worlds.commit", lambda: "a third")  # which finds nothing left to train
    assert run_group(tmp_path / "cut", world, "core") == whole
    assert "a third" not in recorded_commits(tmp_path / "cut", world)


def recorded_commits(runs: Path, world: World) -> list[str]:
    return collect(runs, [world])["about"]["commits"]


def test_a_recipe_that_has_changed_is_refused(world: World, tmp_path) -> None:
    run_group(tmp_path / "runs", world, "core", ("random scores",))
    Path(world.recipe).write_text(RECIPE.replace("b_epochs = 1", "b_epochs = 2"))
    with pytest.raises(WtalError, match=r"was trained by another .*tiny\.toml than today's; choose another --runs"):
        run_group(tmp_path / "runs", world, "core", ("random scores",))


def test_rows_of_another_recipe_of_the_same_name_are_refused(world: World, tmp_path) -> None:
    run_group(tmp_path / "runs", world, "core", ("random scores",))
    other = tmp_path / "other" / "tiny.toml"
    other.parent.mkdir()
    other.write_text(RECIPE.replace("b_epochs = 1", "b_epochs = 2"))
    with pytest.raises(WtalError, match=r"was trained by another .*other/tiny\.toml than today's"):
        collect(tmp_path / "runs", [dataclasses.replace(world, recipe=str(other))])


def test_a_group_whose_start_could_not_be_copied_begins_again(world: World, tmp_path, monkeypatch) -> None:
    runs = tmp_path / "runs"
    run_group(runs, world, "core")

    def full(path: Path, data: bytes) -> None:
        if path.suffix == ".safetensors":
            path.with_name(f".{path.name}.0.tmp").write_bytes(data[:1000])
            raise WriteError(f"{path}: cannot be written")
        write_atomically(path, data)

    with monkeypatch.context() as patch:
        patch.setattr("wtal.ablation.worlds.write_atomically", full)
        with pytest.raises(WriteError):
            run_group(runs, world, "online")
    rows = run_group(runs, world, "online")
    assert [row["name"] for row in rows] == [
        stage.row for stage in group_stages("online", load_recipe(world.recipe).config.schedule)
    ]


def test_damaged_runs_are_named(world: World, tmp_path) -> None:
    run_group(tmp_path / "runs", world, "core", ("random scores",))
    metrics = world.folder(tmp_path / "runs") / "core" / "metrics.json"
    whole = metrics.read_text()
    metrics.write_text(whole[:40])
    with pytest.raises(WtalError, match=r"metrics\.json: damaged or truncated"):
        collect(tmp_path / "runs", [world])
    metrics.write_text(whole)
    versions = metrics.with_name("versions.json")
    versions.write_text("{")
    with pytest.raises(WtalError, match=r"versions\.json: damaged or truncated"):
        run_group(tmp_path / "runs", world, "core", ("random scores", "VLP zero-shot"))


def test_every_group_makes_its_rows_and_a_page(world: World, tmp_path) -> None:
    root = tmp_path / "runs"
    schedule = load_recipe(world.recipe).config.schedule
    for group in GROUPS:
        rows = run_group(root, world, group)
        assert [row["name"] for row in rows] == [stage.row for stage in group_stages(group, schedule)]
    results = collect(root, [world])
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    assert read_results(path) == json.loads(path.read_text())
    assert "asked for" not in page(results, None)
    partial = {**results, "about": {**results["about"], "asked": {"small": [0, 1, 2]}}}
    assert "**1 of the 3 worlds asked for" in page(partial, None)
    told = page(results, "results.png")
    for title in results["runs"][0]["rows"]:
        assert f"| {title} | 1 |" in told
    assert "Generator version 1" in told
    assert "CBP after F minus CBP self-training" in told

    assert figure(results, "small").startswith(b"\x89PNG")

    lines, agree = check(results, quick=True)
    assert agree
    assert len(lines) == 7  # six rows and a claim
    assert all("the same" in line for line in lines)
    rows = results["runs"][0]["rows"]
    for damage in (
        lambda: rows["CBP after F"].update(mAP=rows["CBP after F"]["mAP"] + 50),
        lambda: rows["VLP after B"]["snippets"].update(false_positive=0.9),
        lambda: rows["CBP as long, no teacher"]["snippets"].update(core=None),
    ):
        before = json.dumps(rows)
        damage()
        assert not check(results, quick=True)[1]
        rows.update(json.loads(before))
    assert check(results, quick=True)[1]
    del rows["VLP after B"]
    with pytest.raises(WtalError, match="no row 'VLP after B' in the first world"):
        check(results, quick=True)
    results["about"]["generator"] = "0"
    with pytest.raises(WtalError, match="recorded with generator version 0"):
        check(results, quick=True)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"format": 99}', '{"format": 2}', '{"format": 2, "about": {}, "runs": []}']
)
def test_other_files_are_no_results(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(WtalError, match=r"results\.json: (not readable as results|damaged)"):
        read_results(tmp_path / "results.json")
