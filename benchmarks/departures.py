"""Which new words a model of the full preset has learned: python benchmarks/departures.py [FILE] [--threads 2]

Each row asks for held-out scenes that leave the starter's world, one large fast thing on paper before a still camera, by one
kind of word alone; the judge reads 64 films of each. The accuracy on whole prompts, which ask for several such words at
once, hides what is missing.
"""

import argparse
from dataclasses import replace

import torch

from sora_course.kit import world
from sora_course.kit.captions import caption
from sora_course.kit.evaluation import summarise
from sora_course.kit.judge import judge
from sora_course.kit.words import LANGUAGES
from sora_course.sora import DEFAULT_CHECKPOINT, TextToVideo

FILMS, STARTER = 64, world.PRESETS["starter"]


def _new(words, known) -> list[str]:
    return [word for word in words if word not in known]


DEPARTURES = {  # what may be said instead of the starter's word
    "none": None,
    "speed": ["slow"],
    "camera": _new(world.CAMERAS, ["still"]),
    "motion": _new(world.MOTIONS, STARTER["motions"]),
    "size": ["small"],
    "shape": list(world.DIGITS),
    "background": ["night"],
}


def scenes(kind: str, generator: torch.Generator) -> list[world.Scene]:
    """Held-out scenes with one new word of that kind."""
    drawn: list[world.Scene] = []
    while len(drawn) < FILMS:
        known = bool(torch.rand((), generator=generator) < 0.5)  # a new word may lead across the split in either direction
        (scene,) = world.sample_scenes(1, generator=generator, preset="starter", held_out=not known)
        if words := DEPARTURES[kind]:
            word = {kind: words[int(torch.randint(len(words), (), generator=generator))]}
            try:
                of_scene = kind in ("camera", "background")
                scene = replace(scene, **word) if of_scene else replace(scene, things=(replace(scene.things[0], **word),))
            except ValueError:  # a circle cannot spin
                continue
        if world.is_held_out(scene):
            drawn.append(scene)
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", nargs="?", default=DEFAULT_CHECKPOINT)
    parser.add_argument("--threads", type=int, default=2)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    model = TextToVideo.from_pretrained(a.checkpoint)
    if model.config["preset"] != "full":
        parser.error("this model was trained on the starter preset and knows none of these words; name one of the full preset")
    for kind in DEPARTURES:
        generator = torch.Generator().manual_seed(21)
        asked = scenes(kind, generator)
        prompts = [caption(scene, LANGUAGES[i % 2], generator=generator) for i, scene in enumerate(asked)]
        verdicts = []
        for part in torch.arange(FILMS).split(32):
            films = model.generate([prompts[i] for i in part], seed=part.tolist())
            verdicts += judge(films, [asked[i] for i in part])
        shares = {name: f"{row['share']:.0%}" for name, row in summarise(verdicts).items()}
        print(f"{kind:10}", shares, flush=True)


if __name__ == "__main__":
    main()
