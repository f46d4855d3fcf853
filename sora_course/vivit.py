"""Chapter 05: ViViT, a film as a sentence of bricks of space and time.

Arnab et al. 2021, ViViT: A Video Vision Transformer. A film is cut into bricks, each brick becomes a token, and there are four
ways in which tokens of many frames can attend to each other (section 3.3); the cheaper ones take space and time in turn.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from einops import rearrange, reduce, repeat

from .kit import checkpoints, published
from .vit import POOLS, Attention, Block, ViT, attention_maps, divides, resize_positions

LAYOUTS = ("joint", "factorised_encoder", "factorised_attention", "factorised_dot_product")  # models 1 to 4
INFLATIONS = ("central", "average")


@dataclass(frozen=True)
class ViViTConfig:
    """Sizes of the network. Films are (b, in_channels, num_frames, *image_size), bricks are (frames, height, width)."""

    num_frames: int = 8
    image_size: tuple[int, int] = (32, 32)
    tubelet_size: tuple[int, int, int] = (2, 8, 8)
    in_channels: int = 3
    hidden_size: int = 64
    depth: int = 4
    temporal_depth: int = 2  # of the second encoder, which only the factorised encoder has
    num_heads: int = 4
    mlp_ratio: float = 4.0
    num_classes: int = 10
    layout: str = "joint"
    pool: str = "mean"  # or "class", for the joint layout alone
    norm_eps: float = 1e-6
    approximate: str = "tanh"  # of GELU: "tanh" as published, "none" as in ViT


# Bricks --------------------------------------------------------------------------------------------------------------
def sample_frames(x: torch.Tensor, count: int) -> torch.Tensor:
    """Uniform frame sampling (section 3.2): count frames of a film (b, c, t, h, w), evenly spread over it.

    Raises:
        ValueError: the film has fewer frames, or none are asked for.
    """
    if x.ndim != 5:
        raise ValueError(
            f"Films are (b, c, t, h, w), and these are {tuple(x.shape)}; put a single one into a batch with film[None]."
        )
    frames = x.shape[2]
    if type(count) is not int or not 1 <= count <= frames:
        raise ValueError(f"From a film of {frames} frames one can take 1 to {frames} frames, not {count}.")
    return x[:, :, (torch.arange(count) * 2 + 1) * frames // (2 * count)]


def tubelets(x: torch.Tensor, size: tuple[int, int, int]) -> torch.Tensor:
    """Cut films (b, c, t, h, w) into bricks of size (p, q, r), frame by frame and row by row: (b, n, c p q r).

    Raises:
        ValueError: a side is not a multiple of the brick's.
    """
    if x.ndim != 5 or not divides(size, tuple(x.shape[2:])):
        raise ValueError(
            f"Films (b, c, t, h, w) with t, h and w in multiples of {size}, three whole numbers, are needed; "
            f"these are {tuple(x.shape)}."
        )
    p, q, r = size
    return rearrange(x, "b c (t p) (h q) (w r) -> b (t h w) (c p q r)", p=p, q=q, r=r)


def inflate(kernel: torch.Tensor, frames: int, how: str = "central") -> torch.Tensor:
    """An image embedding (d, c, h, w) as a film embedding (d, c, frames, h, w) (section 3.4).

    Args:
        how: "average" looks at the mean of all frames (equation 8), "central" at the middle one only (equation 9).

    Raises:
        ValueError: another way, no frame, or a kernel of another form.
    """
    if kernel.ndim != 4 or frames < 1:
        raise ValueError(f"A kernel (d, c, h, w) for 1 frame or more is needed; this is {tuple(kernel.shape)} for {frames}.")
    if how not in INFLATIONS:
        raise ValueError(f"{how!r} is no way to inflate; choose one of {', '.join(INFLATIONS)}.")
    if how == "average":
        return repeat(kernel / frames, "d c h w -> d c t h w", t=frames)
    film = kernel.new_zeros(*kernel.shape[:2], frames, *kernel.shape[2:])
    film[:, :, frames // 2] = kernel
    return film


def attention_pairs(grid: tuple[int, int, int], layout: str) -> int:
    """How many queries meet how many keys, in each head of each block: the part of the cost that grows fastest.

    Each pair costs 4 d operations in all heads together. The heads of the factorised dot product are counted by halves; the
    second encoder of the factorised encoder is left out, and so is a class token.

    Args:
        grid: tokens along time, height and width.

    Raises:
        ValueError: the layout is unknown.
    """
    _check_layout(layout)
    t, s = grid[0], grid[1] * grid[2]
    space, time = t * s**2, s * t**2
    pairs = {
        "joint": (t * s) ** 2,
        "factorised_encoder": space,
        "factorised_attention": space + time,
        "factorised_dot_product": (space + time) // 2,
    }
    return pairs[layout]


def _check_layout(layout: str) -> None:
    if layout not in LAYOUTS:
        raise ValueError(f"{layout!r} is no attention layout; choose one of {', '.join(LAYOUTS)}.")


# Blocks that take space and time in turn -------------------------------------------------------------------------------
class FactorisedAttentionBlock(Block):
    """Model 3: attend within each frame, then along time at each place, then the MLP. Tokens are (b, t, s, d)."""

    def __init__(self, hidden_size: int, num_heads: int, *rest):
        super().__init__(hidden_size, num_heads, *rest)
        self.norm_time = nn.LayerNorm(hidden_size, eps=self.norm1.eps)
        self.attention_time = Attention(hidden_size, num_heads)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        x = x + self.attention_time(self.norm_time(x).transpose(1, 2)).transpose(1, 2)
        return x + self.mlp(self.norm2(x))


class FactorisedDotProductBlock(Block):
    """Model 4: half of the heads attend within each frame, the other half along time. Tokens are (b, t, s, d)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        space, time = zip(*(part.chunk(2, dim=2) for part in self.attention.heads(self.norm1(x))))  # (b, t, heads / 2, s, d)
        across = F.scaled_dot_product_attention(*space)
        time = (rearrange(part, "b t heads s d -> b s heads t d") for part in time)
        along = rearrange(F.scaled_dot_product_attention(*time), "b s heads t d -> b t heads s d")
        mixed = rearrange(torch.cat([across, along], dim=2), "b t heads s d -> b t s (heads d)")
        x = x + self.attention.proj(mixed)
        return x + self.mlp(self.norm2(x))


_BLOCKS = {"factorised_attention": FactorisedAttentionBlock, "factorised_dot_product": FactorisedDotProductBlock}


# The transformer -----------------------------------------------------------------------------------------------------
class ViViT(nn.Module):
    """From films to class scores: (b, c, t, h, w) to (b, num_classes). Fewer frames and other heights and widths will do.

    Raises:
        ValueError: the config contradicts itself.
    """

    def __init__(self, config: ViViTConfig):
        super().__init__()
        _check_layout(config.layout)
        if config.pool not in POOLS or (config.pool == "class" and config.layout != "joint"):
            raise ValueError(f"pool is 'mean', or with joint attention 'class'; not {config.pool!r} with {config.layout}.")
        sides = (config.num_frames, *config.image_size)
        if not divides(config.tubelet_size, sides):
            raise ValueError(
                f"Films of {sides} cannot be cut into bricks of {config.tubelet_size}; give three whole numbers that divide them."
            )
        if not divides((config.num_heads,), (config.hidden_size,)):
            raise ValueError(f"{config.hidden_size} channels must be a multiple of the {config.num_heads} heads.")
        if config.layout == "factorised_dot_product" and config.num_heads % 2:
            raise ValueError(
                f"A factorised dot product halves its heads, and {config.num_heads} is odd; choose an even number."
            )
        self.config = config
        self.grid = tuple(side // part for side, part in zip(sides, config.tubelet_size))
        d = config.hidden_size
        block = (d, config.num_heads, config.mlp_ratio, config.norm_eps, config.approximate)
        p, q, r = config.tubelet_size
        t, h, w = self.grid
        self.embed = nn.Linear(config.in_channels * p * q * r, d)
        self.class_token = nn.Parameter(torch.zeros(1, 1, d)) if config.pool == "class" else None
        self.positions = nn.Parameter(0.02 * torch.randn(t * h * w + (config.pool == "class"), d))
        self.blocks = nn.ModuleList(_BLOCKS.get(config.layout, Block)(*block) for _ in range(config.depth))
        if config.layout == "factorised_encoder":
            self.frame_positions = nn.Parameter(0.02 * torch.randn(t, d))
            self.temporal_blocks = nn.ModuleList(Block(*block) for _ in range(config.temporal_depth))
        self.norm = nn.LayerNorm(d, eps=config.norm_eps)
        self.head = nn.Linear(d, config.num_classes)

    def tokens(self, x: torch.Tensor) -> torch.Tensor:
        """Bricks with their positions: (b, t, s, d), s places in each of t steps; for joint attention (b, [1 +] t s, d)."""
        if x.ndim != 5 or x.shape[1] != self.config.in_channels or not len(x) or not x.is_floating_point():
            raise ValueError(
                f"Films are (b, {self.config.in_channels}, t, h, w), at least one, in real numbers; these are {tuple(x.shape)} "
                f"of {x.dtype}."
            )
        if x.shape[2] > self.config.num_frames:
            raise ValueError(
                f"This ViViT has positions for {self.config.num_frames} frames, and the film has {x.shape[2]}; "
                "sample fewer frames, or build one with a larger num_frames."
            )
        tokens = self.embed(tubelets(x, self.config.tubelet_size))
        t, h, w = (side // part for side, part in zip(x.shape[2:], self.config.tubelet_size))
        extra = int(self.class_token is not None)
        old = rearrange(self.positions[extra:], "(t s) d -> t s d", t=self.grid[0])
        positions = torch.stack([resize_positions(frame, self.grid[1:], (h, w)) for frame in old[:t]])
        tokens = rearrange(tokens, "b (t s) d -> b t s d", t=t) + positions
        if self.config.layout != "joint":
            return tokens
        tokens = tokens.flatten(1, 2)
        if extra:
            tokens = torch.cat([(self.class_token + self.positions[0]).expand(len(x), -1, -1), tokens], dim=1)
        return tokens

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.tokens(x)
        for block in self.blocks:
            tokens = block(tokens)
        if self.config.layout == "factorised_encoder":  # model 2: one token a step, then a transformer along time
            tokens = reduce(tokens, "b t s d -> b t d", "mean")
            tokens = tokens + self.frame_positions[: tokens.shape[1]]
            for block in self.temporal_blocks:
                tokens = block(tokens)
        tokens = self.norm(tokens)
        return self.head(tokens[:, 0] if self.class_token is not None else reduce(tokens, "b ... d -> b d", "mean"))

    def attention_maps(self, x: torch.Tensor) -> torch.Tensor:
        """With joint attention, how much each token takes from each other in every block: (depth, b, heads, n, n).

        Raises:
            ValueError: the layout is another, in which no token asks all others at once.
        """
        if self.config.layout != "joint":
            raise ValueError(f"One table of all tokens exists for joint attention only, and this is {self.config.layout}.")
        return attention_maps(self.tokens(x), self.blocks)

    @classmethod
    def from_image(cls, vit: ViT, *, num_frames: int, tubelet_frames: int = 2, inflation="central", layout="joint") -> ViViT:
        """A film model that starts from an image model (section 3.4).

        The embedding is inflated, positions are repeated over time, and new blocks add nothing at first. For a film in which
        nothing moves the answer is then the image model's, if that pools by the mean (one class token among several frames'
        tokens has less weight) and the layout is joint or factorised_attention (the factorised encoder pools before the
        last norm, and the factorised dot product gives half of the heads another task).

        Raises:
            ValueError: the image model has no learned positions, or sizes, layout or inflation do not fit.
        """
        if vit.config.positions != "learned":
            raise ValueError(f"A ViT with learned positions is needed, and this one's are {vit.config.positions!r}.")
        old, p = vit.config, vit.config.patch_size
        net = cls(
            ViViTConfig(
                num_frames=num_frames, image_size=old.image_size, tubelet_size=(tubelet_frames, p, p), layout=layout,
                in_channels=old.in_channels, hidden_size=old.hidden_size, depth=old.depth, num_heads=old.num_heads,
                mlp_ratio=old.mlp_ratio, num_classes=old.num_classes, pool=old.pool, norm_eps=old.norm_eps, approximate="none",
            )
        )  # fmt: skip
        net, tensors, extra = net.to(vit.embed.weight), vit.state_dict(), int(old.pool == "class")
        kernel = rearrange(tensors["embed.weight"], "d (c h w) -> d c h w", h=p, w=p)
        tensors["embed.weight"] = inflate(kernel, tubelet_frames, inflation).flatten(1)
        places = repeat(tensors["positions"][extra:], "s d -> (t s) d", t=net.grid[0])
        tensors["positions"] = torch.cat([tensors["positions"][:extra], places])
        along_time = ("norm_time", "attention_time", "temporal_blocks", "frame_positions")
        silent = ("proj.weight", "proj.bias", "mlp.2.weight", "mlp.2.bias", "frame_positions")  # the last word of each block
        for name, new in net.named_parameters():
            if any(part in name for part in along_time):
                tensors[name] = torch.zeros_like(new) if name.endswith(silent) else new
        checkpoints.fill(net, tensors, "weights")
        return net

    @classmethod
    def from_pretrained(cls, name: str) -> ViViT:
        """Weights in the format of transformers' ViViT, such as google/vivit-b-16x2-kinetics400: a folder, or a ModelScope id.

        Raises:
            ValueError: it is not there, not whole, or not of this form.
        """
        config, tensors = published.read(name)
        sizes, tensors = published.vivit_sizes(config), published.vit_tensors(tensors, "vivit.")
        net = cls(ViViTConfig(**sizes, pool="class", num_classes=len(tensors["head.bias"])))
        checkpoints.fill(net, tensors, "weights")
        return net.eval()
