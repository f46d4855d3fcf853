"""Shapes and handwritten digits as signed distances: negative inside, in radii of the shape, sampled on a square texture."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F

from .scenes import SYMBOLS

EXTENT, TEXTURE = 3.0, 128  # a texture covers -3..3 radii with so many samples a side


def _regular_star(points: int, inner: float):
    """Corners of a star, the first straight up; inner = the radius of the corners between the points."""
    import numpy as np

    angle = np.arange(2 * points) * math.pi / points
    radius = np.where(np.arange(2 * points) % 2 == 0, 1.0, inner)
    return np.stack([radius * np.sin(angle), -radius * np.cos(angle)], 1)


def _inside(shape: str, x, y):
    """Boolean mask of a symbol whose extent is about -1..1, at coordinates x, y (arrays), y down."""
    import numpy as np
    from matplotlib.path import Path

    if shape == "circle":
        return x**2 + y**2 < 0.92**2
    if shape == "ring":
        return (x**2 + y**2 < 1) & (x**2 + y**2 > 0.56**2)
    if shape == "square":
        return np.maximum(abs(x), abs(y)) < 0.84
    if shape == "cross":
        return (np.minimum(abs(x), abs(y)) < 0.3) & (np.maximum(abs(x), abs(y)) < 0.98)
    if shape == "heart":
        u, v = x * 1.2, 0.12 - y * 1.15  # (u^2 + v^2 - 1)^3 < u^2 v^3, the algebraic heart, y up
        return (u**2 + v**2 - 1) ** 3 < u**2 * v**3
    corners = {"triangle": _regular_star(3, 0.5) * 1.1 + [0, 0.2], "star": _regular_star(5, 0.42) * 1.08 + [0, 0.06]}
    return Path(corners[shape]).contains_points(np.stack([x.ravel(), y.ravel()], 1)).reshape(x.shape)


def _box(mask, margin: int = 0):
    """The smallest part of a boolean picture (h, w) that holds all that is True, and a margin: two slices."""
    lines = (mask.any(axis).nonzero()[0] for axis in (1, 0))
    return tuple(slice(max(0, i[0] - margin), i[-1] + 1 + margin) for i in lines)


def _signed_distance(mask, pixel: float):
    """From each pixel of a boolean picture (h, w) to the nearest of the other kind, negative inside, with pixels so wide."""
    from scipy.ndimage import distance_transform_edt as edt

    around = _box(mask, margin=1)  # all that is inside, and beside it the nearest that is not
    distance = edt(~mask)
    distance[around] -= edt(mask[around])
    return distance * pixel


@lru_cache(maxsize=1)
def symbol_textures() -> torch.Tensor:
    """(len(SYMBOLS), 128, 128): signed distances in radii, drawn four times finer and averaged down."""
    import numpy as np

    fine = 4 * TEXTURE
    axis = ((np.arange(fine) + 0.5) / fine * 2 - 1) * EXTENT
    x, y = np.meshgrid(axis, axis)
    fields = np.stack([_signed_distance(_inside(s, x, y), 2 * EXTENT / fine) for s in SYMBOLS])
    return _far_at_the_border(F.avg_pool2d(torch.from_numpy(fields).float()[None], 4)[0])


def _far_at_the_border(fields: torch.Tensor) -> torch.Tensor:
    """The outermost samples stand for all that lies beyond; they say "far away", so that not even ink reaches there."""
    fields[:, [0, -1]] = fields[:, :, [0, -1]] = 8.0
    return fields


@lru_cache(maxsize=1)
def digit_labels() -> torch.Tensor:
    """Which digit each of scikit-learn's 1,797 handwritten ones is: (1797,)."""
    from sklearn.datasets import load_digits

    return torch.from_numpy(load_digits().target)


def _draw_digits() -> torch.Tensor:
    """scikit-learn's 1,797 handwritten digits as (n, 128, 128) signed distances in radii.

    The 8x8 greys are enlarged with a cubic, cut at 0.38 of their brightest value and scaled to a height of two radii.
    """
    import numpy as np
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits

    images = load_digits().images
    axis = ((np.arange(TEXTURE) + 0.5) / TEXTURE * 2 - 1) * EXTENT
    # what each of twelve greys in a line becomes: (96, 12)
    enlarge = np.stack([zoom(one, 8, order=3, mode="grid-constant", grid_mode=True) for one in np.eye(12)], 1)
    fields = np.empty((len(images), TEXTURE, TEXTURE), np.float32)
    for field, image in zip(fields, images):
        mask = enlarge @ np.pad(image, 2) @ enlarge.T > 0.38 * image.max()  # the cubic, of columns and of rows: 96 x 96
        mask = mask[_box(mask)]
        radius = mask.shape[0] / 2
        margin = int(2.2 * radius)
        distance = _signed_distance(np.pad(mask, margin), 1 / radius)
        centre = (np.array(distance.shape) - 1) / 2
        i, j = np.clip(centre[:, None] + axis * radius, 0, np.array(distance.shape)[:, None] - 1)
        field[:] = distance[np.rint(i).astype(int)[:, None], np.rint(j).astype(int)[None]]
    return _far_at_the_border(torch.from_numpy(fields))


@lru_cache(maxsize=4)
def _all_textures(device: str) -> torch.Tensor:
    return torch.cat([symbol_textures(), _draw_digits()]) if device == "cpu" else _all_textures("cpu").to(device)


def digit_textures() -> torch.Tensor:
    """Those of the 1,797 handwritten digits, (1797, 128, 128), in the order of `digit_labels`."""
    return _all_textures("cpu")[len(SYMBOLS) :]


def textures(numbers: torch.Tensor) -> torch.Tensor:
    """The textures (n, 128, 128) of these numbers (see `draw_texture`); digits are prepared when the first is wanted."""
    if bool((numbers < len(SYMBOLS)).all()):
        return symbol_textures().to(numbers.device)[numbers]
    return _all_textures(str(numbers.device))[numbers]


def draw_texture(shape: str, generator) -> int:
    """The number of a texture that stands for the shape: symbols come first, then each digit that somebody wrote."""
    if shape in SYMBOLS:
        return SYMBOLS.index(shape)
    of_class = (digit_labels() == int(shape)).nonzero()[:, 0]
    return len(SYMBOLS) + int(of_class[torch.randint(len(of_class), (), generator=generator)])
