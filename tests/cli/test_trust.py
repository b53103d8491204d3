"""A checkpoint is a stranger: what it names is not imported unless the user allows it, and it takes no more than it is.

What the user says, on the command line or in a file, is the user's.
"""

import os
import resource
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import seeing
import torch
import yaml
from cli_cases import QUIET, SHORT, SPLIT, complaint, say

import lightning_cells as lc
from lightning_cells.cli import main
from lightning_cells.errors import InputError
from lightning_cells.methods import ULSTM
from lightning_cells.methods.loading import SETTINGS, checkpoint_settings
from lightning_cells.trust import ALLOW_VARIABLE, class_paths

Capture = pytest.CaptureFixture[str]
LAB = """
from dataclasses import dataclass
from pathlib import Path

from lightning_cells.instances.components import SeedDecoder

Path(__file__).with_name("imported").touch()


@dataclass(frozen=True)
class Decoder(SeedDecoder):
    note: str = ""

    def __post_init__(self) -> None:
        pass
"""
EVIL = "their_lab.Decoder"


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that is there as soon as the package ``their_lab`` was imported."""
    folder = tmp_path / "packages"
    folder.mkdir()
    (folder / "their_lab.py").write_text(LAB)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(folder)
    yield folder / "imported"
    sys.modules.pop("their_lab", None)


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = seeing.save(seeing.methods()["ulstm"], tmp_path_factory.mktemp("checkpoint") / "ulstm.ckpt")
    return {**torch.load(path, weights_only=True), "pytorch-lightning_version": "2.6.0"}


def saved(content: dict[str, Any], path: Path, method: str | None = None, **options: Any) -> Path:
    settings = content[SETTINGS] | ({} if method is None else {"method": method})
    torch.save({**content, "hyper_parameters": content["hyper_parameters"] | options, SETTINGS: settings}, path)
    return path


NAMED = {
    "as an option's class": {"decoder": {"class_path": EVIL, "init_args": {}}},
    "as an option": {"decoder": EVIL},
    "in YAML within a text": {"decoder": f"{{class_path: {EVIL}}}"},
    "in YAML within YAML": {"decoder": f"'{{class_path: \"{EVIL}\"}}'"},
    "with a remark": {"decoder": f" {EVIL}  # fine"},
    "deeper": {"linker": {"class_path": "lightning_cells.instances.linkers.Overlap", "init_args": {"x": [EVIL]}}},
    "in a name": {EVIL: 1},
    "in a file": {"decoder": "decoder.yaml"},
    "as a short name's value": {"loss": EVIL},
}


@pytest.mark.parametrize("how", NAMED)
@pytest.mark.parametrize("verb", ["track", "predict", "fit"])
def test_what_a_checkpoint_names_is_not_imported(
    how: str, verb: str, content: dict[str, Any], imported: Path, simulated: Path, home: Path, capfd: Capture
) -> None:
    Path("decoder.yaml").write_text(yaml.safe_dump({"class_path": EVIL}))
    bad = saved(content, home / "bad.ckpt", **NAMED[how])
    words = {
        "track": [simulated / "01", "--checkpoint", bad, "--out", home / "RES"],
        "predict": [*QUIET, *SPLIT, "--data.root", simulated, "--ckpt_path", bad],
        "fit": [*QUIET, *SPLIT, *SHORT, "--data.root", simulated, "--init", bad],
    }
    line = complaint(capfd, verb, *words[verb])
    assert not imported.exists()
    assert str(bad) in line
    if how != "in a file":
        assert "give --allow their_lab" in line


STRANGE = [EVIL, f"{EVIL}#", f" {EVIL}", "their_lab", "..their_lab.X", "os.system"]
STRANGE += [
    f"lightning_cells.methods.{name}" for name in ("loading.pickle.loads", "base.LightningModule", "base.torch")
]


@pytest.mark.parametrize("method", STRANGE)
def test_a_method_that_is_none_of_ours(method: str, content: dict[str, Any], imported: Path, home: Path) -> None:
    with pytest.raises(InputError, match=r"^\S+bad.ckpt (names|does not fit)"):
        lc.load(saved(content, home / "bad.ckpt", method))
    assert not imported.exists()


def test_the_user_allows_a_package(
    content: dict[str, Any], imported: Path, simulated: Path, home: Path, capfd: Capture
) -> None:
    own = saved(content, home / "own.ckpt", decoder={"class_path": EVIL, "init_args": {"note": "any text: a/b {"}})
    words = ["track", simulated / "01", "--checkpoint", own, "--out", home / "RES"]
    assert "--allow their_lab" in complaint(capfd, *words)
    assert "--allow 1x" in complaint(capfd, *words, "--allow", "1x")
    assert say(capfd, *words, "--allow", "my_lab,their_lab").status == 0
    assert imported.exists()
    assert ALLOW_VARIABLE not in os.environ, "it holds for one call"
    assert type(lc.load(own, allow="their_lab").method.decoder).__name__ == "Decoder"
    assert os.environ.pop(ALLOW_VARIABLE) == "their_lab"


def test_the_users_own_words_are_the_users(
    content: dict[str, Any], imported: Path, simulated: Path, home: Path, capfd: Capture
) -> None:
    """A file that names the package allows the same of a checkpoint that is given with it."""
    own = saved(content, home / "own.ckpt", decoder={"class_path": EVIL, "init_args": {}})
    (home / "own.yaml").write_text(yaml.safe_dump({"model": {"init_args": {"decoder": {"class_path": EVIL}}}}))
    words = ["test", *QUIET, *SPLIT, "--data.root", simulated, "--ckpt_path", own, "--trainer.logger", "false"]
    assert "--allow their_lab" in complaint(capfd, *words)
    for more in (["-c", home / "own.yaml"], ["--model.decoder", EVIL], ["--allow", "their_lab"]):
        assert say(capfd, *words, *more).status == 0


def test_predict_takes_only_what_is_done_to_frames(content: dict[str, Any], home: Path) -> None:
    path = saved(content, home / "bad.ckpt")
    changed = content[SETTINGS]["data"] | {"root": "/etc", "predict": ["*"], "transforms": [{"class_path": EVIL}]}
    torch.save({**content, SETTINGS: content[SETTINGS] | {"data": changed}}, path)
    assert checkpoint_settings(path)["data"] == {"normalisation": "percentile", "scale": 1.0, "sequence": "time"}


def test_lightnings_own_way_asks_too(content: dict[str, Any], imported: Path, home: Path) -> None:
    bad = saved(content, home / "bad.ckpt", decoder={"class_path": EVIL, "init_args": {}})
    with pytest.raises(InputError, match="--allow their_lab"):
        ULSTM.load_from_checkpoint(bad)
    assert not imported.exists()


NESTED: Any = 0
for _ in range(60):
    NESTED = [NESTED]
ODD = {
    "a list": {"channels": [[4], [6]]},
    "no number": {"kernel": float("nan")},
    "a number of 5,000 digits": {"kernel": 10**5000},
    "a negative number": {"channels": [-4, 6]},
    "a tensor": {"kernel": torch.ones(3)},
    "nothing": {"loss": None},
    "a network of terabytes": {"channels": [10**6, 10**6]},
    "a hundred million layers": {"channels": [1] * 100_000},
    "lists in lists": {"channels": NESTED},
    "YAML that nests": {"decoder": "[" * 1500},
    "YAML that names itself": {"decoder": "&a [*a]"},
    "YAML that grows": {"decoder": "[&a [x,x,x,x,x,x,x,x,x]" + "".join(
        f",&{chr(98 + i)} [{','.join([f'*{chr(97 + i)}'] * 9)}]" for i in range(9)
    ) + "]"},
    "a long text": {"decoder": "x" * 10**6},
}  # fmt: skip


@pytest.mark.parametrize("what", ODD)
def test_options_of_any_kind_are_refused_in_one_line(
    what: str, content: dict[str, Any], simulated: Path, home: Path, capfd: Capture
) -> None:
    bad = saved(content, home / "bad.ckpt", **ODD[what])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    line = complaint(capfd, "track", simulated / "01", "--checkpoint", bad, "--out", home / "RES")
    assert str(bad) in line
    assert "damaged" in line or "does not fit this version" in line
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000, "kilobytes"


def test_parts_that_are_no_parts(content: dict[str, Any], simulated: Path, home: Path, capfd: Capture) -> None:
    bad = home / "bad.ckpt"
    for parts in (
        {"hyper_parameters": None},
        {"hyper_parameters": [1]},
        {"hyper_parameters": {1: 2}},
        {SETTINGS: content[SETTINGS] | {"data": [1]}},
        {SETTINGS: content[SETTINGS] | {"data": {"normalisation": "zscore", "scale": 10**400}}},
        {SETTINGS: content[SETTINGS] | {"data": {"normalisation": "zscore", "scale": 1e6}}},
        {SETTINGS: content[SETTINGS] | {"data": {"normalisation": ["zscore"], "scale": 1}}},
        {SETTINGS: content[SETTINGS] | {"method": {"class_path": "x.y"}}},
        {"state_dict": {1: torch.ones(2)}},
    ):
        torch.save({**content, **parts}, bad)
        complaint(capfd, "track", simulated / "01", "--checkpoint", bad, "--out", home / "RES")
        complaint(capfd, "predict", *QUIET, "--data.root", simulated, "--ckpt_path", bad)
    torch.save({name: part for name, part in content.items() if name != "pytorch-lightning_version"}, bad)
    line = complaint(capfd, "predict", *QUIET, "--data.root", simulated, "--ckpt_path", bad)
    assert "KeyError" in line
    torch.save([1, 2], bad)
    complaint(capfd, "track", simulated / "01", "--checkpoint", bad, "--out", home / "RES")


def test_an_archive_that_unpacks_to_much_more(content: dict[str, Any], home: Path) -> None:
    whole, bad = saved(content, home / "whole.ckpt"), home / "bad.ckpt"
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(bad, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, bytes(400_000_000) if name.endswith("/data/0") else source.read(name))
    assert bad.stat().st_size < 5_000_000
    code = f"import lightning_cells as lc; lc.load({str(bad)!r})"
    limit = lambda: resource.setrlimit(resource.RLIMIT_DATA, (1_500_000_000,) * 2)  # noqa: E731
    said = subprocess.run([sys.executable, "-c", code], preexec_fn=limit, capture_output=True, text=True, check=False)
    assert "is damaged, or no checkpoint at all" in said.stderr.splitlines()[-1]


def test_class_paths_are_those_of_the_parser() -> None:
    tree = {"a": [{"class_path": "x.Y"}, "z.W", "no path", "1.5", "a..b"], "text": "{b: q.R}"}
    assert sorted(class_paths(tree)) == ["q.R", "x.Y", "z.W"]


@pytest.mark.parametrize("word", ["--checkpoint", "--model"])
def test_a_pipe_or_a_device_is_no_checkpoint(word: str, simulated: Path, home: Path, capfd: Capture) -> None:
    os.mkfifo(home / "pipe.ckpt")
    for path in (home / "pipe.ckpt", "/dev/zero"):
        line = complaint(capfd, "track", simulated / "01", word, path, "--out", home / "RES")
        assert f"no checkpoint '{path}'" in line
    assert main(["--version"]) == 0
