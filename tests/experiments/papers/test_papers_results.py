"""Means, deviations and verdicts, against values computed by hand and by SciPy."""

import math
from pathlib import Path

import pytest
from scipy import stats
from test_papers_table import SMALL, written

from lightning_cells.errors import InputError
from lightning_cells.experiments.papers.jobs import CODE, IDENTITY, RowJob, code_version
from lightning_cells.experiments.papers.report import (
    BEGIN,
    END,
    check_readme,
    markdown,
    section,
    verdict_text,
    write_section,
)
from lightning_cells.experiments.papers.results import ClaimVerdict, Results, judge, measured, outdated, sum_up
from lightning_cells.experiments.papers.table import Claim, Table, read_table
from lightning_cells.experiments.runner import RESULT, Job, Outcome, ParentRun

CLAIM = Claim(better="one", worse="two", measure="SEG", paper="it does")


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return read_table(str(written(tmp_path, SMALL)))


def outcome(row: str, *values: float, fold: int = 0, seed: int = 1, error: str = "") -> Outcome:
    job = RowJob(name=f"{row}, x, seed {seed}", fit=(), row=row, data="x", fold=fold, seed=seed)
    columns = {name: {"SEG": value} for name, value in zip("xyz", values, strict=False)}
    return Outcome(job, "mistake" if error else "finished", "run", measures=columns, error=error)


def judged(outcomes: list[Outcome], table: Table) -> ClaimVerdict:
    return judge(CLAIM, table, measured(outcomes))


def rows(one: list[float], two: list[float]) -> list[Outcome]:
    pairs = [*(("one", number, value) for number, value in enumerate(one))]
    pairs += [("two", number, value) for number, value in enumerate(two)]
    return [outcome(row, value, seed=seed) for row, seed, value in pairs]


def test_the_interval_is_that_of_the_paired_t_test(table: Table) -> None:
    one, two = [0.8, 0.7, 0.9, 0.85], [0.7, 0.65, 0.75, 0.8]
    verdict = judged(rows(one, two), table)
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
def test_verdicts(one: list[float], two: list[float], words: str, table: Table) -> None:
    assert judged(rows(one, two), table).words == words


@pytest.mark.parametrize(
    ("two", "words"),
    [([0.51, 0.61, 0.7], "reproduced"), ([0.3, 0.39, 0.5], "not reproduced"), ([0.45, 0.7, 0.6], "undecided")],
)
def test_that_there_is_no_difference_is_a_claim_too(two: list[float], words: str, table: Table) -> None:
    alike = CLAIM.model_copy(update={"within": 0.05})
    verdict = judge(alike, table, measured(rows([0.5, 0.6, 0.7], two)))
    assert verdict.words == words
    assert f"one is within 0.05 of two in SEG (it does): **{words}**" in verdict_text(verdict, "tiny")


def test_pairs_are_of_the_same_seed_whatever_their_order(table: Table) -> None:
    given = rows([0.5, 0.6, 0.7], [0.4, 0.5, 0.6])
    verdict = judged([*reversed(given)], table)
    assert (verdict.difference, verdict.low, verdict.high) == pytest.approx((0.1, 0.1, 0.1))


def test_a_run_that_failed_takes_its_partner_with_it(table: Table) -> None:
    given = [*rows([0.5, 0.6], [0.4, 0.5]), outcome("one", seed=5, error="broken"), outcome("two", 0.0, seed=5)]
    verdict = judged(given, table)
    assert verdict.difference == pytest.approx(0.1)


def test_several_columns_of_a_run_count_once(table: Table) -> None:
    given = [outcome("one", 0.5, 0.9, seed=1), outcome("two", 0.4, 0.6, seed=1)]
    verdict = judged(given, table)
    assert (verdict.pairs, verdict.difference) == (1, pytest.approx(0.2))


def test_a_classical_row_is_compared_with_means_over_them(tmp_path: Path) -> None:
    table = read_table(str(written(tmp_path, {**SMALL, "rows": {"one": {}, "two": {"classical": True}}})))
    given = [
        outcome("one", value, fold=fold, seed=seed) for fold, seed, value in ((0, 1, 0.6), (0, 2, 0.8), (1, 1, 0.5))
    ]
    given += [outcome("two", value, fold=fold) for fold, value in ((0, 0.5), (1, 0.4))]
    verdict = judged(given, table)
    assert (verdict.pairs, verdict.difference) == (2, pytest.approx((0.2 + 0.1) / 2))


@pytest.fixture
def report(table: Table) -> Results:
    done = [outcome("one", 0.5, seed=1), outcome("one", 0.7, seed=2), outcome("two", seed=1, error="out of memory")]
    return sum_up("mine", table, "tiny", {"trainer.max_steps": "3"}, done)


def test_the_table_has_ours_beside_the_papers(report: Results) -> None:
    said = markdown(report)
    assert "| row | data | SEG | SEG, paper |" in said
    assert f"| one | x | 0.600 ± {math.sqrt(0.02):.3f} (2) | 0.500 |" in said
    assert "| two | x | failed |  |" in said
    assert "surrogates" in said
    assert "with overrides --trainer.max_steps 3" in said
    assert "one beats two in SEG (it does): **undecided** at scale `tiny`: no runs to compare" in said
    assert "two, x, seed 1: **failed**: out of memory" in said
    assert "reached" not in said, "surrogates reach no value of the paper's"


def test_what_others_published_is_told_in_its_order_and_ours_among_it_on_the_same_data(tmp_path: Path) -> None:
    keys = {"published": {"x": {"SEG": {"others": 0.7, "more": 0.4}}}, "paper": SMALL["tiny"]}
    table = read_table(str(written(tmp_path, {**SMALL, **keys})))
    done = [outcome("one", 0.6)]
    assert "* published, x, SEG: others 0.700, **one, ours** 0.600, one, paper 0.500, more 0.400" in markdown(
        sum_up("mine", table, "paper", {}, done)
    )
    assert "* published, x, SEG: others 0.700, one, paper 0.500, more 0.400" in markdown(
        sum_up("mine", table, "tiny", {}, done)  # surrogates stand among nobody
    )


@pytest.mark.parametrize(
    ("value", "words"), [(0.52, "reached: +0.020"), (0.3, "not reached: -0.200"), (0.7, "above: +0.200")]
)
def test_at_scale_paper_values_are_reached_or_not(value: float, words: str, tmp_path: Path) -> None:
    table = read_table(str(written(tmp_path, {**SMALL, "tolerance": 0.05, "paper": SMALL["tiny"]})))
    assert f"* one, x, SEG: {words} from" in markdown(sum_up("mine", table, "paper", {}, [outcome("one", value)]))


@pytest.mark.parametrize(("value", "words"), [(0.3, "below: -0.200"), (0.7, "not reached: +0.200")])
def test_of_a_loss_less_is_better(value: float, words: str, tmp_path: Path) -> None:
    tree = {**SMALL, "measures": ["loss"], "rows": {"one": {"values": {"x": {"loss": 0.5}}}, "two": {}}, "claims": []}
    table = read_table(str(written(tmp_path, {**tree, "tolerance": 0.05, "paper": SMALL["tiny"]})))
    job = RowJob(name="one", fit=(), row="one", data="x")
    done = Outcome(job, "finished", "run", measures={"x": {"loss": value}})
    assert f"* one, x, loss: {words} from" in markdown(sum_up("mine", table, "paper", {}, [done]))


def test_the_mean_is_over_data(table: Table) -> None:
    done = [outcome("one", 0.0, 0.5, 0.9, seed=1), outcome("one", 0.0, 0.7, 0.7, seed=2)]
    found = {(c.row, c.column): c for c in sum_up("mine", table, "paper", {}, done).cells}
    assert found["one", "y"].mean == pytest.approx(0.6)
    assert found["one", "mean"].mean == pytest.approx(0.7)
    assert math.isnan(found["two", "mean"].mean)


@pytest.mark.parametrize(("columns", "shown"), [(("y", "z"), 0.4), (("y", "w"), None)])
def test_the_papers_mean_is_shown_beside_one_over_the_same_data(
    columns: tuple[str, str], shown: float | None, tmp_path: Path
) -> None:
    values = {"y": {"SEG": 0.3}, "z": {"SEG": 0.5}, "mean": {"SEG": 0.4}}
    small = {"data": {"x": {"root": "X", "tests": {name: {"root": name} for name in columns}}}}
    tree = {**SMALL, "rows": {"one": {"values": values}, "two": {}}, "small": small}
    table = read_table(str(written(tmp_path, tree)))
    found = {(c.row, c.column): c for c in sum_up("mine", table, "small", {}, []).cells}
    assert found["one", "mean"].paper == shown
    assert found["one", "y"].paper == 0.3


def test_the_readme_has_it_between_its_marks(report: Results, tmp_path: Path) -> None:
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


@pytest.mark.usefixtures("store")
def test_what_ran_by_other_code_is_known(home: Path) -> None:
    parent = ParentRun.open("call", "1", {}, "a name", home)
    job = Job(name="one", fit=(), tags={IDENTITY: "i", CODE: code_version()})
    place = parent.client.get_run(parent.run_id).info.experiment_id
    for code, result in (("older", {RESULT: "{}"}), ("old", {RESULT: "{}"}), ("failed", {})):
        parent.client.create_run(place, tags={IDENTITY: "i", CODE: code, **result})
    assert outdated(parent, job) == "old"
    assert outdated(parent, Job(name="one", fit=(), tags={IDENTITY: "j"})) is None
