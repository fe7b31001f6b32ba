"""Builds a VideoSet from the videos that a layout finds."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from wtal.data.annotations import Annotations
from wtal.data.layouts.protocol import Candidate, Dataset, Files, file_names
from wtal.data.video import Video, VideoSet, nothing_to_measure
from wtal.data.video_id import check_id
from wtal.errors import WtalError
from wtal.platform.messages import first_few


def assemble(
    name: str,
    layout: str,
    annotations: Annotations,
    candidates: Iterable[Candidate],
    clip: Path | None = None,
    clip_fps: float | None = None,
    dataset: Dataset | None = None,
    allow_missing: bool = False,
    need_clip: bool = False,
) -> VideoSet:
    """A set of the videos whose features exist, with ``annotations.classes`` as the classes.

    Args:
        name: the name of the data set, for messages.
        layout: the layout of its files.
        annotations: the annotations; they give the classes, and their path appears in messages.
        candidates: the videos.
        clip: folder of CLIP features, None if there is none.
        clip_fps: rows of the CLIP features per second, None if unknown.
        dataset: the data set whose file names are used.
        allow_missing: leave out videos without features, and training videos without a label.
        need_clip: if ``clip`` is given, a video without CLIP features counts as missing.

    Raises:
        WtalError: there are videos to leave out but ``allow_missing`` is False, or no video is left.
    """
    files = Files()
    videos, missing, unlabelled = [], [], []
    looked_for: list[Path] = []
    for candidate in candidates:
        annotated = candidate.annotated
        check_id(annotated.id, annotations.path)
        row = files.pick(clip, file_names(annotated.id, dataset)) if clip else None
        wanted = [*candidate.i3d, *([row] if row and need_clip else [])]
        if absent := [path for path in wanted if path not in files]:
            missing.append(annotated.id)
            looked_for.append(absent[0])
        elif candidate.subset == "train" and not annotated.labels:
            unlabelled.append(annotated.id)
        else:
            videos.append(
                Video(
                    id=annotated.id,
                    subset=candidate.subset,
                    labels=annotated.labels,
                    timebase=candidate.timebase,
                    i3d=candidate.i3d,
                    clip=row if row in files else None,
                    duration=annotated.duration,
                    instances=annotated.instances,
                    clip_fps=clip_fps,
                    origin=candidate.origin,
                    ambiguous=annotated.ambiguous,
                )
            )
    total = len(videos) + len(missing) + len(unlabelled)
    if missing and (not allow_missing or not videos):
        raise WtalError(
            f"{annotations.path}: no features for {len(missing)} of {total} videos ({first_few(missing)}), "
            f"expected {looked_for[0]}" + ("; --allow-missing leaves them out" if videos else "")
        )
    if unlabelled and not allow_missing:
        raise WtalError(
            f"{annotations.path}: {len(unlabelled)} training videos have no label ({first_few(unlabelled)}), "
            "expected at least one each; --allow-missing leaves them out"
        )
    if not videos:
        raise WtalError(f"{annotations.path}: no training or test videos, expected some")
    notes = []
    if fault := nothing_to_measure([video for video in videos if video.subset == "test"]):
        cure = "list videos with an action under 'test'" if layout == "own" else "a table needs its test part"
        notes.append(f"{annotations.path}: {fault}, so training can tell no mAP; {cure}")
    return VideoSet(
        name,
        layout,
        annotations.classes,
        tuple(videos),
        missing=tuple(missing),
        unlabelled=tuple(unlabelled),
        test_notes=tuple(notes),
    )
