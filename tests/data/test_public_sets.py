import re
from urllib.parse import urlsplit

import pytest

from lightning_cells.data.public_sets import DATASETS, TERMS, describe, find_set
from lightning_cells.errors import InputError


def test_table_is_sound() -> None:
    assert {"DIC-C2DH-HeLa", "Fluo-N2DH-SIM+", "Fluo-C2DL-MSC", "PhC-C2DH-U373"} <= set(DATASETS)
    for name, dataset in DATASETS.items():
        assert dataset.name == name
        assert urlsplit(dataset.url).scheme == "https"
        assert dataset.url.endswith(f"/{name}.zip")
        assert dataset.size is None or 10**6 < dataset.size < 10**10
        assert dataset.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", dataset.sha256)
        assert dataset.pixel is None or len(dataset.pixel) == (3 if dataset.volumes else 2)
        assert dataset.pixel is None or (dataset.pixel[-2] == dataset.pixel[-1] and 0.05 < min(dataset.pixel) <= 6)
    assert sum(dataset.volumes for dataset in DATASETS.values()) == len(DATASETS) - 10 == 10
    checksums = [dataset.sha256 for dataset in DATASETS.values() if dataset.sha256]
    assert len(set(checksums)) == len(checksums)


def test_description_has_every_set_in_a_line_and_the_terms() -> None:
    lines = describe().splitlines()
    for name, dataset in DATASETS.items():
        assert [line.startswith(name) and line.endswith(dataset.title) for line in lines].count(True) == 1
    assert lines[-1] == TERMS
    assert any("Fluo-N3DH-CE" in line and "1 x 0.09 x 0.09 µm" in line for line in lines)
    assert any("40 MiB" in line for line in lines)  # 41 504 758 bytes


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("fluo-n2dh-sim+", r"did you mean Fluo-N2DH-SIM\+\?"),
        ("Fluo-N2DH-SIM", r"did you mean Fluo-N2DH-SIM\+\?"),
        ("Flou-N2DH-GWOT1", r"did you mean .*Fluo-N2DH-GOWT1"),
        ("HeLa", "did you mean DIC-C2DH-HeLa or Fluo-N2DL-HeLa"),
        ("fluo-n3dh", r"did you mean Fluo-N3DH-CE or Fluo-N3DH-CHO or Fluo-N3DH-SIM\+\?"),
        ("zzz", "there are BF-C2DL-HSC, .*PhC-C2DL-PSC"),
        ("", "there are BF-C2DL-HSC"),
        ("../etc", "no data set"),
    ],
)
def test_unknown_name(name: str, match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        find_set(name)
    assert "\n" not in str(caught.value)
