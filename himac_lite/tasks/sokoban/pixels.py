"""A board as an RGB array: the picture of `sokoban.render.to_svg` in its light colours."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np

from himac_lite.errors import ConfigError, checked
from himac_lite.tasks.sokoban.cells import pack
from himac_lite.tasks.sokoban.render import BROWN, FOREST, GREEN, ORANGE, THEME, UNIT, VERMILION
from himac_lite.tasks.sokoban.rules import BOX, PLAYER, TARGET, WALL, Board


@checked
def to_rgb(board: Board, tile: int = 16) -> np.ndarray:
    """uint8 [H·tile, W·tile, 3], `tile` pixels per cell. Raises `ConfigError` for a tile below 1."""
    return rgb_of_cells(pack([board])[0][0], tile)


def rgb_of_cells(cells: np.ndarray, tile: int = 16) -> np.ndarray:
    """uint8 cells [..., H, W] of WALL, TARGET, BOX and PLAYER bits → uint8 [..., H·tile, W·tile, 3]."""
    if tile < 1:
        raise ConfigError(f"tile must be at least 1 pixel, not {tile}")
    *batch, height, width = cells.shape
    tiles = np.moveaxis(sprites(tile)[cells], -3, -4)  # [..., H, tile, W, tile, 3]
    return np.ascontiguousarray(tiles).reshape(*batch, height * tile, width * tile, 3)


@lru_cache(maxsize=8)
def sprites(tile: int) -> np.ndarray:
    """uint8 [16, tile, tile, 3]: the picture of each combination of bits, with the shapes and colours of the SVG."""
    fine = 4  # drawn at four times the size, then averaged
    y, x = (np.mgrid[: tile * fine, : tile * fine] + 0.5) * (UNIT / (tile * fine))

    def near(points: list[tuple[float, float]], reach: float) -> np.ndarray:
        """Within `reach` of a polyline."""
        out = np.zeros(x.shape, bool)
        for (x0, y0), (x1, y1) in pairwise(points):
            t = np.clip(((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / ((x1 - x0) ** 2 + (y1 - y0) ** 2), 0, 1)
            out |= np.hypot(x - x0 - t * (x1 - x0), y - y0 - t * (y1 - y0)) <= reach
        return out

    def pawn(scale: float) -> np.ndarray:
        u, v = (x - 10) / scale + 10, (y - 10) / scale + 10
        body = (np.hypot((u - 10) / 5.4, (v - 17.4) / 6.2) <= 1) & (v <= 17.4)
        return body | (np.hypot(u - 10, v - 6.4) <= 3.6)

    def rgb(colour: str) -> list[int]:
        return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]

    radius, off = np.hypot(x - 10, y - 10), np.maximum(abs(x - 10), abs(y - 10))
    cross = near([(6, 6), (14, 14)], 0.9) | near([(14, 6), (6, 14)], 0.9)
    tick = near([(5.8, 10.4), (8.8, 13.6), (14.2, 6.6)], 1.3)
    out = np.empty((16, tile, tile, 3), np.uint8)
    for bits in range(16):
        on = bool(bits & TARGET)
        layers = [(off <= 10, THEME["grid"][0]), (off <= 9.6, THEME["floor"][0])]
        if bits & WALL:
            layers.append((off <= 9.6, THEME["wall"][0]))
        elif bits & BOX:
            edge, face, mark, ink = (FOREST, GREEN, tick, "#FFFFFF") if on else (BROWN, ORANGE, cross, BROWN)
            layers += [(off <= 8.2, edge), (off <= 6.8, face), (mark, ink)]
        elif on:
            layers.append((abs(radius - (8.4 if bits & PLAYER else 4.6)) <= 1.2, VERMILION))
        if bits & PLAYER:
            layers.append((pawn(0.74 if on else 1.0), THEME["player"][0]))
        picture = np.empty((*x.shape, 3))
        for mask, colour in layers:
            picture[mask] = rgb(colour)
        out[bits] = picture.reshape(tile, fine, tile, fine, 3).mean((1, 3)).round()
    return out
