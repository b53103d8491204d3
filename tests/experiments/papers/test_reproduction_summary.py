"""Means, deviations and verdicts, against values computed by hand and by SciPy."""

import math
from pathlib import Path

import pytest
from scipy import stats
from test_reproduction_table import SMALL, written

from lightning_cells.errors import InputError
from lightning_cells.experiments.papers.plan import Job, Kind
from lightning_cells.experiments.papers.report import (
    BEGIN,
    END,
    Report,
    check_readme,
    make_report,
    markdown,
    section,
    write_section,
)
from lightning_cells.experiments.papers.runs import Outcome
from lightning_cells.experiments.papers.summary import judge
from lightning_cells.experiments.papers.table import Claim, parse_table

CLAIM = Claim("one", "two", "SEG", "it does")


def outcome(row: str, *values: float, fold: int = 0, seed: int = 1, error: str = "", kind: Kind = "train") -> Outcome:
    job = Job(row, "x", fold, 0, seed, kind, (), {}, "last")
    columns = dict(zip("xyz", values, strict=False))
    return Outcome(job, "run", {name: {"SEG": value} for name, value in columns.items()}, error)


def rows(one: list[float], two: list[float]) -> list[Outcome]:
    pairs = [*(("one", number, value) for number, value in enumerate(one))]
    pairs += [("two", number, value) for number, value in enumerate(two)]
    return [outcome(row, value, seed=seed) for row, seed, value in pairs]


def test_the_interval_is_that_of_the_paired_t_test() -> None:
    one, two = [0.8, 0.7, 0.9, 0.85], [0.7, 0.65, 0.75, 0.8]
    verdict = judge(CLAIM, rows(one, two))
    expected = stats.ttest_rel(one, two).confidence_interval(0.95)
    assert (verdict.low, verdict.high) == pytest.approx((expected.low, expected.high))
    assert verdict.difference == pytest.approx(0.0875)
    assert (verdict.pairs, verdict.words) == (4, "reproduced")


@pytest.mark.parametrize(
    ("one", "two", "words"),
    [
        ([0.5, 0.6, 0.7], [0.6, 0.71, 0.79], "not reproduced"),
        ([0.5, 0.6, 0.7], [0.4, 0.8, 0.5], "undecided"),
        ([0.5, 0.6], [0.4, 0.51], "reproduced"),  # .10 and .09: half-width 12.7 * .005 = .064
        ([0.9, 0.8], [0.1, 0.5], "undecided"),  # two of one sign are not enough if they differ
        ([0.9], [0.1], "undecided"),
        ([], [0.1], "undecided"),
    ],
)
def test_verdicts(one: list[float], two: list[float], words: str) -> None:
    assert judge(CLAIM, rows(one, two)).words == words


def test_pairs_are_of_the_same_seed_whatever_their_order() -> None:
    given = rows([0.5, 0.6, 0.7], [0.4, 0.5, 0.6])
    verdict = judge(CLAIM, [*reversed(given)])
    assert (verdict.difference, verdict.low, verdict.high) == pytest.approx((0.1, 0.1, 0.1))


def test_a_run_that_failed_takes_its_partner_with_it() -> None:
    given = [*rows([0.5, 0.6], [0.4, 0.5]), outcome("one", seed=5, error="broken"), outcome("two", 0.0, seed=5)]
    verdict = judge(CLAIM, given)
    assert verdict.difference == pytest.approx(0.1)


def test_several_columns_of_a_run_count_once() -> None:
    given = [outcome("one", 0.5, 0.9, seed=1), outcome("two", 0.4, 0.6, seed=1)]
    verdict = judge(CLAIM, given)
    assert (verdict.pairs, verdict.difference) == (1, pytest.approx(0.2))


def test_a_classical_row_is_compared_with_means_over_them() -> None:
    given = [
        outcome("one", value, fold=fold, seed=seed) for fold, seed, value in ((0, 1, 0.6), (0, 2, 0.8), (1, 1, 0.5))
    ]
    given += [outcome("two", value, fold=fold, kind="classical") for fold, value in ((0, 0.5), (1, 0.4))]
    verdict = judge(CLAIM, given)
    assert (verdict.pairs, verdict.difference) == (2, pytest.approx((0.2 + 0.1) / 2))


@pytest.fixture
def report(tmp_path: Path) -> Report:
    table = parse_table(written(tmp_path, SMALL))
    done = [outcome("one", 0.5, seed=1), outcome("one", 0.7, seed=2), outcome("two", seed=1, error="out of memory")]
    return make_report("mine", table, "tiny", {"trainer.max_steps": "3"}, done)


def test_the_table_has_ours_beside_the_papers(report: Report) -> None:
    said = markdown(report)
    assert "| row | data | SEG | SEG, paper |" in said
    assert f"| one | x | 0.600 ± {math.sqrt(0.02):.3f} (2) | 0.500 |" in said
    assert "| two | x | failed |  |" in said
    assert "surrogates" in said
    assert "with overrides --trainer.max_steps 3" in said
    assert "one beats two in SEG (it does): **undecided** at scale `tiny`: no runs to compare" in said
    assert "two, x, seed 1: **failed**: out of memory" in said
    assert "reached" not in said, "surrogates reach no value of the paper's"


@pytest.mark.parametrize(
    ("value", "words"), [(0.52, "reached: +0.020"), (0.3, "not reached: -0.200"), (0.7, "above: +0.200")]
)
def test_at_scale_paper_values_are_reached_or_not(value: float, words: str, tmp_path: Path) -> None:
    table = parse_table(written(tmp_path, {**SMALL, "tolerance": 0.05, "paper": SMALL["tiny"]}))
    assert f"* one, x, SEG: {words} from" in markdown(make_report("mine", table, "paper", {}, [outcome("one", value)]))


def test_the_mean_is_over_data(tmp_path: Path) -> None:
    table = parse_table(written(tmp_path, SMALL))
    done = [outcome("one", 0.0, 0.5, 0.9, seed=1), outcome("one", 0.0, 0.7, 0.7, seed=2)]
    found = {(c.row, c.column): c for c in make_report("mine", table, "paper", {}, done).cells}
    assert found["one", "y"].mean == pytest.approx(0.6)
    assert found["one", "mean"].mean == pytest.approx(0.7)
    assert math.isnan(found["two", "mean"].mean)


def test_the_readme_has_it_between_its_marks(report: Report, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    check_readme(readme)
    write_section(readme, section([report]))
    write_section(readme, section([report]))
    text = readme.read_text()
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    assert text.count("| `mine` | one | x | SEG | 0.600") == 1


@pytest.mark.parametrize("text", ["nothing", BEGIN, f"{END}\n{BEGIN}"])
def test_a_readme_without_marks_is_refused(text: str, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(text)
    with pytest.raises(InputError, match="has no place for the results"):
        check_readme(readme)
