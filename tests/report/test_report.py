"""From a run folder to the page, the figures and the command."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from wtal.cli import report
from wtal.errors import WtalError
from wtal.inference.saved_model import detect_test_videos, open_run
from wtal.platform.progress import Reporter
from wtal.report.curves import read_curves
from wtal.report.figures import FIGURES, SUFFIXES, Choice, draw
from wtal.report.html import html
from wtal.report.payload import FLOOR, payload
from wtal.report.study import Study, studies, study
from wtal.settings.config import LocalizeConfig

QUIET = Reporter(Console(quiet=True), quiet=True)
FIRST_BYTES = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}


@pytest.fixture(scope="module")
def opened(small_run: Path) -> Study:
    return study(small_run, "cpu", QUIET)


def test_scores_give_what_the_evaluation_of_the_run_gives(small_run: Path, opened: Study) -> None:
    """The same bits as wtal-eval, and the table's numbers but for the last bits of a score that turn a near tie."""
    rows = {row["name"]: row for row in opened.rows}
    run = open_run(small_run, "cpu")
    for source, name in (("cbp", "CBP after F"), ("vlp", "VLP after B"), ("ensemble", "ensemble")):
        assert opened.detections[source] == detect_test_videos(run, source)
        assert opened.analyses[source].mean == pytest.approx(rows[name]["mean"], abs=0.05)


def test_curves_are_those_of_the_log(small_run: Path, opened: Study) -> None:
    assert {stage: len(terms["loss"]) for stage, terms in opened.curves.items()} == {"warmup": 3, "B1": 2, "F1": 2}
    log = (small_run / "log.txt").read_text()
    told = re.findall(r"(\w+) epoch (\d+)/\d+: loss ([\d.]+)", log)
    assert len(told) == 7
    for stage, epoch, loss in told:
        assert opened.curves[stage]["loss"][int(epoch) - 1] == pytest.approx(float(loss), abs=6e-5)


def test_an_epoch_that_was_trained_again_counts_once(tmp_path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    for suffix, values in (("a", (3.0, 2.0)), ("b", (1.5, 1.0))):
        with SummaryWriter(tmp_path, filename_suffix=suffix) as writer:
            for epoch, value in enumerate(values, 1 if suffix == "a" else 2):
                writer.add_scalar("warmup/loss", value, epoch)
    assert read_curves(tmp_path) == {"warmup": {"loss": [3.0, 1.5, 1.0]}}
    assert read_curves(tmp_path / "nowhere") == {}


def test_the_payload_keeps_scores_to_16_bits(opened: Study) -> None:
    explorer = payload([opened])["explorer"]
    for video, item in zip(explorer["videos"], opened.scored, strict=True):
        for name, packed in video["frames"].items():
            values = np.frombuffer(base64.b64decode(packed), "<u2").reshape(-1, video["length"]) / 65535
            exact = item.frames[name][:, video["classes"]].T.numpy()
            assert np.abs(values - exact).max() <= 0.5 / 65535 + 1e-7
        for source in item.sources:
            assert video["level"][source] == item.of(source)[1][video["classes"]].tolist()


@pytest.mark.parametrize(("theta", "floor"), [(0.3, FLOOR), (0.01, 0.01), (0.0, 0.0)])
def test_classes_that_are_kept_are_all_that_can_be_looked_for(make_study, tmp_path, theta: float, floor: float) -> None:
    made = make_study(tmp_path / "run", 5, 20, 30, LocalizeConfig(theta_cls=theta), classes=12, likely=6)
    explorer = payload([made])["explorer"]
    assert explorer["floor"] == floor
    for item, shown in zip(made.scored, explorer["videos"], strict=True):
        for source in item.sources:
            _, level = item.of(source)
            looked_for = set(torch.nonzero(level > floor)[:, 0].tolist()) | {int(level.argmax())}
            assert looked_for <= set(shown["classes"])
    assert any(len(shown["classes"]) < 12 for shown in explorer["videos"]) == (floor > 0)


def test_a_limit_takes_videos_from_everywhere(opened: Study) -> None:
    shown = payload([opened], limit=3)["explorer"]
    ids = [item.video.id for item in opened.scored]
    assert [video["id"] for video in shown["videos"]] == [ids[0], ids[2], ids[4]]
    assert shown["of"] == 5


def test_source_videos_are_linked(opened: Study, tmp_path) -> None:
    name = opened.scored[1].video.id
    (tmp_path / f"{name}.webm").touch()
    files = [video["file"] for video in payload([opened], videos=tmp_path)["explorer"]["videos"]]
    assert files == [None, (tmp_path / f"{name}.webm").as_uri(), None, None, None]


def test_the_page_names_nothing_outside(opened: Study) -> None:
    text = html(payload([opened]), "x")
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:|#)[^"'$]""", text)
    assert set(re.findall(r"https?://[^\s\"'`]+", text)) <= {"http://www.w3.org/2000/svg"}


def test_the_page_of_a_run_opens_without_complaint(browser, small_run: Path, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["wtal-report", str(small_run), "--out", str(tmp_path / "r.html"), "--json"])
    assert report.main() == 0
    told = json.loads(capsys.readouterr().out)
    browser.get((tmp_path / "r.html").as_uri())
    browser.execute_async_script(
        "const end = arguments[0]; const look = () => wtalReport.measured() ? end() : setTimeout(look, 20); look();"
    )
    measured = browser.execute_script("return wtalReport.measured().mean")
    assert measured == pytest.approx(told["runs"][0]["mean"]["cbp"], abs=0.5)  # 16 bits may turn a near tie
    press = """
      const canvas = document.querySelector(".stage canvas");
      for (const key of ["+", "+", "ArrowRight", "n", "p", "-", "0", "End", "Home"])
        canvas.dispatchEvent(new KeyboardEvent("keydown", { key, cancelable: true }));
      for (const select of document.querySelectorAll("select"))
        for (const option of select.options) { select.value = option.value; select.dispatchEvent(new Event("change")); }
      document.getElementById("theme").click();
    """
    browser.execute_script(press)
    unlabelled = """
      return [...document.querySelectorAll("input, select, button, canvas")].filter((e) => !e.closest("[aria-hidden]")
        && e.getAttribute("aria-hidden") !== "true" && !e.getAttribute("aria-label") && !e.closest("label")
        && !e.textContent.trim()).map((e) => e.outerHTML)
    """
    assert browser.execute_script(unlabelled) == []
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    assert browser.get_log("browser") == []


def test_runs_beside_each_other(browser, small_run: Path, opened: Study, tmp_path) -> None:
    shutil.copytree(small_run, tmp_path / "other" / small_run.name)
    both = studies([small_run, tmp_path / "other" / small_run.name], "cpu", QUIET)
    assert [one.name for one in both] == [str(small_run), str(tmp_path / "other" / small_run.name)]
    better = [{**row, "mean": row["mean"] + 1.25} for row in both[1].rows]
    content = payload([both[0], dataclasses.replace(both[1], rows=better)])
    assert content["explorer"] is None
    (tmp_path / "r.html").write_text(html(content, "x"), encoding="utf-8")
    browser.get((tmp_path / "r.html").as_uri())
    text = browser.execute_script("return document.querySelector('#results').innerText")
    assert text.count("+1.2") + text.count("+1.3") == len(opened.rows)
    assert browser.execute_script("return document.querySelectorAll('#precision svg path').length") == 2
    assert browser.get_log("browser") == []


def test_a_run_without_its_data_still_shows_its_table(browser, small_run: Path, tmp_path) -> None:
    folder = tmp_path / "moved"
    shutil.copytree(small_run, folder)
    config = (folder / "config.toml").read_text()
    (folder / "config.toml").write_text(config.replace('dataset = "synthetic"', 'dataset = "/nowhere/dataset.toml"'))
    said = io.StringIO()
    moved = study(folder, "cpu", Reporter(Console(file=said, width=500)))
    assert "/nowhere/dataset.toml" in moved.trouble
    assert said.getvalue() == f"note: {moved.trouble}\n"
    assert moved.analyses == {}
    (tmp_path / "r.html").write_text(html(payload([moved]), "x"), encoding="utf-8")
    browser.get((tmp_path / "r.html").as_uri())
    text = browser.execute_script("return document.body.innerText")
    assert "/nowhere/dataset.toml" in text
    assert "CBP after F" in text
    assert browser.get_log("browser") == []
    with pytest.raises(WtalError, match="nowhere"):
        draw("errors", [moved], tmp_path / "x.png", Choice())


@pytest.mark.parametrize("text", ['{"wtal": "0.', "[1, 2]", '{"wtal": ["0.1"]}'])
def test_damaged_versions_are_one_line(small_run: Path, tmp_path, text: str) -> None:
    shutil.copytree(small_run, tmp_path / "run")
    path = tmp_path / "run" / "versions.json"
    path.write_text(text)
    with pytest.raises(WtalError, match=rf"^{re.escape(str(path))}: .*, expected the versions that a run was made by$"):
        study(tmp_path / "run", "cpu", QUIET)
    path.unlink()
    assert study(tmp_path / "run", "cpu", QUIET).versions == {}


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_figure_in_every_format(opened: Study, tmp_path, figure: str, suffix: str) -> None:
    out = tmp_path / f"figure{suffix}"
    draw(figure, [opened], out, Choice(source="ensemble"))
    assert out.read_bytes().startswith(FIRST_BYTES[suffix])
    assert out.stat().st_size > 2000


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_figure_that_cannot_be_written_leaves_the_old_one(opened: Study, tmp_path, suffix: str) -> None:
    out = tmp_path / f"figure{suffix}"
    out.write_text("old")
    draw("results", [opened], tmp_path / f"first{suffix}", Choice())  # what matplotlib reads and caches
    (tmp_path / f"first{suffix}").unlink()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(WtalError, match=rf"^{re.escape(str(out))}: cannot be written \(File too large\)$"):
            draw("results", [opened], out, Choice())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert out.read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


def test_a_figure_is_drawn_of_what_was_asked_for(opened: Study, tmp_path) -> None:
    item = opened.scored[2]
    choice = Choice(source="vlp", video=item.video.id, label=item.video.labels[0], span=(3.0, 20.0))
    draw("timeline", [opened], tmp_path / "a.svg", choice)
    text = (tmp_path / "a.svg").read_text()
    assert f"seconds of {item.video.id}, {item.video.labels[0]}, detections of VLP" in text
    draw("precision", [opened, opened], tmp_path / "b.svg", Choice(tiou=0.3))
    assert "recall at tIoU 0.3" in (tmp_path / "b.svg").read_text()


def test_formulas_in_names_stay_text(make_study, hostile: str, tmp_path) -> None:
    made = make_study(tmp_path / "run", 1, 4, 40, LocalizeConfig())
    for figure in FIGURES:
        draw(figure, [made], tmp_path / f"{figure}.svg", Choice(source="ensemble"))
    draw("results", [made, dataclasses.replace(made, name="$x_{$")], tmp_path / "two.svg", Choice())
    assert "<img" not in (tmp_path / "timeline.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "expected the folder of a run"),
        (["nowhere"], "nowhere: not a run folder"),
        (["RUN", "--limit", "0"], "--limit 0"),
        (["RUN", "--videos", "nowhere"], "--videos nowhere"),
        (["RUN", "--figure", "errors"], "needs --out"),
        (["RUN", "--figure", "errors", "--out", "x.gif"], "x.gif"),
        (["RUN", "RUN", "--figure", "errors", "--out", "x.png"], "is of one run"),
        (["RUN", "--figure", "timeline", "--out", "x.png", "--video", "no"], "--video no"),
        (["RUN", "--figure", "timeline", "--out", "x.png", "--label", "no"], "--label no"),
        (["RUN", "--figure", "precision", "--out", "x.png", "--tiou", "0.55"], "--tiou 0.55"),
        (["RUN", "--figure", "pie", "--out", "x.png"], "--figure"),
        (["RUN", "--out", "x.html", "--video", "a"], "--video goes with --figure timeline"),
        (["RUN", "--out", "x.html", "--label", "a"], "--label goes with --figure timeline or precision"),
        (
            ["RUN", "--out", "x.html", "--branch", "vlp"],
            "--branch goes with --figure timeline or precision or errors or missed or classes",
        ),
        (["RUN", "--out", "x.html", "--span", "0", "1"], "--span goes with --figure timeline"),
        (["RUN", "--out", "x.html", "--tiou", "0.5"], "--tiou goes with --figure precision"),
        (["RUN", "--figure", "errors", "--out", "x.png", "--span", "0", "1"], "--span goes with --figure timeline"),
        (["RUN", "--figure", "results", "--out", "x.png", "--branch", "vlp"], "--branch goes with --figure timeline"),
    ],
)
def test_mistakes_are_one_line(small_run: Path, tmp_path, monkeypatch, capsys, arguments: list[str], told: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["wtal-report", *(str(small_run) if a == "RUN" else a for a in arguments)])
    assert report.main() == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("wtal-report: error: ")
    assert told in lines[0]
    assert not list(tmp_path.glob("x.*"))


def test_quiet_prints_nothing(small_run: Path, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["wtal-report", str(small_run), "--out", str(tmp_path / "r.html"), "--quiet"])
    assert report.main() == 0
    assert capsys.readouterr().out == ""


def test_figures_need_no_window_system() -> None:
    code = "import sys, wtal.report.figures; print('matplotlib.pyplot' in sys.modules, 'tkinter' in sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
