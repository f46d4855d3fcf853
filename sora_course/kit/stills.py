"""Stills of the world, as latents with labels: what chapter 07's small transformers learn to paint."""

from __future__ import annotations

import torch

from . import world
from .judge import judge
from .training import autocast

KINDS = tuple(
    (colour, shape) for colour in world.PRESETS["starter"]["colours"] for shape in world.PRESETS["starter"]["shapes"]
)


@torch.no_grad()
def encoded(vae, kinds: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
    """Latents (n, c, h, w) of one still of each kind (n,), the number of a colour and shape in KINDS, at any place.

    Args:
        vae: a video VAE, for which a still is a film of one frame.

    Raises:
        ValueError: a number is not that of a kind.
    """
    if not len(kinds) or not (0 <= kinds.min() and kinds.max() < len(KINDS)):
        raise ValueError(f"Kinds are numbers from 0 to {len(KINDS) - 1}, one or more of them; these are {kinds.tolist()}.")
    latents = []
    for part in kinds.split(64):
        films = world.render([world.scene(*KINDS[i]) for i in part.tolist()], generator=generator, num_frames=1)
        with autocast("cpu"):
            latents.append(vae.encode(films)[:, :, 0].float())
    return torch.cat(latents)


def labelled(vae, count: int, *, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents (n, c, h, w) of stills of kinds drawn at random, and the kinds (n,)."""
    kinds = torch.randint(len(KINDS), (count,), generator=generator)
    return encoded(vae, kinds, generator=generator), kinds


@torch.no_grad()
def decoded(vae, latents: torch.Tensor) -> torch.Tensor:
    """Pictures (n, 3, height, width) in [-1, 1] of latents (n, c, h, w)."""
    with autocast("cpu"):
        films = [vae.decode(part[:, :, None]) for part in latents.float().split(64)]
    return torch.cat(films)[:, :, 0].float().clamp(-1, 1)


def read_right(pictures: torch.Tensor, kinds: torch.Tensor) -> dict[str, float]:
    """Shares of pictures (n, 3, height, width) of which the judge reads colour, shape, and all right."""
    verdicts = judge(pictures[:, :, None], [world.scene(*KINDS[i]) for i in kinds.tolist()])
    return {name: sum(v[name] for v in verdicts) / len(verdicts) for name in ("colour", "shape", "all")}
