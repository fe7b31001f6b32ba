"""Which videos there are, what they are called, and where each one's features belong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wtal.data import actionformer, basnet
from wtal.data.annotations import Annotations, read_annotations
from wtal.data.catalog import LAYOUTS, named
from wtal.data.layout import GRID, Candidate, Dataset, check_id, file_names, in_splits
from wtal.data.timebase import Timebase
from wtal.errors import WtalError

SUFFIXES = frozenset(
    ".3gp .avi .flv .h264 .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .vob .webm .wmv".split()  # noqa: SIM905
)
"""Names of files in a folder that are taken for videos."""

I3D_FOLDER = "i3d"
CLIP_FOLDER = "clip"


@dataclass(frozen=True)
class Target:
    """One video and the files that its features become.

    Attributes:
        id: its name in annotations and feature files.
        source: the video file.
        i3d: one file for RGB and flow side by side, or one each.
        clip: the file for its CLIP features.
        timebase: the grid of its snippets; stride and window are whole numbers.
    """

    id: str
    source: Path
    i3d: tuple[Path, ...]
    clip: Path
    timebase: Timebase


def find_videos(places: Sequence[Path]) -> dict[str, Path]:
    """Video files by id, sorted; the id is the file's name without its ending.

    Args:
        places: video files, folders (searched through), and ``.txt`` lists with one path a line.

    Raises:
        WtalError: something is not there, there is no video, or two have the same name.
    """
    found: dict[str, Path] = {}
    for path in _files(places):
        check_id(path.stem, path)
        if path.stem in found and found[path.stem].resolve() != path.resolve():
            raise WtalError(f"{path} and {found[path.stem]} have the same name, expected one of its own for each video")
        found[path.stem] = path
    if not found:
        raise WtalError(f"{', '.join(map(str, places))}: no video, expected files such as .mp4, .mkv, .webm or .avi")
    return dict(sorted(found.items()))


def _files(places: Sequence[Path]) -> Iterator[Path]:
    for place in places:
        if place.is_dir():
            inside = (path for path in sorted(place.rglob("*")) if path.suffix.lower() in SUFFIXES)
            yield from (path for path in inside if path.is_file() and not path.name.startswith("."))
        elif place.suffix == ".txt":
            try:
                lines = place.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise WtalError(f"{place}: cannot be read ({error}), expected one path of a video a line") from None
            yield from (place.parent / line.strip() for line in lines if line.strip())
        else:
            yield place


def check_there(videos: dict[str, Path]) -> None:
    """Refuse a list with files that are not there, before anything is computed."""
    if missing := [path for path in videos.values() if not path.is_file()]:
        raise WtalError(f"{missing[0]}: no such file ({len(missing)} of {len(videos)} videos are missing)")


def own_targets(videos: dict[str, Path], root: Path, timebase: Timebase) -> list[Target]:
    """Targets of a ``dataset.toml``: ``i3d/<video>.npy`` and ``clip/<video>.npy``."""
    return [
        Target(id, path, (root / I3D_FOLDER / f"{id}.npy",), root / CLIP_FOLDER / f"{id}.npy", timebase)
        for id, path in videos.items()
    ]


def layout_targets(videos: dict[str, Path], root: Path, layout: str, dataset: str) -> tuple[list[Target], list[str]]:
    """Targets where a layout's reader will look, for the videos that the annotations under ``root`` train or test on.

    Returns:
        The targets by id, and the ids of annotated videos that have no file.

    Raises:
        WtalError: the annotations are not there, or speak of none of the videos.
    """
    known = named(dataset)
    annotations = layout_annotations(root, layout, known)
    targets, absent = [], []
    for candidate in _candidates(root, layout, known, annotations):
        id = candidate.annotated.id
        source = next((videos[name] for name in file_names(id, known) if name in videos), None)
        if source is None:
            absent.append(id)
        else:
            targets.append(Target(id, source, candidate.i3d, root / CLIP_FOLDER / f"{id}.npy", candidate.timebase))
    if not targets:
        raise WtalError(f"{annotations.path}: has none of the {len(videos)} videos, expected file names like its ids")
    return sorted(targets, key=lambda target: target.id), absent


def layout_annotations(root: Path, layout: str, dataset: Dataset) -> Annotations:
    """The annotations of a layout under ``root``."""
    truth = LAYOUTS[layout].truth(root, dataset)
    if truth is None:
        raise WtalError(
            f"{root}: no annotations of {dataset.name} in the layout {layout}, "
            f"expected them there first: {LAYOUTS[layout].wanted(dataset)}"
        )
    return read_annotations(truth)


def _candidates(root: Path, layout: str, dataset: Dataset, annotations: Annotations) -> Iterator[Candidate]:
    if layout == "wtalc":  # its one file is put together from one file a video
        for video, subset in in_splits(annotations):
            yield Candidate(video, subset, (root / I3D_FOLDER / f"{video.id}.npy",), GRID)
    elif layout == "basnet":
        for subset in ("train", "test"):  # their presence tells the reader where to look
            for stream in ("rgb", "flow"):
                (root / "features" / subset / stream).mkdir(parents=True, exist_ok=True)
        yield from basnet.candidates(root, dataset, annotations, None)
    else:
        yield from actionformer.candidates(root, dataset, annotations, None)
