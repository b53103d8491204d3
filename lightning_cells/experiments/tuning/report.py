"""What a study found: a table, the best configuration, and plots to look at."""

import csv
import html
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from lightning_cells.data.atomic import writing
from lightning_cells.experiments.tuning.plots import pages, pictures, readable
from lightning_cells.experiments.tuning.study import repeats, standing
from lightning_cells.experiments.tuning.study_file import Chosen, StudyFile

Configure = Callable[[Chosen], str]
"""The values of a trial -> a configuration file for ``fit -c``."""


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
    times = [trial.duration.total_seconds() for trial in trials if trial.duration is not None]
    begun = [t.datetime_start for t in trials if t.datetime_start is not None]
    ended = [t.datetime_complete for t in trials if t.datetime_complete is not None]
    if times and begun and ended:
        span = (max(ended) - min(begun)).total_seconds()
        rate = 60 * len(times) / span if span else 0.0
        said.append(f"{span:.0f} s from the first beginning to the last end: {rate:.1f} trials per minute")
    for trial in best_trials(study)[:5]:
        values = ", ".join(f"{name} {value:.4f}" for name, value in zip(plan.objectives, trial.values, strict=True))
        chosen = ", ".join(f"{path} {_short(value)}" for path, value in plan.space.chosen(trial.params).items())
        said.append(f"best: trial {trial.number}: {values}: {chosen}")
    return said


def write_report(folder: Path, study: Study, plan: StudyFile, configure: Configure) -> list[Path]:
    """Writes all files about a study; what a plot lacks is said in its place.

    Returns:
        The files: ``trials.csv``, ``best_config.yaml``, ``study.html``, pictures, and with several objectives the
        configurations of the Pareto front.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [_table(folder / "trials.csv", study, plan)]
    best = best_trials(study)
    for place, trial in enumerate(best):
        names = ["best_config.yaml"] if place == 0 else []
        if len(plan.objectives) > 1:
            names.append(f"pareto_config_{trial.number:04d}.yaml")
        for name in names:
            with writing(folder / name) as temporary:
                temporary.write_text(_heading(plan, trial) + configure(plan.space.chosen(trial.params)))
            files.append(folder / name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shown = readable(study)
        files += pictures(folder, shown, list(plan.objectives))
        page = _page(study, plan, pages(shown, list(plan.objectives)))
        with writing(folder / "study.html") as temporary:
            temporary.write_text(page, encoding="utf-8")
    return [*files, folder / "study.html"]


def _heading(plan: StudyFile, trial: FrozenTrial) -> str:
    values = ", ".join(f"{name} {value:.6f}" for name, value in zip(plan.objectives, trial.values, strict=True))
    lines = [f"# Trial {trial.number} of study {plan.study}: {values}."]
    if plan.checkpoint is not None:
        lines.append(f"# lightning-cells validate -c best_config.yaml --ckpt_path {plan.checkpoint}")
    else:
        lines.append("# lightning-cells fit -c best_config.yaml")
    return "\n".join(lines) + "\n"


def _rows(study: Study, plan: StudyFile) -> tuple[list[str], list[list[Any]]]:
    trials = study.get_trials(deepcopy=False)
    paths = plan.space.options
    measured = {name for trial in trials for name in trial.user_attrs.get("measures", {})}
    measures = sorted(measured - set(plan.objectives))
    names = ["trial", "state", *plan.objectives, *paths, *measures, "seconds", "repeats", "worker", "run", "reason"]
    rows = []
    for trial in trials:
        chosen, known = plan.space.chosen(trial.params), trial.user_attrs
        values = trial.values if trial.state == TrialState.COMPLETE else None
        values = values or [known.get("measures", {}).get(name) for name in plan.objectives]
        rows.append(
            [
                trial.number,
                trial.state.name,
                *values,
                *(chosen.get(path) for path in paths),
                *(known.get("measures", {}).get(name) for name in measures),
                None if trial.duration is None else round(trial.duration.total_seconds(), 2),
                repeats(trial),
                *(known.get(key) for key in ("worker", "run", "reason")),
            ]
        )
    return names, rows


def _table(path: Path, study: Study, plan: StudyFile) -> Path:
    names, rows = _rows(study, plan)
    with writing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(names)
        table.writerows(rows)
    return path


def _page(study: Study, plan: StudyFile, plots: str) -> str:
    names, rows = _rows(study, plan)
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(_cell(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    said = "".join(f"<p>{html.escape(line)}</p>" for line in summary(study, plan))
    title = html.escape(f"Study {plan.study}")
    return (
        f"<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'><title>{title}</title><style>{_STYLE}</style>"
        f"</head><body><h1>{title}</h1>{said}{plots}"
        f"<h2>Trials</h2><div class='wide'><table><tr>{head}</tr>{body}</table></div></body></html>"
    )


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


_STYLE = (
    "body{font-family:sans-serif;margin:2em auto;max-width:75em;padding:0 1em}table{border-collapse:collapse;"
    "font-size:.8em}th,td{border:1px solid #ccc;padding:.2em .5em;text-align:right;white-space:nowrap}"
    ".wide{overflow-x:auto}"
)
