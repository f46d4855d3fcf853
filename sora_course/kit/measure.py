"""Measuring films of the captioned world: from pixels to how much of each an object covers, and from there to its area,
place, outline, size, turn and softness. `judge.py` turns the measures into words.

Lengths are in the world's units (half the frame's shorter side), coverages are (t, h, w) in 0..1.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F

from . import shapes, world
from .scenes import BACKGROUNDS, COLOURS, DIGITS, SIZES, SYMBOLS

MIN_AREA = 0.012  # square units; a smaller spot is no object (an object of radius 0.2 has 0.04 or more)
FAINT = 0.06  # less coverage than this is taken for none


# Pixels to coverage --------------------------------------------------------------------------------------------------
def pixel_area(video: torch.Tensor) -> float:
    return (2 / min(video.shape[-2:])) ** 2


def read_background(video: torch.Tensor) -> str:
    median = video.flatten(1).median(dim=1).values
    return min(BACKGROUNDS, key=lambda name: float((median - world.rgb(BACKGROUNDS[name])).norm()))


def coverages(video: torch.Tensor, background: str) -> dict[str, torch.Tensor]:
    """Colour to coverage (t, h, w) for each colour of which there is enough to be an object."""
    plain = world.rgb(BACKGROUNDS[background])
    lines = torch.stack([world.rgb(c) - plain for c in (*COLOURS.values(), world.DOTS[background])])  # (9, 3)
    off = video - plain[:, None, None, None]

    def nearest(lines):
        along = torch.einsum("kc,cthw->kthw", lines / lines.pow(2).sum(1, keepdim=True), off).clamp(0, 1)
        distance = (off[None] - along[:, None, :] * lines[:, :, None, None, None]).pow(2).sum(1)  # (k, t, h, w)
        return along, distance.min(0).indices  # what argmin(0) says, several times as fast on a CPU

    along, label = nearest(lines)
    sure = torch.stack([((label == k) & (along[k] > 0.6)).flatten(1).sum(1) for k in range(len(COLOURS))])  # (8, t)
    area = sure.float().median(dim=1).values.maximum(sure[:, 0].float()) * pixel_area(video)
    present = [k for k in area.argsort(descending=True).tolist() if area[k] > max(MIN_AREA, 0.2 * area.max())][:3]
    if not present:
        return {}
    along, label = nearest(lines[[*present, len(COLOURS)]])
    return {
        list(COLOURS)[k]: torch.where((label == i) & (along[i] > FAINT), along[i], 0.0) for i, k in enumerate(present)
    }


def pieces(coverage: torch.Tensor, area_of_pixel: float) -> int:
    """How many separate objects one frame's coverage (h, w) shows; strokes that nearly touch are one."""
    from scipy.ndimage import binary_dilation, label, sum_labels

    mask = coverage.numpy() > 0.4 * float(coverage.max())
    labels, n = label(binary_dilation(mask, iterations=2))
    areas = sum_labels(coverage.numpy(), labels, range(1, n + 1)) * area_of_pixel
    return int(sum(a > max(MIN_AREA / 2, 0.25 * max(areas)) for a in areas)) if n else 0


# Coverage to measures ------------------------------------------------------------------------------------------------
def moments(coverage: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Area, centre x and centre y in units, each (t,)."""
    x, y, pixel = world.pixel_centres(*coverage.shape[-2:])
    total = coverage.sum((1, 2)).clamp(min=1e-6)
    return total * pixel**2, (coverage.sum(1) * x).sum(1) / total, (coverage.sum(2) * y).sum(1) / total


def look(coverage: torch.Tensor, x: torch.Tensor, y: torch.Tensor, radius: torch.Tensor, points: torch.Tensor):
    """Sample frames (t, h, w) at centre + radius * points (..., 2): (t, ...)."""
    h, w = coverage.shape[-2:]
    flat = points.reshape(1, 1, -1, 2) * radius.view(-1, 1, 1, 1) + torch.stack([x, y], -1)[:, None, None]
    flat = flat / torch.tensor([w / min(h, w), h / min(h, w)])
    out = F.grid_sample(coverage[:, None], flat.float(), align_corners=False)
    return out.view(len(coverage), *points.shape[:-1])


@lru_cache(maxsize=1)
def _ideal() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of each symbol at radius 1: its area, its centroid (x, y), and its half height."""
    axis = ((torch.arange(shapes.TEXTURE) + 0.5) / shapes.TEXTURE * 2 - 1) * shapes.EXTENT
    inside = torch.sigmoid(-60 * shapes.symbol_textures())
    cell = (axis[1] - axis[0]) ** 2
    total = inside.sum((1, 2))
    centre = torch.stack([(inside.sum(1) * axis).sum(1) / total, (inside.sum(2) * axis).sum(1) / total], -1)
    return total * cell, centre, inside.amax(2).sum(1) * cell.sqrt() / 2


def overlap(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Soft intersection over union of the last two dimensions."""
    return torch.minimum(a, b).sum((-2, -1)) / torch.maximum(a, b).sum((-2, -1)).clamp(min=1e-6)


def outlines_in_common(coverage: torch.Tensor) -> float:
    """The overlap of what two frames (2, h, w) show, brought to one area and centre: 0..1.

    The larger one is blurred until it is as coarse as the pixels make the smaller, for a ring that covers six pixels shows no hole.
    """
    area, x, y = moments(coverage)
    radius = 1.6 * (area / 2).sqrt()
    pixel = 2 / min(coverage.shape[-2:]) / radius  # (2,), in radii
    blur = (pixel.max() ** 2 - pixel**2).sqrt()
    axis = torch.linspace(-1, 1, 32)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    tent, steps = torch.tensor([1.0, 2.0, 3.0, 2.0, 1.0]) / 9, torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0])
    steps = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1)[:, :, None, None]  # (5, 5, 1, 1, 2)
    seen = [look(coverage[[i]], x[[i]], y[[i]], radius[[i]], points + blur[i] * steps)[0] for i in range(2)]
    return float(overlap(*(torch.einsum("abhw,a,b->hw", one, tent, tent) for one in seen)))


def _symbol_overlaps(frame: torch.Tensor) -> torch.Tensor:
    """How well each symbol, at the same area and centroid, covers the frame's (h, w) object: (7,) in 0..1."""
    area, centre_x, centre_y = moments(frame[None])
    ideal_area, ideal_centre, _ = _ideal()
    radius = (area / ideal_area).sqrt()
    tracks = torch.stack(
        [centre_x - radius * ideal_centre[:, 0], centre_y - radius * ideal_centre[:, 1], radius, 0 * radius, 0 * radius], -1
    )
    x, y, pixel = world.pixel_centres(*frame.shape)
    return overlap(world.coverage_of(shapes.symbol_textures(), tracks[:, None], x, y, pixel)[:, 0], frame)


def digit_crop(frame: torch.Tensor) -> torch.Tensor:
    """The object in a (h, w) coverage, cut out at its bounding box and laid in a 16x16 square by its height: (256,)."""
    rows, cols = ((frame.amax(d) > 0.4 * frame.max()).nonzero()[:, 0] for d in (1, 0))
    x, y, pixel = world.pixel_centres(*frame.shape)
    middle = [(a[i[0]] + a[i[-1]]) / 2 for a, i in ((x, cols), (y, rows))]
    half = (y[rows[-1]] - y[rows[0]] + pixel) / 2
    axis = torch.linspace(-1, 1, 16)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    return look(frame[None], middle[0].view(1), middle[1].view(1), half.view(1), points).flatten()


@lru_cache(maxsize=1)
def _digit_reader():
    """A support-vector machine fitted on scikit-learn's digits as the world draws them, at two sizes."""
    from sklearn.svm import SVC

    fields, labels = shapes.digit_textures(), shapes.digit_labels()
    crops = []
    for size in (10, 16):  # pixels of radius
        axis = (torch.arange(3 * size) + 0.5 - 1.5 * size) / size / shapes.EXTENT
        grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).expand(len(fields), -1, -1, -1)
        distance = F.grid_sample(fields[:, None], grid, align_corners=False)[:, 0]
        crops += [digit_crop(c) for c in torch.sigmoid(-distance * 4 * size)]
    return SVC(C=10, gamma="scale").fit(torch.stack(crops).numpy(), labels.repeat(2).numpy())


def read_shape(frame: torch.Tensor) -> str:
    """Name the object of one coverage (h, w): a symbol if one overlaps well, else a digit."""
    overlaps = _symbol_overlaps(frame)
    best = int(overlaps.argmax())
    if overlaps[best] > 0.8:
        return SYMBOLS[best]
    return str(_digit_reader().predict(digit_crop(frame)[None].numpy())[0])


def read_size(frame: torch.Tensor, shape: str, grown: float = 1.0) -> str:
    """Large or small: the size of the object in a coverage (h, w) that shows it `grown` times as large as it began."""
    half_height = 1.0 if shape in DIGITS else float(_ideal()[2][SYMBOLS.index(shape)])
    _, _, pixel = world.pixel_centres(*frame.shape)
    radius = float(frame.amax(1).sum() / frame.max()) * pixel / 2 / half_height
    return min(SIZES, key=lambda s: abs(math.log(max(radius, 1e-3) / (grown * world.RADIUS[s]))))


def turns(coverage, area, x, y) -> torch.Tensor:
    """Angle of each frame against the first, degrees clockwise: (t,). Steps beyond 20 degrees a frame are not seen."""
    n = 120
    theta = torch.arange(n) * 2 * math.pi / n
    rings = torch.linspace(0.25, 1.5, 10)[:, None]
    points = torch.stack([rings * theta.cos(), rings * theta.sin()], -1)
    polar = look(coverage, x, y, (area / math.pi).sqrt(), points) * rings  # (t, 10, n)
    polar = polar - polar.mean(-1, keepdim=True)
    spectrum = torch.fft.rfft(polar)
    match = torch.fft.irfft((spectrum[1:] * spectrum[:-1].conj()).sum(1), n=n)  # (t - 1, n): by how much it turned
    shifts = torch.arange(-7, 8)
    near = match[:, shifts % n]
    best = near.argmax(1).clamp(1, len(shifts) - 2)
    left, mid, right = (near.gather(1, best[:, None] + d)[:, 0] for d in (-1, 0, 1))
    peak = shifts[best] + 0.5 * (left - right) / (left - 2 * mid + right).clamp(max=-1e-6)  # top of a parabola
    return torch.cat([torch.zeros(1), peak.clamp(-7, 7).cumsum(0) * 360 / n])


def _softness(coverage: torch.Tensor) -> torch.Tensor:
    """Share of half-covered pixels, (t,): grows as an edge spreads."""
    a = torch.where(coverage > FAINT, coverage, 0.0)
    return (a * (1 - a)).sum((1, 2)) / a.sum((1, 2)).clamp(min=1e-6)


_SPREADS = torch.linspace(0.02, 1.0, 50)


@lru_cache(maxsize=32)
def _softness_at_spreads(shape: str) -> torch.Tensor:
    """The softness of a shape's ideal picture at each of _SPREADS, (50,): it rises with the spread."""
    texture = shapes.textures(torch.tensor([shapes.draw_texture(shape, torch.Generator().manual_seed(0))]))
    axis = torch.linspace(-2.5, 2.5, 160)
    tracks = torch.zeros(1, len(_SPREADS), 5)
    tracks[..., 2], tracks[..., 4] = 1.0, _SPREADS
    return _softness(world.coverage_of(texture, tracks, axis, axis, 0.03)[0]).cummax(0).values


def spread(coverage: torch.Tensor, shape: str) -> torch.Tensor:
    """Width of the edge in radii, beyond that of the first frame: (t,)."""
    soft = _softness(coverage)
    nearest = torch.searchsorted(_softness_at_spreads(shape), soft).clamp(max=len(_SPREADS) - 1)
    return _SPREADS[nearest] - _SPREADS[nearest[0]]
