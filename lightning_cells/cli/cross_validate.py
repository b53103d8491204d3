"""Cross-validate a method: train and test it once for each fold of the data.

Takes all options of 'lightning-cells fit'. What data.train selects, or all there is, is split into data.folds parts
(default: 5); each is held out once, and the others are trained on. data.val and data.test play no part. Folds that
are finished in the same store, with the same options and data, are not trained again. What the trainings print goes to
outputs/cross_validation.

  lightning-cells cross-validate -c conf/method/brightfield/tiny.yaml -c conf/data/wbc-nucleus-cytoplasm.yaml
"""

import argparse

PASSES_ON = True
"""What this verb does not know is for ``fit``."""
_FOLDS = 5
_OWN = ("--data.val=null", "--data.test=null")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument(
        "--weights",
        choices=("last", "best"),
        default="last",
        help="checkpoint that is measured; the best one of each training was chosen by the held-out fold itself "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--workers", type=int, default=1, metavar="W", help="folds at a time on this machine (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    """Runs the verb."""
    from lightning_cells.cli.parsing import check_configurations

    check_configurations(args.passed_on)
    from lightning_cells.cli.resolving import Resolver
    from lightning_cells.experiments.cross_validation import cross_validate

    resolver = Resolver()
    words = [*args.passed_on, *_OWN]
    if not resolver.resolve(words).data.folds:
        words.append(f"--data.folds={_FOLDS}")
    config = resolver.describe(words, "fit")  # a mistake is told before anything is trained
    print(f"\n{cross_validate(words, config, args.weights, args.workers, _say)}")
    print("\nThe folds are runs below a common one: lightning-cells dashboard")


def _say(line: str) -> None:
    print(line, flush=True)
