"""Chapter 06: the variational autoencoder, here for pictures, as latent diffusion uses it.

Kingma & Welling 2013, Auto-Encoding Variational Bayes; the network is that of Rombach et al. 2021, High-Resolution Image
Synthesis with Latent Diffusion Models, built from chapter 03's blocks without their time. Modules have the names of
diffusers' AutoencoderKL, so that published weights fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

from .kit import checkpoints, checks, published
from .unet import Downsample, Level, Middle, Upsample


@dataclass(frozen=True)
class VAEConfig:
    """Sizes of the autoencoder. Each entry of block_out_channels but the last halves height and width once."""

    in_channels: int = 3
    latent_channels: int = 4
    block_out_channels: tuple[int, ...] = (32, 64)
    layers_per_block: int = 1
    norm_num_groups: int = 8
    norm_eps: float = 1e-6
    attention_head_dim: None = None  # one head, in the middle
    scaling_factor: float = 1.0  # brings latents to a standard deviation near 1


# The bound -----------------------------------------------------------------------------------------------------------
def sample_posterior(mean: torch.Tensor, log_var: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """z = mean + std * noise: chance as an input, so that gradients reach mean and log_var (section 2.4).

    The noise is drawn on the CPU, which gives the same z on every device.
    """
    noise = torch.randn(mean.shape, generator=generator).to(mean)
    return mean + (0.5 * log_var).exp() * noise


def kl_divergence(mean: torch.Tensor, log_var: torch.Tensor) -> torch.Tensor:
    """KL(N(mean, exp(log_var)) || N(0, 1)) of each latent number, in nats (appendix B); as the inputs."""
    return 0.5 * (mean.pow(2) + log_var.exp() - 1 - log_var)


def bound(
    decoded: torch.Tensor, x: torch.Tensor, mean: torch.Tensor, log_var: torch.Tensor, kl_weight: float
) -> dict[str, torch.Tensor]:
    """The negative evidence lower bound, up to scale (equation 10): mse + kl_weight * kl.

    Both are means, over pixels and over latents. Returns loss, mse and kl.
    """
    mse, kl = F.mse_loss(decoded, x), kl_divergence(mean, log_var).mean()
    return {"loss": mse + kl_weight * kl, "mse": mse, "kl": kl}


def psnr(x: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio in dB of each picture or film of a batch, for values in [-1, 1]: (b,).

    Raises:
        ValueError: the shapes differ.
    """
    if x.shape != reference.shape:
        raise ValueError(f"Two batches of one shape are compared; these are {tuple(x.shape)} and {tuple(reference.shape)}.")
    mse = (x.clamp(-1, 1) - reference).pow(2).flatten(1).mean(1)
    return 10 * torch.log10(4 / mse)


# The network ---------------------------------------------------------------------------------------------------------
class Encoder(nn.Module):
    """Pictures to mean and log-variance of their latents, side by side: (b, c, h, w) to (b, 2 latent, h / f, w / f)."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        widths, count = config.block_out_channels, config.layers_per_block
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down_blocks, width = nn.ModuleList(), widths[0]
        for level, out in enumerate(widths):
            block = Level([(width, out), *[(out, out)] * (count - 1)], None, config, attention=False)
            last = level == len(widths) - 1
            block.downsamplers = None if last else nn.ModuleList([Downsample(out, padding=0)])
            self.down_blocks.append(block)
            width = out
        self.mid_block = Middle(width, None, config)
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, width, config.norm_eps)
        self.conv_out = nn.Conv2d(width, 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv_in(x)
        for level in self.down_blocks:
            for resnet in level.resnets:
                x = resnet(x)
            if level.downsamplers:
                x = level.downsamplers[0](x)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nn.Module):
    """Latents to pictures: the way back, with one block more on each level."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        widths, count = config.block_out_channels[::-1], config.layers_per_block
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = Middle(widths[0], None, config)
        self.up_blocks, width = nn.ModuleList(), widths[0]
        for level, out in enumerate(widths):
            block = Level([(width, out), *[(out, out)] * count], None, config, attention=False)
            last = level == len(widths) - 1
            block.upsamplers = None if last else nn.ModuleList([Upsample(out)])
            self.up_blocks.append(block)
            width = out
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, width, config.norm_eps)
        self.conv_out = nn.Conv2d(width, config.in_channels, 3, padding=1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        x = self.mid_block(self.conv_in(z))
        for level in self.up_blocks:
            for resnet in level.resnets:
                x = resnet(x)
            if level.upsamplers:
                x = level.upsamplers[0](x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class VAE(nn.Module):
    """Encoder and decoder for pictures (b, c, h, w) in [-1, 1], and the number that scales latents.

    Raises:
        ValueError: the config contradicts itself.
    """

    def __init__(self, config: VAEConfig):
        super().__init__()
        names = ("in_channels", "latent_channels", "layers_per_block", "norm_num_groups")
        widths = {f"block_out_channels[{i}]": width for i, width in enumerate(config.block_out_channels)}
        checks.whole({name: getattr(config, name) for name in names} | widths | {"The number of levels": len(widths)})
        if not 0 < config.scaling_factor < math.inf:
            raise ValueError(f"The scaling factor is {config.scaling_factor!r}; latents are multiplied by it, so it is above 0.")
        unfit = [width for width in config.block_out_channels if width % config.norm_num_groups]
        if unfit:
            raise ValueError(
                f"{unfit[0]} channels cannot be divided into {config.norm_num_groups} groups; choose a multiple."
            )
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quant_conv = nn.Conv2d(2 * config.latent_channels, 2 * config.latent_channels, 1)
        self.post_quant_conv = nn.Conv2d(config.latent_channels, config.latent_channels, 1)

    @property
    def factor(self) -> int:
        """How many times smaller latents are than pictures, along each side."""
        return 2 ** (len(self.config.block_out_channels) - 1)

    def posterior(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """q(z | x): mean and log-variance, each (b, latent, h / f, w / f), not yet scaled.

        Raises:
            ValueError: these are no pictures of that many channels with sides in multiples of the factor.
        """
        if x.ndim != 4 or x.shape[1] != self.config.in_channels or any(side % self.factor for side in x.shape[2:]):
            raise ValueError(
                f"Pictures (b, {self.config.in_channels}, h, w) with sides in multiples of {self.factor} are needed; "
                f"these are {tuple(x.shape)}."
            )
        mean, log_var = self.quant_conv(self.encoder(x)).float().chunk(2, dim=1)
        return mean, log_var.clamp(-30, 20)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Pictures (b, c, h, w) in [-1, 1] to scaled latents (b, latent, h / f, w / f): the posterior's mean."""
        return self.posterior(x)[0] * self.config.scaling_factor

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Scaled latents (b, latent, h, w) to pictures (b, c, f h, f w); values may pass [-1, 1] slightly.

        Raises:
            ValueError: latents of another number of channels.
        """
        if latents.ndim != 4 or latents.shape[1] != self.config.latent_channels:
            raise ValueError(f"Latents are (b, {self.config.latent_channels}, h, w), and these are {tuple(latents.shape)}.")
        return self.decoder(self.post_quant_conv(latents / self.config.scaling_factor)).float()

    def loss(self, x: torch.Tensor, *, generator: torch.Generator, kl_weight: float) -> dict[str, torch.Tensor]:
        """`bound` for a batch of pictures, with one sample of each posterior."""
        mean, log_var = self.posterior(x)
        z = sample_posterior(mean, log_var, generator)
        return bound(self.decoder(self.post_quant_conv(z)).float(), x, mean, log_var, kl_weight)

    @classmethod
    def from_pretrained(cls, name: str) -> VAE:
        """Weights in the format of diffusers' AutoencoderKL, such as stabilityai/sd-vae-ft-ema: a folder, or a ModelScope id.

        Raises:
            ValueError: it is not there, not whole, or not of this form.
        """
        config, tensors = published.read(name)
        vae = cls(VAEConfig(**published.vae_sizes(config)))
        checkpoints.fill(vae, published.vae_tensors(tensors), "weights")
        return vae.eval()
