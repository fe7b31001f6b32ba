"""``wtal-train``: train on a data set, and print the mAP after each step."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from wtal.cli.parsing import once_a_machine, parse, run, with_ranges
from wtal.errors import WtalError
from wtal.runs.setup import Precision, Setup
from wtal.settings.config import RunConfig
from wtal.settings.recipe import Recipe, default_recipe, load_recipe, with_overrides

PROGRAM = "wtal-train"


@dataclass(frozen=True)
class Options(RunConfig):
    """Train a weakly-supervised temporal action localizer: videos, and which actions occur in them, never where.

    A classification branch on I3D features (CBP) is warmed up, then B and F steps alternate: CBP's pseudo-labels,
    above all its background, train a CLIP branch (VLP); VLP's, above all its foreground, train CBP. With
    --schedule.kind online both learn at once. A data set without CLIP features trains CBP alone. Without options it
    generates the embedded benchmark, trains on it in about two minutes, and prints the mAP that each step buys. Under
    torchrun the processes share each batch.

    Options below come from the recipe of the data set and can be set one by one. Times in seconds, tIoU and scores
    in 0..1, mAP in percent.
    """

    dataset: str = "synthetic"
    """synthetic, thumos14, activitynet12, activitynet13, or the path of your own dataset.toml."""
    root: Path | None = None
    """Folder of the data set; default: $WTAL_DATA/<dataset>, or ./data/<dataset>. The layout is recognised."""
    features: Literal["disk", "synthetic"] = "disk"
    """synthetic generates features of the true shapes for the real annotations, to try the full-size job."""
    layout: Literal["basnet", "wtalc", "actionformer"] = "basnet"
    """Layout on disk of the embedded benchmark."""
    shapes: Literal["small", "true", "version-2"] = "small"
    """Size of the embedded benchmark. true: as wide and long as real features (2048-d I3D, T about 1000); version-2:
    small too, but more similar to real features (docs/synthetic.md)."""
    world: int = 0
    """Seed of generated data."""
    recipe: str | None = None
    """Recipe by name, or path of a .toml; default: the data set's own recipe."""
    seed: int = 0
    """Seed of weights, order, crops and dropout. Same seed, same machine, same numbers."""
    out: Path | None = None
    """Run folder; default: runs/<dataset>-<date>-<time>."""
    resume: Path | None = None
    """Resume the run in this folder with its own settings; device, threads and similar options may be given anew."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Precision = "auto"
    """auto is bf16 autocast on CUDA and float32 on the CPU."""
    clip_model: str = "ViT-B-16-quickgelu"
    """open_clip architecture of the text encoder."""
    clip_weights: Path | None = None
    """CLIP's weights: state dict or safetensors; default: open_clip downloads OpenAI's weights."""
    allow_missing: bool = False
    """Train without the videos whose features are missing, and say how many."""
    keep_checkpoints: int = 3
    """How many checkpoints to keep; if the newest is damaged, the one before is used."""
    skip_bad_batches: int = 0
    """Leave out up to this many batches whose loss or gradient is not finite, instead of stopping at the first."""
    fold: str | None = None
    """2/5: split the training videos into five parts, measure on the second part instead of the test videos, and train
    on the others."""
    threads: int | None = None
    """CPU threads; default: torch's choice."""
    quiet: bool = False
    """Print the final table only."""
    json: bool = False
    """Print the run folder and its rows as JSON for scripts, and nothing else."""
    version: bool = False
    """Print versions and build facts, run each op once on each device, and exit."""


def main() -> int:
    """Entry point."""
    return run(command, PROGRAM)


def command(arguments: Sequence[str]) -> int:
    """Parse the options, then call :func:`wtal.training.job.start`."""
    with once_a_machine():
        options, recipe = _parsed(arguments)
        config = _settings(options)
        setup = _setup(options, recipe.name)

    from wtal.training.job import start  # torch loads here, after all options were checked

    return start(
        setup,
        config,
        with_overrides(recipe.source, recipe.config, config),
        out=options.out,
        resume=options.resume,
        given=_given(arguments),
        quiet=options.quiet,
        as_json=options.json,
    )


def _parsed(arguments: Sequence[str]) -> tuple[Options, Recipe]:
    """The options, and the recipe. The recipe provides the defaults of the options."""
    arguments = with_ranges(arguments, "--evaluate.tiou", "--localize.theta-loc")
    # The arguments are parsed twice: the first pass finds the recipe, the second uses its values as defaults. So --help
    # shows them too.
    first = parse(Options, PROGRAM, [word for word in arguments if word not in ("-h", "--help")])
    recipe = load_recipe(first.recipe or default_recipe(first.dataset))
    options = parse(Options, PROGRAM, arguments, default=_with_settings(Options(), recipe))
    if options.resume is not None and options.out is not None and options.out.resolve() != options.resume.resolve():
        raise WtalError(f"--out does not go with --resume: the run stays in {options.resume}")
    return options, recipe


def _settings(options: Options) -> RunConfig:
    return RunConfig(**{field.name: getattr(options, field.name) for field in dataclasses.fields(RunConfig)})


def _setup(options: Options, recipe: str) -> Setup:
    """The options that a run folder stores besides its settings. Paths are absolute, as --resume works anywhere."""
    names = [field.name for field in dataclasses.fields(Setup) if field.name not in ("recipe", "processes")]
    given: dict[str, Any] = {name: getattr(options, name) for name in names}
    paths = {name: str(value.resolve()) for name, value in given.items() if isinstance(value, Path)}
    if options.dataset.endswith(".toml"):
        paths["dataset"] = str(Path(options.dataset).resolve())
    return Setup(**{**given, **paths}, recipe=recipe)


def _given(arguments: Sequence[str]) -> set[str]:
    """The options that were given, as names of fields, e.g. ``seed`` or ``cbp.dim``; only those that a run stores."""
    sections = {field.name for field in dataclasses.fields(RunConfig)}
    known = {field.name for field in dataclasses.fields(Setup)} | {
        f"{section}.{field.name}" for section in sections for field in dataclasses.fields(getattr(RunConfig(), section))
    }
    words = (word[2:].split("=", 1)[0].replace("-", "_") for word in arguments if word.startswith("--"))
    given = set()
    for word in words:
        section, dot, key = word.rpartition(".")
        given.add(word if word in known else section + dot + key.removeprefix("no_"))
    return given & known


def _with_settings(options: Options, recipe: Recipe) -> Options:
    sections = {field.name: getattr(recipe.config, field.name) for field in dataclasses.fields(RunConfig)}
    return dataclasses.replace(options, **sections)


if __name__ == "__main__":
    sys.exit(main())
