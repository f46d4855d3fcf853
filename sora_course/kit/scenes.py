"""The words of the captioned world, its scenes, and the held-out split.

A `Scene` says everything that a caption may say about a film: which objects there are, what each of them does,
what lies behind them and how the camera moves. Where an object starts and how a digit is written is left to chance:
`kit/world.py` draws that when it renders the scene.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

# RGB, 0..255: apart in hue, and neighbours in hue apart in lightness; all visible on both backgrounds.
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (205, 30, 35),
    "orange": (250, 135, 20),
    "yellow": (250, 215, 40),
    "green": (35, 145, 60),
    "cyan": (40, 200, 215),
    "blue": (40, 80, 225),
    "purple": (125, 40, 160),
    "pink": (250, 135, 195),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {"paper": (246, 241, 229), "night": (16, 20, 44)}
SYMBOLS = ("circle", "square", "triangle", "star", "heart", "ring", "cross")
DIGITS = tuple("0123456789")
SHAPES = SYMBOLS + DIGITS
DIRECTIONS = {  # unit steps along x (right) and y (down)
    "left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1),
    "up-left": (-1, -1), "up-right": (1, -1), "down-left": (-1, 1), "down-right": (1, 1),
}  # fmt: skip
MOTIONS = (*DIRECTIONS, "clockwise", "anticlockwise", "bouncing", "growing", "shrinking", "spinning", "still", "ink")
SIZES = ("large", "small")
SPEEDS = ("fast", "slow")  # the first goes without saying
CAMERAS = ("still", "pan left", "pan right", "zoom in", "zoom out")

PRESETS: dict[str, dict[str, tuple[str, ...]]] = {
    "starter": {
        "colours": tuple(COLOURS),
        "shapes": ("circle", "square", "triangle", "star", "heart", "ring"),
        "motions": ("left", "right", "up", "down", "clockwise", "ink"),
    },
    "full": {"colours": tuple(COLOURS), "shapes": SHAPES, "motions": MOTIONS},
}
PAIR_SHARE = 0.3  # of the scenes of the full preset, those with two objects


def _require(word: str, known, what: str) -> None:
    if word not in known:
        raise ValueError(f"{word!r} is not a {what} of this world; it has {', '.join(known)}.")


@dataclass(frozen=True)
class Thing:
    """One object of a scene: what it is and what it does.

    Raises:
        ValueError: a word is not of this world, or the combination cannot be told from another by looking.
    """

    colour: str
    shape: str
    motion: str = "still"
    size: str = "large"
    speed: str = "fast"

    def __post_init__(self):
        _require(self.colour, COLOURS, "colour")
        _require(self.shape, SHAPES, "shape")
        _require(self.motion, MOTIONS, "motion")
        _require(self.size, SIZES, "size")
        _require(self.speed, SPEEDS, "speed")
        if self.motion == "spinning" and self.shape in ("circle", "ring"):
            raise ValueError(
                f"A {self.shape} that spins looks like one that stands still; let another shape spin, such as a square."
            )
        if self.motion == "still" and self.speed == "slow":
            raise ValueError("What stands still has no speed; leave out 'slow' or name a motion.")


@dataclass(frozen=True)
class Scene:
    """What a film shows: one or two things, a background and a camera.

    Two things share the frame by being small, slow, of two colours, and under a camera at rest.

    Raises:
        ValueError: a word is not of this world, or two things break the rule above.
    """

    things: tuple[Thing, ...]
    background: str = "paper"
    camera: str = "still"

    def __post_init__(self):
        _require(self.background, BACKGROUNDS, "background")
        _require(self.camera, CAMERAS, "camera move")
        if len(self.things) not in (1, 2):
            raise ValueError(f"A scene shows one or two objects, and this one names {len(self.things)}.")
        if len(self.things) == 2:
            first, second = self.things
            if first.colour == second.colour:
                raise ValueError(f"Two objects need two colours, and both are {first.colour}; change one of them.")
            slow = all(t.speed == "slow" or t.motion == "still" for t in self.things)
            if self.camera != "still" or any(t.size != "small" for t in self.things) or not slow:
                raise ValueError(
                    "Two objects are always small and slow, under a still camera; leave other words out of a prompt, "
                    "and in Python give each size='small' and, if it moves, speed='slow'."
                )


def scene(colour: str, shape: str, motion: str = "still", *, background="paper", camera="still", **thing) -> Scene:
    """Short for a `Scene` with one `Thing`."""
    return Scene((Thing(colour, shape, motion, **thing),), background, camera)


def as_still(scene: Scene) -> Scene:
    """The scene of which a single picture is one frame: nothing moves, neither things nor camera."""
    return replace(scene, things=tuple(replace(t, motion="still", speed="fast") for t in scene.things), camera="still")


# The held-out split --------------------------------------------------------------------------------------------------
def _code(thing: Thing) -> int:
    """A number in 0..6 from colour, shape and motion; stepping any one of the three changes it."""
    colour, shape = list(COLOURS).index(thing.colour), SHAPES.index(thing.shape)
    return (colour + 2 * shape + 3 * MOTIONS.index(thing.motion)) % 7


def is_held_out(scene: Scene) -> bool:
    """Whether the scene's combination is kept for tests; about one in seven is.

    One object: colour + 2 shape + 3 motion is divisible by 7, each word counted by its place in its list. Every pair of
    words is thus seen in training; in the full preset, each pair also misses some third word. Two objects, in order: with that
    number modulo 7 for each of them, first + 3 second is divisible by 7. Size, speed, background and camera don't count.
    """
    codes = [_code(thing) for thing in scene.things]
    return codes[0] % 7 == 0 if len(codes) == 1 else (codes[0] + 3 * codes[1]) % 7 == 0


def may_train(scene: Scene) -> bool:
    """Whether the training stream may show the scene: not held out, nor is any of its objects taken alone."""
    return not is_held_out(scene) and all(_code(thing) != 0 for thing in scene.things)


def check_known(scene: Scene, preset: str, *, num_frames: int = 17) -> Scene:
    """The scene as a model trained on the preset can be asked for it: one frame shows it at rest.

    Raises:
        ValueError: the world has a word that training on this preset never showed, or nothing moves in a film.
    """
    words = PRESETS[preset]
    if num_frames == 1:
        scene = as_still(scene)
    for thing in scene.things:
        for kind in ("colour", "shape", "motion"):
            value, known = getattr(thing, kind), words[f"{kind}s"]
            if value in known or (kind == "motion" and num_frames == 1):
                continue
            if value == "still":
                raise ValueError(
                    f"This model never saw a film in which nothing moves; name a motion ({', '.join(known)}), or ask for 1 frame."
                )
            raise ValueError(
                f"This model was trained on the {preset} preset and never saw the {kind} {value!r}; it knows {', '.join(known)}."
            )
    plain = Scene((Thing("red", "circle"),))
    same = (len(scene.things), scene.background, scene.camera) == (1, plain.background, plain.camera)
    if preset == "starter" and not (same and scene.things[0].size == "large" and scene.things[0].speed == "fast"):
        raise ValueError(
            "This model was trained on the starter preset: one object, large and fast, on paper, under a still camera; "
            "leave the other words out."
        )
    return scene


# Drawing scenes ------------------------------------------------------------------------------------------------------
def _pick(words, generator: torch.Generator) -> str:
    return words[int(torch.randint(len(words), (), generator=generator))]


def _draw_thing(words: dict[str, tuple[str, ...]], generator, *, size="large", speed="fast", vary=False) -> Thing:
    shape, motion = _pick(words["shapes"], generator), _pick(words["motions"], generator)
    while motion == "spinning" and shape in ("circle", "ring"):
        motion = _pick(words["motions"], generator)
    if vary:
        size = _pick(SIZES, generator)
        speed = _pick(SPEEDS, generator)
    if motion == "still":
        speed = "fast"
    return Thing(_pick(words["colours"], generator), shape, motion, size, speed)


def _draw_of(preset: str, generator) -> Scene:
    words = PRESETS[preset]
    if preset == "starter":
        return Scene((_draw_thing(words, generator),))
    background = _pick(tuple(BACKGROUNDS), generator)
    if float(torch.rand((), generator=generator)) < PAIR_SHARE:
        first = _draw_thing(words, generator, size="small", speed="slow")
        second = _draw_thing(words, generator, size="small", speed="slow")
        while second.colour == first.colour:
            second = _draw_thing(words, generator, size="small", speed="slow")
        return Scene((first, second), background)
    camera = "still" if float(torch.rand((), generator=generator)) < 0.5 else _pick(CAMERAS[1:], generator)
    return Scene((_draw_thing(words, generator, vary=True),), background, camera)


def _mix(plain: Scene, rich: Scene, richness: float, generator) -> Scene:
    """The rich scene's shape; each other word from the rich scene with that probability, else from the plain one.

    Two things come together or not at all.

    Raises:
        ValueError: the words do not go together.
    """

    def rich_word() -> bool:
        return float(torch.rand((), generator=generator)) < richness

    if len(rich.things) == 2:
        return rich if rich_word() else plain
    one, other = plain.things[0], rich.things[0]
    words = {kind: getattr(other if rich_word() else one, kind) for kind in ("colour", "motion", "size", "speed")}
    thing = Thing(shape=other.shape, **words)
    return Scene((thing,), *(getattr(rich if rich_word() else plain, kind) for kind in ("background", "camera")))


def _draw_scene(preset: str, richness: float, generator) -> Scene:
    rich = _draw_of(preset, generator)
    while richness < 1:
        try:
            return _mix(_draw_of("starter", generator), rich, richness, generator)
        except ValueError:  # a circle cannot spin, and what stands still is not slow
            rich = _draw_of(preset, generator)
    return rich


def sample_scenes(
    n: int,
    *,
    generator: torch.Generator,
    held_out: bool = False,
    preset: str = "full",
    objects: int | None = None,
    richness: float = 1.0,
) -> list[Scene]:
    """Draw n scenes at random, all from one side of the split.

    Args:
        generator: the source of chance; the same state gives the same scenes.
        held_out: True for combinations that training never shows, False for those that it may.
        preset: "full", or "starter": 8 colours x 6 shapes x 6 motions, one object, large, fast, on paper, camera still.
        objects: 1 or 2 to draw only scenes with so many; None for the preset's own mixture.
        richness: how much of the preset beyond the starter is used, 0..1: with this probability each word but the shape is
            drawn from the preset, and otherwise from the starter. A curriculum (Bengio et al. 2009) lets it rise.

    Raises:
        ValueError: n is negative, the preset is unknown or has no scene with so many objects, or richness is not in 0..1.
    """
    _require(preset, PRESETS, "preset")
    if not 0 <= richness <= 1 or (richness == 0 and objects == 2):
        raise ValueError(f"The richness was {richness!r}; it is in 0..1, and above 0 where two objects are wanted.")
    if n < 0:
        raise ValueError(f"The number of scenes was {n}; it must be 0 or more.")
    if objects not in ((None, 1) if preset == "starter" else (None, 1, 2)):
        raise ValueError(f"The {preset} preset has no scenes with {objects} objects; ask for 1, or 2 of the full preset.")
    scenes: list[Scene] = []
    while len(scenes) < n:
        drawn = _draw_scene(preset, richness, generator)
        wanted = is_held_out(drawn) if held_out else may_train(drawn)
        if wanted and objects in (None, len(drawn.things)):
            scenes.append(drawn)
    return scenes
