"""Chapter 08: how the film reader learns to read: from true films of the training side, and from things spoilt on purpose.

A network that has only seen the world's shapes takes a ragged star for a star. So a third of the things that it learns from are
drawn badly, as badly as a model may draw them, and what is seen to be too far from its shape has none. Nor would it ever see a
thing twice, which happens to a model in wide and tall frames; so some things have a twin, and what has one is not kept. And
what a model draws worst is what becomes small; so there is more of that than in the world.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F

from .film_reader import COLOURS, END, FRAMES, KEPT, OF_A_THING, SHAPE, SHAPES, FilmReader, answers_of, log_likelihood, looked_at, some_frames
from .kit import measure, world
from .kit.shapes import EXTENT, draw_texture, textures
from .kit.training import TrainConfig, autocast, train

FILMED = (*[(17, 64, 64)] * 4, *[(25, 64, 64)] * 4, (9, 64, 64), (17, 64, 96), (17, 96, 64))  # frames, height, width
_OF_THINGS = ("film", "colour", "texture", "tracks")  # of a staging: what has one row for each thing


def spoil(outlines: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
    """Outlines as an unskilled hand would draw them: on the way to another shape, frayed, too thick or too thin; without their
    fine parts, with a hole, or with a blot.

    Args:
        outlines: signed distances (n, r, r), in radii, each of which is turned into what may no longer be its shape.

    Returns:
        Signed distances (n, r, r).
    """
    n, r = outlines.shape[:2]
    if n == 0:
        return outlines

    def amount(scale: float, often: float) -> torch.Tensor:
        return scale * torch.rand(n, 1, 1, generator=generator) * (torch.rand(n, 1, 1, generator=generator) < often)

    others = textures(torch.tensor([draw_texture(_any_shape(generator), generator) for _ in range(n)]))
    rough = F.interpolate(torch.randn(n, 1, r // 10, r // 10, generator=generator), size=(r, r), mode="bicubic")[:, 0]
    sign = 2 * torch.randint(2, (n, 1, 1), generator=generator) - 1
    drawn = torch.lerp(outlines, others, amount(0.7, 0.4)) + amount(0.25, 0.4) * rough + sign * amount(0.12, 0.3)
    coarse = F.avg_pool2d(drawn[:, None], 17, stride=8, padding=8, count_include_pad=False)
    coarse = F.interpolate(coarse, size=(r, r), mode="bilinear")[:, 0] - 0.05
    drawn = torch.lerp(drawn, coarse, amount(1.0, 0.35))
    hole, blot = _discs(n, r, generator), _discs(n, r, generator)
    drawn = torch.where(torch.rand(n, 1, 1, generator=generator) < 0.4, torch.maximum(drawn, -hole), drawn)
    return torch.where(torch.rand(n, 1, 1, generator=generator) < 0.3, torch.minimum(drawn, blot), drawn)


def _discs(n: int, r: int, generator: torch.Generator) -> torch.Tensor:
    """Signed distances (n, r, r) to discs somewhere on the things, a seventh to half as large as they are."""
    axis = ((torch.arange(r) + 0.5) / r * 2 - 1) * EXTENT
    x, y = (1.8 * torch.rand(2, n, 1, 1, generator=generator) - 0.9).unbind()
    radius = 0.15 + 0.4 * torch.rand(n, 1, 1, generator=generator)
    return torch.hypot(axis[None, :] - x, axis[:, None] - y) - radius


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


def seen_alike(one: torch.Tensor, other: torch.Tensor, track: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """How much of two outlines (n, r, r) lies in both where a frame of that size shows them on the track (n, 5): (n,), 0..1."""
    x, y, pixel = world.pixel_centres(*size)
    seen = [world.coverage_of(outlines, track[:, None], x, y, pixel)[:, 0] for outlines in (one, other)]
    return measure.overlap(*seen)


def _becomes_small(scene: world.Scene) -> bool:
    return scene.camera == "zoom out" or any(t.motion == "shrinking" or (t.size, t.speed) == ("small", "fast") for t in scene.things)


def _scenes(n: int, share_small: float, generator: torch.Generator) -> list[world.Scene]:
    """Scenes of the training side, two fifths with two things; a share are of one thing that becomes small."""
    two, small = int(0.4 * n), int(share_small * n)
    scenes = [s for s in world.sample_scenes(4 * small, generator=generator, objects=1) if _becomes_small(s)][:small] if small else []
    scenes += world.sample_scenes(n - two - len(scenes), generator=generator, objects=1)
    return scenes + world.sample_scenes(two, generator=generator, objects=2)


def _first_and_last(whole: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The outlines (n, r, r) in which things begin and end, of which a third is spoilt, and which these are, (n,), bool."""
    first, last = whole.clone(), whole.clone()
    which = torch.rand(len(whole), generator=generator)
    spoilt, becomes = which < 0.36, which < 0.26  # in a quarter it is only the end that is spoilt, or both ends differently
    last[spoilt] = spoil(whole[spoilt], generator=generator)
    first[spoilt] = last[spoilt]
    again = becomes & (torch.rand(len(whole), generator=generator) < 0.4)
    first[becomes] = whole[becomes]
    first[again] = spoil(whole[again], generator=generator)
    return first, last, spoilt


def films_to_read(
    n: int,
    *,
    generator: torch.Generator,
    shape: tuple[int, int, int] = (17, 64, 64),
    small: float = 0.0,
    twice: float = 0.0,
    vae: nn.Module | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Films, the answers about them, and where things are: (n, 3, `FRAMES`, h, w) in [-1, 1] with some noise, (n, 50), and
    x, y and the log of the radius in units of half the shorter side, (n, `FRAMES`, 8, 3), not a number where nothing is to be found.

    Two fifths of the scenes have two things. A third of all things have an outline that is spoilt from the beginning or becomes so.
    Its shape, at the beginning or the end, is none where what is seen of it and of what it should be have less than 70 % in common
    (see `seen_alike`), and not said where it is less than 80 %. It is not kept where the first outline and the last have less than
    60 % in common in the last frame (from 60 to 66 % it is not said), or where it has a twin.

    Args:
        shape: of the whole films: frames, height, width.
        small: the share of films of one thing that becomes small, 0..0.6.
        twice: the share of things that get a twin where there is room for one, 0..1.
        vae: encodes and decodes the films before they are looked at, so that they are as sharp as a model can paint them.
    """
    frames, *size = shape
    scenes = _scenes(n, small, generator)
    staging = world.stage(scenes, generator=generator, num_frames=frames, size=tuple(size))
    whole = textures(staging.texture)
    first, last, spoilt = _first_and_last(whole, generator)
    answers = torch.stack([answers_of(scene) for scene in scenes])
    of_things = answers[:, :-2].view(n, len(COLOURS), -1)
    begins, kept, ends = torch.ones(3, len(whole))
    begins[spoilt] = seen_alike(whole[spoilt], first[spoilt], staging.tracks[spoilt, 0], size)
    kept[spoilt] = seen_alike(first[spoilt], last[spoilt], staging.tracks[spoilt, -1], size)
    ends[spoilt] = seen_alike(whole[spoilt], last[spoilt], staging.tracks[spoilt, -1], size)
    things = [(film, scenes[film].things[int(row >= n)]) for row, film in enumerate(staging.film.tolist())]  # first things first
    where = torch.full((n, FRAMES, len(COLOURS), 3), float("nan"))
    for row, (film, thing) in enumerate(things):
        colour = COLOURS.index(thing.colour)
        said = of_things[film, colour]
        said[SHAPE] = _if_seen(said[SHAPE], begins[row])
        if thing.motion != "ink":
            said[END] = _if_seen(said[END], ends[row])
            said[KEPT] = 0 if kept[row] < 0.6 else 1 if kept[row] > 0.66 else -1
        where[film, :, colour] = _place(staging.tracks[row], tuple(size))
    if twice:
        added, doubled = twins(staging, scenes, share=twice, generator=generator)
        for row in doubled.nonzero()[:, 0].tolist():
            film, thing = things[row]
            of_things[film, COLOURS.index(thing.colour), KEPT] = 0
            where[film, :, COLOURS.index(thing.colour)] = float("nan")
        staging = replace(staging, **{name: torch.cat([getattr(staging, name), getattr(added, name)]) for name in _OF_THINGS})
        first, last = (torch.cat([outlines, textures(added.texture)]) for outlines in (first, last))
    if vae is None:
        films = paint_changing(staging, first, last, looked_at(frames))
    else:
        films = some_frames(encoded_and_decoded(vae, paint_changing(staging, first, last, torch.arange(frames))))
    noise = torch.randn(films.shape, generator=generator) * 0.06
    return films + noise * torch.rand(n, 1, 1, 1, 1, generator=generator), answers, where


def _if_seen(shape: torch.Tensor, alike: torch.Tensor) -> int:
    """The answer to what shape it is when so much of it is left: the shape, none, or no answer (-1)."""
    return len(SHAPES) if alike < 0.7 else int(shape) if alike > 0.8 else -1


def _place(track: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """x, y and the log of the radius (`FRAMES`, 3) in the frames that are looked at, not a number where its centre is outside."""
    x, y, radius, _, spread = track[looked_at(len(track))].unbind(-1)
    place = torch.stack([x, y, (radius * (1 + spread)).log()], dim=-1)
    inside = (x.abs() < size[1] / min(size)) & (y.abs() < size[0] / min(size))
    return place.where(inside[:, None], float("nan"))


def paint_changing(staging: world.Staging, first: torch.Tensor, last: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    """Those frames of the staged films (b, 3, t, h, w) in which the outlines first and last (n, r, r) turn into each other."""
    frames = staging.tracks.shape[1]
    x, y, pixel = world.pixel_centres(*staging.size)
    empty = [world.backdrop(*world.BACKDROPS[kind], frames, *staging.size)[:, which] for kind in staging.behind.tolist()]
    films, changes = torch.stack(empty), (first != last).flatten(1).any(1)
    for row, film in enumerate(staging.film.tolist()):
        track = staging.tracks[row, which]
        if changes[row]:
            share = (which / (frames - 1)).view(-1, 1, 1)
            outlines = torch.lerp(first[row], last[row], share)
            alpha = world.coverage_of(outlines, track[:, None], x, y, pixel)[:, 0]
        else:
            alpha = world.coverage_of(first[row : row + 1], track[None], x, y, pixel)[0]
        films[film] = films[film].lerp(staging.colour[row][:, None, None, None], alpha)
    return films


@torch.no_grad()
def encoded_and_decoded(vae: nn.Module, films: torch.Tensor) -> torch.Tensor:
    """Films (b, 3, t, h, w) as they come back from the autoencoder."""
    with autocast(films.device):
        return torch.cat([vae.decode(vae.encode(part)).float() for part in films.split(32)])


def train_reader(
    config: TrainConfig,
    folder: Path | None = None,
    *,
    reader: FilmReader | None = None,
    vae: nn.Module | None = None,
    batch: int = 96,
    every: Callable | None = None,
) -> FilmReader:
    """Train a reader, or a new one, on fresh films of all sizes.

    Args:
        folder, every: as of `kit.training.train`, but that every takes (reader, steps, seconds).
        vae: see `films_to_read`.
    """
    torch.manual_seed(config.seed)
    reader = (reader or FilmReader()).train()

    def loss(generator: torch.Generator) -> dict[str, torch.Tensor]:
        shape = FILMED[int(torch.randint(len(FILMED), (), generator=generator))]
        films, answers, places = films_to_read(batch, generator=generator, shape=shape, small=0.25, twice=0.3, vae=vae)
        logits, where = reader(films)
        answered = -len(OF_A_THING) * log_likelihood(logits, answers).sum() / (answers >= 0).sum()
        there = ~places.isnan()
        found = F.smooth_l1_loss(where[there], places[there], beta=0.05)
        return {"loss": answered + found, "answers": answered.detach(), "where": found.detach()}

    train(reader, loss, config, folder=folder, every=every and (lambda *at: every(reader, *at)), describe="film reader")
    return reader
