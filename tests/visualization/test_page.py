import base64
import io

import jinja2
import numpy as np
import pytest
from PIL import Image

from lightning_cells.visualization import page
from lightning_cells.visualization.page import data_uri, file_name, png, render, webp


@pytest.mark.parametrize(
    "text", ["../../etc/passwd", "a/b\\c", "..", ".hidden", "", "<b>&'\"", "line\nbreak", "x" * 500]
)
def test_any_text_makes_the_name_of_one_file(tmp_path, text):
    path = tmp_path / "inner" / file_name(text)
    path.parent.mkdir()
    path.write_text("here")
    assert list(tmp_path.rglob("*")) == [path.parent, path]
    assert path.resolve().parent == path.parent.resolve()
    assert not set(path.name) & set("<>&'\"/\\ \n")
    assert path.name[0] != "."


def test_a_plain_name_stays_as_it_is():
    assert file_name("Fluo-N2DH_01.b") == "Fluo-N2DH_01.b"


def test_images_come_back_from_their_address():
    image = np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8)
    kind, content = data_uri(png(image)).split(",")
    assert kind == "data:image/png;base64"
    assert np.array_equal(Image.open(io.BytesIO(base64.b64decode(content))), image)
    flat = np.full((16, 16, 3), 90, np.uint8)
    kind, content = data_uri(webp(flat), "webp").split(",")
    assert kind == "data:image/webp;base64"
    assert abs(np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))).astype(int) - 90).max() <= 2


def test_templates_escape_and_miss_nothing():
    source = '{% extends "page.html.j2" %}{% import "parts.html.j2" as parts %}{% block title %}{{ bad }}{% endblock %}'
    source += "{% block content %}{{ parts.table([bad], [[bad], [1.5], [none]]) }}{{ parts.figure(bad, bad, bad) }}"
    source += "{{ parts.legend([(bad, bad, 3)]) }}{% endblock %}"
    bad = "\"><script>alert('x')</script>"
    text = page._environment().from_string(source).render(bad=bad)
    assert "<script" not in text
    assert text.count("&lt;script&gt;") == 9
    assert "1.500" in text
    with pytest.raises(jinja2.UndefinedError):
        render("report.html.j2", {})
