"""Faults as they come from life, on the whole commands: what is lost, what is left behind, what is said.

python benchmarks/faults.py kills [VERB ...]   # kill -9 at random moments; the same command again gives the same
python benchmarks/faults.py signals [VERB ...] # SIGINT and SIGTERM: no child process is left, no stack trace
python benchmarks/faults.py disk               # a full disk under fit and predict (needs the right to mount)
python benchmarks/faults.py together           # two processes in one folder; trainings and a sweep on one store
python benchmarks/faults.py requests           # good and bad requests at once to a served model
"""

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fault_cases import BATCHES, EPOCHS, TRAINING, Verb, runs, start, verbs
from harness import table

from lightning_cells.data.simulate import simulate

KILLS = {"track": 30}
FEWER = 10
PATIENCE_S = 60.0  # that a process has to end after a signal


def call(home: Path, *words: str) -> subprocess.Popen:
    """Starts a command in a session of its own, so that its children are known."""
    environment = {**os.environ, "LIGHTNING_CELLS_HOME": str(home), "OMP_NUM_THREADS": "1"}
    with (home / "log.txt").open("a") as log:
        return subprocess.Popen(
            start(home, *words), env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def whole(home: Path, *words: str) -> float:
    """Runs a command to its end; returns its seconds."""
    began = time.monotonic()
    status = call(home, *words).wait()
    assert status == 0, (words, (home / "log.txt").read_text()[-3000:])
    return time.monotonic() - began


def left(session: int) -> list[str]:
    """Processes of a session that are still there."""
    listed = subprocess.run(["ps", "-eo", "sid,pid,stat,args"], stdout=subprocess.PIPE, text=True, check=True).stdout
    return [line for line in listed.splitlines()[1:] if int(line.split()[0]) == session and line.split()[2][0] != "Z"]


def unfinished(home: Path) -> list[str]:
    """Hidden files and folders under which something was being written; locks are no such thing."""
    return [path.name for path in home.rglob(".*") if not path.name.endswith(".lock")]


def fresh(verb: Verb, folder: Path, name: str) -> Path:
    home = folder / "homes" / name
    if verb.base is None:
        home.mkdir(parents=True)
    else:
        shutil.copytree(verb.base, home)
    return home


def kills(folder: Path, chosen: list[Verb], rng: random.Random) -> None:
    rows = []
    for verb in chosen:
        unbroken = fresh(verb, folder, f"{verb.name} unbroken")
        seconds = whole(unbroken, *verb.words(unbroken))
        wanted = verb.result(unbroken)
        same, worked, traces, half = 0, 0, 0, 0
        count = KILLS.get(verb.name, FEWER)
        for number in range(count):
            home = fresh(verb, folder, f"{verb.name} {number}")
            process = call(home, *verb.words(home))
            began = time.monotonic()
            try:
                ended = process.wait(rng.uniform(0.2, 1.0) * seconds) == 0
                seconds = time.monotonic() - began  # the machine has less to do than before
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                ended = process.wait() == 0
            worked += ended
            again = (verb.again or verb.words)(home) or verb.words(home)
            try:
                if not ended:
                    whole(home, *again)
                same += verb.result(home) == wanted
            except AssertionError as error:
                print(f"{verb.name} {number}: {error}", flush=True)
            traces += "Traceback" in (home / "log.txt").read_text()
            if names := unfinished(home):
                half += 1
                print(f"{verb.name} {number}: left {names}", flush=True)
            shutil.rmtree(home)
        rows.append([verb.name, f"{seconds:.0f}", str(count), str(worked), str(same), str(half), str(traces)])
        print(rows[-1], flush=True)
    heads = ["verb", "s, unbroken", "kills", "had ended before", "same result after the same command"]
    table([*heads, "with something half-written left", "stack traces"], rows)


def signals(folder: Path, chosen: list[Verb], rng: random.Random) -> None:
    rows = []
    for verb in chosen:
        unbroken = fresh(verb, folder, f"{verb.name} whole")
        seconds = whole(unbroken, *verb.words(unbroken))
        for name in ("SIGINT", "SIGTERM"):
            for part in (0.3, 0.6, 0.85):
                home = fresh(verb, folder, f"{verb.name} {name} {part}")
                process = call(home, *verb.words(home))
                time.sleep(part * seconds)
                os.kill(process.pid, getattr(signal, name))
                began = time.monotonic()
                try:
                    status = str(process.wait(PATIENCE_S))
                except subprocess.TimeoutExpired:
                    status = "still there"
                took = time.monotonic() - began
                time.sleep(0.5)
                children = left(process.pid)
                log = (home / "log.txt").read_text()
                trace = "yes" if "Traceback" in log else "no"
                rows.append([verb.name, name, f"{part}", status, f"{took:.1f}", str(len(children)), trace])
                print(rows[-1], log[-300:] if trace == "yes" else log.strip().splitlines()[-1:], flush=True)
                if children:
                    os.killpg(process.pid, signal.SIGKILL)
    table(["verb", "signal", "after", "status", "s to the end", "processes left", "stack trace"], rows)


def disk(folder: Path, known: dict[str, Verb], rng: random.Random) -> None:
    rows = []
    for name, sizes in (("fit", (1, 3, 6, 9)), ("predict", (1,))):
        for size in sizes:
            home = folder / "homes" / f"{name} {size}"
            home.mkdir(parents=True)
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}m", "none", str(home)], check=True)
            try:
                status = call(home, *known[name].words(home)).wait()
                log = (home / "log.txt").read_text()
                whole_files = [path.name for path in home.rglob("*.ckpt")]
                rows.append(
                    [
                        name,
                        f"{size} MB",
                        str(status),
                        str(log.count("Traceback")),
                        ", ".join(whole_files),
                        log.strip().splitlines()[-1][-160:],
                    ]
                )
                print(rows[-1], flush=True)
            finally:
                subprocess.run(["umount", str(home)], check=True)
    table(["verb", "disk", "status", "stack traces", "checkpoints there", "last line"], rows)


def together(folder: Path, known: dict[str, Verb], rng: random.Random) -> None:
    for name in ("track", "predict", "simulate", "download"):
        verb = known[name]
        unbroken, home = fresh(verb, folder, f"{name} alone"), fresh(verb, folder, f"{name} two")
        whole(unbroken, *verb.words(unbroken))
        statuses = [process.wait() for process in [call(home, *verb.words(home)) for _ in range(2)]]
        same = verb.result(home) == verb.result(unbroken)
        last = (home / "log.txt").read_text().strip().splitlines()[-1][:150]
        print(
            f"two of {name} in one folder: statuses {statuses}, result {'the same' if same else 'DIFFERS'}; {last}",
            flush=True,
        )
    home = folder / "homes" / "store"
    home.mkdir(parents=True)
    training = known["fit"].words(home)
    words = known["sweep"].words(home)
    processes = [call(home, *training), call(home, *training), call(home, *words, "--workers", "3", "--trials", "6")]
    statuses = [process.wait() for process in processes]
    log = (home / "log.txt").read_text()
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    lost = []
    for run in runs(home):
        points = {point.step for point in client.get_metric_history(run.info.run_id, "train/loss_step")}
        expected = int(run.data.params.get("data.batches_per_epoch", 0)) * int(
            run.data.params.get("trainer.max_epochs", 0)
        )
        if points and run.data.params.get("trainer.log_every_n_steps", "1") == "1" and expected == BATCHES * EPOCHS:
            lost.append(expected - len(points))
    states = Counter(run.info.status for run in runs(home))
    print(f"two trainings and a sweep of three workers on one store: statuses {statuses}, points lost {lost}")
    print(f"runs {dict(states)}, trials that count and that hang: {known['sweep'].result(home)}")
    print(f"stack traces {log.count('Traceback')}, 'locked' {log.count('locked')}", flush=True)


def requests(folder: Path, known: dict[str, Verb], rng: random.Random) -> None:
    verb = known["register"]
    home = fresh(verb, folder, "served")
    whole(home, *verb.words(home))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow.db'}", "OMP_NUM_THREADS": "1"}
    environment["PATH"] = (
        f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # MLflow calls uvicorn by name
    )
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        "models:/cells/1",
        "--env-manager",
        "local",
        "--port",
        str(port),
    ]
    with (home / "server.txt").open("w") as log:
        server = subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        frame = [[rng.randrange(400) for _ in range(64)] for _ in range(64)]
        good = json.dumps({"inputs": [frame, frame]})
        bad = [
            json.dumps({"inputs": [frame[:3], frame]}),
            "{",
            json.dumps({"inputs": "cells"}),
            json.dumps({"inputs": [[[-1.5]]]}),
        ]

        def ask(body: str) -> int:
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/invocations", body.encode(), {"Content-Type": "application/json"}
            )
            try:
                with urllib.request.urlopen(request, timeout=300) as answer:
                    return len(json.loads(answer.read())["predictions"]["labels"]) and answer.status
            except urllib.error.HTTPError as error:
                return error.code
            except (OSError, KeyError, ValueError):
                return -1

        for _ in range(120):
            if ask(good) == 200:
                break
            time.sleep(1)
        bodies = [good] * 50 + [bad[number % len(bad)] for number in range(50)]
        rng.shuffle(bodies)
        began = time.monotonic()
        with ThreadPoolExecutor(100) as pool:
            answers = list(pool.map(ask, bodies))
        seconds = time.monotonic() - began
        print(
            "good:",
            dict(Counter(a for a, b in zip(answers, bodies, strict=True) if b == good)),
            "bad:",
            dict(Counter(a for a, b in zip(answers, bodies, strict=True) if b != good)),
            f"{seconds:.0f} s; afterwards a good one: {ask(good)}",
        )
    finally:
        os.killpg(server.pid, signal.SIGTERM)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fault", choices=("kills", "signals", "disk", "together", "requests"))
    parser.add_argument("verbs", nargs="*", metavar="VERB", help="(default: all)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what runs in the background deaf to it
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = simulate(folder / "data", sequences=3, frames=24, size=(96, 96), seed=5)
        trained = folder / "trained"
        trained.mkdir()
        whole(trained, "fit", *TRAINING, "--data.root", str(data))
        known = verbs(folder, trained)
        if args.fault in ("kills", "signals"):
            chosen = [known[verb] for verb in args.verbs or known]
            (kills if args.fault == "kills" else signals)(folder, chosen, rng)
        else:
            {"disk": disk, "together": together, "requests": requests}[args.fault](folder, known, rng)


if __name__ == "__main__":
    main()
