"""Chapter 07: rectified flow, a straight road between noise and data.

Liu, Gong & Liu 2022 (rectified flow); Lipman et al. 2022 (flow matching); Esser et al. 2024 (logit-normal times).
Time t runs from 0 (data) to 1 (noise): x_t = (1 - t) x0 + t noise, so dx/dt = noise - x0 is the velocity that a model learns.
Sampling follows the velocity from t = 1 back to t = 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

Velocity = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _like_samples(t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """(b,) to (b, 1, 1, ...), ready to multiply x."""
    return t.view(-1, *[1] * (x.ndim - 1))


def _require_same_shape(x: torch.Tensor, other: torch.Tensor, what: str) -> None:
    if x.shape != other.shape:
        raise ValueError(f"{what} has the shape of the samples, {tuple(x.shape)}; this one has {tuple(other.shape)}.")


def interpolate(x0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """x_t = (1 - t) x0 + t noise, for t of shape (b,).

    Raises:
        ValueError: the noise has another shape, or t is not one time in [0, 1] for each sample (on a GPU its values are not looked at).
    """
    _require_same_shape(x0, noise, "The noise")
    wrong = t.device.type == "cpu" and not ((0 <= t) & (t <= 1)).all()  # to ask a GPU for values would make it wait
    if t.shape != x0.shape[:1] or wrong:
        raise ValueError(f"Flow times are one number in [0, 1] for each of {len(x0)} samples; these are {t.tolist()}.")
    t = _like_samples(t, x0)
    return (1 - t) * x0 + t * noise


def logit_normal_times(n: int, *, generator: torch.Generator, mean: float = 0.0, std: float = 1.0) -> torch.Tensor:
    """Times in [0, 1] whose logit is normal: most in the middle, where the direction is hard to tell. (n,), on the generator's device.

    Esser et al. 2024, section 3.1. A larger mean gives more noise.
    """
    return torch.sigmoid(mean + std * torch.randn(n, generator=generator, device=generator.device))


def flow_loss(
    velocity: Velocity,
    x0: torch.Tensor,
    t: torch.Tensor,
    noise: torch.Tensor,
    known: torch.Tensor | None = None,
    weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean squared error of the predicted velocity (Lipman et al. 2022, eq. 23), where nothing was given.

    Args:
        velocity: takes x_t and t.
        x0, noise: clean samples and normal noise, (b, ...).
        t: times, (b,).
        known: 1 where the clean sample is given to the model and 0 where it must be found; broadcasts against x0.
        weight: how much each place counts, 0 or more; broadcasts against x0.

    Raises:
        ValueError: noise, times or velocity do not fit the samples.
    """
    answer = velocity(interpolate(x0, noise, t), t)
    _require_same_shape(x0, answer, "The velocity")
    error = (answer - (noise - x0)).pow(2)
    if known is None and weight is None:
        return error.mean()
    wanted = torch.ones_like(error) if weight is None else weight.expand_as(error)
    if known is not None:
        wanted = wanted * (1 - known)
    return (error * wanted).sum() / wanted.sum().clamp(min=1)


def time_grid(steps: int, *, shift: float = 1.0) -> torch.Tensor:
    """steps + 1 times from 1 down to 0; shift > 1 spends more steps at high noise (Esser et al. 2024, eq. 23).

    Raises:
        ValueError: steps are not a whole number, 1 or more, or the shift is not from 0.001 to 1000.
    """
    if not 1e-3 <= shift <= 1e3:
        raise ValueError(f"The shift of the times was {shift}; it must be positive (0.001 to 1000), and 1 spaces them evenly.")
    if type(steps) is not int or steps < 1:
        raise ValueError(f"Sampling takes at least 1 step, a whole number of them, and {steps!r} were asked for.")
    t = torch.linspace(1, 0, steps + 1)
    return (shift * t / (1 + (shift - 1) * t)).clamp(max=1)


def fresh_share(t: torch.Tensor, t_next: torch.Tensor, eta: float) -> torch.Tensor:
    """How much new noise there is in a sample's noise after the step from t to t_next, in 0..1; both times in [0, 1).

    Old and new noise are mixed so that their squares add up to 1. Of the old, r^(eta^2) stays, where
    r = ((1 - t) t_next) / ((1 - t_next) t) <= 1 says by how much noise : signal shrinks in this step; so the new is
    sqrt(1 - r^(2 eta^2)). eta = 0 replaces nothing, and eta = 1 as much as DDPM's ancestral sampling (Song et al. 2020, eq. 16,
    with its eta = 1). With the ideal velocity and ever smaller steps every finite eta samples the data's distribution: it
    follows the reverse-time SDE with eta times its noise (Karras et al. 2022, eq. 6). Infinity replaces all, as consistency
    models do between calls (Song et al. 2023, algorithm 1), and samples something narrower, since a velocity tells the mean of the
    clean samples that are possible, and not one of them. From t = 1 every eta above 0 replaces all.
    """
    if eta == 0:
        return torch.zeros_like(t)
    r = ((1 - t) * t_next / ((1 - t_next) * t)).clamp(0, 1)
    return (1 - r ** (2 * eta * eta)).clamp(min=0).sqrt()


def sample(
    velocity: Velocity,
    noise: torch.Tensor,
    *,
    steps: int,
    solver: str = "euler",
    shift: float = 1.0,
    eta: float = 0.0,
    draw: Callable[[], torch.Tensor] | None = None,
) -> Iterator[torch.Tensor]:
    """Follow the velocity from noise to data, and yield the state after every step; the last is the sample.

    Args:
        velocity: takes x_t and t (b,).
        noise: where to start, (b, ...), of real numbers; half precision is added up in float32.
        solver: "euler", one call a step; or "heun", which averages the slopes at both ends of a step (second order) for
            two calls a step.
        eta: how much of the noise is new after each step of Euler's: 0 for none, so that the velocity is followed and nothing
            else; 1 for as much as DDPM's; math.inf for all (see `fresh_share`). With new noise a later step can mend what an
            early one got wrong.
        draw: gives new noise of the samples' shape; needed where eta is above 0.

    Raises:
        ValueError: the solver is unknown, there are no steps, eta does not fit, or noise or velocity do not fit.
    """
    if solver not in ("euler", "heun"):
        raise ValueError(f"{solver!r} is not a solver; use 'euler' or 'heun'.")
    if not eta >= 0 or (eta and (solver != "euler" or draw is None)):
        raise ValueError(
            f"eta was {eta}; it is 0 or more (math.inf: all noise is new), and above 0 it takes the solver 'euler' "
            "and a function that draws noise."
        )
    if not noise.is_floating_point():
        raise ValueError(f"Noise is of real numbers, such as torch.randn gives; this is {noise.dtype}.")
    x = noise.to(torch.promote_types(noise.dtype, torch.float32))
    times = time_grid(steps, shift=shift).to(x)
    for t, t_next in zip(times[:-1], times[1:]):
        slope = velocity(x, t.expand(len(x)))
        _require_same_shape(x, slope, "The velocity")
        ahead = x + (t_next - t) * slope
        if solver == "heun" and t_next > 0:
            slope = (slope + velocity(ahead, t_next.expand(len(x)))) / 2
            ahead = x + (t_next - t) * slope
        if eta and t_next > 0:
            clean, believed = x - t * slope, x + (1 - t) * slope  # x = (1 - t) clean + t believed
            share = fresh_share(t, t_next, eta)
            ahead = (1 - t_next) * clean + t_next * ((1 - share**2).sqrt() * believed + share * draw())
        x = ahead
        yield x

