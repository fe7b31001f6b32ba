"""A browser, a short real run, and a made-up study with every edge in it."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from wtal.data.open import BENCHMARKS
from wtal.data.synthetic.parameters import SizeParameters
from wtal.data.timebase import Timebase
from wtal.data.video import Instance, Video, VideoSet
from wtal.inference.localize import scale_scores
from wtal.platform.device import Device
from wtal.platform.progress import Reporter
from wtal.report.analysis import analyse
from wtal.report.scores import VideoScores, detections
from wtal.report.study import Study
from wtal.runs.run import Run, Setup
from wtal.settings.config import LocalizeConfig, RunConfig
from wtal.settings.recipe import load_recipe
from wtal.training.job import prepare

HOSTILE = '<img src=x onerror="window.hacked=1"> & "quotes" \u2028 </script><script>window.hacked=1</script>'
HOSTILE_CLASS = '"><svg onload=window.hacked=1>'


@pytest.fixture(scope="session")
def browser(tmp_path_factory) -> Iterator[object]:
    """Headless Chromium, without a network."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (it is in [dev])")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no Chromium with chromedriver on the path (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
        "--window-size=1280,900",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    running = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield running
    running.quit()


@pytest.fixture(scope="session")
def small_run(tmp_path_factory) -> Iterator[Path]:
    """A run of the shortest training on a few short generated videos; its data set stays where the run looks for it."""
    folder = tmp_path_factory.mktemp("small")
    size = SizeParameters(
        classes=3, training_videos=6, test_videos=5, min_snippets=60, max_snippets=90, i3d_dim=32, clip_dim=16
    )
    recipe = load_recipe("synthetic").config
    config = dataclasses.replace(
        recipe,
        schedule=dataclasses.replace(recipe.schedule, warmup_epochs=3, b_epochs=2, f_epochs=2, control=False),
        cbp=dataclasses.replace(recipe.cbp, dim=16, heads=2),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BENCHMARKS, "small", dataclasses.replace(BENCHMARKS["small"], size=size))
        patch.setenv("WTAL_CACHE", str(folder / "cache"))
        run = Run.create(folder / "run", Setup(), config, {}, {"wtal": "test"})
        prepare(run, Device(torch.device("cpu")), Reporter(Console(quiet=True), quiet=True, log=run.log)).fit()
        yield folder / "run"


def made_up_study(
    folder: Path,
    seed: int,
    count: int,
    longest: int,
    config: LocalizeConfig,
    classes: int = 5,
    likely: int = 1,
    analysed: bool = True,
) -> Study:
    """Random smooth scores on random time bases: short videos, ties, plateaus, constant classes, odd names."""
    random = np.random.default_rng(seed)
    names = (HOSTILE_CLASS, *(f"class {index}" for index in range(1, classes)))
    videos, scored = [], []
    for index in range(count):
        length = int(random.integers(1, longest + 1)) if index else 1
        timebase = [Timebase(25), Timebase(29.97, 4, 16), Timebase(30)][index % 3]
        frames, level = {}, {}
        for branch in ("cbp", "vlp"):
            noise = random.normal(size=(length, classes)).cumsum(0) * random.random() + random.normal(
                size=(length, classes)
            )
            if index % 4 == 1:
                noise = noise.round()  # ties and plateaus
            if index % 4 == 2:
                noise[:, 0] = 0.25  # a class that is constant
            logits = torch.from_numpy(noise.astype(np.float32))
            frames[branch] = scale_scores(torch.sigmoid(logits)[None], torch.tensor([length]))[0]
            level[branch] = torch.from_numpy(random.random(classes, dtype=np.float32) ** likely)
        end = timebase.edge(length)
        instances = []
        for _ in range(int(random.integers(1, 6))):
            start, stop = np.sort(random.random(2)) * end
            instances.append(Instance(float(start), float(stop), names[int(random.integers(classes))]))
        labels = tuple(sorted({instance.label for instance in instances}))
        name = HOSTILE if index == 0 else f"video {index}"
        videos.append(Video(name, "test", labels, timebase, (Path("x"),), instances=tuple(instances)))
        scored.append(VideoScores(videos[-1], frames, level))
    run_config = dataclasses.replace(RunConfig(), localize=config)
    data = VideoSet("made up", "own", names, tuple(videos))
    found = {source: detections(scored, source, names, config) for source in (scored[0].sources if analysed else ())}
    folder.mkdir()
    return Study(
        name=HOSTILE,
        run=Run(folder, Setup(), run_config),
        rows=[
            {
                "name": HOSTILE,
                "branch": "cbp",
                "kind": "localization",
                "videos": count,
                "mean": 1.0,
                "per_tiou": {"0.5": 1.0},
            }
        ],
        curves={"warmup": {"loss": [3.0, 2.0]}},
        versions={"<b>": None},
        data=data,
        scored=scored,
        detections=found,
        analyses={source: analyse(listed, videos, "seconds", (0.1, 0.5)) for source, listed in found.items()},
        trouble="",
    )


@pytest.fixture(scope="session")
def make_study() -> Callable[..., Study]:
    """See :func:`made_up_study`."""
    return made_up_study


@pytest.fixture(scope="session")
def hostile() -> str:
    """The name of a run and of a video, which must stay text."""
    return HOSTILE
