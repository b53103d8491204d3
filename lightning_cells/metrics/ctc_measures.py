"""The measures of the Cell Tracking Challenge: SEG, DET, TRA, LNK, OP_CSB and OP_CTB."""

from dataclasses import fields

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_cells.metrics.counts import MEASURES, OPERATIONS, CTCCounts
from lightning_cells.metrics.evaluate import evaluate
from lightning_cells.metrics.matcher import CTCMatcher

__all__ = ["MEASURES", "OPERATIONS", "CTCCounts", "CTCMatcher", "CTCMeasures", "evaluate"]

# The sum of Jaccard indices is kept as an integer in this unit: exact to 1e-12, the same whatever the order
# of summing, and on devices without float64. An int64 holds eight million cells.
_UNIT = 2.0**-40


class CTCMeasures(Metric):
    """Pools the counts of videos, over batches and processes.

    Each video must be counted once: a sampler that pads the last batch by repeating samples would count some
    twice.
    """

    full_state_update = False
    is_differentiable = False

    def __init__(self) -> None:
        super().__init__()
        for field in fields(CTCCounts):
            self.add_state(field.name, default=torch.tensor(0, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, counts: CTCCounts) -> None:
        """Adds the counts of one video."""
        for field in fields(CTCCounts):
            value = getattr(counts, field.name)
            step = round(value / _UNIT) if field.name == "seg_sum" else value
            setattr(self, field.name, getattr(self, field.name) + step)

    def counts(self) -> CTCCounts:
        """Returns the sums so far."""
        sums = {field.name: int(getattr(self, field.name)) for field in fields(CTCCounts)}
        return CTCCounts(sums.pop("seg_sum") * _UNIT, **sums)

    def compute(self) -> dict[str, Tensor]:
        """Returns the pooled measures and the numbers of operations, see `MEASURES` and `OPERATIONS`.

        All are float32 scalars, nan where there was nothing to measure.
        """
        values = self.counts().values()
        return {name: torch.tensor(value, dtype=torch.float32, device=self.device) for name, value in values.items()}
