"""Chapter 08: how varied a model's films are, and whether they were copied, measured against the films that it was trained on."""

from __future__ import annotations

import torch

from . import recipes
from .buckets import PART, draw_part, parts_of
from .kit import variety, world
from .kit.evaluation import held_out_prompts
from .sora import TextToVideo


def measure_variety(model: TextToVideo, generate: variety.Generate, *, prompts: int = 256, known: int = 4000) -> dict:
    """Spreads over 16 seeds of up to 24 held-out scenes, and the share of films whose nearest neighbour is a training film.

    Eight of the 24 are scenes in which something circles, if there are so many, because the others seldom have a phase.

    Args:
        prompts: how many films are looked up among training films.
        known: among how many training films, the recipe's last, and as many new films of the same scenes.

    Returns:
        A dict that JSON can hold: prompts, known, spreads (see `variety.spreads`), and copied, of the model's films and of
        true films of the same prompts.
    """
    preset, recipe = model.config["preset"], recipes.recipe_named(model.config["recipe"])
    scenes, texts = held_out_prompts(prompts, preset=preset, seed=1)
    bucket, drawn = recipe.buckets[0], {"preset": preset, "richness": recipe.richness}
    known, generator = min(known, bucket.films), torch.Generator().manual_seed(7)

    def true(drawn: list[world.Scene]) -> torch.Tensor:
        parts = [drawn[i : i + 100] for i in range(0, len(drawn), 100)]
        return torch.cat([variety.thumbnails(world.render(part, generator=generator)) for part in parts])

    last = list(parts_of(bucket))[-(known // PART + 2) :]  # where films grow richer, the last are like the prompts
    parts = [draw_part(number, bucket, **drawn) for number in last]
    trained = torch.cat([variety.thumbnails(world.paint(staging)) for _, _, staging in parts])[-known:]
    fresh = true([scene for drawn_scenes, _, _ in parts for scene in drawn_scenes][-known:])  # the same scenes, filmed again
    batches = torch.arange(len(texts)).split(32)
    films = {"model": torch.cat([variety.thumbnails(generate([texts[i] for i in part], part.tolist())) for part in batches])}
    films["world"] = true(scenes)
    copied = {name: variety.copied(thumbnails, trained, fresh) for name, thumbnails in films.items()}
    circling = [scene for scene in scenes[16:] if scene.things[0].motion in variety.CIRCLING]
    spreads = variety.spreads(generate, scenes[:16] + circling[:8])
    return {"prompts": prompts, "known": known, "spreads": spreads, "copied": copied}


def as_lines(found: dict) -> str:
    """What `measure_variety` found, as text."""
    lines = [f"spread of {kind} over seeds: {row['ratio']:.0%} of the world's" for kind, row in found["spreads"].items()]
    model, true = found["copied"]["model"], found["copied"]["world"]
    lines += [
        f"nearest film is one of {found['known']} training films and not of as many fresh ones: {model:.1%} of {found['prompts']} "
        f"films, {true:.1%} of true films of the same prompts (50 % without copying)"
    ]
    return "\n".join(lines)
