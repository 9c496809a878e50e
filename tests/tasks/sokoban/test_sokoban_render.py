"""Pictures of boards: what they must show, to whom, and without what."""

from __future__ import annotations

import re
from itertools import combinations
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sokoban_boards import boards

from himac_lite.tasks.sokoban.pixels import rgb_of_cells, to_rgb
from himac_lite.tasks.sokoban.render import to_ansi, to_svg, to_text
from himac_lite.tasks.sokoban.rules import BOX, PLAYER, TARGET, WALL, board_from_level
from himac_lite.types import Level

SVG = "{http://www.w3.org/2000/svg}"
OKABE_ITO = {"#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#000000"}
ROWS = ("#######", "#+ $ .#", "# *#$ #", "#######")
KINDS = {"floor": 0, "wall": WALL, "target": TARGET, "box": BOX, "box on target": BOX | TARGET, "player": PLAYER}
KINDS["player on target"] = PLAYER | TARGET


def board(*rows: str):
    return board_from_level(Level(rows))


def test_text():
    assert to_text(board(*ROWS)) == "#######\n#+ $ .#\n# *#$ #\n#######"


def test_ansi_is_the_text_in_colours():
    text = to_ansi(board(*ROWS))
    assert re.sub(r"\033\[[0-9;]*m", "", text) == to_text(board(*ROWS))
    painted = dict(re.findall(r"(\033\[[0-9;]+m)(.)\033\[0m", text))
    assert sorted(painted.values()) == sorted("#+$.*"), "one colour a character, and none twice"


# SVG


@given(boards(high=10), st.sampled_from(["auto", "light", "dark"]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_svg_is_one_self_contained_element(shown, theme, coordinates):
    text = to_svg(shown, 200, theme, coordinates)
    root = ElementTree.fromstring(text)
    assert root.tag == f"{SVG}svg"
    assert root.get("viewBox") == f"0 0 {20 * shown.width} {20 * shown.height}"
    rest = text.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|href|url\(|@import|<script|<image|<use|\bid=", rest)


def test_svg_says_in_words_what_it_shows():
    root = ElementTree.fromstring(to_svg(board(*ROWS)))
    assert root.get("role") == "img"
    assert root.findtext(f"{SVG}title") == "Sokoban board, 4 rows by 7 columns, 1 of 3 boxes on target"
    assert root.findtext(f"{SVG}desc") == (
        "Row and column from the upper left corner. Player at (1,1). Boxes at (1,3), (2,2), (2,4). "
        "Targets at (1,1), (1,5), (2,2)."
    )


def test_svg_size():
    square = ElementTree.fromstring(to_svg(board(*ROWS), size=210))
    assert (square.get("width"), square.get("height")) == ("210", "120")
    free = ElementTree.fromstring(to_svg(board(*ROWS)))
    assert free.get("width") is None


def drawn(*rows: str) -> dict[tuple[int, int], list[tuple[str, str]]]:
    """What the SVG draws on each cell: (shape, its path or radius) in order, colours left out."""
    root = ElementTree.fromstring(to_svg(board(*rows), theme="light"))
    found = {}
    for group in root.findall(f"{SVG}g"):
        x, y = map(int, re.fullmatch(r"translate\((\d+) (\d+)\)", group.get("transform")).groups())
        shapes = [(e.tag.removeprefix(SVG), e.get("d") or e.get("r") or "") for e in group.iter() if e.tag != f"{SVG}g"]
        assert (y // 20, x // 20) not in found
        found[y // 20, x // 20] = shapes
    return found


def test_every_piece_stands_on_its_cell_and_has_its_own_shape():
    cells = drawn(*ROWS)
    assert set(cells) == {(1, 1), (1, 3), (1, 5), (2, 2), (2, 4)}
    assert cells[1, 3] == cells[2, 4]
    player = drawn("####", "#@ #", "####")[1, 1]
    box, target, done, home = cells[1, 3], cells[1, 5], cells[2, 2], cells[1, 1]
    for one, other in combinations([box, target, done, home, player], 2):
        assert one != other, "without its colours one looks like the other"
    assert [shape for shape, _ in home] == ["circle", *[shape for shape, _ in player]], "the ring of the target stays"


def test_svg_colours_are_okabe_and_ito_and_the_pieces_keep_them_in_the_dark():
    for theme in ("light", "dark"):
        root = ElementTree.fromstring(to_svg(board(*ROWS), theme=theme))
        fills = {e.get("fill") for g in root.findall(f"{SVG}g") for e in g.iter() if e.get("fill", "none") != "none"}
        strokes = {e.get("stroke") for e in root.iter() if e.get("stroke")}
        player = {"light": "#0072B2", "dark": "#56B4E9"}[theme]
        assert fills == {"#E69F00", "#009E73", player} <= OKABE_ITO
        assert "#D55E00" in strokes  # the targets


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_walls_and_player_stand_out_from_the_floor(theme):
    """WCAG asks 3:1 of graphics."""
    root = ElementTree.fromstring(to_svg(board("####", "#@ #", "####"), theme=theme))
    floor, wall = root.find(f"{SVG}rect").get("fill"), root.findall(f"{SVG}path")[-1].get("fill")
    player = root.find(f"{SVG}g/{SVG}g").get("fill")
    for colour in (wall, player):
        dark, light = sorted([luminance(colour), luminance(floor)])
        assert (light + 0.05) / (dark + 0.05) >= 3


def test_auto_follows_the_page_and_the_others_do_not():
    text = to_svg(board(*ROWS))
    assert "prefers-color-scheme:dark" in text
    assert "[data-jp-theme-light=false] .himac-floor{fill:#1E2227}" in text
    assert ElementTree.fromstring(text).find(f"{SVG}rect").get("fill") == "#FBF8F1", "light where CSS is not read"
    for theme in ("light", "dark"):
        assert "<style" not in to_svg(board(*ROWS), theme=theme)


def test_coordinates_are_those_of_sub_goals():
    root = ElementTree.fromstring(to_svg(board(*ROWS), coordinates=True))
    at = {(int(float(t.get("y")) // 20), int(float(t.get("x")) // 20)): t.text for t in root.iter(f"{SVG}text")}
    assert at == {(0, c): str(c) for c in range(7)} | {(r, 0): str(r) for r in range(4)}
    assert not list(ElementTree.fromstring(to_svg(board(*ROWS))).iter(f"{SVG}text"))


@pytest.mark.parametrize(
    ("arguments", "message"), [({"theme": "blue"}, "not 'blue'"), ({"size": 0}, "at least 1 pixel")]
)
def test_svg_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        to_svg(board(*ROWS), **arguments)


# RGB


@pytest.mark.parametrize("tile", [1, 8, 16, 21])
def test_rgb_has_a_tile_for_every_cell(tile):
    picture = to_rgb(board(*ROWS), tile)
    assert picture.dtype == np.uint8
    assert picture.shape == (4 * tile, 7 * tile, 3)
    codes = {"#": "wall", " ": "floor", ".": "target", "$": "box", "*": "box on target", "+": "player on target"}
    for r, row in enumerate(ROWS):
        for c, ch in enumerate(row):
            alone = rgb_of_cells(np.array([[KINDS[codes[ch]]]], np.uint8), tile)
            assert (picture[r * tile : (r + 1) * tile, c * tile : (c + 1) * tile] == alone).all()


@pytest.mark.parametrize("kinds", list(combinations(KINDS, 2)), ids=" and ".join)
def test_rgb_tiles_differ_in_grey(kinds):
    """Told apart without any colour, by at least a twelfth of the tile."""
    one, other = (
        rgb_of_cells(np.array([[KINDS[k]]], np.uint8), 16).astype(float) @ [0.2126, 0.7152, 0.0722] for k in kinds
    )
    assert (abs(one - other) > 40).mean() > 1 / 12


def test_rgb_colours():
    tiles = {kind: rgb_of_cells(np.array([[bits]], np.uint8), 16) for kind, bits in KINDS.items()}
    assert tiles["wall"][8, 8].tolist() == [0x4B, 0x55, 0x63]
    assert tiles["floor"][8, 8].tolist() == [0xFB, 0xF8, 0xF1]
    assert tiles["box"][4, 8].tolist() == [0xE6, 0x9F, 0x00]
    assert tiles["box on target"][4, 4].tolist() == [0x00, 0x9E, 0x73]
    assert tiles["box"][8, 8].tolist() == [0x4A, 0x32, 0x00], "the middle of the cross"
    assert (tiles["box on target"] == 255).all(-1).any(), "the tick"
    assert tiles["player"][12, 8].tolist() == [0x00, 0x72, 0xB2]
    assert tiles["target"][8, 8].tolist() == [0xFB, 0xF8, 0xF1], "a ring has a hole"


def test_rgb_of_a_batch_is_the_boards_one_by_one():
    shown = [board("#####", "#@$.#", "#####"), board("#####", "#+ *#", "#####")]
    cells = np.array(
        [
            [[1] * 5, [1, PLAYER, BOX, TARGET, 1], [1] * 5],
            [[1] * 5, [1, PLAYER | TARGET, 0, BOX | TARGET, 1], [1] * 5],
        ],
        np.uint8,
    )
    assert (rgb_of_cells(cells, 8) == np.stack([to_rgb(b, 8) for b in shown])).all()
    assert rgb_of_cells(cells[:, None], 8).shape == (2, 1, 24, 40, 3)


def test_rgb_refuses_no_pixels():
    with pytest.raises(ValueError, match="at least 1 pixel"):
        to_rgb(board(*ROWS), 0)
