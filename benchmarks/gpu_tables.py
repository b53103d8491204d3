"""The tables of what `gpu.py` has measured."""

from collections.abc import Iterable, Sequence
from typing import Any

from harness import Target, print_targets, table

Line = dict[str, Any]
WANTED = {"rshn": 5.0, "ulstm": 20.0}  # frames per second


def report(lines: Sequence[Line], cuda: bool) -> None:
    """Prints what lines say, and on a GPU how it compares with what was wanted."""
    device = next((line for line in lines if "peaks" in line), {})
    peaks = device.get("peaks", {})
    versions = ", ".join(f"{name} {version}" for name, version in device.get("versions", {}).items() if version)
    memory = f", {device['memory_gb']} GB" if device.get("memory_gb") else ""
    print(f"{device.get('name', 'an unknown device')}{memory}; {versions}\n")
    steps = [line for line in lines if "variant" in line and line["variant"] != "events"]
    _limits(lines, peaks if cuda else {})
    print("### Steps of training\n")
    speeds = {line["preset"]: line["operations"] for line in lines if "operations" in line}
    columns = ["preset", "step", "wall ms", "Python ms", "ms per clip", "memory GB", "first call s", "TFLOP/s", ""]
    # of the presets' own batches, in the paper's size
    table(columns, (_step(line, speeds if cuda else {}) for line in steps))
    print("### Clustering of a tile in two frames\n")
    found = [line for line in lines if line["part"] == "clustering" and "algorithm" in line]
    rows = ([line["cells"], line["algorithm"], line["place"], *_values(line, ("wall_ms", "same"))] for line in found)
    table(["cells", "algorithm", "on", "wall ms", "pixels with the same label", ""], rows)
    print("### track\n")
    print("the RSHN's paper: 4.5 s (512 x 512) to 140 s (1100 x 700) per frame, 0.22 to 0.007 frames per second\n")
    times = {line["method"]: line["ms"] for line in lines if "ms" in line}
    parts = [*next(iter(times.values()), {})]
    found = [line for line in lines if "frames_per_second" in line]
    rows = (
        [line["method"], line["tracks"], line["frames_per_second"], *times.get(line["method"], {}).values()]
        for line in found
    )
    table(["method, tiny", "tracks", "frames per second", *(f"{part} ms" for part in parts)], rows)
    print("### Training of the RSHN\n")
    found = [line for line in lines if "training" in line]
    names = ("steps", "seconds", "waited_s", "peak_gb", "SEG", "DET", "TRA")
    rows = ([line["training"], *_values(line, names)] for line in found)
    table(["", "steps", "s", "of it waited for data s", "memory GB", "SEG", "DET", "TRA", ""], rows)
    print("### Parts\n")
    found = [line for line in lines if "ended" in line or set(line) == {"part", "skipped"}]
    rows = (
        [line["part"], line.get("seconds", ""), line.get("ended", line.get("skipped")), line.get("said", "")]
        for line in found
    )
    table(["part", "s", "status", ""], rows)
    if cuda:
        print_targets(_targets(lines))


def _limits(lines: Sequence[Line], peaks: dict[str, float]) -> None:
    """What bounds a step: its operations at the speed of a matrix product, and its kernels one by one."""
    print("### Limits of a step\n")
    if peaks:
        print(f"a large matrix product reaches (TFLOP/s): {', '.join(f'{k} {v:g}' for k, v in peaks.items())}\n")
    events = {line["preset"]: line for line in lines if line.get("variant") == "events"}
    rows = []
    for line in lines:
        if "operations" not in line:
            continue
        at = [f"{line['operations'] / speed / 1e9:.2f}" for speed in peaks.values()]
        seen = events.get(line["preset"], {})
        waits = ", ".join(seen["waits"]) or "none" if "waits" in seen else ""
        row = [line["preset"], f"{line['operations'] / 1e12:.2f}", *at]
        rows.append([*row, seen.get("kernels", ""), seen.get("busy_ms", ""), waits])
    at = [f"ms at the speed of {name}" for name in peaks]
    table(["paper", "TFLOP", *at, "kernels, bfloat16", "busy ms", "waits"], rows)


def _step(line: Line, operations: dict[str, float]) -> list[object]:
    count, own = operations.get(line["preset"]), not line["variant"].startswith("batch of")
    speed = f"{count / line['wall_ms'] / 1e9:.1f}" if count and own and "wall_ms" in line else ""
    *values, trouble = _values(line, ("wall_ms", "python_ms", "clip_ms", "peak_gb", "first_s"))
    return [line["preset"], line["variant"], *values, speed, trouble]


def _values(line: Line, names: Iterable[str]) -> list[object]:
    """Values by name, where there are some, and what went wrong."""
    values = ["" if line.get(name) is None else line[name] for name in names]
    return [*values, line.get("error", line.get("skipped", ""))]


def _targets(lines: Sequence[Line]) -> list[Target]:
    """What was wanted of an H100."""
    found = {(line["preset"], line["variant"]): line for line in lines if "variant" in line and "wall_ms" in line}
    targets = []
    for preset, variants, value, wanted in (
        ("rshn", "", "wall_ms", 25.0),
        ("rshn", "batch of 8", "clip_ms", 16.0),
        ("ulstm", "", "wall_ms", 50.0),
    ):
        fits = [
            line[value]
            for (which, variant), line in found.items()
            if which == preset and (variant == variants if variants else variant.startswith("bfloat16"))
        ]
        if fits:
            name = f"{preset} paper, {variants or 'best step'}, bfloat16" + (", per clip" if variants else "")
            targets.append(Target(name, wanted, min(fits), "ms", at_least=False))
    for line in lines:
        if "frames_per_second" in line:
            what = f"track, {line['method']} tiny, 1024 x 1024"
            targets.append(Target(what, WANTED[line["method"]], line["frames_per_second"], "frames/s"))
    return targets
