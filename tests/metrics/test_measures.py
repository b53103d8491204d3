"""Each measure is named once, and a measure of one's own is a metric and two rows."""

import torch
from torchmetrics import Metric

from lightning_cells.data.tracks import Lineage, Track
from lightning_cells.metrics import measures
from lightning_cells.metrics.ctc_measures import CTCCounts
from lightning_cells.metrics.detection import DetectionCounts
from lightning_cells.metrics.measures import FIRST, MEASURES, OPERATIONS, video_measures


def test_all_that_is_computed_has_a_name_and_a_sentence():
    assert set(video_measures().compute()) == {*MEASURES, *OPERATIONS}
    assert set(FIRST) <= set(MEASURES)


class ShareOfTracks(Metric):
    """Tracks of the result for each of the truth."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("found", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("true", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, result: Lineage, truth: Lineage) -> None:
        self.found += len(result)
        self.true += len(truth)

    def compute(self) -> dict[str, torch.Tensor]:
        return {"tracks": self.found / self.true}


def test_each_metric_takes_what_it_asks_for_of_each_video(monkeypatch):
    monkeypatch.setattr(measures, "_METRICS", (*measures._METRICS, ShareOfTracks))
    collection = video_measures()
    track = Track(1, 0, 3, 0)
    for hits in (3, 1):
        collection.update(
            counts=CTCCounts(seg_sum=0.5 * hits, seg_cells=hits),
            detections=DetectionCounts(hits, 1, 0),
            result=dict.fromkeys(range(hits), track),
            truth={1: track},
        )
    values = collection.compute()
    assert values["SEG"] == 0.5
    assert values["P"] == 4 / 6
    assert values["tracks"] == 2
    collection.reset()
    assert collection.compute()["SEG"].isnan()
