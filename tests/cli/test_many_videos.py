"""Many videos in one call: the results of single calls, what is done is skipped, also after a kill."""

import csv
import json
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from cli_cases import complaint, say
from run_cases import die, in_child

from lightning_cells.cli import main, many_videos
from lightning_cells.cli.many_videos import TABLE, names
from lightning_cells.errors import InputError

Capture = pytest.CaptureFixture[str]
CPU = ["--device", "cpu", "--diameter", "training"]


@pytest.fixture
def plate(simulated: Path, tmp_path: Path) -> list[Path]:
    """Wells A1, A2 and A3: four frames each."""
    for well, video in (("A1", "01"), ("A2", "02"), ("A3", "03")):
        (tmp_path / "plate" / well).mkdir(parents=True)
        for path in sorted((simulated / video).glob("*.tif"))[:4]:
            shutil.copy(path, tmp_path / "plate" / well)
    return sorted((tmp_path / "plate").iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def table(out: Path) -> list[dict[str, str]]:
    with (out / TABLE).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_line_for_each_and_a_table_and_nothing_twice(plate: list[Path], tmp_path: Path, capfd: Capture) -> None:
    out = tmp_path / "results"
    first = say(capfd, "track", *plate, "--out", out, *CPU)
    assert first.status == 0
    lines = first.out.splitlines()
    assert [line.partition(":")[0] for line in lines[:3]] == ["A1", "A2", "A3"]
    assert main(["track", str(plate[1]), "--out", str(tmp_path / "alone"), *CPU]) == 0
    assert contents(tmp_path / "alone") == contents(out / "A2_RES")

    rows = table(out)
    tracks = [line.split() for line in (out / "A2_RES/res_track.txt").read_text().splitlines()]
    assert [row["video"] for row in rows] == ["A1", "A2", "A3"]
    assert rows[1]["frames"] == "4"
    assert int(rows[1]["tracks"]) == len(tracks)
    assert int(rows[1]["cells"]) == sum(int(end) - int(begin) + 1 for _, begin, end, _ in tracks)
    parents = [parent for *_, parent in tracks if parent != "0"]
    assert int(rows[1]["divisions"]) == sum(parents.count(parent) > 1 for parent in set(parents))
    total = next(line for line in lines if line.startswith("all ")).split()
    assert total[1:4] == [str(sum(int(row[name]) for row in rows)) for name in ("frames", "cells", "tracks")]

    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.tif")}
    again = say(capfd, "track", *plate, "--out", out, *CPU)
    assert [line for line in again.out.splitlines() if "there already" in line] == [
        line.replace(": ", ": there already, ", 1) for line in lines[:3]
    ]
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.tif")} == before
    assert table(out) == rows

    shutil.copy(plate[0] / "t000.tif", plate[2] / "t000.tif")
    assert say(capfd, "track", *plate, "--out", out, *CPU).out.count("there already") == 2
    assert "there already" not in say(capfd, "track", *plate, "--out", out, *CPU, "--min-size", "0.1").out


def test_one_that_cannot_be_tracked_does_not_stop_the_others(plate: list[Path], tmp_path: Path, capfd: Capture) -> None:
    (plate[1] / "t001.tif").write_bytes(b"no image")
    said = say(capfd, "track", *plate, "--out", tmp_path / "results", *CPU)
    assert said.status == 1
    assert re.search(r"^A2: error: .*t001\.tif", said.out, re.MULTILINE)
    assert "2 of 3 videos are tracked" in said.out
    assert [row["video"] for row in table(tmp_path / "results")] == ["A1", "A3"]


def test_after_a_kill_the_same_command_goes_on(
    plate: list[Path], tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "results"
    words = ["track", *map(str, plate), "--out", str(out), *CPU]

    def killed() -> int:
        original = many_videos._tracked
        monkeypatch.setattr(
            many_videos, "_tracked", lambda name, *rest: die() if name == "A2" else original(name, *rest)
        )
        return main(words)

    assert in_child(killed) == -signal.SIGKILL
    assert sorted(path.name for path in out.iterdir()) == ["A1.json", "A1_RES"]
    said = say(capfd, *words)
    assert (said.status, said.out.count("there already")) == (0, 1)
    assert [row["video"] for row in table(out)] == ["A1", "A2", "A3"]


def test_shares_are_all_videos_and_none_twice(plate: list[Path], tmp_path: Path, capfd: Capture) -> None:
    out = tmp_path / "results"
    first = say(capfd, "track", *plate, "--out", out, *CPU, "--share", "0/2")
    assert "2 of 3 videos are tracked" in first.out
    assert sorted(path.name for path in out.glob("*_RES")) == ["A1_RES", "A3_RES"]
    assert "3 of 3 videos are tracked" in say(capfd, "track", *plate, "--out", out, *CPU, "--share", "1/2").out
    assert len(table(out)) == 3
    for share in ("2/2", "-1/2", "1", "x/y"):
        assert "is no share" in complaint(capfd, "track", *plate, "--out", out, f"--share={share}")


def test_a_doubt_is_told_with_its_video(plate: list[Path], tmp_path: Path, capfd: Capture) -> None:
    for path in plate[0].iterdir():
        shutil.copy(plate[0] / "t000.tif", path) if path.name != "t000.tif" else None
    said = say(capfd, "track", *plate[:2], "--out", tmp_path / "out", "--device", "cpu", "--diameter", "900")
    told = re.findall(r"^(A\d): warning: ", said.out, re.MULTILINE)
    assert told
    records = [json.loads((tmp_path / f"out/{well}.json").read_text()) for well in ("A1", "A2")]
    assert len(told) == sum(len(record["warnings"]) for record in records)
    assert said.err.count("warning") == 0


def test_names(tmp_path: Path) -> None:
    for path in ("a/pos0", "b/pos0", "a/pos1"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "movie.ome.tif").touch()
    assert list(names([tmp_path / "a/pos0", tmp_path / "a/pos1"])) == ["pos0", "pos1"]
    assert list(names([tmp_path / "a/pos0", tmp_path / "b/pos0"])) == ["a_pos0", "b_pos0"]
    assert list(names([tmp_path / "movie.ome.tif"])) == ["movie"]
    with pytest.raises(InputError, match="given twice"):
        names([tmp_path / "a/pos0", tmp_path / "a/../a/pos0"])


def test_a_cluster_gets_a_share_for_each_job(plate: list[Path], tmp_path: Path, capfd: Capture) -> None:
    words = ["track", *map(str, plate), "--out", str(tmp_path / "out")]
    said = say(capfd, "launch", "slurm", "--array", "2", "--accelerator", "cpu", "--dry-run", "--", *words)
    assert (said.status, said.err) == (0, "")
    assert "#SBATCH --array=0-1" in said.out.splitlines()
    assert "gpus" not in said.out
    subprocess.run(["bash", "-n"], input=said.out, text=True, check=True)
    last = said.out.splitlines()[-1]
    assert last.endswith("--share $SLURM_ARRAY_TASK_ID/2")
    assert shlex.split(last)[4:-2] == words

    missing = [*words[:2], str(tmp_path / "nowhere"), *words[2:]]
    assert "nowhere: there is no such folder" in complaint(capfd, "launch", "slurm", "--array", "2", "--", *missing)
    assert "required: --out" in complaint(capfd, "launch", "slurm", "--array", "2", "--", "track", str(plate[0]))
    assert "--array: spreads track" in complaint(capfd, "launch", "slurm", "--array", "2", "--", "fit")
    assert "at least 1 job" in complaint(capfd, "launch", "slurm", "--array", "0", "--", *words)
