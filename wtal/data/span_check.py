"""Checks that features and annotations cover the same time. No other check detects a wrong grid."""

from __future__ import annotations

import statistics

from wtal.data.features import feature_lengths
from wtal.data.video import Video, VideoSet
from wtal.errors import WtalError

_SLACK_SECONDS = 2.0
"""Tolerance: annotations are rounded, and extraction drops a last incomplete snippet."""
_RATIO = 1.25
"""An error if half the videos differ by more than this factor: rounding cannot explain it. W-TALC's 25 fps grid read
at 30 fps differs by a factor of 1.2."""
_SNIPPETS_A_CLIP_ROW = 20
"""If more snippets share a CLIP row, CLIP cannot distinguish them. At one row per second, 2 to 8 snippets share one."""
_EARLY = 0.3
"""If actions typically end within this share of the features, the grid is probably wrong."""


def check_spans(data: VideoSet) -> tuple[str, ...]:
    """Compare the video lengths according to the features with the lengths in the annotations.

    Reads headers only. In every real data set some videos differ: they give a note. It is an error if half of the
    videos differ, or if a segment in a user's own data ends after the features.

    Returns:
        Notes, one sentence each.

    Raises:
        WtalError: the grid of the features differs from fps, stride and window.
    """
    spans = {v.id: v.timebase.edge(int(n)) for v, n in zip(data.videos, feature_lengths(data.videos), strict=True)}
    notes = []
    timed = [(video, video.duration) for video in data if video.duration]
    off = [pair for pair in timed if _differ(spans[pair[0].id], pair[1])]
    if 2 * len(off) > len(timed):
        typical = statistics.median(spans[video.id] / duration for video, duration in timed)
        if not 1 / _RATIO <= typical <= _RATIO:
            video, duration = max(off, key=lambda pair: abs(spans[pair[0].id] / pair[1] - 1))
            raise WtalError(
                f"{data.name}: {_span(video, spans)}, expected the {duration:.1f} s of the annotations; likewise in "
                f"{len(off)} of {len(timed)} videos, so the grid is not the features'"
            )
    if off:
        video, duration = off[0]
        notes.append(
            f"features and annotations differ in length in {len(off)} of {len(timed)} videos: {_span(video, spans)}, "
            f"the annotations say {duration:.1f} s"
        )
    ends = [(video, max(instance.end for instance in video.instances)) for video in data if video.instances]
    late = [pair for pair in ends if pair[1] > spans[pair[0].id] and _differ(spans[pair[0].id], pair[1])]
    if late:
        video, end = late[0]
        message = f"{_span(video, spans)}, but an action ends at {end:.1f} s"
        if data.layout == "own" or 2 * len(late) > len(ends):
            raise WtalError(f"{data.name}: {message}; likewise in {len(late)} of {len(ends)} videos")
        notes.append(f"actions end after their features do in {len(late)} of {len(ends)} videos: {message}")
    if ends and not timed and statistics.median(end / spans[video.id] for video, end in ends) < _EARLY:
        video, end = ends[0]
        notes.append(f"half the videos last far longer than their actions: {_span(video, spans)}, those {end:.1f} s")
    return tuple(notes)


def known_end(video: Video, snippets: int) -> float | None:
    """The second at which a video ends, None if unknown.

    This is the duration in the annotations, if it agrees with the length of the features: for five videos of THUMOS14
    the duration is wrong by minutes.
    """
    if not video.duration or _differ(video.timebase.edge(snippets), video.duration):
        return None
    return video.duration


def check_clip_rows(data: VideoSet) -> tuple[str, ...]:
    """Compare the lengths of CLIP and I3D features, from the lengths stored in each :class:`Video`.

    Returns:
        Notes, one sentence each.
    """
    known = [(video, video.snippets, video.clip_rows) for video in data if video.snippets and video.clip_rows]
    few, short = [], []
    for video, snippets, rows in known:
        span = video.timebase.edge(snippets)
        if rows * (_SNIPPETS_A_CLIP_ROW if rows > 1 else 8) < snippets:
            few.append(f"{video.id} has {rows} for {snippets} snippets")
        elif video.clip_fps is not None and _differ(rows / video.clip_fps, span):
            lasts = f"{rows / video.clip_fps:.1f} s at {video.clip_fps:g} rows a second"
            short.append(f"those of {video.id} last {lasts}, its I3D features {span:.1f} s")
    notes = []
    if few:
        message = f"hardly a CLIP row to tell snippets apart in {len(few)} of {len(known)} videos: {few[0]}"
        notes.append(f"{message}; expected one every few snippets, not one a video")
    if short:
        notes.append(f"CLIP and I3D features differ in length in {len(short)} of {len(known)} videos: {short[0]}")
    return tuple(notes)


def _differ(span: float, seconds: float) -> bool:
    return abs(span - seconds) > _SLACK_SECONDS + 0.1 * seconds


def _span(video: Video, spans: dict[str, float]) -> str:
    grid = video.timebase
    return (
        f"the features of video {video.id} last {spans[video.id]:.1f} s at {grid.fps:g} fps, stride {grid.stride:g}, "
        f"window {grid.window:g}"
    )
