"""What may befall a right input: random damage to bytes, lines, files, checkpoints and archives."""

import json
import os
import random
import zipfile
from pathlib import Path
from typing import Any

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
AXES = [None, "TYX", "ZYX", "TZYX", "tzyx", "", "YX", "XYZ", "TZCYX", "\0"]
"""What may be said of axes; of a voxel any of these sides."""
SIDES = [1, 0.2, 0, -1, 1e308, 1e-308, float("nan"), float("inf")]


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


def damage_yaml(folder: Path, rng: random.Random) -> None:
    (path,) = folder.iterdir()
    (damage_file if rng.random() < 0.05 else damage_text)(path, rng)


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


def damage_volumes(folder: Path, rng: random.Random) -> None:
    """Damages the images, or what is said of them beside."""
    if rng.random() < 0.8:
        damage_folder(folder / "images", rng)
        return
    voxel = rng.choice([None, rng.choices(SIDES, k=3), rng.choices(SIDES, k=rng.randrange(5))])
    (folder / "said.json").write_text(json.dumps({"axes": rng.choice(AXES), "voxel": voxel}))
