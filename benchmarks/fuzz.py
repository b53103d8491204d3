"""Thousands of damaged inputs, counted by what becomes of each. None may end in a stack trace, or take too much.

    python benchmarks/fuzz.py [--seed 0] [--share 1.0]
    python benchmarks/fuzz.py --kind checkpoint --only 123       one input again, with what is said of it

Each input is a small right one that is damaged at random: by its kind, the seed and its number alone. It is read in a
worker with limits on time and memory, by the functions that the verbs read it with. Outcomes:

right       read, with the same content as the undamaged one
error       refused by one line
accepted    read, with another content: what no reader can see, such as another valid number, or what one should have
trace       any other exception
slow        longer than 20 s
large       more than 2 GB
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psutil

SECONDS, GIGABYTES = 20, 2
OUTCOMES = ("right", "error", "accepted", "trace", "slow", "large")
NESTED = 3_000
NUMBERS = ["-1", "0", "65536", "1e400", "nan", "9" * 5_000, str(2**63), "0x10", "1_000", "٣", "", "01"]
TEXTS = ["&a [*a]", "[" * NESTED, "{a: " * 30, "!!python/name:os.system", "\0", "\ufeff", "'", "\t", "null", "<<: *b"]
TEXTS += [
    "class_path: os.system",
    "a" * 100_000,
    "é" * 200,
    "../../x",
    "- " * NESTED,
    "? [x]: y",
    "2026-01-01",
    "${HOME}",
]
VALUES: list[Any] = [None, True, -1, 0, 10**9, 10**5_000, 1e308, float("nan"), "", "x", "os.system", "a/b", [], {}]
VALUES += ["x" * 10**6, {"class_path": "os.system"}, {"class_path": "lightning_cells.cli.main"}, [1] * 10**5, "&a [*a]"]


class Kind(NamedTuple):
    """A kind of input.

    Attributes:
        count: how many are tried.
        make: writes the right one into a folder.
        damage: changes it.
        read: what is read of it, to be compared.
    """

    count: int
    make: Callable[[Path], None]
    damage: Callable[[Path, random.Random], None]
    read: Callable[[Path], Any]


def damage_bytes(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if not data:
        return
    near = min(len(data), 512) if rng.random() < 0.5 else len(data)  # headers are where it matters
    place, length = rng.randrange(near), rng.choice((1, 2, 4, 8, 64))
    match rng.randrange(7):
        case 0:
            del data[place:]
        case 1:
            data[place : place + length] = bytes(length)
        case 2:
            data[place : place + length] = b"\xff" * length
        case 3:
            data[place : place + length] = rng.randbytes(length)
        case 4:
            data[place] ^= 1 << rng.randrange(8)
        case 5:
            data[place:place] = rng.randbytes(length)
        case _:
            data[place : place + length] = b""
    path.write_bytes(data)


def damage_text(path: Path, rng: random.Random) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    place = rng.randrange(len(lines))
    words = lines[place].split(" ")
    match rng.randrange(6):
        case 0:
            words[rng.randrange(len(words))] = rng.choice(NUMBERS)
        case 1:
            words[rng.randrange(len(words))] = rng.choice(TEXTS)
        case 2:
            words.insert(rng.randrange(len(words) + 1), rng.choice(NUMBERS + TEXTS))
        case 3:
            words = [rng.choice(("", "  ")) + lines[rng.randrange(len(lines))]]
        case 4:
            words.pop(rng.randrange(len(words)))
        case _:
            damage_bytes(path, rng)
            return
    lines[place] = " ".join(words)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def damage_file(path: Path, rng: random.Random) -> None:
    """Puts something else in its place."""
    match rng.randrange(7):
        case 0:
            path.unlink()
        case 1:
            path.write_bytes(b"")
        case 2:
            path.unlink()
            path.mkdir()
        case 3:
            path.unlink()
            os.mkfifo(path)
        case 4:
            path.unlink()
            path.symlink_to(path.name)
        case 5:
            path.unlink()
            path.symlink_to("/dev/zero")
        case _:
            name = rng.choice(["x", "999999999999999999999", "-1", "²", "000", "1.5", "9" * 100]) + path.suffix
            path.rename(path.with_name(path.stem.rstrip("0123456789") + name))


def damage_folder(folder: Path, rng: random.Random) -> None:
    path = rng.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    if rng.random() < 0.25:
        damage_file(path, rng)
    else:
        (damage_text if path.suffix in (".txt", ".yaml") else damage_bytes)(path, rng)


def video(size: int = 24) -> tuple[Any, Any]:
    import numpy as np

    frames = np.random.default_rng(0).integers(0, 60, (3, size, size)).astype(np.uint16)
    labels = np.zeros((3, size, size), np.uint16)
    for number in range(3):
        labels[number, 3 + number : 9 + number, 3:9] = 1
        if number:
            labels[number, 14:20, 14:20] = 2
    return frames + 100 * (labels > 0).astype(np.uint16), labels


def write(folder: Path, name: str, images: Any, table: str | None = None) -> None:
    import tifffile

    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        tifffile.imwrite(folder / f"{name}{number:03d}.tif", image, compression="zlib" if number else None)
    if table is not None:
        (folder / table).write_text("1 0 2 0\n2 1 2 0\n")


def make_result(folder: Path) -> None:
    write(folder / "RES", "mask", video()[1], "res_track.txt")
    write(folder / "GT" / "TRA", "man_track", video()[1], "man_track.txt")
    write(folder / "GT" / "SEG", "man_seg", video()[1])


def read_result(folder: Path) -> Any:
    from lightning_cells.metrics.evaluate import evaluate

    return evaluate(folder / "RES", folder / "GT").as_dict()


def make_frames(folder: Path) -> None:
    write(folder / "frames", "t", video()[0])


def read_frames(folder: Path) -> Any:
    from lightning_cells.data.frames import open_frames

    with open_frames(next(folder.iterdir(), folder / "gone")) as frames:
        return [frames.read(index).tolist() for index in range(len(frames))]


def make_stack(folder: Path) -> None:
    import tifffile

    tifffile.imwrite(folder / "stack.tif", video()[0], imagej=True, metadata={"axes": "TYX"})


def make_data(folder: Path) -> None:
    write(folder / "01", "t", video()[0])
    write(folder / "01_GT" / "TRA", "man_track", video()[1], "man_track.txt")
    write(folder / "01_GT" / "SEG", "man_seg", video()[1])


def read_data(folder: Path) -> Any:
    from lightning_cells.data.datamodule import SequenceDataModule

    with tempfile.TemporaryDirectory() as home:
        os.environ["LIGHTNING_CELLS_HOME"] = home
        data = SequenceDataModule(root=str(folder), clip_length=1)
        data.setup("fit")
        return [[s.frames.tolist(), s.labels.tolist(), s.lineage] for s in data.sequences["train"]]


def make_checkpoint(folder: Path) -> None:
    import torch

    from lightning_cells.methods import ULSTM

    torch.manual_seed(0)
    method = ULSTM(channels=(4, 6), lstm_kernel=3)
    settings = {"method": "lightning_cells.methods.ulstm.ULSTM", "data": {"normalisation": "zscore", "scale": 1.0}}
    content = {"state_dict": method.state_dict(), "hyper_parameters": dict(method.hparams)}
    content |= {"lightning_cells": settings | {"diameter": 12.0}, "pytorch-lightning_version": "2.6.0"}
    torch.save(content, folder / "best.ckpt")


def damage_checkpoint(folder: Path, rng: random.Random) -> None:
    import torch

    path = folder / "best.ckpt"
    if rng.random() < 0.4:
        (damage_file if rng.random() < 0.05 else damage_bytes)(path, rng)
        return
    content = torch.load(path, weights_only=True)
    part = rng.choice([content, content["hyper_parameters"], content["lightning_cells"], content["state_dict"]])
    while True:
        key = rng.choice(list(part) if isinstance(part, dict) else range(len(part)))
        if not isinstance(part[key], dict | list) or not part[key] or rng.random() < 0.3:
            break
        part = part[key]
    value = rng.choice(VALUES)
    if isinstance(part[key], torch.Tensor) and rng.random() < 0.7:
        weights = part[key].clone()
        changes = [weights * float("nan"), weights.to(torch.complex64), weights.flatten()[:0], weights.half()]
        changes += [weights.bool(), weights.double(), weights.to_sparse(), torch.zeros(1).expand(10**6, 10**6)]
        value = rng.choice(changes)
    if rng.random() < 0.15 and isinstance(part, dict):
        part.pop(key)
    else:
        part[key] = value
    torch.save(content, path)


def read_checkpoint(folder: Path) -> Any:
    from lightning_cells.methods.building import load_method

    method, preprocessing = load_method(next(folder.iterdir(), folder / "best.ckpt"))
    weights = sum(float(value.double().sum()) for value in method.state_dict().values())
    return [dict(method.hparams), preprocessing, weights]


def make_config(folder: Path) -> None:
    import yaml

    from lightning_cells.paths import shipped

    method = yaml.safe_load(shipped("conf/method/ulstm/tiny.yaml").read_text())
    method["data"] |= {"root": "x", "train": ["01", "02"], "val": ["03[0:5]"]}
    (folder / "fit.yaml").write_text(yaml.safe_dump(method))


def damage_yaml(folder: Path, rng: random.Random) -> None:
    (path,) = folder.iterdir()
    (damage_file if rng.random() < 0.05 else damage_text)(path, rng)


RESOLVER: list[Any] = []


def read_config(folder: Path) -> Any:
    from lightning_cells.cli.resolving import Resolver

    if not RESOLVER:
        RESOLVER.append(Resolver())
    path = next(folder.iterdir(), folder / "fit.yaml")
    return RESOLVER[0].resolve(["-c", str(path)]).as_dict() | {"config": None}


def make_sweep(folder: Path) -> None:
    from lightning_cells.paths import shipped

    shutil.copy(shipped("sweeps/ulstm_loss.yaml"), folder / "sweep.yaml")


def read_sweep(folder: Path) -> Any:
    from lightning_cells.experiments.tuning.study import make_pruner, make_sampler
    from lightning_cells.experiments.tuning.study_file import StudyFile

    plan = StudyFile.read(next(folder.iterdir(), folder / "sweep.yaml"))
    make_sampler(plan)
    make_pruner(plan)
    return [repr(plan).replace(str(folder), ""), plan.words(plan.space.lowest())]


def make_table(folder: Path) -> None:
    from lightning_cells.paths import shipped

    shutil.copy(shipped("conf/reproduce/ulstm-loss.yaml"), folder / "table.yaml")


def read_table(folder: Path) -> Any:
    from lightning_cells.experiments.papers.table import read_table as read

    return repr(read(str(next(folder.iterdir(), folder / "table.yaml")))).replace(str(folder), "")


def make_archive(folder: Path) -> None:
    make_data(folder / "set")
    with zipfile.ZipFile(folder / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((folder / "set").rglob("*.t*")):
            archive.write(path, f"set/{path.relative_to(folder / 'set')}")
    shutil.rmtree(folder / "set")


def damage_archive(folder: Path, rng: random.Random) -> None:
    path = folder / "set.zip"
    if rng.random() < 0.7:
        damage_bytes(path, rng)
        return
    names = ["x" * 300, "é" * 200, "a/" * 1_500 + "b", "../x", "/x", "set/01/t000.tif", "C:x", "set", "a\0b", "x\\y"]
    with zipfile.ZipFile(path, "a", rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))) as archive:
        info = zipfile.ZipInfo(rng.choice(names))
        info.external_attr = rng.choice((0, 0o120777, 0o020666, 0o100000)) << 16
        archive.writestr(info, bytes(rng.choice((0, 10, 10**7))))


def read_archive(folder: Path) -> Any:
    from lightning_cells.data.archive import extract

    target = folder / "out"
    extract(folder / "set.zip", target, "set.zip")
    return {str(path.relative_to(target)): path.read_bytes() for path in target.rglob("*") if path.is_file()}


KINDS = {
    "result": Kind(2_500, make_result, damage_folder, read_result),
    "frames": Kind(2_000, make_frames, damage_folder, read_frames),
    "stack": Kind(1_000, make_stack, damage_folder, read_frames),
    "data": Kind(1_000, make_data, damage_folder, read_data),
    "checkpoint": Kind(1_500, make_checkpoint, damage_checkpoint, read_checkpoint),
    "config": Kind(500, make_config, damage_yaml, read_config),
    "sweep": Kind(800, make_sweep, damage_yaml, read_sweep),
    "table": Kind(400, make_table, damage_yaml, read_table),
    "archive": Kind(1_500, make_archive, damage_archive, read_archive),
}


class TooLong(BaseException):
    """It has taken longer than it may."""


def tried(kind: Kind, seed: str, right: Path, expected: str, place: Path) -> tuple[str, str]:
    """What becomes of one input, and what is said of it."""
    from lightning_cells.errors import InputError

    folder = place / "input"
    shutil.copytree(right, folder)
    try:
        kind.damage(folder, random.Random(seed))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        outcome, said = "right", ""
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            if repr(kind.read(folder)) != expected:
                outcome = "accepted"
        except InputError as error:
            outcome, said = "error" if "\n" not in str(error) else "trace", str(error)
        except (Exception, SystemExit) as error:
            outcome, said = "trace", f"{type(error).__name__}: {error}"
        except TooLong:
            outcome = "slow"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before > GIGABYTES * 10**6:
            outcome = "large"
        return outcome, said[:300]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def work(name: str, seed: int, numbers: range) -> None:
    """Tries some inputs, and prints a line for each."""
    import torch

    def too_long(*_: object) -> None:
        raise TooLong

    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, too_long)
    os.environ.pop("LIGHTNING_CELLS_DATA", None)
    kind = KINDS[name]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as temporary:
        right, place = Path(temporary, "right"), Path(temporary, "place")
        right.mkdir()
        place.mkdir()
        kind.make(right)
        shutil.copytree(right, place / "input")
        expected = repr(kind.read(place / "input"))
        shutil.rmtree(place / "input")
        used = psutil.Process().memory_info().vms
        resource.setrlimit(resource.RLIMIT_AS, (used + 3 * 10**9,) * 2)
        for number in numbers:
            outcome, said = tried(kind, f"{name} {seed} {number}", right, expected, place)
            print(json.dumps([number, outcome, said]), flush=True)


def fuzz(name: str, seed: int, numbers: range) -> dict[int, tuple[str, str]]:
    """Has a worker try some inputs, and another go on behind one that it does not survive."""
    known: dict[int, tuple[str, str]] = {}
    start = numbers.start
    while start < numbers.stop:
        command = [sys.executable, __file__, "--worker", name, str(seed), str(start), str(numbers.stop)]
        with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.DEVNULL)
            size, last = 0, time.monotonic()
            while process.poll() is None:
                time.sleep(0.1)
                if (now := os.fstat(log.fileno()).st_size) > size:
                    size, last = now, time.monotonic()
                elif time.monotonic() - last > 3 * SECONDS + 60:  # it does not even hear the alarm
                    process.kill()
            log.seek(0)
            known |= {number: (outcome, said) for number, outcome, said in map(json.loads, log)}
        start = max(known, default=start - 1) + 1
        if start < numbers.stop:
            status = process.wait()
            known[start] = "slow" if status == -signal.SIGKILL else "trace", f"the process ended with {status}"
            start += 1
    return known


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="of the inputs of each kind")
    parser.add_argument("--kind", choices=KINDS, help="this one alone")
    parser.add_argument("--only", type=int, help="this input alone")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        name, *others = args.worker
        seed, start, stop = map(int, others)
        work(name, seed, range(start, stop))
        return
    began, total, bad = time.monotonic(), Counter[str](), 0
    print(f"{'':12s}" + "".join(f"{name:>10s}" for name in OUTCOMES), flush=True)
    for name in [args.kind] if args.kind else KINDS:
        numbers = range(round(KINDS[name].count * args.share))
        found = fuzz(name, args.seed, numbers if args.only is None else range(args.only, args.only + 1))
        counts = Counter(outcome for outcome, _ in found.values())
        total += counts
        print(f"{name:12s}" + "".join(f"{counts[outcome]:10d}" for outcome in OUTCOMES), flush=True)
        for number, (outcome, said) in found.items():
            if outcome in ("trace", "slow", "large") or args.only is not None:
                print(f"  {name} {number}: {outcome} {said}", flush=True)
                bad += outcome in ("trace", "slow", "large")
    print(f"{'all':12s}" + "".join(f"{total[outcome]:10d}" for outcome in OUTCOMES))
    print(f"{total.total()} inputs in {time.monotonic() - began:.0f} s, seed {args.seed}")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
