"""Chapter 07: ImageNet classes painted the way the paper's DiT was published to paint them.

Peebles & Xie 2022 sample with DDPM (chapter 02) in 250 of 1000 steps, with variances that the network has learned (Nichol &
Dhariwal 2021, Improved Denoising Diffusion Probabilistic Models), and guide three of the four latent channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, repeat

import torch

from .ddpm import DDPM, guided, linear_schedule
from .dit import DiT
from .kit import checks
from .vae import VAE


def spread(num_steps: int, steps: int) -> list[int]:
    """Which of num_steps times to take when only so many are taken, from 0 to the last, evenly, latest first (as published).

    Raises:
        ValueError: steps is not from 2 to num_steps.
    """
    if type(steps) is not int or not 2 <= steps <= num_steps:
        raise ValueError(f"{steps} sampling steps were asked for; take a whole number from 2 to {num_steps}.")
    stride = (num_steps - 1) / (steps - 1)
    places = accumulate(repeat(stride, steps - 1), initial=0.0)  # added up, as published: some of them round differently
    return [round(place) for place in places][::-1]


def respaced(process: DDPM, times: list[int]) -> DDPM:
    """The process that visits only these times, latest first: each beta is what lies between one and the one before it.

    Raises:
        ValueError: times do not fall, or are not steps of the process.
    """
    within = all(type(t) is int and 0 <= t < process.num_steps for t in times)
    if not times or not within or any(a <= b for a, b in zip(times, times[1:])):
        raise ValueError(f"Times are whole numbers that fall, from at most {process.num_steps - 1} to 0 or more, not {times}.")
    kept = process.alphas_cumprod[list(times)[::-1]]
    before = torch.cat([torch.ones(1, dtype=kept.dtype), kept[:-1]])
    return DDPM(1 - kept / before, process.target)


def learned_variance(process: DDPM, answer: torch.Tensor, t: int) -> torch.Tensor:
    """Variance of a step t >= 1 between the posterior's and beta, on a logarithmic scale (Nichol & Dhariwal, eq. 15).

    Args:
        answer: what the network says, -1 for the posterior's variance and 1 for beta, (b, ...).

    Returns:
        The shape of answer, in float64, for logarithms of small numbers.

    Raises:
        ValueError: t is not one whole number from 1 on: step 0 adds no noise.
    """
    if type(t) is not int or not 1 <= t < process.num_steps:
        raise ValueError(f"t is {t!r}; variances are learned for steps 1 to {process.num_steps - 1}, one at a time.")
    a, a_before, beta = process.alphas_cumprod[t], process.alphas_cumprod[t - 1], process.betas[t]
    small = (1 - a_before) / (1 - a) * beta
    share = (answer.double() + 1) / 2
    return (share * beta.log() + (1 - share) * small.log()).exp()


@torch.no_grad()
def sample_classes(
    net: DiT,
    labels: torch.Tensor,
    noise: torch.Tensor,
    *,
    generator: torch.Generator,
    steps: int = 250,
    guidance_scale: float = 4.0,
    guided_channels: int = 3,
) -> Iterator[torch.Tensor]:
    """From noise (b, c, h, w) to latents of these classes (b,), yielding the state after every step; the last is the sample.

    Args:
        guided_channels: how many channels are guided. The published code guides 3 of 4, an oversight that it keeps because
            its figures were made that way; take `net.config.in_channels` for all.

    Raises:
        ValueError: the network says no variances, there are more channels to guide than it has, or steps or inputs do not fit.
    """
    c = net.config.in_channels
    if net.config.out_channels != 2 * c:
        raise ValueError(f"Sampling as published needs a network with learned variances, {2 * c} channels out for {c} in.")
    if type(guided_channels) is not int or not 0 <= guided_channels <= c:
        raise ValueError(f"{guided_channels} channels to guide were asked for; latents have {c}.")
    net.check_input(noise, torch.zeros(len(noise)), labels)
    times = spread(1000, steps)
    process, none = respaced(DDPM(linear_schedule()), times), torch.full_like(labels, net.num_classes)
    x, k = noise, guided_channels
    for i, t in zip(reversed(range(steps)), times):
        t = torch.full((2 * len(x),), t, device=x.device)
        both = torch.cat([x, x]).to(noise.dtype)
        conditional, unconditional = net(both, t, torch.cat([labels, none])).chunk(2)
        eps, answer = conditional.chunk(2, dim=1)
        eps = torch.cat([guided(eps[:, :k], unconditional[:, :k], guidance_scale), eps[:, k:]], dim=1)
        x, _ = process.posterior(process.predict_x0(eps, x, i), x, i)
        if i > 0:
            fresh = torch.randn(x.shape, generator=generator).to(x)
            x = x + learned_variance(process, answer, i).sqrt().to(x) * fresh
        yield x


@torch.no_grad()
def paint_classes(
    net: DiT, vae: VAE, labels: torch.Tensor, *, seed: int, side: int = 32, steps: int = 250, guidance_scale: float = 4.0
) -> torch.Tensor:
    """Pictures (b, 3, f side, f side) in [-1, 1] of these classes (b,), sampled as published; f is the VAE's factor.

    Args:
        side: of the latents, a multiple of the network's patch size; the published network learned 32.

    Raises:
        ValueError: as `sample_classes`, or network and autoencoder have other numbers of channels.
    """
    checks.whole({"The side of the latents": side})
    if vae.config.latent_channels != net.config.in_channels:
        raise ValueError(
            f"The network paints {net.config.in_channels} channels, and the autoencoder's latents have "
            f"{vae.config.latent_channels}; take two that belong together."
        )
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(labels), net.config.in_channels, side, side, generator=generator)
    for latents in sample_classes(net, labels, noise, generator=generator, steps=steps, guidance_scale=guidance_scale):
        pass
    return vae.decode(latents).clamp(-1, 1)
