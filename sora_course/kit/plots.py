"""Pictures that several notebooks draw: ink, arrows, and small pictures side by side."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange

INK, PAPER = (0.72, -0.82, -0.76), (0.98, 0.96, 0.90)  # red and off-white, in [-1, 1]


def scatter(axis, x: torch.Tensor, title: str = "", *, extent: float = 3.0, color: str = "#b3201f") -> None:
    """Particles (n, 2), the first 2,000 of them, as dots on a square axis from -extent to extent."""
    axis.scatter(x[:2000, 0], x[:2000, 1], s=3, color=color, alpha=0.6, linewidths=0)
    axis.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal", xticks=[-2, 0, 2], yticks=[-2, 0, 2])
    axis.set_title(title, fontsize=10)


def arrows(axis, at: torch.Tensor, vectors: torch.Tensor, *, color: str = "#22518c", largest=None, width: float = 0.005) -> None:
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
