"""Runs a benchmark and keeps what it says, with the machine and the versions, in `benchmarks/results/NAME.md`.

python benchmarks/record.py clustering [options of clustering.py]
"""

import argparse
import datetime
import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "scikit-image", "albumentations", "opencv-python-headless")
PACKAGES += ("py-ctcmetrics", "laptrack", "lightning-cells")
ALONE = 0.5  # load below which a machine has nothing else to do


def processor() -> str:
    """The model's name, as far as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def versions() -> str:
    known = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            known.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(known)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = sorted(path.stem for path in HERE.glob("*.py") if path != Path(__file__))
    parser.add_argument("name", choices=names)
    args, options = parser.parse_known_args()
    before, start = os.getloadavg()[0], time.monotonic()
    # from the root of the project, so that configurations are found
    words = [f"benchmarks/{args.name}.py", *options]
    run = subprocess.run([sys.executable, *words], cwd=HERE.parent, stdout=subprocess.PIPE, text=True, check=False)
    print(run.stdout, end="")
    if run.returncode:
        raise SystemExit(f"{args.name} ended with status {run.returncode}: nothing was written")
    minutes, after = (time.monotonic() - start) / 60, os.getloadavg()[0]
    lines = [
        f"# {args.name}",
        "",
        f"`python {' '.join(words)}`, {datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {minutes:.0f} min",
        "",
        f"- machine: {processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        f"- versions: {versions()}",
        f"- load average {before:.1f} at the start, {after:.1f} at the end; the benchmark itself makes 1.0",
    ]
    if max(before, after - 1) > ALONE:
        lines.append("- the machine was shared with other work: process times and ratios within a run are what counts")
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    (results / f"{args.name}.md").write_text("\n".join([*lines, "", run.stdout.strip(), ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
