"""When a row is run again because the code has changed, and when not."""

import pytest

from lightning_cells.experiments.papers import jobs

SOURCE = '''"""A module."""

RADIUS = 3  # pixels


def area(side: int) -> int:
    """Pixels of a square."""
    return side * side
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A module."""', ""),
        ("# pixels", "# of a pixel, see the paper"),
        ("Pixels of a square.", "Returns pixels."),
        ("side * side", "(\n        side * side\n    )"),
    ],
)
def test_what_a_reader_alone_sees_changes_nothing(old: str, new: str) -> None:
    assert jobs.meaning(SOURCE.replace(old, new)) == jobs.meaning(SOURCE)


@pytest.mark.parametrize(("old", "new"), [("= 3", "= 4"), ("side * side", "side + side"), ("area", "surface")])
def test_what_a_machine_sees_changes_it(old: str, new: str) -> None:
    assert jobs.meaning(SOURCE.replace(old, new)) != jobs.meaning(SOURCE)


def test_a_new_module_changes_the_version(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = jobs.code_version.__wrapped__
    (tmp_path / "losses").mkdir()
    monkeypatch.setattr(jobs, "_PACKAGE", tmp_path)
    (tmp_path / "losses/one.py").write_text(SOURCE, encoding="utf-8")
    one = version()
    (tmp_path / "losses/one.py").write_text(SOURCE.replace("# pixels", ""), encoding="utf-8")
    assert version() == one
    (tmp_path / "losses/two.py").write_text(SOURCE, encoding="utf-8")
    assert version() != one


def test_all_named_code_is_there() -> None:
    assert all(list(jobs._PACKAGE.glob(pattern)) for pattern in jobs._SOURCES)
