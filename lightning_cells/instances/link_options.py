"""Options of linking two-frame instances."""

from dataclasses import dataclass

from lightning_cells.errors import InputError


@dataclass(frozen=True, kw_only=True)
class LinkOptions:
    """How two-frame instances become tracks.

    Attributes:
        link_iou: least intersection over union at which an instance continues a track, 0..1.
        t_merge: a track of up to this many frames that split off another and was absorbed by it again becomes
            part of it; 0 for never.
        t_length: shorter tracks without parent and without child are dropped, in frames.
        parent_frames: how many frames back a parent is looked for; 0 for no divisions. The paper's 8 or 2 find
            more false divisions than 1.
        parent_dilation: how far a new cell is dilated before it is compared with earlier ones, in pixels; 5 suits
            cells that move between frames, 0 cells that overlap well.
        survivor_area: a track that goes on can be a parent only if its area fell below this fraction; it is cut
            there, and its rest becomes a child as well. None cuts any, as the paper does.
        border: width of the frame's margin, in pixels: cells that lie wholly in it are dropped (the challenge's
            field of interest: 50 for DIC-C2DH-HeLa, Fluo-C2DL-MSC, Fluo-N2DH-GOWT1 and PhC-C2DH-U373, 25 for
            Fluo-N2DL-HeLa and PhC-C2DL-PSC, 0 for Fluo-N2DH-SIM+).
    """

    link_iou: float = 0.25
    t_merge: int = 10
    t_length: int = 2
    parent_frames: int = 1
    parent_dilation: int = 5
    survivor_area: float | None = 0.75
    border: int = 0

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            InputError: A negative number, or link_iou above 1.
        """
        for name, value in vars(self).items():
            if value is not None and value < 0:
                raise InputError(f"{name}: {value} is negative; choose 0 or more")
        if self.link_iou > 1:
            raise InputError(f"link_iou: {self.link_iou} is no fraction; choose a value from 0 to 1")
