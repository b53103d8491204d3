"""Runs benchmarks and keeps what they say, with the machine and the versions, in `benchmarks/results`.

python benchmarks/record.py                                   # all that compare speeds, then the summary
python benchmarks/record.py clustering [options of clustering.py]
python benchmarks/record.py summary                           # of what is in results/

NAME.md is for people and NAME.json for programs. The summary is of all targets: results/README.md and targets.png.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results"
SPEED = ("startup", "loading", "augmentation", "cosine_loss", "measures", "volume_measures")
SPEED += ("clustering", "steps", "scaling", "overhead", "track_parts", "track")
PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "scikit-image", "albumentations", "opencv-python-headless")
PACKAGES += ("py-ctcmetrics", "traccuracy", "laptrack", "keras", "SimpleITK", "lightning", "lightning-cells")
ALONE = 0.5  # load beside a benchmark below which a machine has nothing else to do


def processor() -> str:
    """The model's name, as far as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def bfloat16() -> str:
    """Which of the instructions that speed bfloat16 up the processor has, as far as the system tells it."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return "bfloat16 not known"
    found = [name for flag, name in (("amx_bf16", "AMX"), ("avx512_bf16", "AVX512-BF16")) if flag in flags]
    return f"bfloat16 by {' and '.join(found)}" if found else "no bfloat16"


def versions() -> dict[str, str]:
    known = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            known[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return known


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]


def tables(text: str) -> list[dict]:
    """The Markdown tables in a text, with the heading above each."""
    found: list[dict] = []
    heading = ""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("|") and number + 1 < len(lines) and lines[number + 1].startswith("|---"):
            found.append({"heading": heading, "columns": cells(line), "rows": []})
        elif line.startswith("|") and not line.startswith("|---") and found:
            found[-1]["rows"].append(cells(line))
    return found


def record(name: str, options: list[str]) -> None:
    """Runs one benchmark from the root of the project, so that configurations are found."""
    before, start = os.getloadavg()[0], time.monotonic()
    words = [f"benchmarks/{name}.py", *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, *words], cwd=HERE.parent, env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    print(run.stdout, end="", flush=True)
    if run.returncode:
        raise SystemExit(f"{name} ended with status {run.returncode}: nothing was written")
    minutes, after = (time.monotonic() - start) / 60, os.getloadavg()[0]
    about = {
        "command": f"python {' '.join(words)}",
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
        "minutes": round(minutes, 1),
        "machine": f"{processor()}, {bfloat16()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "versions": versions(),
        "load": [round(before, 1), round(after, 1)],
    }
    lines = [
        f"# {name}",
        "",
        f"`{about['command']}`, {about['date']}, {minutes:.0f} min",
        "",
        f"- machine: {about['machine']}",
        f"- versions: {', '.join(f'{package} {version}' for package, version in about['versions'].items())}",
        f"- load average {before:.1f} at the start, {after:.1f} at the end; the benchmark itself makes 1.0",
    ]
    if max(before, after) - 1 > ALONE:  # what came just before may have been a benchmark, too
        lines.append("- the machine was shared with other work: process times and ratios within a run are what counts")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text("\n".join([*lines, "", run.stdout.strip(), ""]), encoding="utf-8")
    kept = json.dumps(about | {"tables": tables(run.stdout)}, indent=1)
    (RESULTS / f"{name}.json").write_text(kept + "\n", encoding="utf-8")


def summary() -> None:
    """Collects the targets of all results in a table and a picture."""
    rows = []
    for path in sorted(RESULTS.glob("*.json")):
        for found in json.loads(path.read_text())["tables"]:
            if found["columns"][0] == "target":
                rows += [[*row, f"[{path.stem}]({path.stem}.md)"] for row in found["rows"]]
    lines = ["# Targets", "", "| target | wanted | measured | met | table |", "|---|---|---|---|---|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    lines += ["", "![How far each target was reached](targets.png)", ""]
    (RESULTS / "README.md").write_text("\n".join(lines), encoding="utf-8")
    draw(rows)


def draw(rows: list[list[str]]) -> None:
    """How far each target was reached: to the right of the line it was."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names, reached = [], []
    for name, wanted, measured, *_ in reversed(rows):
        *kind, limit, _ = wanted.split()
        share = float(measured.split()[0]) / float(limit)
        names.append(f"{name} ({measured})")
        reached.append(share if kind == ["at", "least"] else 1 / share)
    figure, axes = plt.subplots(figsize=(9, 0.35 * len(rows) + 1))
    axes.barh(names, [value - 1 for value in reached], left=1, color=["C0" if v >= 1 else "C1" for v in reached])
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("times better than wanted")
    figure.tight_layout()
    figure.savefig(RESULTS / "targets.png", dpi=100)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    here = Path(__file__)
    names = sorted(path.stem for path in HERE.glob("*.py") if path != here and "__main__" in path.read_text("utf-8"))
    parser.add_argument(
        "name", nargs="?", choices=[*names, "summary"], help="one of them alone (default: all of speed)"
    )
    args, options = parser.parse_known_args()
    for name in [args.name] if args.name else SPEED:
        if name != "summary":
            record(name, options)
    summary()


if __name__ == "__main__":
    main()
