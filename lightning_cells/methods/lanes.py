"""The recurrent state of the lanes of a batch, which is carried from clip to clip and through checkpoints."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed

from lightning_cells.data.clips import Clip
from lightning_cells.networks.recurrent import detach_state, reset_state


class Lanes:
    """State of the lanes of this process: a tensor (B, ...), None, or tuples of these.

    Lanes are numbered over all processes. A training that goes on with another number of processes, or of clips per
    batch, takes from the checkpoint the lanes that it still has; others start from zero.
    """

    def __init__(self) -> None:
        self._state: Any = None
        self._size: tuple[int, ...] = ()

    def before(self, clip: Clip) -> Any:
        """State before the clip, on its device: zero where a lane begins anew; None if none has begun."""
        if self._size != tuple(clip.frames.shape[-2:]):
            self.forget()  # crops of another size
        state = _map(self._state, lambda tensor: tensor.to(clip.frames.device))
        return reset_state(state, clip.first)

    def after(self, clip: Clip, state: Any) -> None:
        """Keeps the state after the clip, cut from its graph."""
        self._state, self._size = detach_state(state), tuple(clip.frames.shape[-2:])

    def forget(self) -> None:
        """All lanes begin anew."""
        self._state, self._size = None, ()

    def save(self) -> dict[str, Any]:
        """Lanes of all processes, for a checkpoint; to be called on each of them."""
        return {"state": _map(self._state, _gather), "size": self._size}

    def load(self, saved: dict[str, Any], first: int, count: int) -> None:
        """Takes `count` lanes from number `first` on out of a checkpoint."""

        def own(tensor: Tensor) -> Tensor:
            lanes = tensor[first : first + count]
            missing = count - len(lanes)
            return torch.cat([lanes, lanes.new_zeros(missing, *tensor.shape[1:])]) if missing else lanes

        self._state, self._size = _map(saved["state"], own), tuple(saved["size"])


def _gather(tensor: Tensor) -> Tensor:
    """All processes' lanes, on the CPU."""
    if not distributed.is_available() or not distributed.is_initialized():
        return tensor.cpu()
    everyone = [torch.empty_like(tensor) for _ in range(distributed.get_world_size())]
    distributed.all_gather(everyone, tensor.contiguous())
    return torch.cat(everyone).cpu()


def _map(state: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(state, Tensor):
        return change(state)
    if isinstance(state, tuple):
        return tuple(_map(part, change) for part in state)
    return state
