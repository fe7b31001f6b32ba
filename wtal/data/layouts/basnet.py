"""The layout of BaSNet and WTAL-Uncertainty: one file per video and stream, one folder per subset.

``<root>/gt.json`` and ``<root>/features/{train,test}/{rgb,flow}/<id>.npy``, each ``[T, 1024]``; or, as in
ASM-Loc and ACM-Net, ``<root>/{train,test}/<id>.npy`` with both streams side by side, ``[T, 2048]``. 16-frame snippets
at 25 fps. The files ``split_{train,test}.txt``, if they exist, select the videos.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from wtal.data.annotations import Annotations
from wtal.data.cache import Progress
from wtal.data.layouts.protocol import GRID, Candidate, Dataset, Files, file_names, in_splits
from wtal.errors import WtalError
from wtal.platform.folders import visible
from wtal.platform.text import read_lines

NAME = "basnet"


def wanted(dataset: Dataset) -> str:
    """The files that the layout needs."""
    return (
        f"{' or '.join(dataset.truth)}, and features/{{train,test}}/{{rgb,flow}}/<video>.npy "
        "or {train,test}/<video>.npy"
    )


def truth(root: Path, dataset: Dataset) -> Path | None:
    """The ground-truth file under ``root``."""
    return next((root / name for name in dataset.truth if (root / name).is_file()), None)


def has_features(root: Path, dataset: Dataset) -> bool:
    """Whether there is a folder of features."""
    return any((base / subset).is_dir() for base in (root / "features", root) for subset in ("train", "test"))


def candidates(
    root: Path, dataset: Dataset, annotations: Annotations, progress: Progress | None
) -> Iterator[Candidate]:
    """The videos of both splits."""
    base = root / "features" if (root / "features").is_dir() else root
    places = {subset: _place(base / subset, dataset) for subset in ("train", "test")}
    splits = {subset: _split_file(root / f"split_{subset}.txt") for subset in places}
    roles = {video.id: subset for video, subset in in_splits(annotations)}
    for subset, ids in splits.items():
        for video_id in ids or ():
            if roles.get(video_id) != subset:
                listed = f"is {roles[video_id]} in" if video_id in roles else "is not in"
                raise WtalError(f"{root}/split_{subset}.txt: {video_id} {listed} {annotations.path.name}")
    for video, subset in in_splits(annotations):
        chosen = splits[subset]
        if chosen is None or video.id in chosen:
            yield Candidate(video, subset, places[subset](video.id), GRID)


def _place(folder: Path, dataset: Dataset) -> Callable[[str], tuple[Path, ...]]:
    """A function from a video id to its feature files in one subset."""
    files = Files()
    apart = (folder / "rgb").is_dir() or (folder / "flow").is_dir()
    joint = not apart and folder.is_dir() and any(path.suffix == ".npy" for path in visible(folder))
    folders = (folder,) if joint else (folder / "rgb", folder / "flow")
    return lambda video_id: tuple(files.pick(where, file_names(video_id, dataset)) for where in folders)


def _split_file(path: Path) -> frozenset[str] | None:
    if not path.exists():
        return None
    ids = frozenset(read_lines(path, "one video id a line"))
    if not ids:
        raise WtalError(f"{path}: no video id; without this file the annotations choose the videos")
    return ids
