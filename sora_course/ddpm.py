"""Chapter 02: DDPM, from noise to pictures in many small steps; DDIM, in few.

Ho, Jain & Abbeel 2020, Denoising Diffusion Probabilistic Models: equation numbers are theirs unless said otherwise.
Times are whole numbers from 0 to T - 1, larger is noisier; x_t keeps alpha_bar_t of the variance of x_0:

    x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise,     alpha_bar_t = (1 - beta_0) ... (1 - beta_t).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn as nn

TARGETS = ("eps", "x0", "v")
Model = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # (x_t, t) to eps, x0 or v


# Schedules -----------------------------------------------------------------------------------------------------------
def linear_schedule(num_steps: int = 1000, start: float = 1e-4, end: float = 0.02) -> torch.Tensor:
    """betas that grow evenly (section 4): (T,), float64."""
    return torch.linspace(start, end, num_steps, dtype=torch.float64)


def cosine_schedule(num_steps: int = 1000, offset: float = 0.008, largest: float = 0.999) -> torch.Tensor:
    """betas for which alpha_bar falls like a squared cosine (Nichol & Dhariwal 2021, eq. 17): (T,), float64."""
    t = torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
    alpha_bar = torch.cos((t + offset) / (1 + offset) * math.pi / 2) ** 2
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=largest)


def zero_terminal_snr(betas: torch.Tensor) -> torch.Tensor:
    """The schedule, shifted and scaled so that nothing of x_0 is left at its end (Lin et al. 2023, algorithm 1): (T,)."""
    root = (1 - betas.double()).cumprod(0).sqrt()
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    alpha_bar = root**2
    return 1 - torch.cat([alpha_bar[:1], alpha_bar[1:] / alpha_bar[:-1]])


def _cast(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A float64 coefficient in the precision (at least float32) and on the device of what it multiplies."""
    return value.to(torch.float64 if like.dtype == torch.float64 else torch.float32).to(like.device)


def _mix(a: torch.Tensor, x: torch.Tensor, b: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """a x + b y; the coefficients come in float64, since differences such as 1 - alpha_bar lose digits in float32."""
    _require_same_shape(x, y)
    return _cast(a, x) * x + _cast(b, y) * y


def _require_same_shape(x: torch.Tensor, y: torch.Tensor) -> None:
    if x.shape != y.shape:
        raise ValueError(
            f"Samples, noise and the model's answers have one shape; these are {tuple(x.shape)} and {tuple(y.shape)}."
        )


class DDPM:
    """The process that a schedule defines, and the arithmetic of training and sampling with it.

    Args:
        betas: the variance that each step adds, (T,).
        target: what the model predicts: "eps" the noise, "x0" the clean sample, or "v" (Salimans & Ho 2022),
            v = sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) x_0.

    Raises:
        ValueError: betas are not a row of numbers over 0 and up to 1, the target is unknown, or the target is "eps" where the
            last step keeps nothing of x_0, so that the noise does not tell x_0.
    """

    def __init__(self, betas: torch.Tensor, target: str = "eps"):
        betas = torch.as_tensor(betas, dtype=torch.float64)
        if target not in TARGETS:
            raise ValueError(f"{target!r} is not a target; a model predicts one of {', '.join(TARGETS)}.")
        if betas.ndim != 1 or not len(betas) or not ((betas > 0) & (betas <= 1)).all() or (betas[:-1] == 1).any():
            raise ValueError(
                "A schedule is a row of betas over 0 and under 1 (the last may be 1), so that every step adds noise."
            )
        if target == "eps" and betas[-1] == 1:
            raise ValueError("The last step is pure noise, and noise alone does not tell x_0; take target 'v' or 'x0'.")
        self.betas, self.target = betas, target
        self.alphas_cumprod = (1 - betas).cumprod(0)

    @property
    def num_steps(self) -> int:
        """T, the number of steps."""
        return len(self.betas)

    def alpha_bar(self, t: torch.Tensor | int, like: torch.Tensor) -> torch.Tensor:
        """alpha_bar_t in float64, in a shape that multiplies like (b, ...); t (b,) or a number.

        t = -1 is before the first step, where alpha_bar is 1.

        Raises:
            ValueError: t is not a whole number from -1 to T - 1, or there are neither one nor b of them.
        """
        t, last = torch.as_tensor(t).cpu(), self.num_steps - 1
        if t.is_floating_point() or t.is_complex() or t.dtype == torch.bool:
            raise ValueError(f"DDPM times are whole numbers from 0 to {last}, and t is {t.dtype}.")
        t = t.long()
        if t.ndim and t.shape != like.shape[:1]:
            raise ValueError(
                f"There are {len(like)} samples and t has shape {tuple(t.shape)}; give one time, or one for each."
            )
        if t.numel() and not (-1 <= t.min() and t.max() <= last):
            raise ValueError(f"t reaches from {t.min()} to {t.max()}, and this schedule has steps 0 to {last}.")
        value = torch.cat([self.alphas_cumprod, torch.ones(1, dtype=torch.float64)])[t]  # the last is reached by t = -1
        return value.view(-1, *[1] * (like.ndim - 1)) if t.ndim else value

    # Forward ---------------------------------------------------------------------------------------------------------
    def q_sample(self, x0: torch.Tensor, t: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """x_t in one jump (eq. 4)."""
        a = self.alpha_bar(t, x0)
        return _mix(a.sqrt(), x0, (1 - a).sqrt(), noise)

    def posterior(self, x0: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean (b, ...) and variance of q(x_{t-1} | x_t, x_0) (eq. 6, 7)."""
        a, a_before = self.alpha_bar(t, x_t), self.alpha_bar(torch.as_tensor(t).long() - 1, x_t)
        alpha = a / a_before
        beta = 1 - alpha
        mean = _mix(a_before.sqrt() * beta / (1 - a), x0, alpha.sqrt() * (1 - a_before) / (1 - a), x_t)
        return mean, _cast((1 - a_before) / (1 - a) * beta, x_t)

    # Training --------------------------------------------------------------------------------------------------------
    def target_of(self, x0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """What the model should answer at x_t."""
        a = self.alpha_bar(t, x0)
        if self.target == "v":
            return _mix(a.sqrt(), noise, -(1 - a).sqrt(), x0)
        return noise if self.target == "eps" else x0

    def loss(self, model: Model, x0: torch.Tensor, t: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """The simple loss (eq. 14): mean squared error of the model's answer."""
        output, target = model(self.q_sample(x0, t, noise), t), self.target_of(x0, noise, t)
        _require_same_shape(output, target)
        return (output - target).pow(2).mean()

    def bound_weight(self, t: torch.Tensor) -> torch.Tensor:
        """By what the variational bound multiplies the squared error of the noise at steps t >= 1 (eq. 12): (b,).

        The simple loss puts 1 in its place. The variance is the posterior's.

        Raises:
            ValueError: t is not a row of steps, or one of them is 0, which has a term of its own in the bound.
        """
        t = torch.as_tensor(t)
        if t.ndim != 1 or not (t >= 1).all():
            raise ValueError(f"The weight is defined for a row of steps from 1 on, and t is {t.tolist()}.")
        like = torch.empty(len(t))
        a, a_before = self.alpha_bar(t, like), self.alpha_bar(t - 1, like)
        alpha = a / a_before
        variance = (1 - a_before) / (1 - a) * (1 - alpha)
        return (1 - alpha) ** 2 / (2 * variance * alpha * (1 - a))

    # Sampling --------------------------------------------------------------------------------------------------------
    def predict_x0(self, output: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The clean sample that a model's output stands for (eq. 15 for eps)."""
        a = self.alpha_bar(t, x_t)
        if self.target == "eps":
            return _mix(1 / a.sqrt(), x_t, -((1 - a) / a).sqrt(), output)
        _require_same_shape(output, x_t)
        return output if self.target == "x0" else _mix(a.sqrt(), x_t, -(1 - a).sqrt(), output)

    def predict_eps(self, output: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The noise that a model's output stands for."""
        a = self.alpha_bar(t, x_t)
        if self.target == "x0":
            return _mix(1 / (1 - a).sqrt(), x_t, -(a / (1 - a)).sqrt(), output)
        _require_same_shape(output, x_t)
        return output if self.target == "eps" else _mix((1 - a).sqrt(), x_t, a.sqrt(), output)

    def p_step(self, output: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """x_{t-1} by ancestral sampling (algorithm 2), with the posterior's variance; noise is not used at t = 0."""
        mean, variance = self.posterior(self.predict_x0(output, x_t, t), x_t, t)
        return mean + variance.sqrt() * noise

    def ddim_step(
        self,
        output: torch.Tensor,
        x_t: torch.Tensor,
        t: int,
        t_next: int,
        noise: torch.Tensor | None = None,
        eta: float = 0.0,
    ) -> torch.Tensor:
        """x at the earlier time t_next (-1 for the clean sample), however far away (Song et al. 2020, eq. 12 and 16).

        Args:
            eta: 0 for no new noise, DDIM; 1 for as much as DDPM adds.

        Raises:
            ValueError: t_next is not before t, eta is not from 0 to 1, or there is no noise though eta is not 0.
        """
        if not t_next < t:
            raise ValueError(f"A step goes from a time to an earlier one, and these are {t} and {t_next}.")
        if not 0 <= eta <= 1 or (eta and noise is None):
            raise ValueError(
                f"eta says how much noise a step adds, from 0 to 1, and over 0 the noise must be passed; it is {eta}, "
                f"and the noise is {'missing' if noise is None else 'there'}."
            )
        x0, eps = self.predict_x0(output, x_t, t), self.predict_eps(output, x_t, t)
        a, a_next = self.alpha_bar(t, x_t), self.alpha_bar(t_next, x_t)
        variance = eta**2 * (1 - a_next) / (1 - a) * (1 - a / a_next)
        x = _mix(a_next.sqrt(), x0, (1 - a_next - variance).clamp(min=0).sqrt(), eps)
        return x + _cast(variance.sqrt(), x) * noise if eta else x

    def timesteps(self, steps: int) -> list[int]:
        """Which steps to take when only so many are taken: evenly spread, T - 1 first ("trailing", Lin et al. 2023).

        Raises:
            ValueError: steps is not from 1 to T.
        """
        if not 1 <= steps <= self.num_steps:
            raise ValueError(
                f"{steps} sampling steps were asked for; this schedule has {self.num_steps}, so take 1 to that many."
            )
        return [round(self.num_steps * (1 - i / steps)) - 1 for i in range(steps)]

    def sample(
        self, model: Model, noise: torch.Tensor, *, steps: int, eta: float = 0.0, generator: torch.Generator | None = None
    ) -> Iterator[torch.Tensor]:
        """From noise (b, ...) to a sample, yielding x after every step; the last is the sample.

        Args:
            steps: of the schedule's T; all of them with eta = 1 is DDPM, few with eta = 0 is DDIM.
        """
        x, times = noise, self.timesteps(steps)
        for t, t_next in zip(times, [*times[1:], -1]):
            with torch.no_grad():
                output = model(x, torch.full((len(x),), t, device=x.device))
            fresh = torch.randn(x.shape, generator=generator).to(x) if eta else None
            x = self.ddim_step(output, x, t, t_next, fresh, eta)
            yield x


# Guidance ------------------------------------------------------------------------------------------------------------
def guided(conditional: torch.Tensor, unconditional: torch.Tensor, guidance_scale: float) -> torch.Tensor:
    """Classifier-free guidance (Ho & Salimans 2022): away from the unconditional answer; scale 1 changes nothing."""
    return unconditional + guidance_scale * (conditional - unconditional)


def with_labels(model: nn.Module, labels: torch.Tensor, guidance_scale: float = 1.0) -> Model:
    """A conditional model (x, t, labels) as a model of x and t alone, for labels (b,), guided; both halves in one batch.

    The model knows the label `model.num_classes` as "no label".
    """

    def answer(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if guidance_scale == 1:
            return model(x, t, labels)
        none = torch.full_like(labels, model.num_classes)
        both = model(torch.cat([x, x]), torch.cat([t, t]), torch.cat([labels, none]))
        return guided(*both.chunk(2), guidance_scale)

    return answer


def drop_labels(labels: torch.Tensor, num_classes: int, *, generator: torch.Generator, share: float = 0.1) -> torch.Tensor:
    """The labels, a share of them replaced with "no label", so that one network learns both answers."""
    return torch.where(torch.rand(len(labels), generator=generator) < share, num_classes, labels)


# A first network -----------------------------------------------------------------------------------------------------
class DigitMLP(nn.Module):
    """Names the noise in small pictures and does not know that they are pictures: (b, c, h, w), (b,), (b,) to (b, c, h, w).

    Every step of the schedule and every label has a vector of its own, added to what each hidden layer sees.
    """

    def __init__(
        self, shape=(1, 8, 8), num_classes: int = 10, hidden_size: int = 512, depth: int = 4, num_steps: int = 1000
    ):
        super().__init__()
        self.shape, self.num_classes = tuple(shape), num_classes
        pixels = math.prod(shape)
        self.steps = nn.Embedding(num_steps, hidden_size)
        self.labels = nn.Embedding(num_classes + 1, hidden_size)  # the last is "no label"
        self.first = nn.Linear(pixels, hidden_size)
        self.layers = nn.ModuleList(nn.Linear(hidden_size, hidden_size) for _ in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(hidden_size) for _ in range(depth))
        self.last = nn.Linear(hidden_size, pixels)

    def forward(self, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        condition = self.steps(t) + self.labels(labels)
        h = self.first(x.flatten(1))
        for norm, layer in zip(self.norms, self.layers):
            h = h + layer(nn.functional.silu(norm(h) + condition))
        return self.last(h).view_as(x)
