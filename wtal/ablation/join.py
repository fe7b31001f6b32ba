"""Merging several results of an ablation, from several machines or calls, into one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from wtal.ablation.results import Results, read_results
from wtal.ablation.variants import GROUPS, group_stages
from wtal.errors import WtalError
from wtal.settings.config import ScheduleConfig

SHARED = ("generator", "recipe", "threads", "protocol", "tiou")
ORDER = {stage.row: place for place, stage in enumerate(s for g in GROUPS for s in group_stages(g, ScheduleConfig()))}
"""The position of each row in the table, by title."""


def join(paths: Sequence[Path]) -> Results:
    """Merge the results in these files. The first benchmark of the first file becomes the main benchmark.

    Raises:
        WtalError: a file has no results; the files differ in a field of :data:`SHARED`, e.g. the recipe; or two files
            have different values for the same row of the same world and seed.
    """
    parts = [read_results(path) for path in paths]
    first = parts[0]["about"]
    for path, part in zip(paths, parts, strict=True):
        for name in SHARED:
            if (value := part["about"][name]) != first[name]:
                raise WtalError(f"{path}: {name} is {value!r}, but {first[name]!r} in {paths[0]}")
    runs: dict[tuple[str, int, int], dict[str, Any]] = {}
    for path, part in zip(paths, parts, strict=True):
        for run in part["runs"]:
            key = run["benchmark"], run["world"], run["seed"]
            known = runs.setdefault(key, {**run, "rows": {}})["rows"]
            for title, row in run["rows"].items():
                if known.setdefault(title, row) != row:
                    part = next(name for name in {**row, **known[title]} if row.get(name) != known[title].get(name))
                    raise WtalError(
                        f"{path}: {key[0]} world {key[1]} seed {key[2]}, {title!r}: {part} is {row.get(part)}, but "
                        f"{known[title].get(part)} in a file before it; rows of one world belong to one machine"
                    )
    for run in runs.values():
        run["rows"] = dict(sorted(run["rows"].items(), key=lambda item: ORDER.get(item[0], len(ORDER))))
    names = list(dict.fromkeys(name for part in parts for name in part["about"]["asked"]))
    return {
        "format": parts[0]["format"],
        "about": {
            **first,
            "commits": _all(part["about"]["commits"] for part in parts),
            "versions": {
                name: _all(part["about"]["versions"].get(name, ()) for part in parts) for name in first["versions"]
            },
            "machines": _all(part["about"]["machines"] for part in parts),
            "videos": {name: value for part in parts for name, value in part["about"]["videos"].items()},
            "asked": {name: _all(part["about"]["asked"].get(name, ()) for part in parts) for name in names},
        },
        "runs": sorted(runs.values(), key=lambda run: (names.index(run["benchmark"]), run["world"], run["seed"])),
    }


def _all(lists: Iterable[Iterable[Any]]) -> list[Any]:
    return sorted({one for each in lists for one in each})
