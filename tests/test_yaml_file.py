"""What is told of values from YAML that are not what they should be."""

from typing import Annotated, Literal

import pytest
from pydantic import Field

from lightning_cells.errors import InputError
from lightning_cells.yaml_file import Strict, checked, or_else


class Lens(Strict):
    power: Annotated[int, Field(ge=1), or_else("{value}: must be at least 1")]
    kind: Literal["oil", "air"] = "air"


class Microscope(Strict):
    name: str
    lenses: Annotated[dict[str, Lens], or_else("are no mapping: write {{first: {{power: 20}}}}")]


def test_values_are_converted() -> None:
    made = checked(Microscope, {"name": "mine", "lenses": {"a": {"power": 20}}}, "f.yaml")
    assert made.lenses["a"] == Lens(power=20, kind="air")


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({"name": "mine", "lenses": 3}, "lenses: are no mapping: write {first: {power: 20}}"),
        ({"nmae": "mine", "lenses": {}}, "has no 'name': add it; there is no 'nmae': did you mean 'name'?"),
        ({"name": "mine", "lenses": {"a": {"pwer": 3}}}, None),
        (
            {"name": 3, "lenses": {"a": {"power": 0, "kind": "water"}}},
            "name: should be a valid string, not '3'; lenses.a.power 0: must be at least 1; "
            "lenses.a.kind: should be 'oil' or 'air', not 'water'",
        ),
        ([], "should be a valid mapping or instance of Microscope, not '[]'"),
    ],
)
def test_all_mistakes_are_told_at_once_with_their_keys(tree: object, expected: str | None) -> None:
    expected = expected or "lenses.a: has no 'power': add it; lenses.a: there is no 'pwer': did you mean 'power'?"
    with pytest.raises(InputError) as error:
        checked(Microscope, tree, "f.yaml")
    assert str(error.value) == f"f.yaml: {expected}"
