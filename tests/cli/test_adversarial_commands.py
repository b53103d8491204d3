"""The adversarial method from the command line: mistakes in one line, the checkpoint that does best by F."""

from pathlib import Path

import pytest
import torch
from cli_cases import NO_RUN, QUIET, SPLIT, complaint, fit, say

METHOD = ["-c", "conf/method/adversarial/tiny.yaml"]

MISTAKES = {
    "--trainer.gradient_clip_val=1.0": "Trainer(gradient_clip_val",
    "--data.batch_size=1": "data.batch_size=1: the discriminator compares two halves",
    "--data.annotated_frames=100": "data.annotated_frames=100: the training videos have only 24 annotated frame(s)",
    "--data.augmentation.crop=4": "crops of 4 x 4 pixels",
    "--model.ce_weight=2": "model.ce_weight=2.0: must be between 0 and 1",
    "--model.estimator_steps=0": "model.estimator_steps=0: must be at least 1",
    "--model.rib_kernels=[3]": "give as many kernels as filters",
    "--model.network.kernels=[3]": "give as many kernels as filters",
    "--model.ce_weigth=1": "did you mean 'model.ce_weight'?",
}


def test_mistakes(simulated: Path, capfd: pytest.CaptureFixture[str]) -> None:
    short = [*QUIET, *NO_RUN, *SPLIT, "--data.root", simulated, "--trainer.max_steps", "1", "--data.batch_size", "2"]
    for word, expected in MISTAKES.items():
        assert expected in complaint(capfd, "fit", *METHOD, *short, word), word


def test_the_best_checkpoint_is_chosen_by_f(simulated: Path, home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["--model.ce_weight", "1", "--data.annotated_frames", "4", "--data.batch_size", "4", *NO_RUN]
    best = fit(simulated, home, *words, method=METHOD)
    states = torch.load(best, weights_only=True)["callbacks"].values()
    assert "val/F" in [state.get("monitor") for state in states if isinstance(state, dict)]
    said = say(capfd, "test", *QUIET, *NO_RUN, *SPLIT, "--data.root", simulated, "--ckpt_path", best)
    assert said.status == 0
    assert all(f"test/{name}" in said.out for name in ("P", "R", "F", "SEG", "TRA"))
