"""``wtal-eval``: mAP of a trained model, or of a predictions file against ground truth."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from wtal.cli.parsing import parse, run, with_ranges
from wtal.errors import WtalError
from wtal.platform.files import is_safetensors
from wtal.settings.config import EvaluateConfig

if TYPE_CHECKING:
    from wtal.inference.saved_model import RunModel

PROGRAM = "wtal-eval"


@dataclass(frozen=True)
class Options:
    """Print mAP, per tIoU and on request per class.

    ``wtal-eval RUN`` evaluates a run folder (or a checkpoint in one) on the test videos of its data set.
    ``wtal-eval PREDICTIONS GROUND_TRUTH`` evaluates a file: official ActivityNet JSON or CSV (video,start,end,label,
    score; seconds) against any annotation file that wtal reads: BaSNet gt.json, ActionFormer / ActivityNet / BSN JSON,
    a W-TALC annotation folder, or the dataset.toml or segments file of your own videos.
    """

    what: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|PREDICTIONS")] = None
    """Run folder, checkpoint (.safetensors), or predictions (.json, .csv)."""
    ground_truth: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="GROUND_TRUTH")] = None
    """Annotations, if the first argument is a predictions file."""
    protocol: Literal["seconds", "snippets"] | None = None
    """seconds is the official rule; snippets rounds to the 25 fps, 16-frame grid first, as many other projects do.
    Default: the run's setting; seconds for files."""
    ambiguous: Literal["keep", "drop"] | None = None
    """drop leaves out detections that overlap an interval of Ambiguous_test.txt beside the ground truth, as CO2-Net and
    P-MIL do. Default: the run's setting; keep for files."""
    tiou: tuple[float, ...] | None = None
    """tIoU thresholds, or FIRST:STEP:LAST; default: the run's setting; .1 to .7 for files."""
    subset: str | None = None
    """Subset of the ground truth, with the name that its file uses; default: the test subset."""
    branch: Literal["cbp", "vlp", "ensemble"] | None = None
    """With a run or checkpoint: the branch whose scores are used; default: the run's setting."""
    root: Path | None = None
    """With a run or checkpoint: the folder of its data, if they have moved since training."""
    device: str = "auto"
    """With a run or checkpoint: auto, cpu, cuda or cuda:N."""
    per_class: bool = False
    """Also print the average precision of each class."""
    json: bool = False
    """Print JSON for scripts instead."""
    version: bool = False
    """Print versions and build facts, run each op once on each device, and exit."""


def main() -> int:
    """Entry point."""
    return run(command, PROGRAM, alone=True)


def command(arguments: Sequence[str]) -> int:
    """Evaluate a run or a predictions file, and print the result."""
    options = parse(Options, PROGRAM, with_ranges(arguments, "--tiou"))
    if options.what is None:
        raise WtalError(f"expected a run folder, a checkpoint or a predictions file (all options: {PROGRAM} --help)")
    if options.tiou is not None and (not options.tiou or any(not 0 < tiou <= 1 for tiou in options.tiou)):
        raise WtalError(f"--tiou {' '.join(map(str, options.tiou))}: expected thresholds above 0 and up to 1")

    trained = options.what.is_dir() or options.what.suffix == ".safetensors" or is_safetensors(options.what)
    if trained and options.ground_truth is not None:
        raise WtalError(
            f"{options.what} is a trained model: it is evaluated on its own data set, without a second file"
        )
    if not trained and options.ground_truth is None:
        raise WtalError(f"{options.what}: predictions need ground truth: wtal-eval PREDICTIONS GROUND_TRUTH")

    for name in ("root", "branch", "device"):
        if not trained and (value := getattr(options, name)) != getattr(Options, name):
            raise WtalError(f"--{name} {value}: goes with a run or a checkpoint, not with predictions")

    from wtal.evaluation.average_precision import evaluate
    from wtal.platform.as_json import dumps

    predictions: object = options.what
    ground_truth: object = options.ground_truth
    settings = EvaluateConfig()
    if trained:
        from wtal.data.video import nothing_to_measure
        from wtal.evaluation.table import has_ground_truth
        from wtal.inference.saved_model import detect_test_videos, open_run

        model = open_run(options.what, options.device, options.root)
        if fault := nothing_to_measure(model.data.subset("test")):
            raise WtalError(f"{options.what}: {fault} in {model.data.name}, there is nothing to measure")
        if not has_ground_truth(model.data):
            return video_level(model, options)
        settings = model.config.evaluate
        predictions, ground_truth = detect_test_videos(model, options.branch), model.data.subset("test")
    protocol, tiou = options.protocol or settings.protocol, options.tiou or settings.tiou
    ambiguous = options.ambiguous or settings.ambiguous
    result = evaluate(predictions, ground_truth, protocol, tiou, options.subset, ambiguous)
    if options.json:
        print(dumps(result.to_json(), indent=1))
    else:
        print(result.table(per_class=options.per_class))
    return 0


def video_level(model: RunModel, options: Options) -> int:
    """Print video-level measures of how well videos are ranked by class; they need no temporal ground truth."""
    from wtal.evaluation.table import caption, measure
    from wtal.platform.as_json import dumps

    asked = [name for name in ("protocol", "tiou", "subset", "ambiguous") if getattr(options, name) is not None]
    if asked:
        raise WtalError(f"--{asked[0]}: the test videos of {model.data.name} have no temporal ground truth")
    branch = options.branch or model.config.localize.branch
    row, _ = measure(branch, branch, model.branches, model.data, model.config, model.device)
    if options.json:
        print(dumps(row, indent=1))
    else:
        print(caption(model.data, [row]))
        print(f"{branch}: {row['mean']:.1f}, {row['proposals_per_video']:.1f} proposals a video")
    return 0


if __name__ == "__main__":
    sys.exit(main())
