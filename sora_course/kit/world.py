"""The captioned world: films of moving shapes and handwritten digits, rendered on the fly.

    scenes = sample_scenes(4, generator=g)            # what to show            kit/scenes.py
    videos = render(scenes, generator=g)              # (b, 3, 17, 64, 64)      here
    texts = [caption(s, "en") for s in scenes]        # how to say it           kit/captions.py

Lengths are in units of half the frame's shorter side: a square frame reaches from -1 to 1, x to the right and y down.
Times are in seconds. A shape is stored as its signed distance (negative inside), so that one sampling step gives
its anti-aliased edge at any size, turn and softness.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F

from .captions import LANGUAGES, caption, language_of, parse  # noqa: F401  (the world's front door)
from .scenes import (  # noqa: F401
    BACKGROUNDS,
    CAMERAS,
    COLOURS,
    DIGITS,
    DIRECTIONS,
    MOTIONS,
    PRESETS,
    SHAPES,
    SIZES,
    SPEEDS,
    SYMBOLS,
    Scene,
    Thing,
    as_still,
    is_held_out,
    may_train,
    sample_scenes,
    scene,
)
from .shapes import EXTENT, draw_texture, textures

FPS = 8
NUM_FRAMES, HEIGHT, WIDTH = 17, 64, 64
RADIUS = {"large": 0.32, "small": 0.20}  # half the extent of an object
STEP = {"slow": 0.24, "fast": 0.47}  # along a straight path, units a second (a diagonal does this along x and along y)
TURN = {"slow": 90.0, "fast": 180.0}  # round a circle, degrees a second
ORBIT = 0.34  # radius of that circle
SPIN = {"slow": 45.0, "fast": 110.0}  # around itself, degrees a second
GROWTH = {"slow": 0.18, "fast": 0.36}  # change of the log of the size a second
HOPS = {"slow": 0.75, "fast": 1.5}  # bounces a second
HOP_HEIGHT = 0.6
INK = {"slow": 0.28, "fast": 0.56}  # spread after one second, in radii; it grows with the square root of time
PAN = 0.17  # units a second
ZOOM = 0.17  # change of the log of the magnification a second
DOT_SPACING, DOT_RADIUS = 0.5, 0.045  # the pattern behind everything, by which a moving camera is seen
DOTS = {"paper": (205, 196, 176), "night": (62, 68, 104)}
BACKDROPS = tuple((background, camera) for background in BACKGROUNDS for camera in CAMERAS)


# Motion --------------------------------------------------------------------------------------------------------------
def path_of(motion: str, speed: str, time: torch.Tensor, phase: float = 0.0) -> dict[str, torch.Tensor]:
    """What a motion does over time, apart from where the thing starts.

    Args:
        time: seconds, (t,).
        phase: 0..1, where in its circle or hop the thing is at time 0; the other motions have none.

    Returns:
        x, y: offset in units; log_size: log of the magnification; angle: degrees clockwise; spread: width of the soft
        edge in radii. All (t,).
    """
    zero = torch.zeros_like(time)
    path = {"x": zero, "y": zero, "log_size": zero, "angle": zero, "spread": zero}
    if motion in DIRECTIONS:
        dx, dy = DIRECTIONS[motion]
        path |= {"x": dx * STEP[speed] * time, "y": dy * STEP[speed] * time}
    elif motion in ("clockwise", "anticlockwise"):
        turn = torch.deg2rad(TURN[speed] * time) * (1 if motion == "clockwise" else -1) + 2 * math.pi * phase
        path |= {"x": ORBIT * turn.cos(), "y": ORBIT * turn.sin()}  # y points down: a growing angle is clockwise
    elif motion == "bouncing":
        hop = (HOPS[speed] * time + phase) % 1
        path |= {"y": -HOP_HEIGHT * 4 * hop * (1 - hop)}  # a parabola between two touches of the floor
    elif motion in ("growing", "shrinking"):
        path |= {"log_size": GROWTH[speed] * time * (1 if motion == "growing" else -1)}
    elif motion == "spinning":
        path |= {"angle": SPIN[speed] * time}
    elif motion == "ink":
        path |= {"spread": INK[speed] * time.sqrt()}  # diffusion: the width grows with the square root of time
    return path


def camera_of(camera: str, time: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(where the camera's centre is along x, its magnification), each (t,); at time 0 they are 0 and 1."""
    shift = {"pan left": -PAN, "pan right": PAN}.get(camera, 0.0) * time
    magnification = torch.exp({"zoom in": ZOOM, "zoom out": -ZOOM}.get(camera, 0.0) * time)
    return shift, magnification


def _start(path, radius, reach, shift, magnification, generator):
    """Draw one coordinate of the start so that the thing stays within +-reach on the picture in every frame.

    Seen coordinate: magnification * (start + path - shift). Where no start fits, the middle of the bounds is taken.
    """
    room = reach / magnification - radius
    low, high = (-room - path + shift).max(), (room - path + shift).min()
    if low > high:
        return (low + high) / 2
    return low + (high - low) * torch.rand((), generator=generator)


def _tracks(scene: Scene, time: torch.Tensor, reach: tuple[float, float], generator) -> torch.Tensor:
    """(objects, t, 5): seen x, y, radius, angle and spread of each object in each frame."""
    shift, magnification = camera_of(scene.camera, time)
    best, widest = None, -math.inf
    for _ in range(1 if len(scene.things) == 1 else 24):  # two objects: the draw that keeps them best apart, or far enough
        rows = []
        for thing in scene.things:
            path = path_of(thing.motion, thing.speed, time, float(torch.rand((), generator=generator)))
            radius = RADIUS[thing.size] * path["log_size"].exp()
            extent = radius * (1 + 0.5 * path["spread"])
            x = _start(path["x"], extent, reach[0], shift, magnification, generator) + path["x"] - shift
            y = _start(path["y"], extent, reach[1], 0 * shift, magnification, generator) + path["y"]
            seen = (x * magnification, y * magnification, radius * magnification, path["angle"], path["spread"])
            rows.append(torch.stack(seen, -1))
        tracks = torch.stack(rows)
        if len(rows) == 1:
            return tracks
        gap = (tracks[0, :, :2] - tracks[1, :, :2]).norm(dim=-1)
        gap = (gap - ((1 + tracks[..., 4]) * tracks[..., 2]).sum(0)).min()
        if gap > widest:
            best, widest = tracks, gap
        if gap > 0.12:
            break
    return best


# Rendering -----------------------------------------------------------------------------------------------------------
def pixel_centres(height: int, width: int, device=None) -> tuple[torch.Tensor, torch.Tensor, float]:
    """x (w,), y (h,) in units, and a pixel's size in units."""
    pixel = 2 / min(height, width)
    x = (torch.arange(width, device=device) + 0.5 - width / 2) * pixel
    y = (torch.arange(height, device=device) + 0.5 - height / 2) * pixel
    return x, y, pixel


def rgb(colour: tuple[int, int, int]) -> torch.Tensor:
    return torch.tensor(colour, dtype=torch.float32) / 127.5 - 1


@lru_cache(maxsize=64)
def backdrop(background: str, camera: str, num_frames: int, height: int, width: int) -> torch.Tensor:
    """(3, t, h, w): the plain background with its dots, seen by the moving camera."""
    x, y, pixel = pixel_centres(height, width)
    shift, magnification = camera_of(camera, torch.arange(num_frames) / FPS)
    world_x = x / magnification[:, None] + shift[:, None]  # (t, w)
    world_y = y / magnification[:, None]  # (t, h)
    to_dot = [((w / DOT_SPACING) % 1 - 0.5) * DOT_SPACING for w in (world_x, world_y)]
    distance = torch.hypot(to_dot[0][:, None, :], to_dot[1][:, :, None]) - DOT_RADIUS
    alpha = torch.sigmoid(-4 * distance * magnification[:, None, None] / pixel)  # (t, h, w)
    plain, dot = rgb(BACKGROUNDS[background]), rgb(DOTS[background])
    return plain[:, None, None, None] + alpha * (dot - plain)[:, None, None, None]


def coverage_of(textures, tracks, x, y, pixel: float) -> torch.Tensor:
    """How much of each pixel each thing covers, 0..1: (n, t, h, w) from textures (n, r, r) and tracks (n, t, 5)."""
    n, t = tracks.shape[:2]
    centre_x, centre_y, radius, angle, spread = (v[..., None] for v in tracks.unbind(-1))  # (n, t, 1)
    cos, sin = torch.deg2rad(angle).cos(), torch.deg2rad(angle).sin()
    scale = 1 / (radius * EXTENT)
    dx, dy = (x - centre_x) * scale, (y - centre_y) * scale  # (n, t, w), (n, t, h)
    grid = torch.empty(n, t, len(y), len(x), 2, device=tracks.device)
    torch.add((cos * dx)[:, :, None, :], (sin * dy)[:, :, :, None], out=grid[..., 0])
    torch.add((-sin * dx)[:, :, None, :], (cos * dy)[:, :, :, None], out=grid[..., 1])
    distance = F.grid_sample(
        textures[:, None], grid.view(n, t * len(y), len(x), 2), padding_mode="border", align_corners=False
    ).view(n, t, len(y), len(x))  # in radii
    # An edge of width w blurred by diffusion is the normal distribution function, here its logistic twin.
    softness = torch.maximum(spread, 0.43 * pixel / radius)
    strength = 1 / (1 + 0.4 * spread**2)  # what spreads gets thinner
    return torch.sigmoid_(distance.mul_((-1.702 / softness)[..., None])).mul_(strength[..., None])


@dataclass(frozen=True)
class Staging:
    """Films that are decided and not yet painted: what chance left open in their scenes is settled, in few numbers."""

    behind: torch.Tensor  # (b,): which of `BACKDROPS`
    film: torch.Tensor  # (n,): in which film each thing is; the first things of all films come first, then the second ones
    colour: torch.Tensor  # (n, 3): red, green and blue of each thing in [-1, 1]
    texture: torch.Tensor  # (n,): of each thing, by number (see `shapes.textures`)
    tracks: torch.Tensor  # (n, t, 5): see `_tracks`
    size: tuple[int, int]  # height, width


def stage(scenes: list[Scene], *, generator=None, num_frames: int = NUM_FRAMES, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Staging:
    """Let chance place the objects of each scene and pick the handwriting; arguments and errors as of `render`."""
    if not scenes:
        raise ValueError("There is no scene to film; pass at least one.")
    if num_frames < 1 or min(size) < 16:
        raise ValueError(f"Cannot film {num_frames} frames of {size[0]}x{size[1]}; ask for 1 frame or more, 16x16 or more.")
    time = torch.arange(num_frames) / FPS
    reach = (size[1] / min(size), size[0] / min(size))
    tracks = torch.cat([_tracks(scene, time, reach, generator) for scene in scenes])
    things = [(i, k, thing) for i, scene in enumerate(scenes) for k, thing in enumerate(scene.things)]
    texture = torch.tensor([draw_texture(thing.shape, generator) for _, _, thing in things])
    order = sorted(range(len(things)), key=lambda n: things[n][1])
    return Staging(
        behind=torch.tensor([BACKDROPS.index((scene.background, scene.camera)) for scene in scenes]),
        film=torch.tensor([things[n][0] for n in order]),
        colour=torch.stack([rgb(COLOURS[things[n][2].colour]) for n in order]),
        texture=texture[order],
        tracks=tracks[order],
        size=size,
    )


def paint(staging: Staging, device: torch.device | str = "cpu") -> torch.Tensor:
    """The films, (b, 3, t, h, w) on the device."""
    x, y, pixel = pixel_centres(*staging.size, device)
    film, colour, texture, tracks = (
        tensor.to(device) for tensor in (staging.film, staging.colour, staging.texture, staging.tracks)
    )
    kinds, which = staging.behind.unique(return_inverse=True)
    empty = [backdrop(*BACKDROPS[kind], tracks.shape[1], *staging.size) for kind in kinds.tolist()]
    videos = torch.stack(empty).to(device)[which.to(device)]
    at_once = 16 if videos.device.type == "cpu" else len(videos)  # on a CPU, small enough to stay in its cache
    layers = [range(len(videos)), range(len(videos), len(film))]  # all first things, then all second ones, over them
    for things in (torch.arange(layer.start, layer.stop, device=device) for layer in layers if layer):
        for chunk in things.split(at_once):
            alpha = coverage_of(textures(texture[chunk]), tracks[chunk], x, y, pixel)[:, None]  # (n, 1, t, h, w)
            videos[film[chunk]] = videos[film[chunk]].lerp_(colour[chunk][..., None, None, None], alpha)
    return videos


def render(
    scenes: list[Scene],
    *,
    generator: torch.Generator | None = None,
    num_frames: int = NUM_FRAMES,
    size: tuple[int, int] = (HEIGHT, WIDTH),
) -> torch.Tensor:
    """Film each scene; chance places the objects and picks the handwriting.

    Args:
        generator: the source of chance; the same state gives the same films.
        num_frames: at 8 frames a second; 1 for a still.
        size: (height, width) in pixels, at least 16 each.

    Returns:
        (b, 3, t, h, w), float32 in [-1, 1].

    Raises:
        ValueError: there is no scene, no frame, or the size is under 16.
    """
    return paint(stage(scenes, generator=generator, num_frames=num_frames, size=size))
