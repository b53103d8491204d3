"""Plots of a study, as interactive pages and as pictures."""

import html
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import optuna
import optuna.visualization as interactive
import optuna.visualization.matplotlib as static
from optuna import Study
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState

from lightning_cells.data.atomic import writing
from lightning_cells.errors import first_line

_TITLES = {
    "history": "History",
    "intermediate_values": "Curves of all trials",
    "importances": "Which parameters matter",
    "slice": "Each parameter",
    "parallel_coordinate": "Parameters together",
    "pareto_front": "Pareto front",
    "timeline": "When trials ran",
}
_WIDTH = {"slice": 2.2, "parallel_coordinate": 2.2}  # inches for each parameter
_NAMES = {"history": "plot_optimization_history", "importances": "plot_param_importances"}


def readable(study: Study) -> Study:
    """A copy in memory of the ended trials, for plots: options and classes go by the last parts of their names."""
    trials = study.get_trials(deepcopy=True, states=[state for state in TrialState if state.is_finished()])
    names = _ends({name for trial in trials for name in trial.distributions})
    copy = optuna.create_study(directions=study.directions)
    for trial in trials:
        params, distributions = {}, {}
        for name, distribution in trial.distributions.items():
            value = trial.params[name]
            if isinstance(distribution, CategoricalDistribution):
                words = _ends({choice for choice in distribution.choices if isinstance(choice, str)})
                choices = [words.get(choice, choice) for choice in distribution.choices]  # type: ignore[arg-type]
                value, distribution = words.get(value, value), CategoricalDistribution(choices)
            params[names[name]], distributions[names[name]] = value, distribution
        trial.distributions, trial.params = distributions, params
        copy.add_trial(trial)
    return copy


def _ends(names: set[str]) -> dict[str, str]:
    """Dotted names -> as many of their last parts as tell all of them apart."""
    for parts in range(1, 1 + max((name.count(".") + 1 for name in names), default=0)):
        short = {name: ".".join(name.split(".")[-parts:]) for name in names}
        if len(set(short.values())) == len(names):
            return short
    return {name: name for name in names}


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
            parts.append(f"<p>Not drawn: {html.escape(first_line(error))}</p>")
    return "".join(parts)


def pictures(folder: Path, study: Study, objectives: list[str]) -> list[Path]:
    """All plots as PNG; those that cannot be drawn are left out."""
    matplotlib.use("Agg", force=False)
    import matplotlib.pyplot as plt

    files = []
    for kind, objective, draw in _plots(static, study, objectives):
        place = objectives.index(objective) if objective else 0
        path = folder / f"{kind}{place + 1 if place else ''}.png"
        try:
            axes = draw()
            figure = getattr(axes, "figure", None) or axes.flat[0].figure
            number = len({name for trial in study.get_trials(deepcopy=False) for name in trial.params})
            figure.set_size_inches(max(9, _WIDTH.get(kind, 0) * number), 6)
            for each in figure.axes if kind == "slice" else ():
                each.tick_params(axis="x", which="both", labelrotation=90, labelsize=8)
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
