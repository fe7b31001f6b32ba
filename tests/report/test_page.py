"""The report in a real browser."""

from __future__ import annotations

import base64
import dataclasses
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import wtal
from wtal.data.predictions import Detection
from wtal.inference.localize import detect
from wtal.report.html import html, to_json
from wtal.report.payload import payload
from wtal.report.study import Study
from wtal.settings.config import LocalizeConfig


def opened(browser: Any, path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    browser.get(path.as_uri())
    wait(browser, "return Boolean(window.wtalReport && wtalReport.measured())")


def wait(browser: Any, script: str, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not browser.execute_script(script):
        assert time.monotonic() < until, f"not within {seconds} s: {script}; {browser.get_log('browser')}"
        time.sleep(0.02)


def scores_of(video: Mapping[str, Any], classes: int, source: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Frame scores and probabilities as the payload has them: q / 65535; classes that it lacks are never looked for."""
    names = ("cbp", "vlp") if source == "ensemble" else (source,)
    frames = torch.zeros(len(names), video["length"], classes)
    for row, name in enumerate(names):
        quantised = np.frombuffer(base64.b64decode(video["frames"][name]), "<u2").reshape(-1, video["length"])
        frames[row, :, video["classes"]] = torch.from_numpy((quantised.T / 65535).astype(np.float32))
    level = torch.full((classes,), -1.0)
    level[video["classes"]] = torch.tensor(video["level"][source])
    return frames.mean(0), level


def expected(explorer: Mapping[str, Any], settings: dict[str, Any]) -> list[list[list[float]]]:
    """What wtal.inference.localize.detect finds in the payload's scores."""
    settings = dict(settings)
    source = settings.pop("source")
    config = LocalizeConfig(**{**settings, "theta_loc": tuple(settings["theta_loc"])})
    found = []
    for video in explorer["videos"]:
        frames, level = scores_of(video, len(explorer["classes"]), source)
        batch = detect(frames[None], level[None], torch.tensor([video["length"]]), config)
        found.append(
            [
                [label, *segment, score]
                for label, segment, score in zip(
                    batch.label.tolist(), batch.segment.tolist(), batch.score.tolist(), strict=True
                )
            ]
        )
    return found


MOVE = """
const [moves] = arguments;
for (const [name, value] of moves) {
  const control = document.querySelector(`.settings [name="${name}"]`);
  control.value = value;
  control.dispatchEvent(new Event(control.tagName === "SELECT" ? "change" : "input", { bubbles: true }));
}
return [wtalReport.settings(), wtalReport.detections()];
"""


def random_moves(draw: random.Random) -> list[tuple[str, str]]:
    """A few controls, each to a random position."""
    positions = {
        "source": ["cbp", "vlp", "ensemble"],
        "score": ["max", "mean", "oic"],
        "nms": ["gaussian", "gaussian", "linear", "hard"],
        "theta_cls": [f"{draw.uniform(0.05, 0.95):.2f}"],
        "lowest": [f"{draw.uniform(0.01, 0.99):.2f}"],
        "highest": [f"{draw.uniform(0.01, 0.99):.2f}"],
        "number": [str(draw.randint(1, 20))],
        "sigma": [f"{draw.uniform(0.02, 2):.2f}"],
        "iou_threshold": [f"{draw.uniform(0.05, 1):.2f}"],
        "min_score": [f"{draw.uniform(0, 0.3):.3f}"],
        "max_detections": [str(draw.randint(1, 200))],
    }
    names = draw.sample(sorted(positions), draw.randint(1, len(positions)))
    return [(name, draw.choice(positions[name])) for name in names]


def test_the_page_localises_as_wtal_does(browser, tmp_path, make_study) -> None:
    seed = random.SystemRandom().randrange(2**31)
    draw = random.Random(seed)
    parts = draw.choice([1, 3, 4])
    study = make_study(tmp_path / "run", seed, 12, 300, LocalizeConfig(theta_cls=0.3, score="oic", upsample=parts))
    content = payload([study])
    opened(browser, tmp_path / "report.html", html(content, "x"))
    total = 0
    for setting in range(51):
        moves = random_moves(draw) if setting else []  # at first as the run
        settings, found = browser.execute_script(MOVE, moves)
        wanted = expected(content["explorer"], settings)
        for video, rows, right in zip(content["explorer"]["videos"], found, wanted, strict=True):
            assert [row[:4] for row in rows] == right, f"seed {seed}, {settings}, video {video['id']!r}"
            total += len(right)
    assert total > 1000


def with_ambiguous(study: Study) -> Study:
    """The same study, in which class 1 is called Ambiguous and a few videos have intervals from a file, under drop."""
    videos = [
        dataclasses.replace(
            video,
            labels=tuple(sorted(map(ambiguous_name, video.labels))),
            instances=tuple(dataclasses.replace(one, label=ambiguous_name(one.label)) for one in video.instances),
            ambiguous=((0.0, 1.0 + number),) if number % 5 == 0 else (),
        )
        for number, video in enumerate(study.data.videos)
    ]
    data = dataclasses.replace(study.data, classes=tuple(map(ambiguous_name, study.data.classes)), videos=tuple(videos))
    scored = [dataclasses.replace(item, video=video) for item, video in zip(study.scored, videos, strict=True)]
    return dataclasses.replace(study, data=data, scored=scored, ambiguous="drop")


def ambiguous_name(label: str) -> str:
    return "Ambiguous" if label == "class 1" else label


def test_where_ambiguous_is_dropped_it_is_no_class_of_the_page(tmp_path, make_study) -> None:
    made = make_study(tmp_path / "run", 0, 12, 40, LocalizeConfig())
    dropped = with_ambiguous(made)
    label = dropped.data.classes.index("Ambiguous")
    kept, left = (payload([study])["explorer"]["videos"] for study in (made, dropped))
    for video, before, after in zip(dropped.data, kept, left, strict=True):
        unclear = [[start, end] for start, end, own in before["truth"] if own == label]
        assert after["truth"] == [row for row in before["truth"] if row[2] != label]
        assert after["labels"] == [own for own in before["labels"] if own != label]
        assert list(map(list, after["ambiguous"])) == [*map(list, video.ambiguous), *unclear]
        assert before["ambiguous"] == ()
    kept = payload([dataclasses.replace(dropped, ambiguous="keep")])["explorer"]["videos"]
    assert any(label in video["labels"] for video in kept)
    assert not any(video["ambiguous"] for video in kept)


@pytest.mark.parametrize("ambiguous", ["keep", "drop"])
def test_the_page_measures_as_wtal_does(browser, tmp_path, make_study, ambiguous: str) -> None:
    seed = random.SystemRandom().randrange(2**31)
    study = make_study(tmp_path / "run", seed, 30, 200, LocalizeConfig(theta_cls=0.1))
    study = with_ambiguous(study) if ambiguous == "drop" else study
    content = payload([study])
    opened(browser, tmp_path / "report.html", html(content, "x"))
    found, measured = browser.execute_script("return [wtalReport.detections(), wtalReport.measured()]")
    predictions = {
        video["id"]: sorted(
            (
                Detection(start, end, content["explorer"]["classes"][label], score)
                for label, _, _, score, start, end in rows
            ),
            key=lambda detection: -detection.score,
        )
        for video, rows in zip(content["explorer"]["videos"], found, strict=True)
    }
    result = wtal.evaluate(
        predictions, study.data, tiou=content["explorer"]["tiou"], subset="test", ambiguous=ambiguous
    )
    assert measured["perTiou"] == pytest.approx(list(result.per_tiou.values()), abs=1e-9), f"seed {seed}"
    assert measured["mean"] == pytest.approx(result.mean, abs=1e-9)
    assert result.mean > 0


def test_hostile_names_are_text(browser, tmp_path, make_study, hostile) -> None:
    study = make_study(tmp_path / "run", 0, 4, 50, LocalizeConfig())
    opened(browser, tmp_path / "report.html", html(payload([study]), hostile))
    script = """return [window.hacked, document.images.length, document.title, document.body.innerText,
      document.scripts.length]"""
    hacked, images, title, text, scripts = browser.execute_script(script)
    assert hacked is None
    assert images == 0
    assert scripts == 2
    assert title.split() == hostile.split()
    options = browser.execute_script(
        "return [...document.querySelectorAll('.videos option')].map((o) => o.textContent)"
    )
    assert any(option.startswith(hostile) for option in options)
    assert "<img src=x" in text
    assert browser.get_log("browser") == []


def test_no_text_ends_the_payload() -> None:
    text = to_json({"</script><!--": ["<script>", "\u2028", float("nan"), "&lt;"]})
    assert not set("<>&\u2028") & set(text)
    assert "null" in text


MOVE_SIGMA = """
const began = performance.now();
document.querySelector("[name=sigma]").dispatchEvent(new Event("input", { bubbles: true }));
return performance.now() - began;
"""


def test_a_large_report_stays_fast(browser, tmp_path, make_study) -> None:
    """200 videos of 2000 snippets, about four classes looked for in each: several times what they take here."""
    config = LocalizeConfig(theta_cls=0.2)
    study = make_study(tmp_path / "run", 3, 200, 2000, config, classes=20, likely=8, analysed=False)
    text = html(payload([study]), "x")
    assert len(text) < 40e6
    began = time.monotonic()
    opened(browser, tmp_path / "report.html", text)
    opening = time.monotonic() - began
    moving = min(browser.execute_script(MOVE_SIGMA) for _ in range(3))  # another process may take the core for a while
    began = time.monotonic()
    wait(browser, "return Boolean(wtalReport.measured())")
    measuring = time.monotonic() - began
    print(f"{len(text) / 1e6:.1f} MB; open {opening:.1f} s, a slider {moving:.0f} ms, all videos {measuring:.1f} s")
    assert opening < 20
    assert moving < 500
    assert measuring < 10
