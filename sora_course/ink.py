"""Chapter 01: red ink. A drop spreads by chance; knowing the score is enough to make it gather again.

Particles are points in the plane, (n, 2). Time t runs from 0 (the drop) to 1 (nothing but noise). In water a particle
just wanders, and its variance grows for ever; for learning, each step also pulls it a little towards the origin, so that
every shape ends as the same standard normal: the variance-preserving process of Song et al. 2021 (section 3.4),

    dx = -1/2 beta(t) x dt + sqrt(beta(t)) dw,        x_t = signal(t) x_0 + noise_level(t) noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn as nn
import torch.nn.functional as F

from .kit import checkpoints

SHAPES = ("drop", "swirl", "character", "ring")
BETA_MIN, BETA_MAX = 0.1, 20.0  # Song et al. 2021, appendix C
_EXACT = "donot_use_mm_for_euclid_dist"  # distances by subtraction: by products they lose digits where points are near
Score = Callable[[torch.Tensor, float], torch.Tensor]


def load_ink(shape: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Particles of one shape to learn from, and fresh ones of the same shape to compare with: (12000, 2) and (4000, 2).

    Raises:
        ValueError: there is no such shape.
    """
    if shape not in SHAPES:
        raise ValueError(f"{shape!r} is not a shape of ink; there are {', '.join(SHAPES)}.")
    tensors, _ = checkpoints.load(checkpoints.find("ink"))
    return tensors[shape], tensors[f"{shape}.fresh"]


# In water ------------------------------------------------------------------------------------------------------------
def wander(x: torch.Tensor, *, steps: int, diffusivity: float, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Brownian motion in unit time: each of the steps adds normal noise of variance 2 diffusivity / steps. Yields (n, 2)."""
    for _ in range(steps):
        x = x + (2 * diffusivity / steps) ** 0.5 * torch.randn(x.shape, generator=generator)
        yield x


def concentration(x: torch.Tensor, *, cells: int = 60, extent: float = 3.0) -> torch.Tensor:
    """Share of all particles (n, 2) in each cell of a grid over [-extent, extent]^2: (cells, cells), lowest row first.

    Particles beyond the edge are counted in the cell nearest to them.

    Raises:
        ValueError: a coordinate is not a finite number.
    """
    if not x.isfinite().all():
        raise ValueError("Some particles have no place (nan or infinite); look at the step that moved them.")
    column, row = ((x + extent) * cells / (2 * extent)).floor().clamp(0, cells - 1).long().unbind(1)
    return torch.bincount(row * cells + column, minlength=cells**2).view(cells, cells) / len(x)


def spread(grid: torch.Tensor, *, steps: int, diffusivity: float, extent: float = 3.0) -> torch.Tensor:
    """Solve the heat equation dc/dt = diffusivity (c_xx + c_yy) for unit time on a grid (cells, cells) with closed edges.

    Raises:
        ValueError: the grid is not square, or there are too few steps: the explicit scheme needs 4 diffusivity / cell^2.
    """
    if grid.ndim != 2 or grid.shape[0] != grid.shape[1]:
        raise ValueError(f"The grid has as many rows as columns, and this one is {tuple(grid.shape)}.")
    if steps < 1 or diffusivity < 0:
        raise ValueError(
            f"Spreading takes at least 1 step and a diffusivity of 0 or more; these are {steps} and {diffusivity}."
        )
    rate = diffusivity / steps / (2 * extent / len(grid)) ** 2
    if rate > 0.25:
        raise ValueError(f"{steps} steps are too few for this grid; take at least {int(4 * rate * steps) + 1}.")
    for _ in range(steps):
        padded = F.pad(grid[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
        neighbours = padded[2:, 1:-1] + padded[:-2, 1:-1] + padded[1:-1, 2:] + padded[1:-1, :-2]
        grid = grid + rate * (neighbours - 4 * grid)
    return grid


# Forward -------------------------------------------------------------------------------------------------------------
def beta(t: torch.Tensor) -> torch.Tensor:
    """How fast noise comes in at time t in [0, 1]."""
    return BETA_MIN + (BETA_MAX - BETA_MIN) * t


def _beta_so_far(t: torch.Tensor) -> torch.Tensor:
    """The integral of beta from 0 to t."""
    return BETA_MIN * t + (BETA_MAX - BETA_MIN) * t**2 / 2


def signal(t: torch.Tensor) -> torch.Tensor:
    """exp(-1/2 of beta's integral from 0 to t): how much of the drop is left, 1 at t = 0 and 0.007 at t = 1 (eq. 33)."""
    return torch.exp(-0.5 * _beta_so_far(t))


def noise_level(t: torch.Tensor) -> torch.Tensor:
    """sqrt(1 - signal^2), so that the variance of standardised data stays 1."""
    return (-torch.expm1(-_beta_so_far(t))).sqrt()


def noised(x0: torch.Tensor, t: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """x_t in one jump. t is a number or (n,).

    Raises:
        ValueError: the noise has another shape than x0, or t is neither a number nor one for each particle.
    """
    t = torch.as_tensor(t, dtype=torch.float64 if x0.dtype == torch.float64 else torch.float32)
    if noise.shape != x0.shape or t.shape not in ((), x0.shape[:1]):
        shapes = ", ".join(str(tuple(x.shape)) for x in (x0, noise, t))
        raise ValueError(
            f"Noise has the shape of the particles, and t is a number or one for each; x0, noise and t are {shapes}."
        )
    t = t.view(-1, *[1] * (x0.ndim - 1)) if t.ndim else t
    return signal(t) * x0 + noise_level(t) * noise


def small_steps(x: torch.Tensor, *, steps: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """The same by many steps from t = 0 to 1, each of which keeps sqrt(1 - beta dt) of x and adds noise. Yields (n, 2).

    It comes as near to `noised` as the steps are small (Song et al. 2021, appendix B).

    Raises:
        ValueError: there are so few steps that beta dt exceeds 1.
    """
    if steps < BETA_MAX:
        raise ValueError(
            f"{steps} steps are too few, for each would add more noise than there can be; take {BETA_MAX:g} or more."
        )
    for i in range(steps):
        added = beta(torch.tensor((i + 0.5) / steps)) / steps  # beta dt, at the middle of the step
        x = (1 - added).sqrt() * x + added.sqrt() * torch.randn(x.shape, generator=generator)
        yield x


# Backward ------------------------------------------------------------------------------------------------------------
def exact_score(x: torch.Tensor, t: float, data: torch.Tensor) -> torch.Tensor:
    """Gradient of the log density at x (n, 2) of the data (m, 2) noised to time t > 0: (n, 2).

    The noised data are m Gaussians around signal(t) data; the score points to the mean of their centres, each weighted
    with the probability that x came from it.

    Raises:
        ValueError: t is not over 0, where the density has a gradient, and up to 1.
    """
    if not 0 < t <= 1:
        raise ValueError(f"The score exists at times over 0 and up to 1, and t is {float(t)}.")
    t = torch.as_tensor(t, dtype=x.dtype)
    centres, variance = signal(t) * data, noise_level(t) ** 2
    weights = torch.softmax(-(torch.cdist(x, centres, compute_mode=_EXACT) ** 2) / (2 * variance), dim=1)  # (n, m)
    return (weights @ centres - x) / variance


def gather(
    score: Score, x: torch.Tensor, *, steps: int, end: float = 1e-3, generator: torch.Generator | None = None
) -> Iterator[torch.Tensor]:
    """Run time backwards from x at t = 1 to t = end, and yield the particles after each step.

    With a generator this is the reverse diffusion dx = (-1/2 beta x - beta score) dt + sqrt(beta) dw (Song et al. 2021,
    eq. 6); without one it is the ordinary equation dx = -1/2 beta (x + score) dt that has the same densities (eq. 13).

    Raises:
        ValueError: fewer than one step, or an end that is not between 0 and 1.
    """
    if steps < 1:
        raise ValueError(f"Running back takes at least 1 step, and {steps} were asked for.")
    if not 0 < end < 1:
        raise ValueError(f"Running back goes from t = 1 to a time over 0, where the score exists; the end is {end}.")
    times = torch.linspace(1, end, steps + 1)
    for t, t_next in zip(times[:-1], times[1:]):
        dt, b = t - t_next, beta(t)
        if generator is None:
            x = x + 0.5 * b * (x + score(x, float(t))) * dt
        else:
            x = x + (0.5 * b * x + b * score(x, float(t))) * dt + (b * dt).sqrt() * torch.randn(x.shape, generator=generator)
        yield x


# Learning the score --------------------------------------------------------------------------------------------------
class InkMLP(nn.Module):
    """A small network that looks at a noised particle and its time, and names the noise in it: (n, 2), (n,) to (n, 2).

    It sees the place also as sines and cosines, since plain networks are slow to learn fine detail (Tancik et al. 2020).
    """

    FREQUENCIES = (1, 2, 4)  # half turns a unit

    def __init__(self, hidden_size: int = 128, depth: int = 3):
        super().__init__()
        sizes = [2 + 4 * len(self.FREQUENCIES) + 2, *[hidden_size] * depth]
        layers = [layer for a, b in zip(sizes, sizes[1:]) for layer in (nn.Linear(a, b), nn.SiLU())]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden_size, 2))

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        waves = [wave(k * math.pi * x) for k in self.FREQUENCIES for wave in (torch.sin, torch.cos)]
        level = torch.stack([signal(t), noise_level(t)], 1)
        return self.layers(torch.cat([x, *waves, level], 1))


def score_of(net: nn.Module) -> Score:
    """The score that a noise-naming network knows: score = -noise / noise_level (Vincent 2011)."""

    @torch.no_grad()
    def score(x: torch.Tensor, t: float) -> torch.Tensor:
        t = torch.full((len(x),), t)
        return -net(x, t) / noise_level(t)[:, None]

    return score


def denoising_loss(net: nn.Module, x0: torch.Tensor, t: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Denoising score matching (Vincent 2011), weighted by the noise's variance: mean squared error of the named noise."""
    return (net(noised(x0, t, noise), t) - noise).pow(2).mean()


def draw_times(n: int, *, generator: torch.Generator) -> torch.Tensor:
    """Times from 0.001 to 1 for training, more of them early, where little noise is left and the fine shape is told: (n,)."""
    return 1e-3 + (1 - 1e-3) * torch.rand(n, generator=generator) ** 2


def fit(
    data: torch.Tensor, *, steps: int = 2500, batch: int = 1024, lr: float = 8e-3, seed: int = 0, progress=iter
) -> InkMLP:
    """Learn the noise of particles (n, 2) at all times; the learning rate falls to zero along a cosine."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = InkMLP()
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in progress(range(steps)):
        x0 = data[torch.randint(len(data), (batch,), generator=generator)]
        noise = torch.randn(x0.shape, generator=generator)
        loss = denoising_loss(net, x0, draw_times(batch, generator=generator), noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net


# Measuring -----------------------------------------------------------------------------------------------------------
def energy_distance(x: torch.Tensor, y: torch.Tensor) -> float:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| of two samples (n, 2), (m, 2): 0 for one and the same distribution, else more.

    Szekely & Rizzo 2013; the statistic that counts a point's distance to itself, so it is not negative, and two samples
    of the same distribution give a small positive number, the floor.

    Raises:
        ValueError: a sample is empty.
    """
    if not len(x) or not len(y):
        raise ValueError("The energy distance compares two samples, and one of these is empty.")
    return max(0.0, float(2 * torch.cdist(x, y).mean() - torch.cdist(x, x).mean() - torch.cdist(y, y).mean()))
