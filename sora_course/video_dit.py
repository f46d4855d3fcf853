"""Chapter 07: the diffusion transformer for films, over patches of space and time, conditioned on text.

Chapter 07's DiT (Peebles & Xie 2022) with a third axis, rotary positions (Su et al. 2021), and text by cross-attention as in
Chen et al. 2023 (PixArt-alpha). Known latents may be given beside the noisy ones.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from einops import rearrange

from .dit import FinalLayer, TimestepEmbedder, modulate, zero_init
from .kit import checks
from .unet import sincos


@dataclass(frozen=True)
class VideoDiTConfig:
    """Sizes of the transformer; in_channels counts the latents' channels."""

    in_channels: int = 16
    patch_size: int = 2
    hidden_size: int = 256
    depth: int = 6
    num_heads: int = 4
    mlp_ratio: float = 4.0
    text_size: int = 128
    conditioning: str = "adaln_zero"  # or "adaln_single": the time's six vectors from one layer for all blocks, plus a table


def grid_positions(t: int, h: int, w: int, hidden_size: int, device=None) -> torch.Tensor:
    """Sine-cosine positions along three axes for a grid of any size: (t h w, hidden_size).

    A quarter of the channels tells the frame, counted from the first; the rest tells row and column, counted from the
    centre, so that a larger frame extends the same map on all sides.
    """
    time_size = 2 * (hidden_size // 8)
    row_size = 2 * ((hidden_size - time_size) // 4)
    sizes = (time_size, row_size, hidden_size - time_size - row_size)
    starts = (0.0, (h - 1) / 2, (w - 1) / 2)
    axes = [torch.arange(n, device=device) - start for n, start in zip((t, h, w), starts)]
    grids = torch.meshgrid(*axes, indexing="ij")
    # From a quarter turn a step down to a 64th part of it: grids are small, and neighbours should look different.
    return torch.cat([sincos(math.pi / 2 * g.flatten(), size, max_period=64.0) for g, size in zip(grids, sizes)], dim=-1)


def rotary_angles(t: int, h: int, w: int, head_size: int, device=None) -> torch.Tensor:
    """By which angles queries and keys are turned at each place of a grid: (t h w, head_size / 2).

    Rotary positions (Su et al. 2021) along three axes, as video transformers use them: a quarter of the pairs of channels
    turns with the frame, the rest with row and column, from a quarter turn a step down to a 64th part of it. A
    product of a turned query and a turned key depends on how far apart they are, not on where.
    """
    pairs = head_size // 2
    sizes = (pairs // 4, (pairs - pairs // 4) // 2, pairs - pairs // 4 - (pairs - pairs // 4) // 2)
    grids = torch.meshgrid(*[torch.arange(n, device=device) for n in (t, h, w)], indexing="ij")
    speeds = [math.pi / 2 * torch.exp(-math.log(64) * torch.arange(n, device=device) / n) for n in sizes]
    return torch.cat([g.flatten()[:, None] * s for g, s in zip(grids, speeds)], dim=-1)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn each pair (x_i, x_{i + d/2}) of the last dimension of x (..., n, d) by the angles whose cosines are (n, d/2)."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class Attention(nn.Module):
    """Multi-head attention of x to itself, or to a context of another width."""

    def __init__(self, hidden_size: int, num_heads: int, context_size: int | None = None):
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(hidden_size, hidden_size)
        self.kv = nn.Linear(context_size or hidden_size, 2 * hidden_size)
        self.proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: torch.Tensor, context: torch.Tensor, *, mask=None, rotation=None) -> torch.Tensor:
        q = rearrange(self.q(x), "b n (h d) -> b h n d", h=self.num_heads)
        k, v = rearrange(self.kv(context), "b m (two h d) -> two b h m d", two=2, h=self.num_heads)
        if rotation is not None:
            q, k = rotate(q, *rotation), rotate(k, *rotation)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else mask[:, None, None, :])
        return self.proj(rearrange(x, "b h n d -> b n (h d)"))


class GELU(nn.Module):
    """GELU in its tanh form (Hendrycks & Gimpel 2016, section 2).

    Compiled, it is written with a sigmoid, tanh(u) = 2 sigmoid(2 u) - 1, for which compilers have code several times faster.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.compiler.is_compiling():
            return x * torch.sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
        return F.gelu(x, approximate="tanh")


class VideoDiTBlock(nn.Module):
    """adaLN around self-attention and MLP (DiT, figure 3), with cross-attention to the text between them.

    With adaln_zero every branch starts closed, by a zero gate or a zero output, so a fresh block is the identity.
    """

    def __init__(self, config: VideoDiTConfig):
        super().__init__()
        d, inner = config.hidden_size, int(config.mlp_ratio * config.hidden_size)
        self.norm1 = nn.LayerNorm(d, elementwise_affine=False, eps=1e-6)
        self.norm2 = nn.LayerNorm(d, elementwise_affine=False, eps=1e-6)
        self.norm_text = nn.LayerNorm(d, eps=1e-6)
        self.attn = Attention(d, config.num_heads)
        self.cross = Attention(d, config.num_heads, config.text_size)
        self.mlp = nn.Sequential(nn.Linear(d, inner), GELU(), nn.Linear(inner, d))
        zero_init(self.cross.proj)
        if config.conditioning == "adaln_zero":
            self.ada_ln = zero_init(nn.Sequential(nn.SiLU(), nn.Linear(d, 6 * d)))
        else:
            self.table = nn.Parameter(torch.randn(6, d) / d**0.5)

    def forward(
        self, x: torch.Tensor, c: torch.Tensor, text: torch.Tensor, mask: torch.Tensor, rotation=None
    ) -> torch.Tensor:
        """Tokens (b, n, d); c is time and text (b, d) with adaln_zero, and the six shared vectors (b, 6, d) with adaln_single."""
        six = self.ada_ln(c).unflatten(1, (6, -1)) if c.ndim == 2 else self.table + c
        shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = six.unbind(1)  # (b, d) each
        y = modulate(self.norm1(x), shift_attn, scale_attn)
        x = torch.addcmul(x, gate_attn[:, None], self.attn(y, y, rotation=rotation))
        x = x + self.cross(self.norm_text(x), text, mask=mask)
        return torch.addcmul(x, gate_mlp[:, None], self.mlp(modulate(self.norm2(x), shift_mlp, scale_mlp)))


class VideoDiT(nn.Module):
    """Velocity of noisy video latents, given the time, a text and the latent frames that are already known.

    Raises:
        ValueError: the config contradicts itself.
    """

    def __init__(self, config: VideoDiTConfig = VideoDiTConfig()):
        super().__init__()
        if config.conditioning not in ("adaln_zero", "adaln_single"):
            raise ValueError(f"{config.conditioning!r} is no way to condition; choose adaln_zero or adaln_single.")
        checks.whole({name: value for name, value in asdict(config).items() if name not in ("mlp_ratio", "conditioning")})
        if config.hidden_size % (2 * config.num_heads) or not config.mlp_ratio > 0:
            raise ValueError(
                f"{config.hidden_size} channels are not divisible into pairs by {config.num_heads} heads, or the MLP has no width."
            )
        self.config = config
        d, p, c = config.hidden_size, config.patch_size, config.in_channels
        self.x_embedder = nn.Linear((2 * c + 1) * p * p, d)  # noisy latents, known latents, mask
        self.t_embedder = TimestepEmbedder(d)
        self.text_pooled = nn.Sequential(nn.Linear(config.text_size, d), nn.SiLU(), nn.Linear(d, d))
        self.no_text = nn.Parameter(0.02 * torch.randn(config.text_size))  # stands for any text when guidance drops it
        self.shared = nn.Sequential(nn.SiLU(), nn.Linear(d, 6 * d)) if config.conditioning == "adaln_single" else None
        self.blocks = nn.ModuleList(VideoDiTBlock(config) for _ in range(config.depth))
        self.final = FinalLayer(d, c * p * p)

    def config_dict(self) -> dict:
        return asdict(self.config)

    def check_input(self, x, t, text, text_mask, pooled, known=None, clean=None, drop_text=None) -> None:
        """Raises ValueError where latents, times, texts or what is known do not fit the network or each other."""
        c, p, d = self.config.in_channels, self.config.patch_size, self.config.text_size
        if x.ndim != 5 or x.shape[1] != c or not x.numel():
            raise ValueError(f"Latents are (b, {c}, t, h, w), none of them 0, and these are {tuple(x.shape)}.")
        (b, _, frames, height, width), words = x.shape, text.shape[1:2]
        if height % p or width % p:
            raise ValueError(f"Latents of {height}x{width} cannot be cut into {p}x{p} patches; use multiples of {p}.")
        wanted = {"times": (t, (b,)), "text": (text, (b, *words, d)), "the text's mask": (text_mask, (b, *words)),
                  "pooled text": (pooled, (b, d)), "drop_text": (drop_text, (b,)), "clean": (clean, tuple(x.shape))}  # fmt: skip
        for name, (given, shape) in wanted.items():
            if given is not None and given.shape != shape:
                raise ValueError(f"For these latents, {tuple(x.shape)}, {name} must be {shape}, and has {tuple(given.shape)}.")
        if text_mask.dtype != torch.bool or (drop_text is not None and drop_text.dtype != torch.bool):
            raise ValueError("The text's mask and drop_text say yes or no, so they are of torch.bool.")
        if (known is None) != (clean is None):
            raise ValueError("Give both, which latents are known and the clean ones, or neither.")
        if known is not None and (known.shape[:3] != (b, 1, frames) or not known.is_floating_point()):
            raise ValueError(f"What is known is 0. or 1. for each frame, ({b}, 1, {frames}, ...), not {tuple(known.shape)}.")

    def forward(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        text: torch.Tensor,
        text_mask: torch.Tensor,
        pooled: torch.Tensor,
        known: torch.Tensor | None = None,
        clean: torch.Tensor | None = None,
        drop_text: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Predict noise - x0.

        Args:
            x: noisy latents, (b, c, t, h, w), h and w divisible by the patch size.
            t: flow time in [0, 1], (b,).
            text, text_mask, pooled: features (b, n, d), which of them are real (b, n), and their mean (b, d).
            known: 1 where latents are given, 0 where they are wanted, (b, 1, t, 1 or h, 1 or w); None for nothing given.
            clean: the given latents, as x; elsewhere ignored. Needed with known.
            drop_text: True for the samples that shall not see their text, (b,).

        Returns:
            (b, c, t, h, w); where latents are known it means nothing.

        Raises:
            ValueError: height or width of the latents is not divisible by the patch size, or what is given does not fit.
        """
        self.check_input(x, t, text, text_mask, pooled, known, clean, drop_text)
        p = self.config.patch_size
        frames, height, width = x.shape[2:]
        if known is None:
            known, clean = torch.zeros_like(x[:, :1]), torch.zeros_like(x)
        known = known.expand(-1, -1, *x.shape[2:])
        x = torch.cat([x * (1 - known), torch.where(known > 0, clean, 0), known], dim=1)  # (b, 2 c + 1, t, h, w)
        if drop_text is not None:
            pooled = torch.where(drop_text[:, None], self.no_text, pooled)
            text = torch.where(drop_text[:, None, None], self.no_text, text)
        x = rearrange(x, "b c t (h p) (w q) -> b (t h w) (c p q)", p=p, q=p)  # (b, n, (2 c + 1) p p)
        positions = grid_positions(frames, height // p, width // p, self.config.hidden_size, x.device)
        x = self.x_embedder(x) + positions.to(x)  # (b, n, d)
        c = self.t_embedder(1000 * t) + self.text_pooled(pooled)  # (b, d)
        head_size = self.config.hidden_size // self.config.num_heads
        angles = rotary_angles(frames, height // p, width // p, head_size, x.device)
        rotation = (angles.cos().to(x), angles.sin().to(x))
        modulation = self.shared(c).unflatten(1, (6, -1)) if self.shared else c
        for block in self.blocks:
            x = block(x, modulation, text, text_mask, rotation)
        x = self.final(x, c)  # (b, n, c p p)
        return rearrange(
            x, "b (t h w) (c p q) -> b c t (h p) (w q)", t=frames, h=height // p, w=width // p, p=p, q=p
        ).float()
