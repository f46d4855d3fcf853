"""Chapter 08: what teaches a text encoder whose word is whose.

Captions of random scenes are told apart by their words alone. Twins, of the same words in other places, are not, and a reader
(`text.Reader`) that is asked after the words of each thing needs features that say whose they are.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from .kit import world


def twin(scene: world.Scene, generator: torch.Generator) -> world.Scene:
    """A training scene of the same words in other places: two things change places, or exchange colour, shape or motion.

    A scene with one thing, or whose exchanges are all impossible or held out, comes back as it is.
    """
    if len(scene.things) == 1:
        return scene
    one, other = scene.things
    twins = [replace(scene, things=(other, one))]
    for kind in ("colour", "shape", "motion"):
        try:
            swapped = replace(one, **{kind: getattr(other, kind)}), replace(other, **{kind: getattr(one, kind)})
            twins.append(replace(scene, things=swapped))
        except ValueError:  # a circle cannot spin
            continue
    twins = [t for t in twins if world.may_train(t)] or [scene]
    return twins[int(torch.randint(len(twins), (), generator=generator))]


_OF_A_THING = {"colour": world.COLOURS, "shape": world.SHAPES, "motion": world.MOTIONS, "size": world.SIZES, "speed": world.SPEEDS}
_OF_A_SCENE = {"background": world.BACKGROUNDS, "camera": world.CAMERAS}
QUESTIONS = [*_OF_A_THING.values(), *_OF_A_THING.values(), *_OF_A_SCENE.values()]  # of the first thing, the second, the scene


def answers_of(scene: world.Scene) -> list[int]:
    """For each of `QUESTIONS`, the place of the scene's word in its list; -1 for a thing that is not there."""
    of_things = [getattr(thing, kind) for thing in scene.things for kind in _OF_A_THING]
    of_things += [None] * (2 * len(_OF_A_THING) - len(of_things))
    words = of_things + [getattr(scene, kind) for kind in _OF_A_SCENE]
    return [-1 if word is None else list(known).index(word) for word, known in zip(words, QUESTIONS)]
