"""What a study found: a table, the best configuration, and plots to look at."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import optuna
import optuna.visualization as interactive
import optuna.visualization.matplotlib as static
import pandas as pd
from optuna import Study
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from lightning_cells.data.atomic import writing
from lightning_cells.errors import first_line
from lightning_cells.experiments.tuning.space import Chosen
from lightning_cells.experiments.tuning.study import REASON, WORKER, repeats, standing
from lightning_cells.experiments.tuning.study_file import StudyFile
from lightning_cells.experiments.tuning.worker import MEASURES, RUN
from lightning_cells.visualization.page import render

Configure = Callable[[Chosen], str]
"""The values of a trial -> a configuration file for ``fit -c``."""
_PLOTS = {  # of each objective: file -> title, and Optuna's function
    "history": ("History", "plot_optimization_history"),
    "importances": ("Which parameters matter", "plot_param_importances"),
    "slice": ("Each parameter", "plot_slice"),
    "parallel_coordinate": ("Parameters together", "plot_parallel_coordinate"),
}
_WIDE, _WIDTH = ("slice", "parallel_coordinate"), 2.2  # inches for each parameter


def best_trials(study: Study) -> list[FrozenTrial]:
    """The best trial, or of several objectives the Pareto front, by the first of them."""
    trials = [trial for trial in study.best_trials if trial.values is not None]
    sign = -1 if study.directions[0] == optuna.study.StudyDirection.MAXIMIZE else 1
    return sorted(trials, key=lambda trial: (sign * trial.values[0], trial.number))


def summary(study: Study, plan: StudyFile) -> list[str]:
    """A few lines about a study."""
    trials = study.get_trials(deepcopy=False)
    counts = Counter(trial.state.name.lower() for trial in standing(trials))
    said = [f"{len(standing(trials))} trials: " + ", ".join(f"{number} {state}" for state, number in counts.items())]
    if repeated := len(trials) - len(standing(trials)):
        said[0] += f" ({repeated} more were interrupted or crashed, and run again)"
    times = study.trials_dataframe(("datetime_start", "datetime_complete")).dropna()
    if len(times):
        span = (times.datetime_complete.max() - times.datetime_start.min()).total_seconds()
        rate = 60 * len(times) / span if span else 0.0
        said.append(f"{span:.0f} s from the first beginning to the last end: {rate:.1f} trials per minute")
    for trial in best_trials(study)[:5]:
        chosen = ", ".join(f"{option} {_shown(value)}" for option, value in plan.space.chosen(trial.params).items())
        said.append(f"best: trial {trial.number}: {_values(plan, trial, 4)}: {chosen}")
    return said


def trial_table(study: Study, plan: StudyFile) -> pd.DataFrame:
    """All trials: values, options, all measures, times, and what else is known; None where there is nothing."""
    trials = study.get_trials(deepcopy=False)
    objectives = list(plan.objectives)
    measured = {name for trial in trials for name in trial.user_attrs.get(MEASURES, {})}
    known = ["seconds", "repeats", WORKER, RUN, REASON]
    columns = ["trial", "state", *objectives, *plan.space.options, *sorted(measured - set(objectives)), *known]
    rows = [
        {
            "trial": trial.number,
            "state": trial.state.name,
            **trial.user_attrs,
            **trial.user_attrs.get(MEASURES, {}),
            **(dict(zip(objectives, trial.values or (), strict=False)) if trial.state == TrialState.COMPLETE else {}),
            **plan.space.chosen(trial.params),
            "seconds": None if trial.duration is None else round(trial.duration.total_seconds(), 2),
            "repeats": repeats(trial),
        }
        for trial in trials
    ]
    table = pd.DataFrame([[row.get(column) for column in columns] for row in rows], columns=columns, dtype=object)
    return table.where(table.notna(), None)


def write_report(folder: Path, study: Study, plan: StudyFile, configure: Configure) -> list[Path]:
    """Writes all files about a study; what a plot lacks is said in its place.

    Returns:
        The files: ``trials.csv``, ``best_config.yaml``, ``study.html``, pictures, and with several objectives the
        configurations of the Pareto front.
    """
    table = trial_table(study, plan)
    texts = {"trials.csv": table.to_csv(index=False)}
    command = "fit -c best_config.yaml"
    if plan.checkpoint is not None:
        command = f"validate -c best_config.yaml --ckpt_path {plan.checkpoint}"
    for trial in best_trials(study):
        heading = (
            f"# Trial {trial.number} of study {plan.study}: {_values(plan, trial, 6)}.\n# lightning-cells {command}\n"
        )
        text = heading + configure(plan.space.chosen(trial.params))
        texts.setdefault("best_config.yaml", text)
        if len(plan.objectives) > 1:
            texts[f"pareto_config_{trial.number:04d}.yaml"] = text
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shown = readable(study)
        files = _pictures(folder, shown, list(plan.objectives))
        plots = list(_pages(shown, list(plan.objectives)))
    rows = [[None if cell is None else _shown(cell) for cell in row] for row in table.values.tolist()]
    context = {"study": plan.study, "lines": summary(study, plan), "plots": plots, "columns": list(table), "rows": rows}
    texts["study.html"] = render("study.html.j2", context)
    for name, text in texts.items():
        with writing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return [*(folder / name for name in texts), *files]


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


def _ends(names: Iterable[str]) -> dict[str, str]:
    """Dotted names -> as many of their last parts as tell all of them apart."""
    for parts in range(1, 1 + max((name.count(".") + 1 for name in names), default=0)):
        short = {name: ".".join(name.split(".")[-parts:]) for name in names}
        if len(set(short.values())) == len(short):
            return short
    return {name: name for name in names}


def _plots(kit: Any, study: Study, objectives: list[str]) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """File, title and drawing of each plot that a study can have, by one of Optuna's two kits."""
    many = len(objectives) > 1
    trials = study.get_trials(deepcopy=False)
    if many:
        yield "pareto_front", "Pareto front", partial(kit.plot_pareto_front, study, target_names=objectives)
    for number, objective in enumerate(objectives):
        options: dict[str, Any] = {"target_name": objective}
        if many:
            options["target"] = lambda trial, number=number: trial.values[number]
        for name, (title, plot) in _PLOTS.items():
            draw = partial(getattr(kit, plot), study, **options)
            yield f"{name}{number + 1 if number else ''}", f"{title}: {objective}" if many else title, draw
    if any(trial.intermediate_values for trial in trials):
        yield "intermediate_values", "Curves of all trials", partial(kit.plot_intermediate_values, study)
    if any(trial.state == TrialState.COMPLETE for trial in trials):
        yield "timeline", "When trials ran", partial(kit.plot_timeline, study)


def _pages(study: Study, objectives: list[str]) -> Iterator[dict[str, str]]:
    """All plots, interactive: title and HTML, or why it is not drawn. The first has the library in it."""
    library = True
    for _, title, draw in _plots(interactive, study, objectives):
        try:
            yield {"title": title, "html": draw().to_html(full_html=False, include_plotlyjs=library)}
            library = False
        except Exception as error:  # too few trials, or all alike
            yield {"title": title, "why": first_line(error)}


def _pictures(folder: Path, study: Study, objectives: list[str]) -> list[Path]:
    """All plots as PNG; those that cannot be drawn are left out."""
    matplotlib.use("Agg", force=False)
    import matplotlib.pyplot as plt

    files = []
    options = len({name for trial in study.get_trials(deepcopy=False) for name in trial.params})
    for name, _, draw in _plots(static, study, objectives):
        try:
            axes = draw()
            figure = getattr(axes, "figure", None) or axes.flat[0].figure
            figure.set_size_inches(max(9, _WIDTH * options if name.startswith(_WIDE) else 0), 6)
            for each in figure.axes if name.startswith("slice") else ():
                each.tick_params(axis="x", which="both", labelrotation=90, labelsize=8)
            with writing(folder / f"{name}.png") as temporary:
                figure.savefig(temporary, format="png", dpi=90, bbox_inches="tight")
            files.append(folder / f"{name}.png")
        except Exception:  # the page says why
            continue
        finally:
            plt.close("all")
    return files


def _values(plan: StudyFile, trial: FrozenTrial, digits: int) -> str:
    return ", ".join(f"{name} {value:.{digits}f}" for name, value in zip(plan.objectives, trial.values, strict=True))


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
