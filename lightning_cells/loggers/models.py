"""Where a trained model is: with the package, in MLflow's registry, or in a file."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from lightning_cells.methods.pretrained import pretrained_checkpoint, pretrained_names

_REGISTERED = "models:/"


def trained_model(model: str | Path) -> AbstractContextManager[Path]:
    """Finds a model, and fetches it if need be, into a checkpoint that is there within the context.

    Args:
        model: the name of one that comes with the package, such as ``nuclei``; the address of a registered one,
            ``models:/NAME/VERSION``, ``models:/NAME/latest`` or ``models:/NAME@ALIAS``; or the path of a checkpoint.

    Raises:
        InputError: if there is no such model. Of a file that does not exist its reader says so.
    """
    if isinstance(model, Path):
        return nullcontext(model)
    if model.startswith(_REGISTERED):
        from lightning_cells.loggers.registry import registered_checkpoint  # imports MLflow

        return registered_checkpoint(model)
    path = Path(model)
    is_name = path.name == model and not path.suffix and not path.exists()
    return nullcontext(pretrained_checkpoint(model) if is_name or model in pretrained_names() else path)
