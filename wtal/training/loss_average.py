"""The losses of an epoch, updated after every batch."""

from __future__ import annotations

from collections.abc import Mapping


class LossAverage:
    """Loss terms by name, averaged over the videos of the batches that had them: one that is left out has none.

    Args:
        sums: sums of an epoch that is resumed.
        videos: how many videos each term was averaged over so far; None where that was not written down, and then
            all are taken to have counted.
    """

    def __init__(self, sums: Mapping[str, float] | None = None, videos: Mapping[str, int] | None = None) -> None:
        self.sums = dict(sums or {})
        self.videos = None if sums and videos is None else dict(videos or {})

    def add(self, terms: Mapping[str, float], videos: int, whole: int) -> None:
        """Take in the terms of a batch of ``videos`` of the ``whole`` epoch's."""
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value * videos / whole
            if self.videos is not None:
                self.videos[name] = self.videos.get(name, 0) + videos

    def means(self, whole: int) -> dict[str, float]:
        """The averages at the end of the epoch."""
        if self.videos is None:
            return self.sums
        counted = self.videos
        return {
            name: value if counted[name] == whole else value * whole / counted[name]
            for name, value in self.sums.items()
        }


def together(terms: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The loss terms of several students by name, and the sum of their losses where none left the batch out."""
    named = {f"{name}/{term}": value for name, own in terms.items() for term, value in own.items()}
    return {"loss": sum(own["loss"] for own in terms.values()), **named} if all(terms.values()) else named
