"""Do features and annotations speak of the same time? A wrong grid is the mistake that nothing else would show."""

from __future__ import annotations

import statistics

from wtal.data.features import feature_lengths
from wtal.data.video import Video, VideoSet
from wtal.errors import WtalError

_SLACK_SECONDS = 2.0
"""Annotations are rounded, and extraction drops a last incomplete snippet."""
_RATIO = 1.25
"""Half the videos off by more than this factor is no rounding; W-TALC's 25 fps grid read at 30 fps is off by 1.2."""
_SNIPPETS_A_CLIP_ROW = 20
"""CLIP rows that more snippets share tell them apart no longer; a row a second has 2 to 8 of them."""
_EARLY = 0.3
"""Where actions typically end within this share of the features, the grid is more likely wrong than the videos odd."""


def check_spans(data: VideoSet) -> tuple[str, ...]:
    """Compare how long the features say the videos are with what the annotations say.

    Reads headers only. Single videos differ in every real data set: they are noted. Half of them differing, or a user's
    own segment behind the end of the features, is an error.

    Returns:
        Notes, a sentence each.

    Raises:
        WtalError: features on another grid than fps, stride and window say.
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
    """The second at which a video ends, None where nobody knows.

    That is the annotations' duration, where the features do not say another length: of five videos of THUMOS14 it is
    wrong by minutes.
    """
    if not video.duration or _differ(video.timebase.edge(snippets), video.duration):
        return None
    return video.duration


def check_clip_rows(data: VideoSet) -> tuple[str, ...]:
    """Compare how much CLIP features there are with the I3D features beside them, from lengths that videos know.

    Returns:
        Notes, a sentence each.
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
