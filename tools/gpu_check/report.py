"""The report, Markdown for people and JSON for programs, made of what lies in the output folder, complete or not."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from gpu_check import results
from gpu_check.results import Row


def write(folder: Path) -> str:
    """Both files; returns the Markdown."""
    rows = results.read(folder)
    stages = last_of_each(row for row in rows if row["kind"] == "stage")
    # A stage that began and has no end was cut off; what it found before that counts.
    stages = [row | {"result": "cut off"} if row["result"] == "begun" else row for row in stages]
    found = [row for row in rows if row["kind"] == "finding"]
    facts = {key: value for row in rows if row["kind"] == "facts" for key, value in row.items() if key != "kind"}
    limits = ceilings(found)
    for row in found:
        row.update(floor(row, limits))
    text = "\n".join(
        [
            *heading(facts),
            *stage_table(stages),
            *failed_tests(found),
            *ceiling_table(found),
            *full_size_table(found),
            *attention_table(found),
            *postprocessing_table(found),
            *step_table(found),
            *flow_table(found),
        ]
    )
    (folder / results.REPORT).write_text(text + "\n")
    summary = {"facts": facts, "stages": stages, "ceilings": limits, "findings": found}
    (folder / results.SUMMARY).write_text(json.dumps(summary, indent=1) + "\n")
    return text


def last_of_each(rows: Iterable[Row]) -> list[Row]:
    """The latest line of each stage, in the order of the first."""
    latest: dict[str, Row] = {}
    for row in rows:
        latest[row["stage"]] = row
    return list(latest.values())


def ceilings(found: list[Row]) -> dict[str, float]:
    """Bytes a second under 'copy', operations a second under each dtype."""
    limits = {}
    for row in found:
        if row.get("stage") == "ceilings":
            limits["copy" if row["what"] == "copy" else row["dtype"]] = row["rate"]
    return limits


def floor(row: Row, limits: dict[str, float]) -> Row:
    """The least time that the measured ceilings allow for a row's bytes and operations, and which of the two it is."""
    if "flops" not in row or "copy" not in limits or row.get("dtype") not in limits:
        return {}
    moving, computing = row["bytes"] / limits["copy"], row["flops"] / limits[row["dtype"]]
    return {"floor": max(moving, computing), "bound": "bytes" if moving > computing else "operations"}


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Of Markdown; nothing where there is no row."""
    if not rows:
        return []
    lines = [head, ["---"] * len(head), *rows]
    return ["", *("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)]


def heading(facts: Row) -> list[str]:
    """What was run on what."""
    lines = ["# GPU check", ""]
    if facts.get("dry run"):
        lines += [
            "**A dry run on the CPU, with small sizes: it shows that the script works, and nothing else.**",
            "",
        ]
    return lines + [f"* {key}: {value}" for key, value in facts.items() if key != "dry run"]


def stage_table(stages: list[Row]) -> list[str]:
    """How each ended."""
    rows = [
        [
            row["stage"],
            row["result"] if row["result"] in ("passed", "left out") else row["result"].upper(),
            f"{row['seconds']:.0f} of {row['limit']} s",
            row["reason"].splitlines()[-1][:160] if row["reason"] else "",
        ]
        for row in stages
    ]
    return table(["stage", "result", "time", "its last line, if it did not pass"], rows)


def failed_tests(found: list[Row]) -> list[str]:
    """Each with the reason that pytest gives."""
    rows = [[row["stage"], row["test"], row["reason"]] for row in found if row["what"] == "failed test"]
    counts = [
        [row["stage"], *(str(row[key]) for key in ("passed", "failed", "skipped"))]
        for row in found
        if row["what"] == "tests"
    ]
    return table(["tests", "passed", "failed", "skipped"], counts) + table(["stage", "failed test", "reason"], rows)


def ceiling_table(found: list[Row]) -> list[str]:
    """In units that people use."""
    rows = []
    for row in found:
        if row["stage"] == "ceilings":
            copy = row["what"] == "copy"
            rate = f"{row['rate'] / 1e9:.0f} GB/s, read and written" if copy else f"{row['rate'] / 1e12:.2f} TFLOP/s"
            rows.append([row["what"] if copy else f"{row['what']}, {row['dtype']}, {row['size']} square", rate])
    return table(["ceiling", "measured"], rows)


def full_size_table(found: list[Row]) -> list[str]:
    """Errors against float64 beside plain PyTorch's."""
    rows = []
    for row in found:
        if row["what"] == "full size":
            errors = (f"{label} {e[0]:.1e} ({e[1]:.1e})" for label, e in row["errors"].items())
            rows.append([row["case"], str(row["rows"]), ", ".join(errors), "; ".join(row["faults"]) or "right"])
    return table(["attention at full size", "rows", "largest error (plain PyTorch's)", "verdict"], rows)


def attention_table(found: list[Row]) -> list[str]:
    """Times, each side's multiple of wtal on rows, and how far wtal is from its floor."""
    found = [row for row in found if row["what"] == "attention"]
    own = {key(row): row["seconds"] for row in found if row["side"] == "wtal, rows" and "seconds" in row}
    order = list(dict.fromkeys(key(row) for row in found))  # as they were measured, the sides of one case together
    rows = []
    for row in sorted(found, key=lambda row: order.index(key(row))):
        where = f"{row['case']}, window {'full' if row['window'] is None else row['window']}, {row['dtype']}"
        if "seconds" not in row:
            rows.append([where, "", row["side"], "", "", "", row["reason"]])
            continue
        base = own.get(key(row))
        rows.append(
            [
                where,
                row["passes"],
                row["side"],
                f"{1e3 * row['seconds']:.3f} ± {1e3 * row['spread']:.3f}",
                f"{row['seconds'] / base:.2f}" if base else "",
                f"{row['seconds'] / row['floor']:.2f}" if "floor" in row else "",
                f"{1e3 * row['floor']:.3f} ms, {row['bound']}" if "floor" in row else "",
            ]
        )
    return table(["attention", "pass", "side", "ms", "times wtal", "times floor", "floor"], rows)


def key(row: Row) -> tuple[str, ...]:
    """What rows of different sides must share to be compared."""
    return tuple(str(row.get(name)) for name in ("case", "window", "dtype", "passes"))


def postprocessing_table(found: list[Row]) -> list[str]:
    """The device beside the CPU of the same machine."""
    found = [row for row in found if row["stage"] == "postprocessing"]
    cpu = {row["what"]: row["seconds"] for row in found if row["device"] == "cpu"}
    rows = [
        [
            row["what"],
            row["device"],
            f"{1e3 * row['seconds']:.3f} ± {1e3 * row['spread']:.3f}",
            ratio(row, cpu),
            "yes" if row["same_bits"] else "NO",
        ]
        for row in found
    ]
    return table(["post-processing", "device", "ms", "times as fast as the CPU", "the CPU's bits"], rows)


def ratio(row: Row, cpu: dict[str, float]) -> str:
    """Of the CPU's time to the row's."""
    return f"{cpu[row['what']] / row['seconds']:.2f}" if row["device"] != "cpu" and row["what"] in cpu else ""


def step_table(found: list[Row]) -> list[str]:
    """Training steps."""
    rows = [
        [
            row["what"],
            f"{row['videos']} videos, {row['case']}",
            row["dtype"],
            row["side"],
            f"{1e3 * row['seconds']:.1f} ± {1e3 * row['spread']:.1f}" if "seconds" in row else "",
            f"{row['peak'] / 1e9:.2f} GB" if "peak" in row else row["reason"],
        ]
        for row in found
        if row["stage"] == "steps"
    ]
    return table(["step", "batch", "precision", "attention", "ms", "peak memory"], rows)


def flow_table(found: list[Row]) -> list[str]:
    """Pairs in flight and pairs a second."""
    rows = [
        [
            row["what"],
            str(row["pairs"]),
            f"{1e3 * row['seconds']:.1f} ± {1e3 * row['spread']:.1f}",
            f"{row['pairs'] / row['seconds']:.0f}",
            f"{row['apart']:.4f}",
        ]
        for row in found
        if row["stage"] == "flow"
    ]
    return table(["tvl1_flow", "pairs at once", "ms", "pairs a second", "pixels from the CPU's flow"], rows)
