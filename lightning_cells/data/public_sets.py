"""The table of named public data sets."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from lightning_cells.errors import InputError

TERMS = (
    "Cell Tracking Challenge data: free for use related to the challenge, cite Maška et al., Nature Methods "
    "20 (2023), doi:10.1038/s41592-023-01879-y; other uses need the providers' permission, see "
    "https://celltrackingchallenge.net/datasets/"
)
"""Under which conditions the data may be used."""


@dataclass(frozen=True)
class DataSet:
    """A public data set, one zip archive.

    Attributes:
        name: its name in the Cell Tracking Challenge.
        title: one line: what it shows.
        url: where the archive is.
        size: bytes of the archive; None if not known.
        sha256: of the archive, in hexadecimal digits; None if not known.
        pixel: height and width of a pixel, or depth, height and width of a voxel, in micrometres; None if that is not
            known, or means nothing.
    """

    name: str
    title: str
    url: str
    size: int | None = None
    sha256: str | None = None
    pixel: tuple[float, ...] | None = None

    @property
    def micrometres(self) -> str:
        """``pixel`` for people; empty without one."""
        return "" if self.pixel is None else " x ".join(f"{side:g}" for side in self.pixel) + " µm"

    @property
    def volumes(self) -> bool:
        """Whether its frames are volumes."""
        return "3D" in self.name


def _training(name: str, title: str, size: int | None, sha256: str | None, pixel: tuple[float, ...] | None) -> DataSet:
    url = f"https://data.celltrackingchallenge.net/training-datasets/{name}.zip"
    return DataSet(name, title, url, size, sha256, pixel)


# Checksums and sizes are what independent public projects recorded of these archives. A size is given only
# where one source has it together with the checksum; that of others is in the title, roughly. Sizes of pixels
# are the challenge's, where two public projects agree on them.
DATASETS: Mapping[str, DataSet] = {
    dataset.name: dataset
    for dataset in (
        _training(
            "BF-C2DL-HSC",
            "mouse blood stem cells in hydrogel microwells, bright field",
            None,
            "0aa68ec37a9b06e72a5dfa07d809f56e1775157fb674bb75ff904936149657b1",
            (0.645, 0.645),
        ),
        _training(
            "BF-C2DL-MuSC",
            "mouse muscle stem cells in hydrogel microwells, bright field",
            None,
            "ca72b59042809120578a198ba236e5ed3504dd6a122ef969428b7c64f0a5e67d",
            (0.645, 0.645),
        ),
        _training(
            "DIC-C2DH-HeLa",
            "HeLa cells on flat glass, differential interference contrast",
            41_504_758,
            "832fed2d05bb7488cf9c51a2994b75f8f3f53b3c3098856211f2d39023c34e1a",
            (0.19, 0.19),
        ),
        _training(
            "Fluo-C2DL-Huh7",
            "human liver cancer cells with YFP-TIA-1, fluorescence",
            38_151_145,
            "1912658c1b3d8b38b314eb658b559e7b39c256917150e9b3dd8bfdc77347617d",
            None,
        ),
        _training(
            "Fluo-C2DL-MSC",
            "rat mesenchymal stem cells on polyacrylamide, fluorescence",
            None,
            "a083521f0cb673ae02d4957c5e6580c2e021943ef88101f6a2f61b944d671af2",
            None,  # 0.3 micrometres in video 01, 0.3977 in video 02
        ),
        _training(
            "Fluo-N2DH-GOWT1",
            "nuclei of GFP-GOWT1 mouse stem cells, fluorescence",
            59_331_035,
            "1a7bd9a7d1d10c4122c7782427b437246fb69cc3322a975485c04e206f64fc2c",
            (0.24, 0.24),
        ),
        _training(
            "Fluo-N2DH-SIM+",
            "simulated nuclei of HL60 cells stained with Hoechst, fluorescence",
            99_034_393,
            "3e809148c87ace80c72f563b56c35e0d9448dcdeb461a09c83f61e93f5e40ec8",
            (0.125, 0.125),
        ),
        _training(
            "Fluo-N2DL-HeLa",
            "nuclei of HeLa cells with H2b-GFP, fluorescence, crowded",
            None,
            "35dd99d58e071aba0b03880128d920bd1c063783cc280f9531fbdc5be614c82e",
            (0.645, 0.645),
        ),
        _training(
            "PhC-C2DH-U373",
            "U373 glioblastoma cells on polyacrylamide, phase contrast",
            43_454_399,
            "b18185c18fce54e8eeb93e4bbb9b201d757add9409bbf2283b8114185a11bc9e",
            (0.65, 0.65),
        ),
        _training(
            "PhC-C2DL-PSC",
            "pancreatic stem cells on polystyrene, phase contrast, crowded",
            None,
            "9d54bb8febc8798934a21bf92e05d92f5e8557c87e28834b2832591cdda78422",
            (1.6, 1.6),
        ),
        _training(
            "Fluo-C3DH-A549",
            "human lung cancer cells with GFP-actin in a matrix, volumes; 0.2 GB",
            None,
            None,
            (1.0, 0.126, 0.126),
        ),
        _training(
            "Fluo-C3DH-A549-SIM", "simulated lung cancer cells, volumes; 0.3 GB", None, None, (1.0, 0.126, 0.126)
        ),
        _training(
            "Fluo-C3DH-H157",
            "human lung cancer cells with GFP in Matrigel, volumes; 7 GB",
            None,
            None,
            (0.5, 0.126, 0.126),
        ),
        _training(
            "Fluo-C3DL-MDA231",
            "human breast cancer cells in collagen, volumes; 0.2 GB",
            None,
            None,
            (6.0, 1.242, 1.242),
        ),
        _training("Fluo-N3DH-CE", "nuclei of embryos of C. elegans, volumes; 3 GB", None, None, (1.0, 0.09, 0.09)),
        _training(
            "Fluo-N3DH-CHO",
            "nuclei of hamster ovary cells with GFP-PCNA, volumes; 0.1 GB",
            None,
            None,
            (1.0, 0.202, 0.202),
        ),
        _training("Fluo-N3DH-SIM+", "simulated nuclei of HL60 cells, volumes; 3 GB", None, None, (0.2, 0.125, 0.125)),
        _training(
            "Fluo-N3DL-DRO", "nuclei of fruit fly embryos, light sheet, volumes; 6 GB", None, None, (2.03, 0.406, 0.406)
        ),
        _training("Fluo-N3DL-TRIC", "nuclei of beetle embryos, unrolled like a map, volumes; 22 GB", None, None, None),
        _training(
            "Fluo-N3DL-TRIF", "nuclei of beetle embryos, light sheet, volumes; 320 GB", None, None, (0.38, 0.38, 0.38)
        ),
    )
}
"""The training sets of the Cell Tracking Challenge, of images and of volumes, by name."""


def find_set(name: str) -> DataSet:
    """Returns the data set of that name.

    Raises:
        InputError: if there is none; the message has the nearest names.
    """
    if name in DATASETS:
        return DATASETS[name]
    by_folded = {known.casefold(): known for known in DATASETS}
    folded = name.casefold()
    near = [key for key in by_folded if folded and folded in key]
    near = near or difflib.get_close_matches(folded, by_folded, n=3, cutoff=0.5)
    if near:
        raise InputError(f"no data set {name!r}: did you mean {' or '.join(by_folded[key] for key in near)}?")
    raise InputError(f"no data set {name!r}: there are {', '.join(DATASETS)}")


def describe() -> str:
    """Returns the table for people: name, size, pixel and title of each set in a line, then the terms of use."""
    width = max(len(name) for name in DATASETS)
    wide = max(len(dataset.micrometres) for dataset in DATASETS.values())
    lines = []
    for name, dataset in DATASETS.items():
        size = "" if dataset.size is None else f"{dataset.size / 2**20:.0f} MiB"
        lines.append(f"{name:<{width}}  {size:>7}  {dataset.micrometres:<{wide}}  {dataset.title}")
    return "\n".join([*lines, "", TERMS])
