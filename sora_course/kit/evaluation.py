"""Prompt following on held-out prompts, in numbers: the model beside a ceiling, a baseline and chance."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch

from . import world
from .captions import LANGUAGES, caption
from .judge import ATTRIBUTES, judge
from .scenes import DIGITS, Scene

Verdicts = list[dict[str, bool]]
ROWS = {
    "model": "films generated from the prompts",
    "checked": "the model's films, drawn again where the film reader doubts that they show what the prompt says",
    "ceiling": "true films of the prompts, encoded and decoded by the VAE",
    "baseline": "true training films that share as many words with the prompt as any",
    "chance": "the model's films judged against each other's prompts",
}


def held_out_prompts(n: int, *, preset: str, objects: int | None = 1, seed: int = 0) -> tuple[list[Scene], list[str]]:
    """n held-out scenes and their prompts, English and Chinese in turn, in random phrasings."""
    generator = torch.Generator().manual_seed(seed)
    scenes = world.sample_scenes(n, generator=generator, held_out=True, preset=preset, objects=objects)
    return scenes, [caption(s, LANGUAGES[i % 2], generator=generator) for i, s in enumerate(scenes)]


def nearest_training_scene(scene: Scene, *, preset: str, generator: torch.Generator, tries: int = 200) -> Scene:
    """A scene that training may show and that shares as many words about its things as can be had: colour, shape, motion, size, speed."""

    def shared(other: Scene) -> int:
        return sum(a == b for s, o in zip(scene.things, other.things) for a, b in zip(vars(s).values(), vars(o).values()))

    drawn = world.sample_scenes(tries, generator=generator, preset=preset, objects=len(scene.things))
    return max(drawn, key=shared)


def interval(hits: int, n: int) -> tuple[float, float]:
    """95 % Wilson score interval of a share (Wilson 1927)."""
    z, p = 1.96, hits / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def summarise(verdicts: Verdicts) -> dict[str, dict[str, float]]:
    """For each attribute, and all: the share that holds and its 95 % interval."""
    n, table = len(verdicts), {}
    for name in verdicts[0]:
        hits = sum(v[name] for v in verdicts)
        low, high = interval(hits, n)
        table[name] = {"share": hits / n, "low": low, "high": high}
    return table


def by_word(verdicts: Verdicts, scenes: list[Scene]) -> dict[str, dict[str, dict[str, float]]]:
    """For each kind of word and each word in it, said or unsaid: of how many prompts it holds, and the share of these that was all right."""
    found: dict[str, dict[str, list[bool]]] = {}
    for verdict, scene in zip(verdicts, scenes):
        said = {(kind, word) for thing in scene.things for kind, word in vars(thing).items()}
        for kind, word in said | {("background", scene.background), ("camera", scene.camera)}:
            found.setdefault(kind, {}).setdefault(word, []).append(verdict["all"])
    return {
        kind: {word: {"prompts": len(hits), "share": sum(hits) / len(hits)} for word, hits in sorted(words.items())}
        for kind, words in sorted(found.items())
    }


def evaluate(
    generate: Callable[[list[str], list[int]], torch.Tensor],
    round_trip: Callable[[torch.Tensor], torch.Tensor],
    *,
    prompts: int,
    preset: str,
    objects: int = 1,
    num_frames: int = world.NUM_FRAMES,
    size: tuple[int, int] = (world.HEIGHT, world.WIDTH),
    seed: int = 0,
    batch: int = 32,
    again: Callable[[torch.Tensor, list[str], list[int]], tuple[torch.Tensor, int]] | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> dict:
    """Judge a model's films of held-out prompts, and the three anchors.

    Args:
        generate: takes prompts and one seed for each, and returns films (b, 3, t, h, w).
        round_trip: encodes and decodes films.
        preset: of the scenes that are drawn.
        objects: in each scene, 1 or 2.
        num_frames, size: of the films, which `generate` must return.
        again: takes films, prompts and seeds, and returns the films to keep in their place and how many were drawn in all,
            as `film_reader.draw_again`; judged in a row of its own.

    Returns:
        A dict that JSON can hold: what was asked for, rows (model, with `again` checked, ceiling, baseline, chance; see `ROWS`),
        each with share, low and high for every attribute; the model's row on parts of the prompts (english, chinese, and digits,
        where there are any), its share by word (see `by_word`), and its failures: prompt, seed, and what was wrong, the first 24.
        With `again`, under `checked`, the same parts of that row, and films: how many were drawn for a prompt.

    Raises:
        ValueError: fewer than 2 prompts, or stills.
    """
    if num_frames < 5:
        raise ValueError(f"The prompts tell of motion, which takes 5 frames or more to see, and {num_frames} were asked for.")
    if prompts < 2:
        raise ValueError("An evaluation takes 2 prompts or more, so that films can be judged against each other's; 500 are usual.")
    scenes, texts = held_out_prompts(prompts, preset=preset, objects=objects, seed=seed)
    filmed = {"num_frames": num_frames, "size": size}
    generator = torch.Generator().manual_seed(seed + 1)
    verdicts: dict[str, Verdicts] = {name: [] for name in ROWS if again or name != "checked"}
    drawn = 0
    parts = torch.arange(prompts).chunk(-(-prompts // batch))
    if len(parts[-1]) == 1:  # one film alone cannot be judged against another's prompt
        parts = [*parts[:-2], torch.cat(parts[-2:])]
    for numbers in progress([part.tolist() for part in parts]):
        batch_scenes = [scenes[i] for i in numbers]
        batch_texts, seeds = [texts[i] for i in numbers], [seed + i for i in numbers]
        films = generate(batch_texts, seeds)
        verdicts["model"] += judge(films, batch_scenes)
        if again:
            checked, films_drawn = again(films, batch_texts, seeds)
            verdicts["checked"] += judge(checked, batch_scenes)
            drawn += films_drawn
        verdicts["chance"] += judge(films.roll(1, 0), batch_scenes)
        verdicts["ceiling"] += judge(round_trip(world.render(batch_scenes, generator=generator, **filmed)), batch_scenes)
        near = [nearest_training_scene(s, preset=preset, generator=generator) for s in batch_scenes]
        verdicts["baseline"] += judge(world.render(near, generator=generator, **filmed), batch_scenes)
    result = {"prompts": prompts, "preset": preset, "objects": objects, "num_frames": num_frames, "size": size, "seed": seed}
    result["rows"] = {name: summarise(v) for name, v in verdicts.items()}
    result |= _parts(verdicts["model"], scenes) | {"words": by_word(verdicts["model"], scenes)}
    failed = [i for i, verdict in enumerate(verdicts["model"]) if not verdict["all"]]
    result["failures"] = [
        {"prompt": texts[i], "seed": seed + i, "wrong": [name for name in ATTRIBUTES if not verdicts["model"][i].get(name, True)]}
        for i in failed[:24]
    ]
    return result | ({"checked": _parts(verdicts["checked"], scenes) | {"films": drawn / prompts}} if again else {})


def _parts(verdicts: Verdicts, scenes: list[Scene]) -> dict[str, dict]:
    """The shares of English and of Chinese prompts, which take turns, and of those with a digit."""
    digits = [v for v, s in zip(verdicts, scenes) if any(thing.shape in DIGITS for thing in s.things)]
    parts = {"english": summarise(verdicts[::2]), "chinese": summarise(verdicts[1::2])}
    return parts | ({"digits": summarise(digits) | {"prompts": len(digits)}} if digits else {})


def by_calls(
    generate: Callable[[list[str], list[int], int], torch.Tensor],
    *,
    prompts: int,
    preset: str,
    objects: int = 1,
    calls: tuple[int, ...] = (1, 2, 4, 8, 16, 32),
    seed: int = 0,
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[dict[str, float]]:
    """How often all is right when the network may be called so many times for a film.

    Args:
        generate: takes prompts, one seed for each, and the number of calls, and returns films (b, 3, t, h, w).

    Returns:
        For each number of calls: calls, share, low and high (95 % Wilson interval).
    """
    scenes, texts = held_out_prompts(prompts, preset=preset, objects=objects, seed=seed)
    parts = [part.tolist() for part in torch.arange(prompts).split(32)]
    rows = []
    for n in progress(calls):
        verdicts: Verdicts = []
        for part in parts:
            films = generate([texts[i] for i in part], [seed + i for i in part], n)
            verdicts += judge(films, [scenes[i] for i in part])
        rows.append({"calls": n, **summarise(verdicts)["all"]})
    return rows


def as_table(result: dict) -> str:
    """The result as aligned text, percentages, with the 95 % interval of `all`."""
    names = (*ATTRIBUTES, "all")
    rows = dict(result["rows"])
    for row, parts in (("model", result), ("checked", result.get("checked", {}))):
        rows |= {f"{row}, {part}": parts[part] for part in ("english", "chinese", "digits") if part in parts}
    lines = [f"{'':16}" + "".join(f"{name:>11}" for name in names) + "   95 % of all"]
    for row, table in rows.items():
        cells = "".join(f"{100 * table[name]['share']:11.1f}" for name in names)
        lines.append(f"{row:16}{cells}   {100 * table['all']['low']:.1f}-{100 * table['all']['high']:.1f}")
    if "checked" in result:
        lines += [f"For a checked film {result['checked']['films']:.2f} were drawn on average."]
    height, width = result["size"]
    lines += [
        f"{result['prompts']} held-out prompts of the {result['preset']} preset, half English, half Chinese, "
        f"{result['objects']} object{'s' * (result['objects'] > 1)}, {result['num_frames']} frames of {width}x{height}; per cent."
    ]
    return "\n".join([*lines, *(f"  {name}: {ROWS[name]}" for name in result["rows"])])
