"""The films that the transformer learns from: which sizes, in which order, as latents, and what in them counts.

Each bucket holds films of one size. They are drawn from a seed, so that a test can draw them again, and encoded once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tqdm.auto import tqdm

from .kit import checkpoints, world
from .kit.training import autocast
from .video_vae import VideoVAE


@dataclass(frozen=True)
class Bucket:
    """Films of one size: how many are encoded, how many make a batch, and how often a batch is of this size."""

    num_frames: int
    height: int
    width: int
    films: int
    batch: int
    weight: float


def scenes_for(bucket: Bucket, *, preset: str, richness: float, generator: torch.Generator) -> Iterator[world.Scene]:
    """The bucket's scenes, one by one, all of which training may show; in stills nothing moves.

    Args:
        richness: of the first scene (see `world.sample_scenes`); it rises to 1 with the last, slowly at first.
    """
    done = 0
    while done < bucket.films:
        here = richness + (1 - richness) * (done / bucket.films) ** 2
        (scene,) = world.sample_scenes(1, generator=generator, preset=preset, richness=here)
        scene = world.as_still(scene) if bucket.num_frames == 1 else scene
        if world.may_train(scene):
            yield scene
            done += 1


def shown_films(films: int, *, richness: float, progress: float) -> range:
    """Which of a bucket's films are shown after that share of the training, 0..1.

    All of them, unless they grow richer: then half of them, first the plainest, and from two thirds of the way on the richest.
    """
    if richness == 1:
        return range(films)
    first = int(min(1.0, 1.5 * progress) * (films // 2))
    return range(first, first + films - films // 2)


def _bucket_seed(bucket: Bucket) -> int:
    return 1000 + bucket.num_frames + 7 * bucket.height + 77 * bucket.width


def training_films(bucket: Bucket, *, preset: str, richness: float) -> tuple[list[world.Scene], Iterator[torch.Tensor]]:
    """The bucket's scenes, and their films (b, 3, t, h, w), in order, up to 32 at a time; the same at every call."""
    generator = torch.Generator().manual_seed(_bucket_seed(bucket))
    scenes = list(scenes_for(bucket, preset=preset, richness=richness, generator=generator))
    parts, size = (scenes[i : i + 32] for i in range(0, len(scenes), 32)), (bucket.height, bucket.width)
    return scenes, (world.render(part, generator=generator, num_frames=bucket.num_frames, size=size) for part in parts)


def encode_bucket(
    vae: VideoVAE, bucket: Bucket, folder: Path, *, preset: str, richness: float
) -> tuple[torch.Tensor, list[world.Scene]]:
    """The bucket's films as normalised latents (films, c, t, h, w) in half precision, and their scenes.

    Encoded once; a file in the folder keeps the latents, under a name that changes with the VAE and the scenes.
    """
    scenes, films = training_films(bucket, preset=preset, richness=richness)
    path = folder / f"latents-{checkpoints.digest(vae.state_dict(), repr((bucket, scenes)))[:16]}.safetensors"
    if path.exists():
        return checkpoints.load(path)[0]["latents"], scenes
    latents, what = [], f"encoding {bucket.num_frames}x{bucket.height}x{bucket.width}"
    for part in tqdm(films, desc=what, total=-(-len(scenes) // 32)):
        with torch.no_grad(), autocast(vae.latent_std.device):
            latents.append(vae.encode(part.to(vae.latent_std.device)).half().cpu())
    latents = torch.cat(latents)
    checkpoints.save(path, {"latents": latents}, {"bucket": asdict(bucket)})
    return latents, scenes


@torch.no_grad()
def backdrops(vae: VideoVAE, bucket: Bucket) -> dict[tuple[str, str], torch.Tensor]:
    """Latents (c, t, h, w) of films in which nothing is but the background, for each background and move of the camera."""
    kinds = [(background, camera) for background in world.BACKGROUNDS for camera in world.CAMERAS]
    films = [world.backdrop(*kind, bucket.num_frames, bucket.height, bucket.width) for kind in kinds]
    with autocast(vae.latent_std.device):
        return dict(zip(kinds, vae.encode(torch.stack(films).to(vae.latent_std.device)).float()))


def foreground(latents: torch.Tensor, empty: torch.Tensor, strength: float) -> torch.Tensor:
    """How much each place counts in the loss: 1 where a film looks as it would without things, up to 1 + strength elsewhere.

    A thing fills few latents, and a small one very few; most of an even loss is about paper.

    Args:
        latents, empty: of films and of their backdrops, normalised, (b, c, t, h, w).

    Returns:
        (b, 1, t, h, w).
    """
    difference = (latents - empty).pow(2).mean(1, keepdim=True)
    return 1 + strength * difference / (difference + 0.3)
