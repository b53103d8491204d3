"""What would wait for a GPU, told on a CPU by the operations: those whose result, or its size, the host must know."""

import traceback
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

WAITING = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "repeat_interleave",
    "equal",
}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}


class Waits(TorchDispatchMode):
    """Notes the operations that would wait, but those on tensors that are on the CPU in any case."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = operation.overloadpacket.__name__
        by_mask = name in INDEXING and any(t is not None and t.dtype in (torch.bool, torch.uint8) for t in args[1])
        if name in WAITING or by_mask:
            ours = [frame for frame in traceback.extract_stack() if "lightning_cells/" in frame.filename]
            self.found.append(f"{name}, {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else name)
        return operation(*args, **(kwargs or {}))
