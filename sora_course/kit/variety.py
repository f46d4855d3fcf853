"""Is a model's chance as wide as the world's, and is it its own? Spreads over seeds, and nearest training films."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from . import measure, world
from .captions import caption
from .digits import nearer_to_known
from .judge import read
from .scenes import DIGITS, Scene

Generate = Callable[[list[str], list[int]], torch.Tensor]
KINDS = ("places", "phases", "handwriting")
CIRCLING = ("clockwise", "anticlockwise")  # the motions that have a phase


def traits(film: torch.Tensor, scene: Scene) -> dict[str, torch.Tensor]:
    """What chance decided in a one-object film (3, t, h, w): where it begins (2,), where on its circle (2,), how it is written (256,).

    Nothing for a film in which the object is not found; the last two only for things that circle, and for digits.
    """
    thing = scene.things[0]
    seen = next((one for one in read(film).things if one.colour == thing.colour), None)
    if seen is None or float(seen.coverage[0].sum()) * measure.pixel_area(film) < measure.MIN_AREA:
        return {}
    _, x, y = measure.moments(seen.coverage)
    found = {"places": torch.stack([x[0], y[0]])}
    if thing.motion in CIRCLING:
        found["phases"] = F.normalize(torch.stack([x[0] - x.mean(), y[0] - y.mean()]), dim=0)
    if thing.shape in DIGITS:
        found["handwriting"] = measure.digit_crop(seen.coverage[0])
    return found


def spread(values: list[torch.Tensor]) -> float:
    """Root mean square distance from the mean."""
    stacked = torch.stack(values)
    return float((stacked - stacked.mean(0)).pow(2).sum(1).mean().sqrt())


def spreads(generate: Generate, scenes: list[Scene], *, seeds: int = 16, seed: int = 0) -> dict[str, dict[str, float]]:
    """For places, phases and handwriting the spread over seeds of one prompt, a model's beside the world's, mean over scenes.

    Args:
        generate: takes prompts and one seed for each, and returns films (b, 3, t, h, w).
        scenes: with one object each.

    Returns:
        For each kind that the scenes have: model, world, and ratio (1 is as wide as the world).
    """
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, dict[str, list[float]]] = {}
    for scene in scenes:
        films = {"model": generate([caption(scene)] * seeds, list(range(seed, seed + seeds)))}
        films["world"] = world.render([scene] * seeds, generator=generator)
        by_side = {side: [traits(film, scene) for film in batch] for side, batch in films.items()}
        for kind in KINDS:
            values = {side: [one[kind] for one in all_found if kind in one] for side, all_found in by_side.items()}
            if min(map(len, values.values())) > 1:
                for side, chosen in values.items():
                    found.setdefault(kind, {}).setdefault(side, []).append(spread(chosen))
    means = {kind: {side: sum(v) / len(v) for side, v in sides.items()} for kind, sides in found.items()}
    return {kind: sides | {"ratio": sides["model"] / sides["world"]} for kind, sides in means.items()}


def thumbnails(films: torch.Tensor) -> torch.Tensor:
    """First, middle and last frame of films (b, 3, t, h, w), 16 x 16 pixels each: (b, 3, 48, 16)."""
    frames = films[:, :, [0, films.shape[2] // 2, -1]].transpose(1, 2).flatten(0, 1)
    return F.adaptive_avg_pool2d(frames, 16).unflatten(0, (-1, 3)).transpose(1, 2).flatten(2, 3)


def copied(films: torch.Tensor, trained: torch.Tensor, fresh: torch.Tensor) -> float:
    """The share of films whose nearest neighbour is a training film and not a fresh one of as many: 0.5 without copying.

    Args:
        films, trained, fresh: thumbnails; the last two as many, of scenes drawn alike.

    Raises:
        ValueError: there are not as many fresh films as trained ones.
    """
    if len(trained) != len(fresh):
        raise ValueError(
            f"Copying is measured against as many fresh films as trained ones, not {len(fresh)} and {len(trained)}."
        )
    return nearer_to_known(films, trained, fresh)
