"""Chapter 08: a second look. A small network reads films, so that one that shows something else than its prompt is drawn again.

Of several films of a prompt one is often right, and whoever can tell which may keep it. DALL-E's pictures were chosen so
(Ramesh et al. 2021, section 2.6, by CLIP); Cobbe et al. 2021 call the one who tells a verifier. To read a film is far easier
than to paint it, so the network is small. `reading_lessons.py` teaches it, from films of the world, some of them spoilt on
purpose: it never sees a film of the model, nor what the judge says.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from einops import rearrange

from .kit import checkpoints, world
from .kit.captions import parse
from .kit.training import autocast

DEFAULT_READER = "film_reader"
FRAMES = 5  # so many of a film's frames are looked at, evenly spaced, first and last among them
CLOSE_UP = 20  # pixels a side of a thing that is looked at closely, whatever its size in the frame
COLOURS, SHAPES = list(world.COLOURS), list(world.SHAPES)
OF_A_THING = {
    "shape": [*SHAPES, "none"], "motion": list(world.MOTIONS), "size": list(world.SIZES), "speed": list(world.SPEEDS),
    "kept": [False, True], "end": [*SHAPES, "none"],
}  # fmt: skip
OF_A_SCENE = {"background": list(world.BACKGROUNDS), "camera": list(world.CAMERAS)}
SHAPE, SPEED, KEPT, END = map(list(OF_A_THING).index, ("shape", "speed", "kept", "end"))


# Questions and answers -----------------------------------------------------------------------------------------------
def answers_of(scene: world.Scene) -> torch.Tensor:
    """The right answers about a film of the scene: (50,), six for each of the eight colours, then two about the scene.

    Each is the place of a word in `OF_A_THING` or `OF_A_SCENE`; "end" asks for the shape in the last frame. Of a colour in which
    nothing is, both shapes are "none", and there is no other answer (-1). Neither is one about the speed of what stands still, or
    about the shape in which ink ends.
    """
    of_things = torch.full((len(COLOURS), len(OF_A_THING)), -1)
    of_things[:, [SHAPE, END]] = len(SHAPES)
    for thing in scene.things:
        words = vars(thing) | {"kept": True, "end": thing.shape}
        said = torch.tensor([known.index(words[kind]) for kind, known in OF_A_THING.items()])
        said[SPEED] = -1 if thing.motion == "still" else said[SPEED]
        said[END] = -1 if thing.motion == "ink" else said[END]
        of_things[COLOURS.index(thing.colour)] = said
    of_scene = [known.index(getattr(scene, kind)) for kind, known in OF_A_SCENE.items()]
    return torch.cat([of_things.flatten(), torch.tensor(of_scene)])


def looked_at(frames: int) -> torch.Tensor:
    """The numbers of the frames that are looked at: `FRAMES` of so many, evenly spaced, first and last among them."""
    return torch.linspace(0, frames - 1, FRAMES).round().long()


def some_frames(films: torch.Tensor) -> torch.Tensor:
    """`FRAMES` frames of films (b, 3, t, h, w), evenly spaced, first and last among them.

    Raises:
        ValueError: there are fewer.
    """
    if films.ndim != 5 or films.shape[2] < FRAMES:
        raise ValueError(f"To read a film takes {FRAMES} frames or more, (b, 3, t, h, w), and these are {tuple(films.shape)}.")
    return films[:, :, looked_at(films.shape[2])]


def log_likelihood(logits: list[torch.Tensor], answers: torch.Tensor) -> torch.Tensor:
    """Log of the probability of each answer (b, 50) by the logits of each question (b, words), 0 where there is none: (b, 50)."""
    parts = [one.float().log_softmax(-1).gather(1, a.clamp(min=0)[:, None])[:, 0] for one, a in zip(logits, answers.unbind(1))]
    return torch.stack(parts, dim=1) * (answers >= 0)


# The network ---------------------------------------------------------------------------------------------------------
class ResidualBlock(nn.Module):
    """Two convolutions and a way past them (He et al. 2016), on the frames of films; a stride of 2 halves height and width."""

    def __init__(self, inner: int, outer: int, stride: int = 1):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(inner, outer, 3, stride, padding=1), nn.GroupNorm(8, outer)
        self.conv2, self.norm2 = nn.Conv2d(outer, outer, 3, padding=1), nn.GroupNorm(8, outer)
        self.past = nn.Conv2d(inner, outer, 1, stride) if inner != outer or stride > 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.past(x) + self.norm2(self.conv2(y)))


def close_ups(frames: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """What lies at each place in the frames, with a margin, brought to one size.

    Args:
        frames: (n, 3, h, w).
        where: x, y and the log of the radius of k places in each, (n, k, 3).

    Returns:
        (n k, 3, CLOSE_UP, CLOSE_UP); beyond the frame its outermost pixels go on.
    """
    h, w = frames.shape[-2:]
    centre, radius = where[..., :2], where[..., 2].exp().clamp(0.02, 1.5)
    half = 1.4 * radius + 4 / min(h, w)  # two pixels more, for what is small
    axis = torch.linspace(-1, 1, CLOSE_UP, device=frames.device)
    square = torch.stack(torch.broadcast_tensors(axis[None, :], axis[:, None]), dim=-1)  # (s, s, 2)
    grid = centre[:, :, None, None] + half[:, :, None, None, None] * square  # (n, k, s, s, 2)
    grid = grid * (min(h, w) / torch.tensor([w, h], device=frames.device))  # in units of half the frame
    cut = F.grid_sample(frames.float(), grid.flatten(1, 2), padding_mode="border", align_corners=False)
    return rearrange(cut, "n c (k y) x -> (n k) c y x", k=where.shape[1])


class FilmReader(nn.Module):
    """Films to answers: in each frame one look for each colour and one for the scene, then all looks of a colour together.

    A look says where the thing is and how large; so each thing is also looked at closely, cut out and brought to one size.
    """

    def __init__(self, width: int = 32, hidden_size: int = 128, num_heads: int = 8, close_size: int = 64):
        super().__init__()
        self.config = {"width": width, "hidden_size": hidden_size, "num_heads": num_heads, "close_size": close_size}
        d = hidden_size
        self.stem = nn.Conv2d(5, width, 5, stride=2, padding=2)  # red, green, blue, x and y
        self.blocks = nn.Sequential(
            ResidualBlock(width, width), ResidualBlock(width, 2 * width, stride=2), ResidualBlock(2 * width, d, stride=2)
        )
        self.looks = nn.Parameter(torch.randn(len(COLOURS) + 1, d))  # what to look for: each colour, and the scene
        self.key, self.value = nn.Linear(d + 2, d), nn.Linear(d + 2, d)
        self.where = nn.Sequential(nn.Linear(d, d), nn.GELU(), nn.Linear(d, 3))  # x, y and the log of the radius
        self.close_up = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1), nn.ReLU(),
            ResidualBlock(width, width, stride=2), ResidualBlock(width, 2 * width, stride=2), nn.Flatten(),
            nn.Linear(2 * width * (CLOSE_UP // 4) ** 2, close_size), nn.LayerNorm(close_size), nn.GELU(),
        )  # fmt: skip
        self.together = nn.Sequential(
            nn.Linear(FRAMES * (d + close_size) + 1, 4 * d), nn.GELU(), nn.LayerNorm(4 * d),
            nn.Linear(4 * d, 4 * d), nn.GELU(), nn.LayerNorm(4 * d),
        )  # fmt: skip
        self.of_a_thing = nn.Linear(4 * d, sum(map(len, OF_A_THING.values())))
        self.of_a_scene = nn.Linear(4 * d, sum(map(len, OF_A_SCENE.values())))

    def forward(self, films: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Films (b, 3, t, h, w) in [-1, 1] to one tensor of logits (b, words) for each question, in the order of `answers_of`,
        and where the thing of each colour is in each frame that is looked at: x, y and the log of its radius, (b, FRAMES, 8, 3)."""
        seconds = torch.full((len(films), len(self.looks), 1), (films.shape[2] - 1) / world.FPS, device=films.device)
        frames = rearrange(some_frames(films), "b c t h w -> (b t) c h w")
        looks = self._look(frames)  # (b t, 9, d)
        where = self.where(looks[:, :-1]).float()  # (b t, 8, 3)
        close = rearrange(self.close_up(close_ups(frames, where.detach())), "(n k) d -> n k d", k=len(COLOURS))
        looks = torch.cat([looks, F.pad(close, (0, 0, 0, 1))], dim=-1)  # the scene is not looked at closely
        x = rearrange(looks, "(b t) q d -> b q (t d)", t=FRAMES)
        x = self.together(torch.cat([x, seconds], dim=-1))  # (b, 9, 4 d)
        things = self.of_a_thing(x[:, :-1]).split([len(known) for known in OF_A_THING.values()], dim=-1)
        scene = self.of_a_scene(x[:, -1]).split([len(known) for known in OF_A_SCENE.values()], dim=-1)
        logits = [answer[:, colour] for colour in range(len(COLOURS)) for answer in things] + list(scene)
        return logits, rearrange(where, "(b t) k xyr -> b t k xyr", t=FRAMES)

    def _look(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames (n, 3, h, w) to one look for each colour and one for the scene, (n, 9, d)."""
        across, down, _ = world.pixel_centres(*frames.shape[-2:], frames.device)
        place = torch.stack(torch.broadcast_tensors(across[None, :], down[:, None]))  # (2, h, w)
        x = torch.cat([frames, place.expand(len(frames), -1, -1, -1)], dim=1)
        x = self.blocks(F.relu(self.stem(x)))  # (n, d, h/8, w/8)
        place = F.adaptive_avg_pool2d(place[None], x.shape[-2:]).expand(len(x), -1, -1, -1)
        x = torch.cat([x, place], dim=1).flatten(2).mT  # (n, cells, d + 2)
        q, k, v = self.looks.expand(len(x), -1, -1), self.key(x), self.value(x)
        q, k, v = (rearrange(y, "n cells (h d) -> n h cells d", h=self.config["num_heads"]) for y in (q, k, v))
        return rearrange(F.scaled_dot_product_attention(q, k, v), "n h q d -> n q (h d)")

    @torch.no_grad()
    def belief(self, films: torch.Tensor, scenes: list[world.Scene]) -> torch.Tensor:
        """How likely each film (b, 3, t, h, w) is to show its scene, all of it: (b,), in 0..1.

        In films that are shorter or longer than most it hardly reads speed (data/README.md), and is not asked about it.

        Raises:
            ValueError: films are shorter than 5 frames, or there are not as many scenes as films.
        """
        if len(films) != len(scenes):
            raise ValueError(f"There are {len(films)} films and {len(scenes)} scenes; give one scene for each film.")
        answers = torch.stack([answers_of(scene) for scene in scenes]).to(films.device)
        if films.shape[2] != world.NUM_FRAMES:
            answers[:, SPEED : -len(OF_A_SCENE) : len(OF_A_THING)] = -1
        with autocast(films.device):
            return log_likelihood(self(films)[0], answers).sum(1).exp()

    def save(self, path: Path | str) -> None:
        checkpoints.save(path, {name: tensor.half() for name, tensor in self.state_dict().items()}, self.config)

    @classmethod
    def from_pretrained(cls, name: str = DEFAULT_READER) -> FilmReader:
        """Load a reader by file or by name.

        Raises:
            ValueError: it is not there, not whole, not ours, or no film reader.
        """
        tensors, config = checkpoints.load(checkpoints.find(name))
        if config.keys() != {"width", "hidden_size", "num_heads", "close_size"}:
            raise ValueError(f"{name} holds something else than a film reader; name the file of one, such as {DEFAULT_READER}.")
        try:
            reader = cls(**config)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"The config inside {name} is not that of a film reader ({error}).") from error
        checkpoints.fill(reader, tensors, "film reader")
        return reader.eval()


# The second look -----------------------------------------------------------------------------------------------------
def can_read(num_frames: int, size: tuple[int, int]) -> bool:
    """Whether films are of lengths and shapes of frame such as the reader learned from (`reading_lessons.FILMED`)."""
    return 9 <= num_frames <= 25 and all(64 <= side <= 96 for side in size)


def draw_again(
    films: torch.Tensor,
    prompts: list[str],
    seeds: list[int],
    generate: Callable[[list[str], list[int]], torch.Tensor],
    reader: FilmReader,
    *,
    tries: int,
    sure: float = 0.9,
) -> tuple[torch.Tensor, int]:
    """Where the reader doubts that a film shows what its prompt says, draw others, and keep the one that it believes most.

    Args:
        films: the first film of each prompt, (b, 3, t, h, w).
        prompts, seeds: of these films.
        generate: takes prompts and one seed for each, and returns films.
        tries: how many films may be drawn for a prompt, the first among them.
        sure: the belief from which on a film is taken, in 0..1.

    Returns:
        The films that are kept, and how many were drawn in all.

    Raises:
        ValueError: a prompt is none of the captioned world, tries are not 1 or more, sure is not in 0..1, or films do not fit.
    """
    if tries < 1 or not 0 <= sure <= 1:
        raise ValueError(f"A film is tried once or more, up to a belief in 0..1; asked for were {tries} tries and {sure}.")
    scenes = [parse(prompt) for prompt in prompts]
    kept, belief, drawn = films.clone(), reader.belief(films, scenes), len(films)
    for number in range(1, tries):
        doubtful = (belief < sure).nonzero()[:, 0].tolist()
        if not doubtful:
            break
        others = generate([prompts[i] for i in doubtful], [seed_of_try(seeds[i], number) for i in doubtful])
        drawn += len(others)
        believed = reader.belief(others, [scenes[i] for i in doubtful])
        for i, film, value in zip(doubtful, others, believed):
            if value > belief[i]:
                kept[i], belief[i] = film, value
    return kept, drawn


def seed_of_try(seed: int, number: int) -> int:
    """The seed of a film's try number 0, 1, ...: the film's own, then others, far from those of its neighbours."""
    return (seed + 1_000_003 * number) % 2**63
