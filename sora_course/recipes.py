"""The recipes: how large the networks of each shipped model are, and what, how long and how fast each learns.

`sora-course train RECIPE` runs the three stages of `stages.py` with one of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from .buckets import Bucket
from .kit.training import TrainConfig
from .video_dit import VideoDiTConfig
from .video_vae import VideoVAEConfig


@dataclass(frozen=True)
class Recipe:
    """Sizes of the three networks and how each is trained."""

    preset: str
    vae: VideoVAEConfig
    vae_train: TrainConfig
    text_depth: int
    text_size: int
    text_train: TrainConfig
    dit: VideoDiTConfig
    dit_train: TrainConfig
    buckets: tuple[Bucket, ...]
    vae_batch: int = 8
    kl_weight: float = 1e-4
    text_batch: int = 128
    compile: bool = False  # the blocks of autoencoder and transformer, while training
    reading: bool = False  # whether a reader teaches the text encoder which word belongs to which thing
    times_mean: float = 1.2  # of the logit of flow times in the transformer's loss: lower for more of the fine detail
    foreground: float = 0.0  # how much more the loss counts latents that show a thing
    richness: float = 1.0  # of the first film of each size; it rises to 1 half way through (see `buckets.draw_part`)
    taken_over: dict[str, str] = field(default_factory=dict)  # parts (vae, text, dit), and the model, by file or name, of each


_STARTER_BUCKETS = (
    Bucket(17, 64, 64, films=24_000, batch=64, weight=0.80),
    Bucket(1, 64, 64, films=4_000, batch=128, weight=0.04),
    Bucket(9, 64, 64, films=3_000, batch=96, weight=0.04),
    Bucket(25, 64, 64, films=3_000, batch=48, weight=0.04),
    Bucket(17, 64, 96, films=3_000, batch=48, weight=0.04),
    Bucket(17, 96, 64, films=3_000, batch=48, weight=0.04),
)

# On two cores of a CPU with AMX: see data/README.md for the time each stage took and what came of it.
_STARTER = Recipe(
    preset="starter",
    vae=VideoVAEConfig(),
    vae_train=TrainConfig(steps=7500, ema=0.998, decay=0.7, save_every=500),
    vae_batch=16,
    kl_weight=3e-5,
    text_depth=2,
    text_size=128,
    text_train=TrainConfig(steps=400, lr=0.01, adamw_lr=1e-3),
    dit=VideoDiTConfig(hidden_size=256, depth=6, num_heads=4, text_size=128),
    dit_train=TrainConfig(steps=4000, lr=0.015, adamw_lr=1.5e-3, ema=0.998, decay=1.0, save_every=500),
    buckets=_STARTER_BUCKETS,
    compile=True,
)

# On a GPU. From simple to rich: a few new words at a time. The autoencoder is the one that the starter's recipe made, as it
# lies in the model that ships; for another, put its vae.safetensors into the folder, where it is kept.
_FULL = replace(
    _STARTER,
    preset="full",
    taken_over={"vae": "sora_full"},
    reading=True,
    text_train=TrainConfig(steps=1500, lr=0.01, adamw_lr=1e-3),
    dit=VideoDiTConfig(hidden_size=384, depth=8, num_heads=6, text_size=128, conditioning="adaln_single"),
    dit_train=TrainConfig(steps=6800, lr=0.02, adamw_lr=2e-3, ema=0.998, decay=1.0, save_every=1134),
    foreground=4.0,
    richness=0.05,
    buckets=(
        Bucket(17, 64, 64, films=256_000, batch=768, weight=0.76),
        Bucket(1, 64, 64, films=24_000, batch=1024, weight=0.04),
        Bucket(9, 64, 64, films=24_000, batch=768, weight=0.05),
        Bucket(25, 64, 64, films=24_000, batch=384, weight=0.05),
        Bucket(17, 64, 96, films=24_000, batch=384, weight=0.05),
        Bucket(17, 96, 64, films=24_000, batch=384, weight=0.05),
    ),
)

# On a GPU, after "full": the model that ships goes on learning, from new films of the whole world and more of two things.
_LONGER = replace(
    _FULL,
    taken_over=dict.fromkeys(("vae", "text", "dit"), "sora_full"),
    dit_train=TrainConfig(steps=14_210, lr=0.02, adamw_lr=2e-3, ema=0.998, decay=1.0, warmup=100, save_every=2842, seed=1),
    foreground=8.0,
    richness=1.0,
    buckets=(
        Bucket(17, 64, 64, films=260_000, batch=768, weight=0.50, seed=1),
        Bucket(17, 64, 64, films=120_000, batch=768, weight=0.24, seed=1, objects=2),
        Bucket(1, 64, 64, films=24_000, batch=1024, weight=0.03, seed=1),
        Bucket(9, 64, 64, films=24_000, batch=768, weight=0.06, seed=1),
        Bucket(25, 64, 64, films=24_000, batch=384, weight=0.05, seed=1),
        Bucket(17, 64, 96, films=24_000, batch=384, weight=0.06, seed=1),
        Bucket(17, 96, 64, films=24_000, batch=384, weight=0.06, seed=1),
    ),
)

# On a GPU, after "longer": the same once more, from other films, with more of what failed still, one small thing and 25 frames.
_LONGEST = replace(
    _LONGER,
    dit_train=replace(_LONGER.dit_train, steps=7000, lr=0.015, adamw_lr=1.5e-3, save_every=3500, seed=2),
    buckets=(
        Bucket(17, 64, 64, films=240_000, batch=1024, weight=0.46, seed=2),
        Bucket(17, 64, 64, films=80_000, batch=1024, weight=0.20, seed=2, objects=1, small=True),
        Bucket(17, 64, 64, films=60_000, batch=1024, weight=0.08, seed=2, objects=2),
        Bucket(1, 64, 64, films=16_000, batch=1024, weight=0.02, seed=2),
        Bucket(9, 64, 64, films=24_000, batch=1024, weight=0.06, seed=2),
        Bucket(25, 64, 64, films=40_000, batch=512, weight=0.08, seed=2),
        Bucket(17, 64, 96, films=24_000, batch=512, weight=0.05, seed=2),
        Bucket(17, 96, 64, films=24_000, batch=512, weight=0.05, seed=2),
    ),
)

# On a GPU, after "longest": the same once more, from other films, a third of the batches of 25 frames, and times nearer the data.
_FINISH = replace(
    _LONGER,
    dit_train=replace(_LONGER.dit_train, steps=7420, lr=0.015, adamw_lr=1.5e-3, save_every=2474, seed=3),
    times_mean=0.8,
    buckets=(
        Bucket(17, 64, 64, films=130_000, batch=1536, weight=0.24, seed=3),
        Bucket(17, 64, 64, films=50_000, batch=1536, weight=0.12, seed=3, objects=1, small=True),
        Bucket(17, 64, 64, films=50_000, batch=1536, weight=0.12, seed=3, objects=2),
        Bucket(1, 64, 64, films=10_000, batch=2048, weight=0.02, seed=3),
        Bucket(9, 64, 64, films=24_000, batch=1536, weight=0.04, seed=3),
        Bucket(25, 64, 64, films=100_000, batch=1024, weight=0.32, seed=3),
        Bucket(17, 64, 96, films=28_000, batch=1024, weight=0.07, seed=3),
        Bucket(17, 96, 64, films=28_000, batch=1024, weight=0.07, seed=3),
    ),
)

RECIPES: dict[str, Recipe] = {
    "starter": _STARTER,
    "full": _FULL,
    "longer": _LONGER,
    "longest": _LONGEST,
    "finish": _FINISH,
    # Not for a good model but for tests and for trying the machinery out: well under a minute in all.
    "tiny": Recipe(
        preset="starter",
        vae=VideoVAEConfig(latent_channels=8, channels=(16, 16)),
        vae_train=TrainConfig(steps=12, warmup=2, save_every=6),
        text_depth=1,
        text_size=32,
        text_train=TrainConfig(steps=10, warmup=2, lr=0.01, save_every=5),
        dit=VideoDiTConfig(in_channels=8, hidden_size=32, depth=1, num_heads=2, text_size=32),
        dit_train=TrainConfig(steps=12, warmup=2, save_every=6),
        buckets=(Bucket(17, 64, 64, 16, 4, 0.5), Bucket(1, 64, 64, 16, 8, 0.25), Bucket(9, 64, 96, 8, 4, 0.25)),
        vae_batch=2,
        text_batch=8,
    ),
}


def recipe_named(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in RECIPES:
        raise ValueError(f"{name!r} is not a recipe; there are {', '.join(RECIPES)}.")
    return RECIPES[name]
