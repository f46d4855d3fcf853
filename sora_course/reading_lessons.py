"""Chapter 08: how the film reader learns to read: from true films of the training side, and from things spoilt on purpose.

A network that has only seen the world's shapes takes a ragged star for a star. So a third of the things that it learns from are
drawn badly, as badly as a model may draw them, and what is too far from its shape has none. Nor has it ever seen a thing twice,
which happens to a model in wide and tall frames; so in the end some things have a twin, and what has one is not kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from .film_reader import COLOURS, FRAMES, OF_A_THING, SHAPES, FilmReader, answers_of
from .kit import world
from .kit.shapes import draw_texture, textures
from .kit.training import TrainConfig, train

FILMED = ((17, 64, 64), (17, 64, 64), (17, 64, 64), (9, 64, 64), (25, 64, 64), (17, 64, 96), (17, 96, 64))  # frames, height, width
_OF_THINGS = ("film", "colour", "texture", "tracks")  # of a staging: what has one row for each thing


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


def twins(staging: world.Staging, scenes: list[world.Scene], *, share: float, generator: torch.Generator) -> tuple[world.Staging, torch.Tensor]:
    """A share of the things of the staged scenes once more, elsewhere and clear of all that is there; fewer for want of room.

    Returns:
        The staging of the twins alone, and which of the things have one, (n,), bool.
    """
    again = world.stage(scenes, generator=generator, num_frames=staging.tracks.shape[1], size=staging.size)
    x, y, radius, _, spread = staging.tracks.unbind(-1)  # each (n, t)
    other_x, other_y, other_radius, _, other_spread = again.tracks.unbind(-1)
    apart = torch.hypot(other_x[:, None] - x, other_y[:, None] - y)  # (n, n, t)
    gap = (apart - (other_radius * (1 + other_spread))[:, None] - radius * (1 + spread)).amin(-1)
    crowded = ((gap < 0.05) & (again.film[:, None] == staging.film)).any(1)
    chosen = ~crowded & (torch.rand(len(crowded), generator=generator) < share)
    return replace(again, **{name: getattr(again, name)[chosen] for name in _OF_THINGS}), chosen


def films_to_read(
    n: int, *, generator: torch.Generator, shape: tuple[int, int, int] = (17, 64, 64), twice: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Films and the answers about them: (n, 3, `FRAMES`, h, w) in [-1, 1] with some noise, and (n, 42).

    Nearly half of the scenes have two things. A third of all things have an outline that is spoilt from the beginning or becomes so:
    its shape is none where it and what it should be have less than 70 % in common (see `overlap`) and not said where it is less than 85 %,
    and it is not kept where the first outline and the last have less than 60 % in common, or where it has a twin.

    Args:
        shape: of the whole films: frames, height, width.
        twice: the share of things that get a twin where there is room for one, 0..1.
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
    things = [(film, scenes[film].things[int(row >= n)]) for row, film in enumerate(staging.film.tolist())]  # first things first
    for row, (film, thing) in enumerate(things):
        said = of_things[film, COLOURS.index(thing.colour)]
        said[0] = len(SHAPES) if right[row] < 0.7 else said[0] if right[row] > 0.85 else -1
        said[4] = int(kept[row] > 0.6) if thing.motion != "ink" else 1
    if twice:
        added, doubled = twins(staging, scenes, share=twice, generator=generator)
        for row in doubled.nonzero()[:, 0].tolist():
            film, thing = things[row]
            of_things[film, COLOURS.index(thing.colour), 4] = 0
        staging = replace(staging, **{name: torch.cat([getattr(staging, name), getattr(added, name)]) for name in _OF_THINGS})
        first, last = (torch.cat([outlines, textures(added.texture)]) for outlines in (first, last))
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


def train_reader(
    config: TrainConfig,
    folder: Path | None = None,
    *,
    reader: FilmReader | None = None,
    twice: float = 0.0,
    batch: int = 96,
    every: Callable | None = None,
) -> FilmReader:
    """Train a reader, or a new one, on fresh films of all sizes.

    Args:
        folder, every: as of `kit.training.train`, but that every takes (reader, steps, seconds).
        twice: the share of things with a twin (see `films_to_read`).
    """
    torch.manual_seed(config.seed)
    reader = (reader or FilmReader()).train()

    def loss(generator: torch.Generator) -> dict[str, torch.Tensor]:
        shape = FILMED[int(torch.randint(len(FILMED), (), generator=generator))]
        films, answers = films_to_read(batch, generator=generator, shape=shape, twice=twice)
        likely = reader.log_likelihood(films, answers)
        return {"loss": -len(OF_A_THING) * likely.sum() / (answers >= 0).sum()}

    train(reader, loss, config, folder=folder, every=every and (lambda *at: every(reader, *at)), describe="film reader")
    return reader
