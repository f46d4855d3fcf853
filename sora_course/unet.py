"""Chapter 03: the U-Net that removes the noise.

Ho, Jain & Abbeel 2020 (DDPM), appendix B, after Ronneberger et al. 2015 (U-Net). Pictures go down a staircase of shrinking
sizes and up again; at each landing on the way up, what was seen there on the way down is put beside it (skips).
Modules have the names of diffusers' UNet2DModel, so that published DDPM weights fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from einops import rearrange

from .kit import checkpoints, published


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of the network. One entry of block_out_channels and of attention is one level, the finest first."""

    in_channels: int = 3
    out_channels: int = 3
    block_out_channels: tuple[int, ...] = (32, 64)
    attention: tuple[bool, ...] = (False, True)  # on which levels pixels attend to each other; the middle always does
    layers_per_block: int = 1
    attention_head_dim: int | None = None  # None: one head
    norm_num_groups: int = 8
    norm_eps: float = 1e-6
    downsample_padding: int = 1  # 0: zeros at the bottom and on the right only, as in the DDPM paper's code
    flip_sin_to_cos: bool = True  # cosines first; DDPM's weights want sines first
    freq_shift: float = 0  # 1 in DDPM's weights
    num_class_embeds: int | None = None  # labels, one of them for "no label"; None: not conditional


# Time ----------------------------------------------------------------------------------------------------------------
def sincos(x: torch.Tensor, size: int, *, max_period: float = 10000.0, freq_shift: float = 0) -> torch.Tensor:
    """Cosines, then sines, of x at size / 2 frequencies from 1 down to about 1 / max_period: (...,) to (..., size).

    Vaswani et al. 2017, section 3.5. Fit for x in steps of about 1, such as positions or DDPM times; numbers from 0 to 1
    would turn even the fastest of these hands by a sixth of a circle only.
    """
    half = size // 2
    frequencies = torch.exp(-math.log(max_period) * torch.arange(half, device=x.device) / (half - freq_shift))
    angles = x[..., None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimestepEmbedding(nn.Module):
    """Two linear layers on top of the sines and cosines: (b, c) to (b, 4 c)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.linear_1 = nn.Linear(in_channels, out_channels)
        self.linear_2 = nn.Linear(out_channels, out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear_2(F.silu(self.linear_1(x)))


# Pieces --------------------------------------------------------------------------------------------------------------
class ResnetBlock(nn.Module):
    """Two convolutions around which the input is carried; time enters between them, as a shift of every channel.

    With time_channels = None there is no time, as in chapter 06's autoencoder, whose config has the same norm settings.
    """

    def __init__(self, in_channels: int, out_channels: int, time_channels: int | None, config: UNetConfig):
        super().__init__()
        groups, eps = config.norm_num_groups, config.norm_eps
        self.norm1 = nn.GroupNorm(groups, in_channels, eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time_emb_proj = nn.Linear(time_channels, out_channels) if time_channels else None
        self.norm2 = nn.GroupNorm(groups, out_channels, eps)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()
        nn.init.zeros_(self.conv2.weight)  # the block starts as its shortcut
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: torch.Tensor, time: torch.Tensor | None = None) -> torch.Tensor:
        h = self.conv1(F.silu(self.norm1(x)))  # (b, c, h, w)
        if self.time_emb_proj is not None:
            h = h + self.time_emb_proj(F.silu(time))[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return self.conv_shortcut(x) + h


class Attention(nn.Module):
    """Every pixel looks at every other: self-attention over the h w places of (b, c, h, w), added to the input."""

    def __init__(self, channels: int, config: UNetConfig):
        super().__init__()
        self.num_heads = channels // config.attention_head_dim if config.attention_head_dim else 1
        self.group_norm = nn.GroupNorm(config.norm_num_groups, channels, config.norm_eps)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = rearrange(self.group_norm(x), "b c h w -> b (h w) c")
        heads = "b n (heads d) -> b heads n d"
        q, k, v = (rearrange(to(h), heads, heads=self.num_heads) for to in (self.to_q, self.to_k, self.to_v))
        h = rearrange(F.scaled_dot_product_attention(q, k, v), "b heads n d -> b n (heads d)")
        return x + rearrange(self.to_out[0](h), "b (h w) c -> b c h w", h=x.shape[2])


class Downsample(nn.Module):
    """Half the height and width: a 3x3 convolution that moves two pixels at a time."""

    def __init__(self, channels: int, padding: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=padding)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.conv.padding == (0, 0) else x)


class Upsample(nn.Module):
    """Twice the height and width: every pixel becomes four, then a 3x3 convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """What happens at one size: blocks, each followed by attention where the level has it, then a change of size."""

    def __init__(self, channels: list[tuple[int, int]], time_channels: int | None, config: UNetConfig, *, attention: bool):
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(i, o, time_channels, config) for i, o in channels)
        self.attentions = nn.ModuleList(Attention(o, config) for _, o in channels) if attention else None

    def blocks(self):
        """Pairs of block and attention, the latter the identity where there is none."""
        return zip(self.resnets, self.attentions or [nn.Identity()] * len(self.resnets))


class Middle(Level):
    """The bottom of the U: block, attention, block."""

    def __init__(self, channels: int, time_channels: int | None, config: UNetConfig):
        super().__init__([(channels, channels)] * 2, time_channels, config, attention=False)
        self.attentions = nn.ModuleList([Attention(channels, config)])

    def forward(self, x: torch.Tensor, time: torch.Tensor | None = None) -> torch.Tensor:
        x = self.attentions[0](self.resnets[0](x, time))
        return self.resnets[1](x, time)


# The network ---------------------------------------------------------------------------------------------------------
class UNet(nn.Module):
    """From a noisy picture, its time and, if wanted, its label, to the noise in it (or x0, or v).

    Raises:
        ValueError: the config contradicts itself.
    """

    def __init__(self, config: UNetConfig):
        super().__init__()
        widths, count = config.block_out_channels, config.layers_per_block
        if not widths or len(widths) != len(config.attention):
            raise ValueError(
                f"{len(widths)} levels have widths and {len(config.attention)} say whether they attend; give both for each."
            )
        if count < 1 or config.norm_num_groups < 1 or config.downsample_padding not in (0, 1):
            raise ValueError("A level has 1 block or more, a norm 1 group or more, and downsampling a padding of 0 or 1.")
        unfit = [w for w in widths if w % config.norm_num_groups or w % (config.attention_head_dim or 1)]
        if unfit:
            raise ValueError(
                f"A width of {unfit[0]} channels divides neither evenly into {config.norm_num_groups} groups "
                f"nor, where heads are used, into heads of {config.attention_head_dim}; choose a multiple."
            )
        self.config = config
        time_channels = 4 * widths[0]
        self.time_embedding = TimestepEmbedding(widths[0], time_channels)
        self.class_embedding = nn.Embedding(config.num_class_embeds, time_channels) if config.num_class_embeds else None
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        skips, width = [widths[0]], widths[0]  # channels of what the way down leaves behind
        for level, (out, attention) in enumerate(zip(widths, config.attention)):
            block = Level([(width, out), *[(out, out)] * (count - 1)], time_channels, config, attention=attention)
            last = level == len(widths) - 1
            block.downsamplers = None if last else nn.ModuleList([Downsample(out, config.downsample_padding)])
            skips += [out] * (count if last else count + 1)
            self.down_blocks.append(block)
            width = out
        self.mid_block = Middle(width, time_channels, config)
        for level, (out, attention) in reversed(list(enumerate(zip(widths, config.attention)))):
            channels = []
            for _ in range(count + 1):
                channels.append((width + skips.pop(), out))
                width = out
            block = Level(channels, time_channels, config, attention=attention)
            block.upsamplers = nn.ModuleList([Upsample(out)]) if level else None
            self.up_blocks.append(block)
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, width, config.norm_eps)
        self.conv_out = nn.Conv2d(width, config.out_channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)  # the first answer is zero
        nn.init.zeros_(self.conv_out.bias)

    @property
    def num_classes(self) -> int:
        """How many labels there are; the label of this number means "no label"."""
        return (self.config.num_class_embeds or 1) - 1

    @classmethod
    def from_pretrained(cls, name: str) -> UNet:
        """Weights in the format of diffusers' UNet2DModel, such as google/ddpm-cifar10-32: a folder, or a ModelScope id.

        Raises:
            ValueError: it is not there, not whole, or not of this form.
        """
        config, tensors = published.read(name)
        net = cls(UNetConfig(**published.unet_sizes(config)))
        checkpoints.fill(net, published.renamed(tensors, published.OLD_ATTENTION_NAMES), "weights")
        return net.eval()

    def embed(self, t: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        """Time (b,) and label (b,) as one vector: (b, 4 c)."""
        angles = sincos(t, self.config.block_out_channels[0], freq_shift=self.config.freq_shift)
        if not self.config.flip_sin_to_cos:
            angles = torch.cat(angles.chunk(2, dim=-1)[::-1], dim=-1)
        time = self.time_embedding(angles.to(self.conv_in.weight.dtype))
        return time if labels is None else time + self.class_embedding(labels)

    def check_input(self, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor | None) -> None:
        """Raises ValueError where pictures, times or labels do not fit the network or each other."""
        channels, halvings = self.config.in_channels, len(self.down_blocks) - 1
        if x.ndim != 4 or x.shape[1] != channels:
            raise ValueError(f"This network takes pictures (b, {channels}, h, w), and these are {tuple(x.shape)}.")
        if any(side % 2**halvings for side in x.shape[2:]):
            sides = tuple(x.shape[2:])
            raise ValueError(
                f"The U halves pictures {halvings} times: sides must be multiples of {2**halvings}; they are {sides}."
            )
        if (labels is None) != (self.class_embedding is None):
            wanted = "conditional: pass a row of labels" if labels is None else "not conditional: pass no labels"
            raise ValueError(f"This network is {wanted}.")
        for name, row in (("times", t), *([("labels", labels)] if labels is not None else [])):
            if row.shape != x.shape[:1]:
                raise ValueError(
                    f"There are {len(x)} pictures and {name} of shape {tuple(row.shape)}; give one for each picture."
                )
        if labels is not None and len(labels) and not (0 <= labels.min() and labels.max() <= self.num_classes):
            raise ValueError(
                f"Labels go from 0 to {self.num_classes} (no label); these go from {labels.min()} to {labels.max()}."
            )

    def forward(self, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        """(b, c, h, w), times (b,) and labels (b,) to (b, out_channels, h, w)."""
        self.check_input(x, t, labels)
        time = self.embed(t, labels)  # (b, 4 c)
        x = self.conv_in(x)
        skips = [x]
        for level in self.down_blocks:
            for resnet, attention in level.blocks():
                x = attention(resnet(x, time))
                skips.append(x)
            if level.downsamplers:
                x = level.downsamplers[0](x)
                skips.append(x)
        x = self.mid_block(x, time)
        for level in self.up_blocks:
            for resnet, attention in level.blocks():
                x = attention(resnet(torch.cat([x, skips.pop()], dim=1), time))
            if level.upsamplers:
                x = level.upsamplers[0](x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))
