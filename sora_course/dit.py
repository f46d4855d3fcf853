"""Chapter 07: DiT, a transformer that paints in the latent space.

Peebles & Xie 2022, Scalable Diffusion Models with Transformers: a ViT (chapter 04) over patches of latents (chapter 06) that
says which noise is in them (chapter 02). Not to be confused with DeiT (Touvron et al. 2020), which is about training image
classifiers with less data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn as nn
from einops import rearrange

from .kit import checkpoints, checks, published_dit
from .unet import sincos
from .vit import Attention, divides, patchify

PLAIN = ("cross_attention", "in_context")  # norms know nothing of time and label
CONDITIONINGS = ("adaln_zero", "adaln", "adaln_single", *PLAIN)


@dataclass(frozen=True)
class DiTConfig:
    """Sizes of the network; in_channels counts the latents' channels, and out_channels twice as many if it learns variances."""

    in_channels: int = 4
    out_channels: int = 8
    patch_size: int = 2
    hidden_size: int = 1152
    depth: int = 28
    num_heads: int = 16
    mlp_ratio: float = 4.0
    num_classes: int = 1000
    conditioning: str = "adaln_zero"  # how time and label get in: the paper's four ways, and PixArt-alpha's adaln_single


# Time, label, place ----------------------------------------------------------------------------------------------------
class TimestepEmbedder(nn.Module):
    """Times (b,) in 0..1000 to vectors (b, hidden_size): sines and cosines, then two layers. Flow time is scaled up first."""

    def __init__(self, hidden_size: int, frequency_size: int = 256):
        super().__init__()
        self.frequency_size = frequency_size
        self.mlp = nn.Sequential(nn.Linear(frequency_size, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size))

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        return self.mlp(sincos(t, self.frequency_size).to(self.mlp[0].weight.dtype))


def positions(grid: tuple[int, int], hidden_size: int, device=None) -> torch.Tensor:
    """Sines and cosines of column and row, half of the channels each and sines first, as published: (n, hidden_size).

    hidden_size is a multiple of 4.
    """
    rows, columns = torch.meshgrid(*(torch.arange(side, device=device) for side in grid), indexing="ij")
    angles = [sincos(place.flatten(), hidden_size // 2).chunk(2, dim=1) for place in (columns, rows)]
    return torch.cat([part for cos, sin in angles for part in (sin, cos)], dim=1)


def modulate(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """x (1 + scale) + shift, with shift and scale (b, d) the same for all tokens of x (b, n, d)."""
    return torch.addcmul(shift[:, None], x, 1 + scale[:, None])


# Blocks ----------------------------------------------------------------------------------------------------------------
class DiTBlock(nn.Module):
    """Attention and MLP; time and label shift and scale what goes in, and gate what comes out (figure 3).

    adaln_zero: shifts, scales and gates from a linear layer that starts as zero, so the block starts as the identity.
    adaln: the same without gates, and not from zero. adaln_single: from one layer for all blocks, plus a table for each.
    cross_attention, in_context: a plain block with norms of its own; the first looks at time and label in a layer between.
    """

    def __init__(self, config: DiTConfig):
        super().__init__()
        d, inner, kind = config.hidden_size, round(config.mlp_ratio * config.hidden_size), config.conditioning
        plain = kind in PLAIN
        self.norm1 = nn.LayerNorm(d, elementwise_affine=plain, eps=1e-6)
        self.attention = Attention(d, config.num_heads)
        self.norm2 = nn.LayerNorm(d, elementwise_affine=plain, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(d, inner), nn.GELU(approximate="tanh"), nn.Linear(inner, d))
        self.kind = kind
        if kind == "adaln_zero":
            self.ada_ln = zero_init(nn.Sequential(nn.SiLU(), nn.Linear(d, 6 * d)))
        elif kind == "adaln":
            self.ada_ln = nn.Sequential(nn.SiLU(), nn.Linear(d, 4 * d))
        elif kind == "adaln_single":
            self.table = nn.Parameter(torch.randn(6, d) / d**0.5)
        elif kind == "cross_attention":
            self.norm_cross = nn.LayerNorm(d, eps=1e-6)
            self.cross = nn.MultiheadAttention(d, config.num_heads, batch_first=True)

    def modulation(self, c: torch.Tensor, shared: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """Shift, scale and gate (b, d) of attention, then of the MLP."""
        if self.kind == "adaln_zero":
            return self.ada_ln(c).chunk(6, dim=1)
        if self.kind == "adaln":
            shift1, scale1, shift2, scale2 = self.ada_ln(c).chunk(4, dim=1)
            return shift1, scale1, torch.ones_like(shift1), shift2, scale2, torch.ones_like(shift1)
        return (self.table + shared).unbind(1)

    def forward(self, x: torch.Tensor, c: torch.Tensor, context: torch.Tensor, shared: torch.Tensor | None) -> torch.Tensor:
        """Tokens (b, n, d), time plus label (b, d), both as tokens (b, 2, d), and adaln_single's vectors (b, 6, d)."""
        if self.kind in PLAIN:
            x = x + self.attention(self.norm1(x))
            if self.kind == "cross_attention":
                x = x + self.cross(self.norm_cross(x), context, context, need_weights=False)[0]
            return x + self.mlp(self.norm2(x))
        shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = self.modulation(c, shared)  # (b, d) each
        x = torch.addcmul(x, gate_attn[:, None], self.attention(modulate(self.norm1(x), shift_attn, scale_attn)))
        return torch.addcmul(x, gate_mlp[:, None], self.mlp(modulate(self.norm2(x), shift_mlp, scale_mlp)))


class FinalLayer(nn.Module):
    """adaLN, then a linear map from tokens to patches; both start as zero. With plain blocks a plain norm (section 3.2)."""

    def __init__(self, hidden_size: int, out_size: int, *, plain: bool = False):
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size, elementwise_affine=plain, eps=1e-6)
        self.ada_ln = None if plain else zero_init(nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, 2 * hidden_size)))
        self.linear = zero_init(nn.Linear(hidden_size, out_size))

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        if self.ada_ln is None:
            return self.linear(self.norm(x))
        shift, scale = self.ada_ln(c).chunk(2, dim=1)
        return self.linear(modulate(self.norm(x), shift, scale))


def zero_init(module: nn.Module) -> nn.Module:
    """Sets all weights of a module to zero, and returns it."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


# The network -----------------------------------------------------------------------------------------------------------
class DiT(nn.Module):
    """From noisy latents, their time and a label to the noise in them (and, with twice the channels, its variance).

    Raises:
        ValueError: the config contradicts itself.
    """

    def __init__(self, config: DiTConfig = DiTConfig()):
        super().__init__()
        if config.conditioning not in CONDITIONINGS:
            raise ValueError(f"{config.conditioning!r} is no way to condition; choose one of {', '.join(CONDITIONINGS)}.")
        names = ("in_channels", "out_channels", "patch_size", "hidden_size", "depth", "num_heads", "num_classes")
        checks.whole({name: getattr(config, name) for name in names})
        if not 0 < config.mlp_ratio < math.inf:
            raise ValueError(f"mlp_ratio is {config.mlp_ratio}; the MLP is so many times wider than a token, such as 4.")
        if not divides((config.num_heads,), (config.hidden_size,)) or config.hidden_size % 4:
            raise ValueError(f"{config.hidden_size} channels must be a multiple of 4 and of the {config.num_heads} heads.")
        self.config = config
        d, p = config.hidden_size, config.patch_size
        self.x_embedder = nn.Linear(config.in_channels * p * p, d)
        self.t_embedder = TimestepEmbedder(d)
        self.y_embedder = nn.Embedding(config.num_classes + 1, d)  # the last label means "no label"
        self.shared = nn.Sequential(nn.SiLU(), nn.Linear(d, 6 * d)) if config.conditioning == "adaln_single" else None
        self.blocks = nn.ModuleList(DiTBlock(config) for _ in range(config.depth))
        self.final = FinalLayer(d, p * p * config.out_channels, plain=config.conditioning in PLAIN)
        for embedding in (self.t_embedder.mlp[0].weight, self.t_embedder.mlp[2].weight, self.y_embedder.weight):
            nn.init.normal_(embedding, std=0.02)

    @property
    def num_classes(self) -> int:
        """How many labels there are; the label of this number means "no label"."""
        return self.config.num_classes

    def check_input(self, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor) -> None:
        """Raises ValueError where latents, times or labels do not fit the network or each other."""
        c, p = self.config.in_channels, self.config.patch_size
        if x.ndim != 4 or x.shape[1] != c or not divides((p, p), tuple(x.shape[2:])):
            raise ValueError(
                f"Latents (b, {c}, h, w) with sides in multiples of {p} are needed; these are {tuple(x.shape)}."
            )
        for name, row in (("times", t), ("labels", labels)):
            if row.shape != x.shape[:1]:
                raise ValueError(f"There are {len(x)} latents and {name} of shape {tuple(row.shape)}; give one for each.")
        if labels.dtype not in (torch.int32, torch.int64) or not x.is_floating_point():
            raise ValueError(f"Labels are whole numbers (int64) and latents real ones; these are {labels.dtype} and {x.dtype}.")
        if len(labels) and not (0 <= labels.min() and labels.max() <= self.num_classes):
            raise ValueError(
                f"Labels go from 0 to {self.num_classes} (no label); these go from {labels.min()} to {labels.max()}."
            )

    def forward(self, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Latents (b, in_channels, h, w), times (b,) in 0..1000 and labels (b,) to (b, out_channels, h, w)."""
        self.check_input(x, t, labels)
        p = self.config.patch_size
        grid = (x.shape[2] // p, x.shape[3] // p)
        x = self.x_embedder(patchify(x, p)) + positions(grid, self.config.hidden_size, x.device).to(x)  # (b, n, d)
        context = torch.stack([self.t_embedder(t), self.y_embedder(labels)], dim=1)  # (b, 2, d)
        c = context.sum(1)  # (b, d)
        shared = self.shared(c).unflatten(1, (6, -1)) if self.shared else None
        if self.config.conditioning == "in_context":
            x = torch.cat([context, x], dim=1)
        for block in self.blocks:
            x = block(x, c, context, shared)
        x = self.final(x[:, -grid[0] * grid[1] :], c)  # (b, n, p p c)
        return rearrange(x, "b (h w) (p q c) -> b c (h p) (w q)", h=grid[0], w=grid[1], p=p, q=p).float()

    @classmethod
    def from_pretrained(cls, name: str) -> DiT:
        """Published weights: facebook/DiT-XL-2-256 in diffusers' format, or the paper's own key names; a folder, or a ModelScope id.

        The first has its weights in a folder "transformer" beside the VAE's; the paper's own hold no config.json, and their
        sizes are read off the tensors.

        Raises:
            ValueError: it is not there, not whole, or not of this form.
        """
        sizes, tensors = published_dit.read(name)
        net = cls(DiTConfig(**sizes))
        table = tensors.pop("positions", None)  # (1, n, d), in the paper's files: never learned, so it must be ours
        if table is not None:
            side = round((table.numel() / net.config.hidden_size) ** 0.5)
            ours = positions((side, side), net.config.hidden_size)[None].to(table.dtype)
            if table.shape != ours.shape or not torch.allclose(table, ours, atol=1e-3):
                raise ValueError("The positions in these weights are not DiT's, sines and cosines of a square grid.")
        checkpoints.fill(net, tensors, "weights")
        return net.eval()


# Table 1 of the paper and section 3.2: four sizes, patches of 2, 4 and 8. Other entries of the config may be given by name.
def _named(depth: int, hidden_size: int, num_heads: int, patch_size: int, **changes) -> DiT:
    return DiT(DiTConfig(depth=depth, hidden_size=hidden_size, num_heads=num_heads, patch_size=patch_size, **changes))


DiT_XL_2, DiT_XL_4, DiT_XL_8 = (partial(_named, 28, 1152, 16, p) for p in (2, 4, 8))
DiT_L_2, DiT_L_4, DiT_L_8 = (partial(_named, 24, 1024, 16, p) for p in (2, 4, 8))
DiT_B_2, DiT_B_4, DiT_B_8 = (partial(_named, 12, 768, 12, p) for p in (2, 4, 8))
DiT_S_2, DiT_S_4, DiT_S_8 = (partial(_named, 12, 384, 6, p) for p in (2, 4, 8))
