"""The judge reads a film of the captioned world back into words, and checks them against a scene. Nothing is learned
except the reading of handwritten digits, by a support-vector machine fitted on scikit-learn's own.

How it sees: the background is one of two known colours and every object one of eight, so each pixel lies on a straight
line between two known colours and its place on that line is the object's coverage, soft edges included. Coverage gives
area, centre and outline. From there: the shape is the symbol whose ideal picture overlaps best; the camera is the one
that explains the dots of the background; the motion and speed are those of the world whose path, size, turn and softness over
time lie nearest to the measured ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import torch
import torch.nn.functional as F

from . import measure, world
from .scenes import CAMERAS, MOTIONS, SPEEDS, SYMBOLS, Scene

ATTRIBUTES = ("count", "colour", "shape", "motion", "speed", "size", "background", "camera", "kept")
STILL_ATTRIBUTES = ("count", "colour", "shape", "size", "background")
_PHASES = 24
_WELL_INSIDE = 2  # pixels between an object and the frame's edge
_IN_COMMON = 0.62  # a thing is kept if more than that of its first and last outline lies in both
_UNCLEAR = 4.0  # a motion is read only if the nearest one is within so many tolerances


@dataclass
class ThingSeen:
    """What was read of one object; `coverage` is (t, h, w) in 0..1."""

    colour: str
    coverage: torch.Tensor
    shape: str = "unclear"
    motion: str = "unclear"
    speed: str = "unclear"
    size: str = "unclear"
    kept: bool = False


@dataclass
class Reading:
    """What was read of a film."""

    background: str
    camera: str = "still"
    things: list[ThingSeen] = field(default_factory=list)


# Measures to motion --------------------------------------------------------------------------------------------------
@lru_cache(maxsize=8)
def _hypotheses(num_frames: int) -> tuple[list[tuple[str, str]], torch.Tensor]:
    """Every motion at every speed and phase: its names, and x, y, log_size, angle, spread over time, (k, 5, t)."""
    time = torch.arange(num_frames) / world.FPS
    names, rows = [], []
    for motion in MOTIONS:
        for speed in SPEEDS if motion != "still" else SPEEDS[:1]:
            phases = _PHASES if motion in ("clockwise", "anticlockwise", "bouncing") else 1
            for phase in range(phases):
                path = world.path_of(motion, speed, time, phase / phases)
                names.append((motion, speed))
                rows.append(torch.stack([path[k] for k in ("x", "y", "log_size", "angle", "spread")]))
    return names, torch.stack(rows)


def _read_motion(seen: ThingSeen, camera: str) -> tuple[str, str]:
    """The motion and speed whose path lies nearest; "unclear" if none is near."""
    coverage = seen.coverage
    time = torch.arange(len(coverage)) / world.FPS
    area, x, y = measure.moments(coverage)
    shift, magnification = world.camera_of(camera, time)
    log_size = 0.5 * (area / area[0]).log() - magnification.log()
    spread = measure.spread(coverage, seen.shape)
    turn = torch.zeros_like(x) if seen.shape in ("circle", "ring") else measure.turns(coverage, area, x, y)
    measured = torch.stack([x / magnification + shift, y / magnification, log_size, turn, spread])
    names, paths = _hypotheses(len(coverage))
    error = measured - paths  # (k, 5, t)
    error[:, :2] -= error[:, :2].mean(-1, keepdim=True)  # where it starts is up to chance
    is_ink = torch.tensor([motion == "ink" for motion, _ in names])
    error[is_ink, 2] *= 0.2  # ink covers more as it spreads, and turns nothing
    error[:, 3] *= 0.0 if bool((spread[-1] > 0.15)) else 1.0
    tolerance = torch.tensor([0.06, 0.06, 0.12, 25.0, 0.1])
    distance = (error / tolerance[:, None]).pow(2).mean(-1).sum(-1).sqrt()
    best = int(distance.argmin())
    return names[best] if distance[best] < _UNCLEAR else ("unclear", "unclear")


def _read_camera(video: torch.Tensor, background: str, objects: torch.Tensor) -> str:
    """The camera whose view of the dots differs least from the film where no object (t, h, w) is."""
    _, t, h, w = video.shape
    free = F.max_pool2d(objects[:, None], 3, stride=1, padding=1)[:, 0] < 0.05

    def error(camera: str) -> float:
        return float(((video - world.backdrop(background, camera, t, h, w)).pow(2).sum(0) * free).sum())

    return min(CAMERAS, key=error)


def _seen_whole(coverage: torch.Tensor, margin: int = 1) -> torch.Tensor:
    """The numbers of the frames in which the object is there and keeps clear of the frame's edge by that many pixels.

    If there are not two of them, those of a margin of one pixel; and if there are not two of these, all.
    """
    there = measure.moments(coverage)[0] >= measure.MIN_AREA / 2
    for width in (margin, 1):
        edge = coverage.clone()
        edge[:, width:-width, width:-width] = 0
        whole = (there & (edge.amax((1, 2)) < 0.3)).nonzero()[:, 0]  # an autoencoder paints the outermost pixels pale
        if len(whole) > 1:
            return whole
    return torch.arange(len(coverage))


def _read_shape(coverage: torch.Tensor) -> tuple[str, int]:
    """The shape, and the number of the frame in which it was read: the first that seems to show the whole object.

    Where an autoencoder painted the edge pale, what the frame cuts seems whole, and half a cross is read as a 4. So where no symbol is
    found, the first frame in which the object is well inside is read instead, if it has a fifth more area there or is a symbol.
    """
    first, inside = (int(_seen_whole(coverage, margin)[0]) for margin in (1, _WELL_INSIDE))
    shape = measure.read_shape(coverage[first])
    if shape in SYMBOLS or inside == first:
        return shape, first
    later = measure.read_shape(coverage[inside])
    was_cut = coverage[inside].sum() > 1.2 * coverage[first].sum()
    return (later, inside) if was_cut or later in SYMBOLS else (shape, first)


def _is_kept(seen: ThingSeen, area_of_pixel: float) -> bool:
    """Whether the object is one object throughout, moves without jumps, and ends in the outline in which it began.

    What is outside the frame cannot be judged: begin, end and area are those of frames that show the whole object.
    """
    coverage = seen.coverage
    area, x, y = measure.moments(coverage)
    if bool((area < measure.MIN_AREA / 2).any()) or any(measure.pieces(frame, area_of_pixel) != 1 for frame in coverage):
        return False
    jump = torch.hypot(x.diff(), y.diff()).max()
    whole = _seen_whole(coverage, _WELL_INSIDE)
    one_step = whole.diff() == 1
    if jump > 0.55 or bool((area[whole].log().diff()[one_step].abs() > 0.5).any()):
        return False
    if seen.motion in ("ink", "spinning"):
        return True
    return measure.outlines_in_common(coverage[whole[[0, -1]]]) > _IN_COMMON


def _grown(seen: ThingSeen, camera: str, number: int) -> float:
    """By how much motion and camera had magnified the object at that frame."""
    time = torch.tensor([number / world.FPS])
    path = world.path_of(seen.motion, seen.speed, time) if seen.motion in MOTIONS else {"log_size": torch.zeros(1)}
    return float(path["log_size"].exp() * world.camera_of(camera, time)[1])


@torch.autocast("cpu", enabled=False)  # measuring wants float32, wherever it is called from
def read(video: torch.Tensor) -> Reading:
    """Read one film (3, t, h, w) in [-1, 1] into words; t = 1 is a still, of which motion and camera are not read."""
    video = video.detach().float().cpu().clamp(-1, 1)
    background = measure.read_background(video)
    seen = [ThingSeen(colour, coverage) for colour, coverage in measure.coverages(video, background).items()]
    reading = Reading(background, things=seen)
    if video.shape[1] > 1:
        covered = torch.stack([s.coverage for s in seen]).sum(0) if seen else torch.zeros_like(video[0])
        reading.camera = _read_camera(video, background, covered)
    for thing in seen:
        if float(thing.coverage[0].sum()) * measure.pixel_area(video) < measure.MIN_AREA:
            continue
        thing.shape, number = _read_shape(thing.coverage)
        if video.shape[1] > 1:
            thing.motion, thing.speed = _read_motion(thing, reading.camera)
            thing.kept = _is_kept(thing, measure.pixel_area(video))
        thing.size = measure.read_size(thing.coverage[number], thing.shape, _grown(thing, reading.camera, number))
    return reading


def judge(videos: torch.Tensor, scenes: list[Scene]) -> list[dict[str, bool]]:
    """Check each film (b, 3, t, h, w) against its scene, attribute by attribute.

    Objects are told apart by colour; an attribute holds if it holds for every object of the scene. `kept` says that every
    object stays one object of one outline from first frame to last. `all` says that everything holds.

    Returns:
        For each film, `ATTRIBUTES` (`STILL_ATTRIBUTES` for t = 1) and `all`, each True or False.

    Raises:
        ValueError: there are not as many scenes as films.
    """
    if len(videos) != len(scenes):
        raise ValueError(f"There are {len(videos)} films and {len(scenes)} scenes; give one scene for each film.")
    names = ATTRIBUTES if videos.shape[2] > 1 else STILL_ATTRIBUTES
    verdicts = []
    for video, scene in zip(videos, scenes):
        reading = read(video)
        by_colour = {thing.colour: thing for thing in reading.things}
        pairs = [(thing, by_colour.get(thing.colour)) for thing in scene.things]
        held = {name: all(s and getattr(s, name) == getattr(t, name) for t, s in pairs)
                for name in ("colour", "shape", "motion", "speed", "size")}  # fmt: skip
        held["count"] = len(reading.things) == len(scene.things) and all(
            measure.pieces(thing.coverage[0], measure.pixel_area(video)) == 1 for thing in reading.things
        )
        held |= {"background": reading.background == scene.background, "camera": reading.camera == scene.camera}
        held["kept"] = all(s is not None and s.kept for _, s in pairs)
        held = {name: held[name] for name in names}
        verdicts.append(held | {"all": all(held.values())})
    return verdicts
