"""Chapter 01: red ink against closed forms."""

import math

import pytest
import torch

from sora_course import ink


def last(states):
    *_, x = states
    return x


def test_particles_and_grid_follow_the_same_law(generator):
    """Brownian motion from a point has variance 2 D t in each direction; the heat equation spreads a grid alike."""
    x = last(ink.wander(torch.zeros(40_000, 2), steps=20, diffusivity=0.1, generator=generator))
    assert x.var(0) == pytest.approx(0.2, rel=0.03)
    grid = ink.spread(ink.concentration(torch.zeros(1, 2)), steps=100, diffusivity=0.1)
    centres = (torch.arange(60) + 0.5) / 10 - 3
    assert grid.sum().item() == pytest.approx(1, abs=1e-5)
    mean = (grid.sum(0) * centres).sum()
    assert (grid.sum(0) * (centres - mean) ** 2).sum().item() == pytest.approx(0.2, rel=0.01)


def test_small_steps_make_one_jump(generator):
    """Two points, followed through 1,000 steps; their mean tells the signal, their deviation the noise."""
    start = torch.tensor([-2.0, 2.0]).repeat_interleave(20_000)[:, None]
    for i, x in enumerate(ink.small_steps(start, steps=1000, generator=generator), 1):
        if i in (100, 200, 1000):
            halves, t = x.view(2, -1), torch.tensor(i / 1000)
            left, noise = 2 * ink.signal(t).item(), ink.noise_level(t).item()
            assert halves.mean(1).tolist() == pytest.approx([-left, left], abs=0.03)
            assert halves.std(1).tolist() == pytest.approx([noise, noise], rel=0.02)
    jump = ink.noised(start, 0.2, torch.randn(start.shape, generator=generator)).view(2, -1)
    assert jump.mean(1)[1].item() == pytest.approx(2 * ink.signal(torch.tensor(0.2)).item(), abs=0.03)


def test_the_exact_score_is_the_gradient_of_the_log_density(generator):
    data, x = torch.randn(7, 2, generator=generator), torch.randn(5, 2, generator=generator, requires_grad=True)
    t = torch.tensor(0.3)
    parts = torch.distributions.Normal(ink.signal(t) * data, ink.noise_level(t)).log_prob(x[:, None]).sum(-1)
    (gradient,) = torch.autograd.grad((parts.logsumexp(1) - math.log(7)).sum(), x)
    assert torch.allclose(ink.exact_score(x.detach(), 0.3, data), gradient, atol=1e-5)


@pytest.mark.parametrize("chance", [True, False])
def test_running_back_with_the_exact_score_finds_the_data(chance, generator):
    """For data N(m, s^2) the score is known; both ways back must arrive there."""
    m, s = torch.tensor([1.0, -0.5]), 0.4

    def score(x, t):
        t = torch.tensor(t)
        return (ink.signal(t) * m - x) / ((ink.signal(t) * s) ** 2 + ink.noise_level(t) ** 2)

    start = torch.randn(20_000, 2, generator=generator)
    x = last(ink.gather(score, start, steps=300, generator=generator if chance else None))
    assert x.mean(0).tolist() == pytest.approx(m.tolist(), abs=0.03) and x.std(0).tolist() == pytest.approx([s, s], rel=0.06)


def test_denoising_learns_the_score(generator):
    data = torch.randn(4000, 2, generator=generator) * 0.5 + 1
    net = ink.fit(data, steps=300)
    x, t = ink.noised(data[:500], 0.4, torch.randn(500, 2, generator=generator)), torch.tensor(0.4)
    exact = (ink.signal(t) - x) / ((ink.signal(t) * 0.5) ** 2 + ink.noise_level(t) ** 2)
    error = (ink.score_of(net)(x, 0.4) - exact).pow(2).mean() / exact.pow(2).mean()
    assert error < 0.01
    again = ink.fit(data, steps=300)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters()))


def test_energy_distance(generator):
    x, y = torch.randn(2, 1500, 2, generator=generator)
    assert ink.energy_distance(x, x) == pytest.approx(0, abs=1e-6)
    assert 0 < ink.energy_distance(x, y) < 0.01 < 0.5 < ink.energy_distance(x, y + 1)


def test_the_ink_that_ships():
    for shape in ink.SHAPES:
        learn, fresh = ink.load_ink(shape)
        assert learn.shape == (12_000, 2) and fresh.shape == (4000, 2) and learn.abs().max() < 2


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: ink.load_ink("cube"), "not a shape of ink; there are drop, swirl, character, ring"),
        (lambda: ink.spread(torch.ones(60, 60), steps=2, diffusivity=0.4), "too few for this grid; take at least"),
        (lambda: next(ink.gather(None, torch.zeros(1, 2), steps=0)), "at least 1 step"),
        (lambda: next(ink.gather(None, torch.zeros(1, 2), steps=5, end=0.0)), "a time over 0"),
        (lambda: ink.spread(torch.ones(60, 50), steps=200, diffusivity=0.4), "as many rows as columns"),
        (lambda: ink.spread(torch.ones(60, 60), steps=0, diffusivity=0.4), "at least 1 step"),
        (lambda: ink.concentration(torch.tensor([[0.0, float("nan")]])), "have no place"),
        (lambda: ink.noised(torch.zeros(3, 2), 0.5, torch.zeros(1, 2)), "Noise has the shape of the particles"),
        (lambda: ink.noised(torch.zeros(3, 2), torch.rand(2), torch.zeros(3, 2)), "one for each"),
        (lambda: next(ink.small_steps(torch.zeros(1, 2), steps=10, generator=None)), "too few"),
        (lambda: ink.exact_score(torch.zeros(1, 2), 0.0, torch.zeros(1, 2)), "over 0 and up to 1"),
        (lambda: ink.energy_distance(torch.zeros(3, 2), torch.zeros(0, 2)), "is empty"),
    ],
)
def test_refusals(call, said):
    with pytest.raises(ValueError, match=said):
        call()
