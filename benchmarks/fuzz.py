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
from collections import Counter
from pathlib import Path

import psutil
from fuzz_kinds import KINDS, Kind

SECONDS, GIGABYTES = 20, 2
OUTCOMES = ("right", "error", "accepted", "trace", "slow", "large")


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
    print(f"{'':14s}" + "".join(f"{name:>10s}" for name in OUTCOMES), flush=True)
    for name in [args.kind] if args.kind else KINDS:
        numbers = range(round(KINDS[name].count * args.share))
        found = fuzz(name, args.seed, numbers if args.only is None else range(args.only, args.only + 1))
        counts = Counter(outcome for outcome, _ in found.values())
        total += counts
        print(f"{name:14s}" + "".join(f"{counts[outcome]:10d}" for outcome in OUTCOMES), flush=True)
        for number, (outcome, said) in found.items():
            if outcome in ("trace", "slow", "large") or args.only is not None:
                print(f"  {name} {number}: {outcome} {said}", flush=True)
                bad += outcome in ("trace", "slow", "large")
    print(f"{'all':14s}" + "".join(f"{total[outcome]:10d}" for outcome in OUTCOMES))
    print(f"{total.total()} inputs in {time.monotonic() - began:.0f} s, seed {args.seed}")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
