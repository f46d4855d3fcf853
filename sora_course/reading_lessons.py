"""Chapter 08: how the film reader learns to read: from true films of the training side, and from outlines spoilt on purpose.

A network that has only seen the world's shapes takes a ragged star for a star. So a third of the things that it learns from are
drawn badly, as badly as a model may draw them, and what is too far from its shape has none.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from .film_reader import COLOURS, FRAMES, OF_A_THING, SHAPES, FilmReader, answers_of
from .kit import world
from .kit.shapes import draw_texture, textures
from .kit.training import TrainConfig, train

FILMED = ((17, 64, 64), (17, 64, 64), (17, 64, 64), (9, 64, 64), (25, 64, 64), (17, 64, 96), (17, 96, 64))  # frames, height, width


def overlap(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """How much of both outlines together, of signed distances (n, r, r), lies in both: (n,), 0..1."""
    one, other = one < 0, other < 0
    return (one & other).sum((1, 2)) / (one | other).sum((1, 2)).clamp(min=1)


def spoil(outlines: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
    """Outlines as an unskilled hand would draw them: on the way to another shape, frayed, too thick or too thin.

    Args:
        outlines: signed distances (n, r, r), in radii, each of which is turned into what may no longer be its shape.

    Returns:
        Signed distances (n, r, r).
    """
    n, r = outlines.shape[:2]
    if n == 0:
        return outlines
    others = textures(torch.tensor([draw_texture(_any_shape(generator), generator) for _ in range(n)]))
    share, fray, swell = (scale * torch.rand(n, 1, 1, generator=generator) * (torch.rand(n, 1, 1, generator=generator) < often)
                          for scale, often in ((0.7, 0.6), (0.25, 0.6), (0.12, 0.4)))  # fmt: skip
    rough = F.interpolate(torch.randn(n, 1, r // 10, r // 10, generator=generator), size=(r, r), mode="bicubic")[:, 0]
    sign = 2 * torch.randint(2, (n, 1, 1), generator=generator) - 1
    return torch.lerp(outlines, others, share) + fray * rough + sign * swell


def _any_shape(generator: torch.Generator) -> str:
    return SHAPES[int(torch.randint(len(SHAPES), (), generator=generator))]


def films_to_read(n: int, *, generator: torch.Generator, shape: tuple[int, int, int] = (17, 64, 64)) -> tuple[torch.Tensor, torch.Tensor]:
    """Films and the answers about them: (n, 3, `FRAMES`, h, w) in [-1, 1] with some noise, and (n, 42).

    Nearly half of the scenes have two things. A third of all things have an outline that is spoilt from the beginning or becomes so:
    its shape is none where it covers less than 70 % of what it should be and not said where it is less than 85 %, and it is not kept
    where less than 60 % of the first outline are left in the last.

    Args:
        shape: of the whole films: frames, height, width.
    """
    frames, *size = shape
    pairs = int(0.45 * n)
    scenes = world.sample_scenes(n - pairs, generator=generator, objects=1) + world.sample_scenes(pairs, generator=generator, objects=2)
    staging = world.stage(scenes, generator=generator, num_frames=frames, size=tuple(size))
    whole = textures(staging.texture)
    first, last = whole.clone(), whole.clone()
    which = torch.rand(len(whole), generator=generator)
    spoilt, becomes = which < 0.33, which < 0.2  # in a fifth it is only the end that is spoilt, or both ends differently
    last[spoilt] = spoil(whole[spoilt], generator=generator)
    first[spoilt] = last[spoilt]
    again = becomes & (torch.rand(len(whole), generator=generator) < 0.5)
    first[becomes] = whole[becomes]
    first[again] = spoil(whole[again], generator=generator)
    answers = torch.stack([answers_of(scene) for scene in scenes])
    of_things = answers[:, :-2].view(n, len(COLOURS), -1)
    right, kept = overlap(whole, first), overlap(first, last)
    for row, film in enumerate(staging.film.tolist()):
        thing = scenes[film].things[int(row >= n)]  # all first things come first
        said = of_things[film, COLOURS.index(thing.colour)]
        said[0] = len(SHAPES) if right[row] < 0.7 else said[0] if right[row] > 0.85 else -1
        said[4] = int(kept[row] > 0.6) if thing.motion != "ink" else 1
    return _paint(staging, first, last, generator), answers


def _paint(staging: world.Staging, first: torch.Tensor, last: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """`FRAMES` frames of the staged films, in which the outlines first and last (n, r, r) turn into each other, with some noise."""
    frames = staging.tracks.shape[1]
    which = torch.linspace(0, frames - 1, FRAMES).round().long()
    x, y, pixel = world.pixel_centres(*staging.size)
    empty = [world.backdrop(*world.BACKDROPS[kind], frames, *staging.size)[:, which] for kind in staging.behind.tolist()]
    films, changes = torch.stack(empty), (first != last).flatten(1).any(1)
    for row, film in enumerate(staging.film.tolist()):
        track = staging.tracks[row, which]
        if changes[row]:
            share = torch.linspace(0, 1, FRAMES).view(-1, 1, 1)
            outlines = torch.lerp(first[row], last[row], share)
            alpha = torch.cat([world.coverage_of(o[None], t[None, None], x, y, pixel)[0] for o, t in zip(outlines, track)])
        else:
            alpha = world.coverage_of(first[row : row + 1], track[None], x, y, pixel)[0]
        films[film] = films[film].lerp(staging.colour[row][:, None, None, None], alpha)
    noise = torch.randn(films.shape, generator=generator) * 0.06
    return films + noise * torch.rand(len(films), 1, 1, 1, 1, generator=generator)


def train_reader(config: TrainConfig, folder: Path | None = None, *, batch: int = 96, every: Callable | None = None) -> FilmReader:
    """Train a reader on fresh films of all sizes; see `kit.training.train` for folder and every, which here takes (reader, steps, seconds)."""
    torch.manual_seed(config.seed)
    reader = FilmReader()

    def loss(generator: torch.Generator) -> dict[str, torch.Tensor]:
        shape = FILMED[int(torch.randint(len(FILMED), (), generator=generator))]
        films, answers = films_to_read(batch, generator=generator, shape=shape)
        likely = reader.log_likelihood(films, answers)
        return {"loss": -len(OF_A_THING) * likely.sum() / (answers >= 0).sum()}

    train(reader, loss, config, folder=folder, every=every and (lambda *at: every(reader, *at)), describe="film reader")
    return reader
