"""The films that the transformer learns from: which sizes, in which order, as latents and words, and what in them counts.

Each bucket holds films of one size. They are drawn from a seed, part by part, so that several processes can draw them and a
test can draw them again; the autoencoder encodes them once.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from .kit import checkpoints, world
from .kit.captions import caption
from .kit.training import autocast
from .kit.words import LANGUAGES
from .text import Tokenizer
from .video_vae import VideoVAE

PART = 128  # so many films are drawn, painted and encoded at a time
WORDINGS = 4  # captions of a film, English and Chinese in turn


@dataclass(frozen=True)
class Bucket:
    """Films of one size: how many are encoded, how many make a batch, and how often a batch is of this bucket.

    Another seed draws other films; objects says how many things each shows, None that both 1 and 2 occur; small that all
    of them are small.
    """

    num_frames: int
    height: int
    width: int
    films: int
    batch: int
    weight: float
    seed: int = 0
    objects: int | None = None
    small: bool = False


@dataclass(frozen=True)
class Films:
    """A bucket's films as the transformer sees them, all on one device."""

    latents: torch.Tensor  # (n, c, t, h, w), normalised, in half precision
    words: torch.Tensor  # (n, WORDINGS, m): numbers of tokens, 0 where a caption has ended
    behind: torch.Tensor  # (n,): which of `world.BACKDROPS`


# Drawing -------------------------------------------------------------------------------------------------------------
def _scene_of_film(film: int, bucket: Bucket, preset: str, richness: float, generator: torch.Generator) -> world.Scene:
    here = min(1.0, richness + 2 * (1 - richness) * film / bucket.films)
    while True:
        (scene,) = world.sample_scenes(1, generator=generator, preset=preset, objects=bucket.objects, richness=here)
        scene = world.as_still(scene) if bucket.num_frames == 1 else scene
        wanted = not bucket.small or all(thing.size == "small" for thing in scene.things)
        if wanted and world.may_train(scene):
            return scene


def draw_part(
    number: int, bucket: Bucket, *, preset: str, richness: float
) -> tuple[list[world.Scene], list[list[str]], world.Staging]:
    """Part number 0, 1, ... of the bucket: up to 128 scenes that training may show, `WORDINGS` captions of each, their staging.

    Args:
        richness: of the bucket's first scene (see `world.sample_scenes`); it rises to 1 half way through the bucket.
    """
    seed = 1000 + bucket.num_frames + 7 * bucket.height + 77 * bucket.width
    seed += 100_003 * bucket.seed + 10_007 * (bucket.objects or 0) + 1_009 * bucket.small
    generator = torch.Generator().manual_seed(1_000_003 * seed + number)
    films = range(PART * number, min(PART * (number + 1), bucket.films))
    scenes = [_scene_of_film(film, bucket, preset, richness, generator) for film in films]
    captions = [[caption(scene, LANGUAGES[k % 2], generator=generator) for k in range(WORDINGS)] for scene in scenes]
    size = (bucket.height, bucket.width)
    return scenes, captions, world.stage(scenes, generator=generator, num_frames=bucket.num_frames, size=size)


def parts_of(bucket: Bucket) -> range:
    """The numbers of the bucket's parts."""
    return range(-(-bucket.films // PART))


def _draw_tokens(number: int, bucket: Bucket, *, preset: str, richness: float, vocabulary: list[str]) -> bytes:
    """What encoding needs of a part, as bytes: tensors as such would go from process to process through a file each."""
    _, captions, staging = draw_part(number, bucket, preset=preset, richness=richness)
    tokens, _ = Tokenizer(vocabulary)([text for texts in captions for text in texts])
    return pickle.dumps((tokens.unflatten(0, (-1, WORDINGS)).short(), staging))


@contextmanager
def mapping(device: torch.device, processes: int | None = None) -> Iterator[Callable]:
    """`map`, and where a GPU encodes a map over several processes, which start when it is first called.

    A script that trains on a GPU keeps its calls under `if __name__ == "__main__":`, for each process reads it again.
    """
    processes = processes or (1 if device.type == "cpu" else min(16, os.cpu_count() or 1))
    if processes == 1:
        yield map
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield partial(pool.map, chunksize=4)


# Encoding ------------------------------------------------------------------------------------------------------------
def encode_bucket(
    vae: VideoVAE, bucket: Bucket, folder: Path, map_parts: Callable = map, *, preset: str, richness: float, vocabulary: list[str]
) -> Films:
    """The bucket's films, on the VAE's device. Encoded once; a file in the folder keeps them.

    Args:
        map_parts: how to map a function over the numbers of parts (see `mapping`).
    """
    device, drawn = vae.latent_std.device, {"preset": preset, "richness": richness}
    films = (bucket.num_frames, bucket.height, bucket.width, bucket.films, bucket.seed, bucket.objects, bucket.small)
    identity = repr((films, drawn, vocabulary, [draw_part(number, bucket, **drawn)[:2] for number in (0, parts_of(bucket)[-1])]))
    path = folder / f"films-{checkpoints.digest(vae.state_dict(), identity)[:16]}.safetensors"
    if path.exists():
        return Films(**{name: tensor.to(device) for name, tensor in checkpoints.load(path)[0].items()})
    latents, words, behind = [], [], []
    parts = map_parts(partial(_draw_tokens, bucket=bucket, vocabulary=vocabulary, **drawn), parts_of(bucket))
    what = f"encoding {bucket.num_frames}x{bucket.height}x{bucket.width}"
    for tokens, staging in tqdm(map(pickle.loads, parts), desc=what, total=len(parts_of(bucket))):
        with torch.no_grad(), autocast(device):
            videos = world.paint(staging, device if device.type == "cuda" else "cpu")  # not all of it is there on MPS
            latents.append(vae.encode(videos.to(device)).half())
        words.append(tokens)
        behind.append(staging.behind)
    longest = 16 * -(-max(tokens.shape[-1] for tokens in words) // 16)  # a GPU's kernels of attention ask for such a multiple
    words = torch.cat([F.pad(tokens, (0, longest - tokens.shape[-1])) for tokens in words])
    films = Films(torch.cat(latents), words.to(device), torch.cat(behind).to(device))
    checkpoints.save(path, vars(films), {"bucket": asdict(bucket)})
    return films


# Showing -------------------------------------------------------------------------------------------------------------
def shown_films(films: int, *, richness: float, progress: float) -> int:
    """How many of a bucket's films, from its first, are shown after that share of the training, 0..1.

    All of them, unless they grow richer: then a tenth of them, the plainest, and more and more until two fifths of the way.
    """
    return films if richness == 1 else max(1, int(films * min(1.0, 0.1 + 0.9 * progress / 0.4)))


@torch.no_grad()
def backdrop_latents(vae: VideoVAE, bucket: Bucket) -> torch.Tensor:
    """Latents of films in which nothing is but one of `world.BACKDROPS`: (10, c, t, h, w), on the VAE's device."""
    device = vae.latent_std.device
    with autocast(device):
        films = [world.backdrop(*kind, bucket.num_frames, bucket.height, bucket.width) for kind in world.BACKDROPS]
        return vae.encode(torch.stack(films).to(device)).float()


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
