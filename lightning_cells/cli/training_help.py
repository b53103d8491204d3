"""``fit --help`` and the like, in a screen: the options that are used most, without importing torch for them.

A test holds it against the whole list, ``--help-all``.
"""

from lightning_cells.cli import TRAINING
from lightning_cells.paths import HOME_VARIABLE

_EXAMPLES = {
    "fit": (
        "fit -c conf/method/ulstm/tiny.yaml -c conf/data/simulated.yaml",
        "fit -c conf/method/rshn/tiny.yaml --data.root mydata --trainer.max_time 00:01:00:00",
        "fit --init nuclei --data.root mydata --data.val '[\"02\"]' --model.lr 1e-4",
        "fit --resume RUN --trainer.max_epochs 24",
    ),
    "validate": ("validate -c conf/data/simulated.yaml --ckpt_path outputs/checkpoints/RUN/best.ckpt",),
    "test": (
        "test -c conf/data/simulated.yaml --ckpt_path outputs/checkpoints/RUN/best.ckpt",
        "test --data.root mydata --data.test '[\"02\"]' --ckpt_path outputs/checkpoints/RUN/best.ckpt",
    ),
    "predict": ("predict -c conf/data/simulated.yaml --ckpt_path outputs/checkpoints/RUN/best.ckpt",),
}
_ALL, _FIT, _MEASURE = tuple(TRAINING), ("fit",), ("validate", "test", "predict")
_OPTIONS = (
    (_ALL, "-c FILE", "options from a file; several add up: conf/method/..., conf/data/..., conf/trainer/..."),
    (_MEASURE, "--ckpt_path FILE", "trained weights, which remember their method and preprocessing"),
    (_FIT, "--model NAME", "method: ULSTM, RSHN, GRUUNet, Adversarial, BrightField, or a class of yours"),
    (_FIT, "--model.loss NAME", "its loss, or one of your own: my_lab.Dice"),
    (_FIT, "--model.lr X", "learning rate"),
    (_ALL, "--data.root DIR", "data set: a folder, or its name under $LIGHTNING_CELLS_DATA"),
    (
        _FIT,
        "--data.val NAMES",
        "videos to validate on, as '[\"02\"]'; also --data.train, --data.test",
    ),
    (("validate",), "--data.val NAMES", "videos to measure on, as '[\"02\"]'"),
    (("test",), "--data.test NAMES", "videos to measure on, as '[\"02\"]'"),
    (("predict",), "--data.predict NAMES", "videos to track, as '[\"02\"]'; default: those of the test, or all"),
    (("predict",), "--results.folder DIR", "where results go (default: outputs/predictions/DATA SET)"),
    (_FIT, "--data.batch_size N", "clips per batch and process"),
    (_FIT, "--trainer.max_epochs N", "how long; or --trainer.max_time DD:HH:MM:SS"),
    (_FIT, "--init MODEL", "start from weights: nuclei, models:/NAME/VERSION, or a checkpoint"),
    (_FIT, "--resume RUN", "go on with a training, in the same run"),
    (_ALL, "--trainer.accelerator NAME", "cpu, gpu or mps; --trainer.devices N takes so many"),
    (_MEASURE, "--model.decoder.NAME X", "a setting of the decoder, which makes cells of what the network says"),
    (_ALL, "--output_dir DIR", f"where all goes that is written (default: ${HOME_VARIABLE}, else outputs)"),
    (_ALL, "--print_config", "print what all options come to, and do nothing"),
)


def short_help(verb: str) -> str:
    """Returns what a training verb does, examples, the options that are used most, and where the others are."""
    summary = TRAINING[verb]
    return "\n".join(
        [
            f"usage: lightning-cells {verb} [-c FILE ...] [--option VALUE ...]",
            "",
            f"{summary[0].upper()}{summary[1:]}. What comes later on the command line wins, over files, too.",
            "",
            *(f"  lightning-cells {example}" for example in _EXAMPLES[verb]),
            "",
            *(f"  {option:<26} {says}" for verbs, option, says in _OPTIONS if verb in verbs),
            "",
            f"All options: lightning-cells {verb} --help-all. Configurations that come with it: lightning-cells list",
        ]
    )


def options(verb: str) -> list[str]:
    """The names of the options that are used most."""
    return [option.split()[0] for verbs, option, _ in _OPTIONS if verb in verbs and "NAME " not in option]
