"""A stand-in for CLIP on a data set without CLIP features, made from its own features and video labels.

    python -m benchmarks.real.stand_in DATASET.toml OUT [--fold 2/4]
    wtal-train --dataset OUT/dataset.toml --schedule.kind alternating

The CLIP features of the new data set are the standardised features. The text features of a class are the mean over its
training videos of a video's mean snippet. Both branches then see the same features, so this is no second view
(docs/real.md).
"""

from __future__ import annotations

import contextlib
import io
import json
import secrets
import shutil
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from wtal.cli.parsing import parse, run
from wtal.data.ambiguous import FILE as AMBIGUOUS
from wtal.data.feature_index import survey
from wtal.data.features import read_features
from wtal.data.folds import fold_of, parse_fold
from wtal.data.open import open_data
from wtal.data.video import Video, VideoSet
from wtal.errors import WtalError
from wtal.platform.as_toml import toml_value
from wtal.platform.files import WriteError
from wtal.platform.messages import first_few
from wtal.platform.text import read_text

from .data import annotated

PROGRAM = "benchmarks.real.stand_in"

_LEAST_DEVIATION = 1e-6
"""A dimension with a smaller deviation is only centred, as in the CBP branch."""

_LEAST_NORM = 1e-6
"""A class mean of a smaller norm has no direction. Means of standardised features have a norm of the order of 1."""


@dataclass(frozen=True)
class Options:
    """Make a data set whose CLIP features are the standardised features of another one.

    OUT/dataset.toml refers to the I3D features of DATASET.toml, which are not copied. Mean and deviation for the
    standardisation come from the snippets of the training videos. The text features of a class are the mean over its
    training videos of a video's mean standardised snippet. Nothing of a test video enters either of them.

    OUT has the temporal annotation of the test videos only. So wtal-train --fold and wtal-ablate --folds refuse it:
    their held-out videos would be in the text features. For cross-validation make one data set per part with --fold.
    """

    dataset: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET.toml")]
    """A data set with features and video labels (docs/own_data.md). CLIP features that it has are ignored."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """The new folder. It must not exist."""
    fold: str | None = None
    """2/4: the second of four parts of the training videos, the same part as for wtal-train --fold, becomes the test
    videos. Nothing of these videos enters. The test videos of DATASET.toml are left out. The temporal annotation of
    part 2 is what DATASET.toml says, else train_segments.csv beside it."""
    allow_missing: bool = False
    """Leave out videos without features, and training videos without a label."""


def main() -> int:
    """Entry point."""
    return run(command, PROGRAM)


def command(arguments: Sequence[str]) -> int:
    """Make the data set, and print what it has."""
    options = parse(Options, PROGRAM, arguments)
    if options.dataset.suffix != ".toml":
        raise WtalError(f"{options.dataset}: expected the path of a dataset.toml")
    if options.fold is not None:
        parse_fold(options.fold)
    _check_new(options.out)
    data = open_data(str(options.dataset), allow_missing=options.allow_missing, ignore_clip=True)
    if options.fold is not None:
        beside = options.dataset.with_name("train_segments.csv")
        known = all(video.instances is not None for video in data.subset("train"))
        data = fold_of(data if known or not beside.is_file() else annotated(data, beside), options.fold)
    if not data.subset("train"):
        raise WtalError(f"{options.dataset}: no training videos, expected some for the class means")
    with _new_folder(options.out) as folder:
        width = write(data, options.dataset, folder)
    train, test = len(data.subset("train")), len(data.subset("test"))
    print(
        f"{options.out / 'dataset.toml'}: {len(data.classes)} classes, {train} training and {test} test videos, "
        f"{width} features a snippet"
    )
    return 0


def write(data: VideoSet, source: Path, folder: Path) -> int:
    """Write the new data set into a folder; returns the width of its features.

    Args:
        data: the videos of the new data set.
        source: the ``dataset.toml`` that they are from.
        folder: an empty folder.

    Raises:
        WtalError: features are malformed, or a class has no mean.
        OSError: a file cannot be written.
    """
    mean, deviation = survey(data)
    scale = np.where(deviation > _LEAST_DEVIATION, deviation, 1.0)
    total, count = np.zeros((len(data.classes), len(mean))), np.zeros(len(data.classes), np.int64)
    (folder / "clip").mkdir()
    for video in data:
        rows = (read_features(video) - mean) / scale
        _save(folder / "clip" / f"{video.id}.npy", rows)
        if video.subset == "train":
            own = data.multi_hot(video) > 0
            total[own] += rows.mean(axis=0)
            count[own] += 1
    _save(folder / "text.npy", _class_means(total, count, data, source))
    for name, text in _texts(data, source).items():
        (folder / name).write_text(text, encoding="utf-8")
    return len(mean)


def _class_means(total: np.ndarray, count: np.ndarray, data: VideoSet, source: Path) -> np.ndarray:
    if absent := [name for name, videos in zip(data.classes, count, strict=True) if not videos]:
        raise WtalError(f"{source}: no training video has {first_few(absent)}, expected one of each class for its mean")
    means: np.ndarray = total / count[:, None]
    for name, norm in zip(data.classes, np.linalg.norm(means, axis=1), strict=True):
        if norm < _LEAST_NORM:
            raise WtalError(
                f"{source}: the mean of {name!r} has norm {norm:.2g}, expected it to differ from the mean of all "
                "training videos"
            )
    return means


def _texts(data: VideoSet, source: Path) -> dict[str, str]:
    """The text files of the new data set by name. It has the paths and the times of the old one."""
    table = tomllib.loads(read_text(source))
    given = table["i3d"]
    folders = [str((source.parent / one).absolute()) for one in (given if isinstance(given, list) else [given])]
    test = data.subset("test")
    keys = {
        "name": f"{data.name}, with a stand-in for CLIP",
        "classes": data.classes,
        "i3d": folders if len(folders) > 1 else folders[0],
        "clip": "clip",
        "text_features": "text.npy",
        "labels": "labels.json",
        **{key: table[key] for key in ("fps", "stride", "window") if key in table},
        "test": [video.id for video in test],
    }
    texts = {"labels.json": _json({video.id: video.labels for video in data})}
    if any(video.instances is not None for video in test):
        keys["segments"] = "segments.json"
        texts["segments.json"] = _json({video.id: _segments(video) for video in test})
    if lines := [f"{video.id} {start} {end}\n" for video in data for start, end in video.ambiguous]:
        texts[AMBIGUOUS] = "".join(lines)
    return {**texts, "dataset.toml": "".join(f"{key} = {toml_value(value)}\n" for key, value in keys.items())}


def _segments(video: Video) -> list[dict[str, object]]:
    return [{"segment": [one.start, one.end], "label": one.label} for one in video.instances or ()]


def _json(content: object) -> str:
    return json.dumps(content, ensure_ascii=False, indent=0) + "\n"


def _save(path: Path, rows: np.ndarray) -> None:
    file = io.BytesIO()  # np.save into a file does not say why it could not write
    np.save(file, rows.astype(np.float32), allow_pickle=False)
    path.write_bytes(file.getbuffer())


def _check_new(out: Path) -> None:
    if out.exists() or out.is_symlink():
        raise WtalError(f"{out}: is there already, expected the name of a new folder")


@contextlib.contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A hidden folder beside ``out`` to write into. It becomes ``out`` at the end, and is removed after an error."""
    place = out.absolute()
    partial = place.parent / f".{place.name}.{secrets.token_hex(4)}.partial"
    try:
        try:
            partial.mkdir(parents=True)
            yield partial
            _check_new(out)
            partial.rename(place)
        except OSError as error:
            raise WriteError.of(out, error) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
