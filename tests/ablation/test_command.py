"""``wtal-ablate`` as a user runs it: every mistake is one clear line and a non-zero exit."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--worlds", "many"], "--worlds many: expected numbers such as 7 or 100-109"),
        (["--worlds", "9-3"], "--worlds 9-3: expected numbers"),
        (["--worlds", "3-"], "--worlds 3-: expected numbers"),
        (["--quick"], "--quick goes with --check"),
        (["--check", "a.json", "--join", "b.json"], "--check and --join: expected one of them"),
        (["--out", "."], "--out .: is a folder"),
        (["--check", "a.json", "--worlds", "3"], "--worlds goes without --check"),
        (["--check", "a.json", "--out", "b"], "--out goes without --check"),
        (["--join", "a.json", "--recipe", "own"], "--recipe goes without --join"),
        (["--processes", "-1"], "--processes -1: expected at least 1"),
        (["--check", "nowhere.json"], "nowhere.json: no such file, expected results of wtal-ablate"),
        (["--groups", "all"], "--groups"),
        (["--report-only", "--runs", "nothing"], "nothing: no world has a row yet"),
        (["--report-only", "--runs", "a-file"], "a-file/results.json: cannot be written"),
    ],
)
def test_mistakes(commands, tmp_path, arguments: list[str], told: str) -> None:
    (tmp_path / "a-file").touch()
    done = commands("ablate", *arguments, folder=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert f"wtal-ablate: error: {told}" in done.stderr or told in done.stderr
