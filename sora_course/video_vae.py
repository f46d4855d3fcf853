"""Chapter 06: the causal video VAE, which makes a film 8 x 8 times smaller in space and 4 times in time.

Causal in time as in Yu et al. 2023 (MAGVIT-v2): the first frame is encoded on its own and every later latent frame holds
four more, so 4n + 1 frames become n + 1 latent frames and a still becomes one. (Four and eight are what the shipped model
has; shapes below say 4, h/4 and h/8 for the config's time_factor, patch_size and twice that.) No layer looks ahead in time
or averages over it, so a later group of frames never changes an earlier one, and a long film goes through piece by piece:
each convolution keeps the last frames that it saw (`Memory`), and nothing else crosses from one piece to the next.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from einops import rearrange

from .kit import checks
from .vae import bound, sample_posterior

Memory = dict[nn.Module, torch.Tensor]  # what each module saw last


@dataclass(frozen=True)
class VideoVAEConfig:
    """Sizes of the autoencoder: channels on the 4x and on the 8x coarser grid, and residual blocks on each."""

    in_channels: int = 3
    latent_channels: int = 16
    channels: tuple[int, int] = (128, 192)
    encoder_channels: tuple[int, int] | None = None  # None: as many as the decoder
    encoder_depth: tuple[int, int] = (1, 1)
    decoder_depth: tuple[int, int] = (2, 2)
    time_factor: int = 4  # so many frames become one latent frame, but for the first
    patch_size: int = 4  # half of the factor in space
    time_kernel: int = 3  # how many latent frames a convolution sees: itself and the ones before

    @property
    def space_factor(self) -> int:
        return 2 * self.patch_size


# Layers --------------------------------------------------------------------------------------------------------------
class CausalConv3d(nn.Conv3d):
    """A 3-D convolution whose output at time t sees inputs up to time t: all padding in time goes in front."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: tuple[int, int, int]):
        t, h, w = kernel_size
        super().__init__(in_channels, out_channels, kernel_size, padding=(0, h // 2, w // 2))
        self.front = t - 1

    def forward(self, x: torch.Tensor, memory: Memory | None = None) -> torch.Tensor:
        """With a memory, what stands in front is what the last call with it ended with, and zeros at the first."""
        if self.front == 0:
            return super().forward(x)
        if memory is None or self not in memory:
            x = F.pad(x, (0, 0, 0, 0, self.front, 0))
        else:
            x = torch.cat([memory[self], x], dim=2)
        if memory is not None:
            memory[self] = x[:, :, -self.front :]
        return super().forward(x)


class ChannelNorm(nn.Module):
    """Scales each position's channels to unit mean square (RMSNorm): unlike GroupNorm it mixes neither time nor space."""

    def __init__(self, channels: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (x.pow(2).mean(1, keepdim=True) + 1e-6).rsqrt() * self.scale.view(-1, 1, 1, 1)


class ResidualBlock(nn.Module):
    """x + f(x); f starts as zero, so that a fresh network is as shallow as it can be."""

    def __init__(self, channels: int, time_kernel: int):
        super().__init__()
        self.norm1, self.conv1 = ChannelNorm(channels), CausalConv3d(channels, channels, (time_kernel, 3, 3))
        self.norm2, self.conv2 = ChannelNorm(channels), CausalConv3d(channels, channels, (1, 3, 3))
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: torch.Tensor, memory: Memory | None = None) -> torch.Tensor:
        h = self.conv1(F.silu(self.norm1(x)), memory)
        return x + self.conv2(F.silu(self.norm2(h)))


# Encoder and decoder -------------------------------------------------------------------------------------------------
class Encoder(nn.Module):
    """Video to the mean and log-variance of its latents."""

    def __init__(self, config: VideoVAEConfig):
        super().__init__()
        (fine, coarse), (depth_fine, depth_coarse) = config.encoder_channels or config.channels, config.encoder_depth
        self.patch = {"p": config.time_factor, "q": config.patch_size, "r": config.patch_size}
        self.conv_in = CausalConv3d(config.in_channels * math.prod(self.patch.values()), fine, (1, 3, 3))
        self.fine = nn.ModuleList(ResidualBlock(fine, config.time_kernel) for _ in range(depth_fine))
        self.down = CausalConv3d(4 * fine, coarse, (1, 1, 1))
        self.coarse = nn.ModuleList(ResidualBlock(coarse, config.time_kernel) for _ in range(depth_coarse))
        self.norm_out, self.conv_out = ChannelNorm(coarse), CausalConv3d(coarse, 2 * config.latent_channels, (1, 3, 3))

    def forward(self, x: torch.Tensor, memory: Memory | None = None) -> torch.Tensor:
        """4n + 1 frames; 4n where the memory knows of earlier ones."""
        if memory is None or self not in memory:
            front = x[:, :, :1].expand(-1, -1, self.patch["p"] - 1, -1, -1)
            x = torch.cat([front, x], dim=2)  # the first frame fills a group of four
        if memory is not None:
            memory[self] = x[:, :, -1:]
        x = rearrange(x, "b c (t p) (h q) (w r) -> b (c p q r) t h w", **self.patch)  # (b, 192, n + 1, h/4, w/4)
        x = self.conv_in(x.contiguous(memory_format=torch.channels_last_3d))
        for block in self.fine:
            x = block(x, memory)
        x = self.down(rearrange(x, "b c t (h q) (w r) -> b (c q r) t h w", q=2, r=2))  # (b, coarse, n + 1, h/8, w/8)
        for block in self.coarse:
            x = block(x, memory)
        return self.conv_out(F.silu(self.norm_out(x)))  # (b, 2 latent, n + 1, h/8, w/8)


class Decoder(nn.Module):
    """Latents to video."""

    def __init__(self, config: VideoVAEConfig):
        super().__init__()
        (fine, coarse), (depth_fine, depth_coarse) = config.channels, config.decoder_depth
        self.patch = {"p": config.time_factor, "q": config.patch_size, "r": config.patch_size}
        self.conv_in = CausalConv3d(config.latent_channels, coarse, (config.time_kernel, 3, 3))
        self.coarse = nn.ModuleList(ResidualBlock(coarse, config.time_kernel) for _ in range(depth_coarse))
        self.up = CausalConv3d(coarse, 4 * fine, (1, 1, 1))
        self.fine = nn.ModuleList(ResidualBlock(fine, config.time_kernel) for _ in range(depth_fine))
        out = config.in_channels * math.prod(self.patch.values())
        self.norm_out, self.conv_out = ChannelNorm(fine), CausalConv3d(fine, out, (1, 3, 3))

    def forward(self, z: torch.Tensor, memory: Memory | None = None) -> torch.Tensor:
        """4n + 1 frames from n + 1 latent frames; 4n from n where the memory knows of earlier ones."""
        begun = memory is not None and self in memory
        if memory is not None:
            memory[self] = z[:, :, -1:]
        x = self.conv_in(z.contiguous(memory_format=torch.channels_last_3d), memory)
        for block in self.coarse:
            x = block(x, memory)
        x = rearrange(self.up(x), "b (c q r) t h w -> b c t (h q) (w r)", q=2, r=2)
        x = x.contiguous(memory_format=torch.channels_last_3d)
        for block in self.fine:
            x = block(x, memory)
        x = self.conv_out(F.silu(self.norm_out(x)))
        x = rearrange(x, "b (c p q r) t h w -> b c (t p) (h q) (w r)", **self.patch)
        return x if begun else x[:, :, self.patch["p"] - 1 :]  # the first frame stood for four


class VideoVAE(nn.Module):
    """Encoder, decoder, and the scale that brings latents to mean 0 and standard deviation 1 per channel.

    Raises:
        ValueError: the config has a size that is none.
    """

    def __init__(self, config: VideoVAEConfig = VideoVAEConfig()):
        super().__init__()
        names = ("in_channels", "latent_channels", "time_factor", "patch_size", "time_kernel")
        checks.whole({name: getattr(config, name) for name in names})
        pairs = {"channels": 1, "encoder_depth": 0, "decoder_depth": 0} | ({"encoder_channels": 1} if config.encoder_channels else {})
        for name, least in pairs.items():
            pair = getattr(config, name)
            if not isinstance(pair, tuple) or len(pair) != 2:
                raise ValueError(f"{name} is {pair!r}; it is a pair, for the finer and the coarser grid.")
            checks.whole({f"{name}[{i}]": value for i, value in enumerate(pair)}, least=least)
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        shape = (config.latent_channels, 1, 1, 1)
        self.register_buffer("latent_mean", torch.zeros(shape))
        self.register_buffer("latent_std", torch.ones(shape))

    def config_dict(self) -> dict:
        return asdict(self.config)

    def check_video(self, video: torch.Tensor) -> None:
        """Raises ValueError where a video is not (b, in_channels, 4n + 1, h, w) with h and w divisible by 8."""
        p, q = self.config.time_factor, self.config.space_factor
        if video.ndim != 5 or video.shape[1] != self.config.in_channels:
            raise ValueError(f"A video is (b, {self.config.in_channels}, t, h, w); this tensor is {tuple(video.shape)}.")
        t, h, w = video.shape[2:]
        if t < 1 or (t - 1) % p or h % q or w % q or not h * w:
            raise ValueError(
                f"The VAE takes {p}n + 1 frames with sides divisible by {q}, and got {t} frames of {h}x{w}; "
                f"{max(1, round((t - 1) / p) * p + 1)} frames of {max(q, round(h / q) * q)}x{max(q, round(w / q) * q)} would do."
            )

    def posterior(self, video: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """q(z | x): mean and log-variance, each (b, latent, n + 1, h/8, w/8), not yet normalised.

        Raises:
            ValueError: the video is not (b, 3, 4n + 1, h, w) with h and w divisible by 8.
        """
        self.check_video(video)
        mean, log_var = self.encoder(video).float().chunk(2, dim=1)
        return mean, log_var.clamp(-20, 10)

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        """Video (b, 3, 4n + 1, h, w) in [-1, 1] to normalised latents (b, latent, n + 1, h/8, w/8): the posterior's mean."""
        return (self.posterior(video)[0] - self.latent_mean) / self.latent_std

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Normalised latents (b, latent, n + 1, h, w) to video (b, 3, 4n + 1, 8h, 8w); values may pass [-1, 1] slightly.

        Raises:
            ValueError: latents of another number of channels, or none.
        """
        self.check_latents(latents)
        return self.decoder(latents * self.latent_std + self.latent_mean).float()

    def check_latents(self, latents: torch.Tensor) -> None:
        """Raises ValueError where latents are not (b, latent, n + 1, h, w)."""
        if latents.ndim != 5 or latents.shape[1] != self.config.latent_channels or not latents.numel():
            raise ValueError(
                f"Latents are (b, {self.config.latent_channels}, t, h, w), none of them 0, and these are {tuple(latents.shape)}."
            )

    @torch.no_grad()
    def encode_in_chunks(self, video: torch.Tensor, chunk: int) -> Iterator[torch.Tensor]:
        """`encode`, at most `chunk` latent frames at a time, each as soon as its film frames are through; memory does not grow.

        Without gradients, which would keep all pieces.

        Raises:
            ValueError: as `encode`, or chunk is under 1.
        """
        self.check_video(video)
        checks.whole({"The number of latent frames in a piece": chunk})
        memory: Memory = {}
        step = self.config.time_factor * chunk
        ends = [*range(step - self.config.time_factor + 1, video.shape[2], step), video.shape[2]]
        for start, end in zip([0, *ends], ends):
            mean = self.encoder(video[:, :, start:end], memory).float().chunk(2, dim=1)[0]
            yield (mean - self.latent_mean) / self.latent_std

    @torch.no_grad()
    def decode_in_chunks(self, latents: torch.Tensor, chunk: int) -> Iterator[torch.Tensor]:
        """`decode`, `chunk` latent frames at a time: pieces of a film that never need to lie in memory as a whole.

        Without gradients, which would keep all pieces.

        Raises:
            ValueError: as `decode`, or chunk is under 1.
        """
        self.check_latents(latents)
        checks.whole({"The number of latent frames in a piece": chunk})
        memory: Memory = {}
        for piece in (latents * self.latent_std + self.latent_mean).split(chunk, dim=2):
            yield self.decoder(piece, memory).float()

    def loss(self, video: torch.Tensor, *, generator: torch.Generator, kl_weight: float) -> dict[str, torch.Tensor]:
        """`vae.bound` for a batch of videos, with one sample of each posterior."""
        mean, log_var = self.posterior(video)
        decoded = self.decoder(sample_posterior(mean, log_var, generator)).float()
        return bound(decoded, video, mean, log_var, kl_weight)
