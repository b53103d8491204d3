"""Plots of a study, as interactive pages and as pictures."""

import html
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import optuna.visualization as interactive
import optuna.visualization.matplotlib as static
from optuna import Study
from optuna.trial import TrialState

from lightning_cells.data.atomic import writing

_TITLES = {
    "history": "History",
    "intermediate_values": "Curves of all trials",
    "importances": "Which parameters matter",
    "slice": "Each parameter",
    "parallel_coordinate": "Parameters together",
    "pareto_front": "Pareto front",
    "timeline": "When trials ran",
}
_NAMES = {"history": "plot_optimization_history", "importances": "plot_param_importances"}


def pages(study: Study, objectives: list[str]) -> str:
    """All plots as HTML that needs nothing else: the library for them is in it, once."""
    parts = []
    library = True
    for kind, objective, draw in _plots(interactive, study, objectives):
        parts.append(f"<h2>{html.escape(_title(kind, objective, objectives))}</h2>")
        try:
            parts.append(draw().to_html(full_html=False, include_plotlyjs=library))
            library = False
        except Exception as error:  # too few trials, or all alike
            parts.append(f"<p>Not drawn: {html.escape(_line(error))}</p>")
    return "".join(parts)


def pictures(folder: Path, study: Study, objectives: list[str]) -> list[Path]:
    """All plots as PNG; those that cannot be drawn are left out."""
    matplotlib.use("Agg", force=False)
    import matplotlib.pyplot as plt

    files = []
    for kind, objective, draw in _plots(static, study, objectives):
        number = objectives.index(objective) if objective else 0
        path = folder / f"{kind}{number + 1 if number else ''}.png"
        try:
            axes = draw()
            figure = getattr(axes, "figure", None) or axes.flat[0].figure
            figure.set_size_inches(12 if kind in ("slice", "parallel_coordinate") else 9, 6)
            with writing(path) as temporary:
                figure.savefig(temporary, format="png", dpi=90, bbox_inches="tight")
            files.append(path)
        except Exception:  # the page says why
            continue
        finally:
            plt.close("all")
    return files


def _plots(kit: Any, study: Study, objectives: list[str]) -> list[tuple[str, str, Callable[[], Any]]]:
    """Kind, objective and how to draw it, for each plot that this study can have."""
    plots: list[tuple[str, str, Callable[[], Any]]] = []

    def add(kind: str, objective: str = "", **options: Any) -> None:
        function = getattr(kit, _NAMES.get(kind, f"plot_{kind}"))
        plots.append((kind, objective, lambda: function(study, **options)))

    many = len(objectives) > 1
    if many:
        add("pareto_front", target_names=objectives)
    for number, objective in enumerate(objectives):
        options: dict[str, Any] = {"target_name": objective}
        if many:
            options["target"] = lambda trial, number=number: trial.values[number]
        for kind in ("history", "importances", "slice", "parallel_coordinate"):
            add(kind, objective, **options)
    if any(trial.intermediate_values for trial in study.get_trials(deepcopy=False)):
        add("intermediate_values")
    if any(trial.state == TrialState.COMPLETE for trial in study.get_trials(deepcopy=False)):
        add("timeline")
    return plots


def _title(kind: str, objective: str, objectives: list[str]) -> str:
    return f"{_TITLES[kind]}: {objective}" if objective and len(objectives) > 1 else _TITLES[kind]


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
