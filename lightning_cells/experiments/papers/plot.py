"""The results of a table as a picture: means with error bars, and the paper's values."""

import math
from pathlib import Path

import matplotlib

from lightning_cells.data.atomic import writing
from lightning_cells.experiments.papers.report import Report
from lightning_cells.experiments.papers.table import MEAN

_LINE = 0.28  # inches of a row's column


def save_plot(path: Path, report: Report) -> None:
    """Draws a panel for each measure: a line for each row and column, single runs as dots, the paper's hollow."""
    matplotlib.use("Agg", force=False)
    import matplotlib.pyplot as plt

    measures = report.table.measures
    lines = list(dict.fromkeys((cell.row, cell.column) for cell in report.cells))
    several = len({column for _, column in lines}) > 1
    names = [f"{row}, {column}" if several else row for row, column in lines]
    columns = list(dict.fromkeys(column for _, column in lines))
    size = (2.5 + 3.2 * len(measures), 1.5 + _LINE * max(4, len(lines)))
    figure, panels = plt.subplots(1, len(measures), sharey=True, figsize=size, squeeze=False)
    for axes, measure in zip(panels[0], measures, strict=True):
        for cell in (cell for cell in report.cells if cell.measure == measure):
            height = lines.index((cell.row, cell.column))
            colour = f"C{columns.index(cell.column) % 10}"
            if cell.values:
                spread = 0.0 if math.isnan(cell.sd) else cell.sd
                if cell.column != MEAN:
                    axes.plot(cell.values, [height] * len(cell.values), ".", color=colour, alpha=0.35, markersize=5)
                axes.errorbar(cell.mean, height, xerr=spread, fmt="o", color=colour, capsize=3, markersize=5)
            if cell.paper is not None:
                axes.plot(cell.paper, height, "D", color="black", fillstyle="none", markersize=6)
        axes.set_xlabel(measure)
        axes.grid(axis="x", alpha=0.3)
    panels[0][0].set_yticks(range(len(lines)), names)
    panels[0][0].set_ylim(len(lines) - 0.5, -0.5)
    handles = [
        plt.Line2D([], [], marker="o", color="gray", linestyle="-", label=f"ours, {report.scale}: mean and sd of runs"),
    ]
    if any(cell.paper is not None for cell in report.cells):
        handles.append(plt.Line2D([], [], marker="D", color="black", fillstyle="none", linestyle="", label="paper"))
    figure.legend(handles=handles, loc="lower center", ncols=2, frameon=False, fontsize=8)
    figure.suptitle(f"{report.name} ({report.scale})", fontsize=10)
    figure.tight_layout(rect=(0, 0.45 / size[1], 1, 1))
    with writing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    plt.close(figure)
