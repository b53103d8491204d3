"""Recurrent state through clips and checkpoints."""

import torch

from lightning_cells.data.clips import Clip
from lightning_cells.methods.lanes import Lanes


def clip(*first: bool, size: int = 4) -> Clip:
    return Clip(torch.zeros(len(first), 2, 1, size, size), None, None, {}, torch.tensor(first))


def state(*values: float) -> tuple:
    """Nested as networks have it, with a part without state; one value per lane."""
    h = torch.tensor(values, dtype=torch.float32)[:, None, None].expand(-1, 2, 2).clone().requires_grad_()
    return ((h, h * 10), None)


def values(found: tuple) -> list[float]:
    (h, c), nothing = found
    assert nothing is None
    assert torch.equal(c, h * 10)
    return h[:, 0, 0].detach().tolist()


def test_state_is_carried_cut_and_reset() -> None:
    lanes = Lanes()
    assert lanes.before(clip(True, True)) is None
    lanes.after(clip(True, True), state(1, 2))
    assert values(lanes.before(clip(False, False))) == [1, 2]
    assert values(lanes.before(clip(False, True))) == [1, 0]
    assert not lanes.before(clip(False, False))[0][0].requires_grad
    lanes.forget()
    assert lanes.before(clip(False, False)) is None


def test_crops_of_another_size_begin_anew() -> None:
    lanes = Lanes()
    lanes.after(clip(True, True), state(1, 2))
    assert lanes.before(clip(False, False, size=6)) is None


def test_through_a_checkpoint(tmp_path) -> None:
    """Which holds plain tensors alone. Fewer lanes take theirs, further ones begin from zero."""
    lanes = Lanes()
    lanes.after(clip(True, True, True, True), state(1, 2, 3, 4))
    torch.save(lanes.save(), tmp_path / "lanes.pt")
    saved = torch.load(tmp_path / "lanes.pt", weights_only=True)

    def loaded(first: int, count: int) -> list[float]:
        other = Lanes()
        other.load(saved, first, count)
        return values(other.before(clip(*[False] * count)))

    assert loaded(0, 4) == [1, 2, 3, 4]
    assert loaded(2, 2) == [3, 4]
    assert loaded(3, 3) == [4, 0, 0]
    assert loaded(8, 2) == [0, 0]


def test_nothing_to_carry() -> None:
    other = Lanes()
    other.load(Lanes().save(), 0, 2)
    assert other.before(clip(False, False)) is None
