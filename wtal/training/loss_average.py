"""The average losses of an epoch, updated after every batch."""

from __future__ import annotations

from collections.abc import Mapping


class LossAverage:
    """The average of each loss term over the videos of an epoch. A skipped batch has no terms and does not count.

    Args:
        sums: the sums of an epoch that is resumed.
        videos: for each term, the number of videos so far. None: an older checkpoint did not store it, and every video
            is assumed to count.
    """

    def __init__(self, sums: Mapping[str, float] | None = None, videos: Mapping[str, int] | None = None) -> None:
        self.sums = dict(sums or {})
        self.videos = None if sums and videos is None else dict(videos or {})

    def add(self, terms: Mapping[str, float], videos: int, whole: int) -> None:
        """Add the terms of a batch of ``videos`` videos; the epoch has ``whole`` videos."""
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value * videos / whole
            if self.videos is not None:
                self.videos[name] = self.videos.get(name, 0) + videos

    def means(self, whole: int) -> dict[str, float]:
        """The averages at the end of an epoch of ``whole`` videos."""
        if self.videos is None:
            return self.sums
        counted = self.videos
        return {
            name: value if counted[name] == whole else value * whole / counted[name]
            for name, value in self.sums.items()
        }


def together(terms: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The loss terms of several students, by name; and the sum of their losses, if no student skipped the batch."""
    named = {f"{name}/{term}": value for name, own in terms.items() for term, value in own.items()}
    return {"loss": sum(own["loss"] for own in terms.values()), **named} if all(terms.values()) else named
