"""Pictures that several notebooks draw: ink, arrows, and small pictures side by side."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange, reduce

INK, PAPER = (0.72, -0.82, -0.76), (0.98, 0.96, 0.90)  # red and off-white, in [-1, 1]


def scatter(axis, x: torch.Tensor, title: str = "", *, extent: float = 3.0, color: str = "#b3201f") -> None:
    """Particles (n, 2), the first 2,000 of them, as dots on a square axis from -extent to extent."""
    axis.scatter(x[:2000, 0], x[:2000, 1], s=3, color=color, alpha=0.6, linewidths=0)
    axis.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal", xticks=[-2, 0, 2], yticks=[-2, 0, 2])
    axis.set_title(title, fontsize=10)


def arrows(
    axis, at: torch.Tensor, vectors: torch.Tensor, *, color: str = "#22518c", largest=None, width: float = 0.005
) -> None:
    """Arrows at places (n, 2), 0.6 units long for a vector of the length `largest`, by default the largest of them.

    Lengths are drawn as their square roots, so that small ones can be seen.
    """
    lengths = vectors.norm(dim=1, keepdim=True).clamp(min=1e-9)
    drawn = 0.6 * vectors / lengths * (lengths / (lengths.max() if largest is None else largest)).sqrt()
    style = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": width}
    axis.quiver(at[:, 0], at[:, 1], drawn[:, 0], drawn[:, 1], color=color, **style)


def ink_picture(x: torch.Tensor, *, size: int = 96, extent: float = 3.0) -> torch.Tensor:
    """Particles (n, 2) as red ink on paper, as dark as they are dense: (3, size, size) in [-1, 1]."""
    column, row = ((x + extent) * size / (2 * extent)).floor().long().unbind(1)
    inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
    cells = (size - 1 - row[inside]) * size + column[inside]
    grid = torch.bincount(cells, minlength=size * size).view(1, 1, size, size).float()
    blurred = F.avg_pool2d(F.avg_pool2d(grid, 5, 1, 2), 3, 1, 1)[0]
    darkness = 1 - torch.exp(-blurred * size**2 / len(x) / 4)  # ink over ink is hardly darker
    ink, paper = (torch.tensor(c).view(3, 1, 1) for c in (INK, PAPER))
    return paper + (ink - paper) * darkness


def ink_film(states, *, size: int = 96) -> torch.Tensor:
    """One frame for each set of particles: (3, t, size, size)."""
    return torch.stack([ink_picture(x, size=size) for x in states], dim=1)


def tile(pictures: torch.Tensor, columns: int, *, gap: int = 1):
    """Pictures (n, c, h, w) in [-1, 1] in rows, with white between them, for imshow: an array (height, width[, 3])."""
    pictures = ((pictures.float().clamp(-1, 1) + 1) / 2).cpu()
    pictures = F.pad(pictures, (gap, gap, gap, gap), value=1.0)
    missing = -len(pictures) % columns
    pictures = torch.cat([pictures, torch.ones(missing, *pictures.shape[1:])])
    tiled = rearrange(pictures, "(r k) c h w -> (r h) (k w) c", k=columns)
    return (tiled[..., 0] if tiled.shape[-1] == 1 else tiled).numpy()


def show_tiles(axis, pictures: torch.Tensor, columns: int, title: str = "") -> None:
    """Pictures side by side on an axis without ticks."""
    axis.imshow(tile(pictures, columns), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set_title(title, fontsize=10)
    axis.axis("off")


def bricks(axis, film: torch.Tensor, size: tuple[int, int, int], *, frames: list[int] | None = None) -> None:
    """A film (3, t, h, w) on a 3-D axis as bricks of size (frames, height, width), time to the right.

    Each brick has its mean colour, and is the more transparent the nearer that is to the film's median.

    Args:
        frames: where along time each layer of bricks begins; by default one behind the other.

    Raises:
        ValueError: the film has no three channels or cannot be cut so, or frames are more or fewer than layers.
    """
    import numpy as np

    if film.ndim != 4 or len(film) != 3 or any(side % part for side, part in zip(film.shape[1:], size)):
        raise ValueError(
            f"A film (3, t, h, w) with sides in multiples of {size} is needed, and this is {tuple(film.shape)}."
        )
    if frames is not None and len(frames) != film.shape[1] // size[0]:
        raise ValueError(f"There are {film.shape[1] // size[0]} layers of bricks and {len(frames)} places for them.")
    film = film.detach().float().cpu()
    colours = reduce(film, "c (t p) (h q) (w r) -> t w h c", "mean", p=size[0], q=size[1], r=size[2]).flip(2)  # rows upwards
    counts, sides = colours.shape[:3], (size[0], size[2], size[1])
    starts = [np.arange(count) * side for count, side in zip(counts, sides)]
    starts[0] = starts[0] if frames is None else np.array(frames)
    # Each brick has two edges, and a gap lies between it and the next.
    edges = [np.stack([start, start + 0.86 * side], axis=1).ravel() for start, side in zip(starts, sides)]
    filled = np.zeros([2 * count - 1 for count in counts], dtype=bool)
    filled[::2, ::2, ::2] = True
    unusual = (colours - colours.flatten(0, 2).median(0).values).norm(dim=-1, keepdim=True)
    faces = np.zeros((*filled.shape, 4))
    faces[filled] = torch.cat([(colours + 1) / 2, 0.06 + 1.5 * unusual], dim=-1).clamp(0, 1).reshape(-1, 4).numpy()
    axis.voxels(*np.meshgrid(*edges, indexing="ij"), filled, facecolors=faces, edgecolors="#44506b30", linewidth=0.4)
    axis.set(xlabel="frame", ylabel="column", zlabel="row", yticks=[], zticks=[], xticks=starts[0])
    axis.set(xlim=(0, starts[0][-1] + size[0]))
    axis.set_box_aspect((2, 1, 1), zoom=1.1)
    axis.view_init(elev=22, azim=-55)
