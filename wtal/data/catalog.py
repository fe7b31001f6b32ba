"""Data sets by name: the folders to search, and the layout of the files found."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from wtal.data.annotations import read_annotations
from wtal.data.assemble import assemble
from wtal.data.cache import Progress
from wtal.data.dataset_toml import open_own
from wtal.data.layouts.protocol import GRID, Dataset
from wtal.data.layouts.registry import LAYOUTS, AnnotatedLayout, look
from wtal.data.text_features import read_text_features
from wtal.data.video import VideoSet
from wtal.errors import WtalError

DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset("thumos14", "Thumos14reduced", ("gt.json",), ("thumos14.json",)),
        Dataset(
            "activitynet12",
            "ActivityNet1.2",
            ("gt.json", "activity_net.v1-2.min.json"),
            ("anet1.2_i3d_filtered.json", "activity_net.v1-2.min.json"),
            actionformer_grid=GRID,
            v_prefix=True,
        ),
        Dataset(
            "activitynet13",
            "ActivityNet1.3",
            ("gt.json", "activity_net.v1-3.min.json", "anet_anno_action.json"),
            ("anet1.3_i3d_filtered.json", "activity_net.v1-3.min.json", "anet_anno_action.json"),
            actionformer_grid=GRID,
            v_prefix=True,
        ),
    )
}
"""The values of ``--dataset`` in addition to ``synthetic`` and the path of a ``dataset.toml``."""


def open_dataset(
    dataset: str,
    root: str | os.PathLike[str] | None = None,
    allow_missing: bool = False,
    progress: Progress | None = None,
    need_clip: bool = False,
) -> VideoSet:
    """Open a data set on disk.

    Args:
        dataset: ``thumos14``, ``activitynet12``, ``activitynet13``, or the path of a ``dataset.toml``.
        root: the folder of the data set; None searches ``$WTAL_DATA/<name>``, then ``./data/<name>``.
        allow_missing: leave out videos without features, and training videos without a label; they are listed in
            :attr:`VideoSet.missing` and :attr:`VideoSet.unlabelled`.
        progress: called during the one-time conversion of W-TALC's features.
        need_clip: if there is a folder of CLIP features, a video without CLIP features counts as missing.

    Raises:
        WtalError: no data set was found, or a file is missing or malformed.
    """
    if dataset.endswith(".toml"):
        if root is not None:
            raise WtalError(f"--root goes with a named data set; {dataset} itself says where its files are")
        return open_own(dataset, allow_missing, need_clip)
    known = named(dataset)
    for place in places(known, root):
        if any(item.layout.has_features(place, known) for item in look(place, known)):
            return open_folder(place, dataset, allow_missing=allow_missing, progress=progress, need_clip=need_clip)
    raise WtalError(_nothing_found(known, root))


def open_folder(
    root: str | os.PathLike[str],
    dataset: str = "thumos14",
    name: str | None = None,
    classes: Sequence[str] | None = None,
    allow_missing: bool = False,
    progress: Progress | None = None,
    need_clip: bool = False,
) -> VideoSet:
    """Open the folder ``root``, whose files have the names that the data set ``dataset`` uses.

    Args:
        root: the folder.
        dataset: the data set whose file names to expect.
        name: the name of the opened set; None: ``dataset``.
        classes: all class names, if the annotations may not contain every one.
        allow_missing: as for :func:`open_dataset`.
        progress: as for :func:`open_dataset`.
        need_clip: as for :func:`open_dataset`.

    Raises:
        WtalError: as for :func:`open_dataset`.
    """
    known = named(dataset)
    root = Path(root)
    usable = [item for item in look(root, known) if item.layout.has_features(root, known)]
    if not usable:
        raise WtalError(_nothing_found(known, root))
    if len(usable) > 1:  # wtal must not guess which one is meant
        layouts = " and ".join(item.layout.NAME for item in usable)
        raise WtalError(f"{root}: files of the layouts {layouts}, expected those of one: give each its own folder")
    layout, annotations = usable[0].layout, read_annotations(usable[0].truth)
    # Sorted, so that a class has the same index in every layout.
    annotations = replace(annotations, classes=tuple(sorted({*annotations.classes, *(classes or ())})))
    candidates = layout.candidates(root, known, annotations, progress)
    opened = assemble(
        name or known.name,
        layout.NAME,
        annotations,
        candidates,
        root / "clip" if (root / "clip").is_dir() else None,
        dataset=known,
        allow_missing=allow_missing,
        need_clip=need_clip,
    )
    text = root / "text_features.npy"
    return replace(opened, text_features=read_text_features(text, len(opened.classes))) if text.exists() else opened


def find_annotations(dataset: str, root: str | os.PathLike[str] | None = None) -> AnnotatedLayout:
    """The annotations of a named data set; features need not be there. Raises like :func:`open_dataset`."""
    known = named(dataset)
    for place in places(known, root):
        if layouts := look(place, known):
            return layouts[0]
    raise WtalError(_nothing_found(known, root))


def named(dataset: str) -> Dataset:
    """A data set by its name."""
    if dataset in DATASETS:
        return DATASETS[dataset]
    names = ["synthetic", *DATASETS]
    close = difflib.get_close_matches(dataset.lower().replace("-", "").replace(".", ""), names, 1, 0.7)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise WtalError(f"data set {dataset!r}: expected {', '.join(names)} or the path of a dataset.toml{hint}")


def places(dataset: Dataset, root: str | os.PathLike[str] | None) -> list[Path]:
    """The folders to search, in order."""
    if root is not None:
        return [Path(root)]
    shared = os.environ.get("WTAL_DATA")
    return [*([Path(shared) / dataset.name] if shared else []), Path("data") / dataset.name]


def _nothing_found(dataset: Dataset, root: str | os.PathLike[str] | None) -> str:
    """An error text of several lines: the folders searched, the files needed, and the alternatives."""
    looked = []
    for place in places(dataset, root):
        annotated = [item.layout.NAME for item in look(place, dataset)]
        state = f"annotations of layout {annotated[0]}, no features" if annotated else "nothing of it"
        looked.append(f"  {place.absolute()}: {state if place.is_dir() else 'no such folder'}")
    if root is None and not os.environ.get("WTAL_DATA"):
        looked.append(f"  $WTAL_DATA/{dataset.name}: WTAL_DATA is not set")
    wanted = [f"  {name + ':':<14}{layout.wanted(dataset)}" for name, layout in LAYOUTS.items()]
    return "\n".join(
        [
            f"no features of {dataset.name} found. Looked in:",
            *looked,
            "Wanted there (or under --root), in one of these layouts; VLP trains on clip/<video>.npy beside it:",
            *wanted,
            "Without features: --features synthetic trains on generated ones (the annotations must be there), and "
            "--dataset synthetic needs no files at all.",
        ]
    )
