"""Graphs as pictures: boxes where they belong, and nothing in a label that a browser obeys."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from sgrl.drawing import MAX_OBJECTS, MAX_RELATIONS, colour_of
from sgrl.errors import SgrlError
from sgrl.graph import Object, Relation, SceneGraph

GRAPH = SceneGraph(
    [Object("cat", (20, 40, 120, 160)), Object("mat", (200, 100, 380, 190))],
    [Relation(0, "on", 1, score=0.75)],
    400,
    200,
)
HOSTILE = "</svg><script>alert(1)</script> \" ' ]]> \x00\x1b[2J \u202e \ud800 &amp; " + "x" * 500


def edges(picture, box, colour):
    """Which share of the upper edge of a box, just inside it, has a colour."""
    x1, y1, x2, _ = map(round, box)
    row = np.asarray(picture).astype(int)[y1 + 1, x1 + 40 : x2 - 2]
    return (np.abs(row - np.array(colour)).max(axis=1) < 8).mean()


@pytest.mark.parametrize("size", [(800, 400), (1600, 800)])
def test_boxes_are_scaled_to_the_image_that_is_drawn_on(tmp_path, size):
    image = Image.new("RGB", size, (240, 240, 240))
    image.save(tmp_path / "a.png")
    for given in (image, np.asarray(image), tmp_path / "a.png", (tmp_path / "a.png").read_bytes()):
        drawn = GRAPH.draw(given)
        assert drawn.width == size[0] and drawn.height > size[1]
        for i, o in enumerate(GRAPH.objects):
            box = [value * size[0] / 400 for value in o.box]
            assert edges(drawn, (box[0] + 160 * i, *box[1:]), colour_of(i)) > 0.5
    assert image.getpixel((0, 0)) == (240, 240, 240)


def test_without_an_image_the_paper_is_white_and_never_large():
    drawn = GRAPH.draw()
    assert drawn.width == 800 and drawn.getpixel((1, 1)) == (255, 255, 255)
    assert max(SceneGraph((), (), 10**9, 10**8).draw().size) < 1100
    assert max(SceneGraph((), (), 1, 10**9).draw().size) < 1100
    with pytest.raises(SgrlError, match="does not open"):
        GRAPH.draw(b"nothing")


def test_numbers_are_those_of_the_tracks():
    plain, tracked = (np.asarray(GRAPH.draw(tracks=tracks)) for tracks in (None, [88, None]))
    assert plain.shape == tracked.shape and (plain != tracked).any()


def test_html_has_all_boxes_and_relations():
    tree = ElementTree.fromstring(GRAPH._repr_html_())
    svg = "{http://www.w3.org/2000/svg}"
    boxes = {tuple(float(r.get(key)) for key in ("x", "y", "width", "height")) for r in tree.iter(f"{svg}rect")}
    assert boxes == {(24.0, 48.0, 120.0, 144.0), (240.0, 120.0, 216.0, 108.0)}  # 480 wide
    (cells,) = [[cell.text for cell in row.iter("td")] for row in tree.iter("tr") if row.find("td") is not None]
    assert cells == ["1 cat", "on", "2 mat", "0.75"]
    assert len(list(tree.iter(f"{svg}line"))) == 1


def test_hostile_labels_are_text_in_html_and_pictures():
    objects = [Object(HOSTILE, (-1e308, 0, 1e308, 5)), Object("<b>", (0, 0, 0, 0))]
    graph = SceneGraph(objects, [Relation(0, HOSTILE, 1), Relation(1, "self", 1)], 50, 50)
    page = graph._repr_html_()
    tree = ElementTree.fromstring(page)  # well-formed: nothing of a label is markup, and no control character is left
    assert "<script" not in page and "\u202e" not in page and "\x1b" not in page
    page.encode()
    assert any(text.startswith("1 </svg><script>") for text in tree.itertext())
    graph.draw()


def test_a_huge_graph_makes_a_short_page():
    objects = [Object(f"thing {i}", (0, 0, 5, 5)) for i in range(5000)]
    graph = SceneGraph(objects, [Relation(i, "near", i + 1) for i in range(4999)], 10, 10)
    page = graph._repr_html_()
    assert len(page) < 60_000 and f"the first {MAX_OBJECTS} and {MAX_RELATIONS} are shown" in page
    graph.draw()
