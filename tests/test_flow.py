"""Rectified flow against closed forms."""

import math

import pytest
import torch

from sora_course import flow


def last(states):
    *_, x = states
    return x


def test_the_ends_of_the_road(generator):
    x0, noise = torch.randn(2, 3, 4, 5, generator=generator)
    zero, one = torch.zeros(3), torch.ones(3)
    assert torch.equal(flow.interpolate(x0, noise, zero), x0) and torch.equal(flow.interpolate(x0, noise, one), noise)


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_one_step_follows_a_straight_road_exactly(solver, generator):
    x0, noise = torch.randn(2, 3, 4, generator=generator)
    assert torch.allclose(last(flow.sample(lambda x, t: noise - x0, noise, steps=1, solver=solver)), x0, atol=1e-6)


def test_orders_of_the_solvers():
    """dx/dt = x has the solution e^t: halving the step halves Euler's error and quarters Heun's."""
    exact = torch.tensor([-1.0], dtype=torch.float64).exp()
    start = torch.ones(1, dtype=torch.float64)
    for solver, order in (("euler", 1), ("heun", 2)):
        # from t = 1 to 0, x shrinks by e; Heun's last step is Euler's, at t = 0, where no slope is asked for
        errors = [
            (last(flow.sample(lambda x, t: x, start, steps=n, solver=solver)) - exact).abs().item() for n in (200, 400)
        ]
        assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.05)


@pytest.mark.parametrize(
    "width, steps, how",
    [
        (1.0, 64, {"solver": "heun"}),
        (1.0, 500, {"eta": 0.5}),
        (1.0, 500, {"eta": 1.0}),
        (1.0, 2000, {"eta": 2.0}),
        (0.5**0.5, 500, {"eta": math.inf}),
    ],
)
def test_gaussian_data_arrives_with_its_mean_and_deviation(width, steps, how, generator):
    """For data N(m, s^2) the ideal velocity is known in closed form; sampling with it must give N(m, s^2).

    Where all noise is always new, it gives N(m, s^2 / 2): a step from x0 at small t leads to its mean, and (t / s)^2 of the
    variance is lost to it, twice, and won from the noise, once.
    """
    m, s = 1.5, 0.3

    def velocity(x, t):
        t = t.view(-1, 1)
        variance = (1 - t) ** 2 * s**2 + t**2
        # E[noise - x0 | x_t] for jointly normal variables
        return -m + (t - (1 - t) * s**2) / variance * (x - (1 - t) * m)

    draw = lambda: torch.randn(20000, 1, generator=generator)  # noqa: E731
    samples = last(flow.sample(velocity, draw(), steps=steps, draw=draw, **how))
    assert samples.mean().item() == pytest.approx(m, abs=0.01) and samples.std().item() == pytest.approx(width * s, rel=0.03)


def test_new_noise_is_drawn_as_ddim_draws_it_and_alike_in_small_steps_and_large():
    """Song et al. 2020, eq. 16: sigma as a share of the noise that is left, with alpha_bar = signal^2 / (signal^2 + noise^2)."""
    t, t_next = torch.tensor([0.9, 0.7, 0.3], dtype=torch.float64), torch.tensor([0.8, 0.2, 0.1], dtype=torch.float64)
    before, after = ((1 - s) ** 2 / ((1 - s) ** 2 + s**2) for s in (t, t_next))
    sigma = ((1 - after) / (1 - before)).sqrt() * (1 - before / after).sqrt()
    assert torch.allclose(flow.fresh_share(t, t_next, 1.0), sigma / (1 - after).sqrt())
    assert [flow.fresh_share(t, t_next, eta).tolist() for eta in (0.0, math.inf)] == [[0.0] * 3, [1.0] * 3]
    middle = (t + t_next) / 2
    whole, first, second = (1 - flow.fresh_share(*ends, 0.7) ** 2 for ends in ((t, t_next), (t, middle), (middle, t_next)))
    assert torch.allclose(whole, first * second)  # two steps keep of the old noise what one does


def test_new_noise_comes_at_every_step_but_the_last(generator):
    drawn = []
    draw = lambda: drawn.append(torch.randn(2, 3, generator=generator)) or drawn[-1]  # noqa: E731
    x0, noise = torch.randn(2, 3), torch.randn(2, 3)
    known = lambda x, t: (x - x0) / t.view(-1, 1)  # noqa: E731  the velocity where x0 is known
    assert torch.allclose(last(flow.sample(known, noise, steps=5, eta=1.0, draw=draw)), x0, atol=1e-5) and len(drawn) == 4
    assert torch.equal(*(last(flow.sample(known, noise, steps=5, eta=0.0, draw=d)) for d in (draw, None))) and len(drawn) == 4


def test_all_noise_new_forgets_the_old(generator):
    """With eta = infinity the state after a step is what the step believed of the data, and the new noise; not the old."""
    x0, start, *drawn = torch.randn(5, 2, 3, generator=generator)
    known, draws = lambda x, t: (x - x0) / t.view(-1, 1), iter(drawn)  # noqa: E731
    states = list(flow.sample(known, start, steps=4, eta=math.inf, draw=lambda: next(draws)))
    for state, t, noise in zip(states, (0.75, 0.5, 0.25), drawn):
        assert torch.allclose(state, (1 - t) * x0 + t * noise, atol=1e-5)


@pytest.mark.parametrize("shift", [0.001, 0.2, 0.4, 1000.0])
def test_extreme_shifts_leave_nothing_undefined(shift, generator):
    """Rounding took the first time above 1, and the root of a negative number followed."""
    assert flow.time_grid(24, shift=shift)[0] == 1
    x = last(flow.sample(lambda x, t: x, torch.ones(2), steps=24, shift=shift, eta=0.5, draw=lambda: torch.ones(2)))
    assert x.isfinite().all()


def test_loss_counts_only_what_was_not_given(generator):
    x0, noise = torch.randn(2, 2, 3, 4, 1, 1, generator=generator)
    known = torch.tensor([1.0, 0, 0, 1]).view(1, 1, 4, 1, 1)
    wrong_where_known = lambda x, t: noise - x0 + 7 * known  # noqa: E731
    assert flow.flow_loss(wrong_where_known, x0, torch.full((2,), 0.5), noise, known) == 0
    assert flow.flow_loss(wrong_where_known, x0, torch.full((2,), 0.5), noise) == pytest.approx(24.5)


def test_times(generator):
    t = flow.logit_normal_times(50000, generator=generator)
    assert 0 < t.min() and t.max() < 1 and t.logit().std().item() == pytest.approx(1, abs=0.02)
    for shift in (1.0, 3.0):
        grid = flow.time_grid(8, shift=shift)
        assert grid[0] == 1 and grid[-1] == 0 and (grid.diff() < 0).all()


@pytest.mark.parametrize(
    "bad, said",
    [
        (dict(steps=0), "at least 1 step"),
        (dict(steps=2, shift=0.0), "must be positive"),
        (dict(steps=2.0), "a whole number"),
        (dict(steps=2, shift=float("inf")), "must be positive"),
        (dict(steps=2, solver="dopri"), "'euler' or 'heun'"),
        (dict(steps=2, eta=1.0), "a function that draws noise"),
        (dict(steps=2, eta=-0.5, draw=lambda: torch.zeros(3)), "0 or more"),
        (dict(steps=2, eta=0.5, solver="heun", draw=lambda: torch.zeros(3)), "takes the solver 'euler'"),
        (dict(steps=2, noise=torch.zeros(3).long()), "real numbers"),
        (dict(steps=2, velocity=lambda x, t: x[:, None]), r"velocity has the shape of the samples, \(3,\)"),
    ],
)
def test_refusals(bad, said):
    with pytest.raises(ValueError, match=said):
        last(flow.sample(**{"velocity": lambda x, t: x, "noise": torch.zeros(3)} | bad))


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"noise": torch.zeros(1, 2)}, "noise has the shape"), ({"t": torch.rand(())}, "one number in"),
        ({"t": torch.rand(3, 1)}, "one number in"), ({"t": torch.tensor([0.0, 1.0, 500.0])}, "one number in"),
        ({"velocity": lambda x, t: x.mean(1)}, "velocity has the shape"),
    ],
)  # fmt: skip
def test_a_loss_never_broadcasts(changes, said):
    given = {"velocity": lambda x, t: x, "x0": torch.zeros(3, 2), "t": torch.rand(3), "noise": torch.zeros(3, 2)}
    with pytest.raises(ValueError, match=said):
        flow.flow_loss(**given | changes)


def test_half_precision_is_added_up_in_float32():
    end = last(flow.sample(lambda x, t: t[:, None].expand_as(x), torch.zeros(1, 3).bfloat16(), steps=1000))
    assert end.dtype == torch.float32 and torch.allclose(end, torch.tensor(-0.5), atol=1e-3)  # the integral of t


def test_places_count_as_they_are_weighted(generator):
    x0, noise, answer = torch.randn(3, 2, 1, 3, 2, 2, generator=generator)
    t, weight = torch.rand(2, generator=generator), torch.rand(2, 1, 3, 2, 2, generator=generator)
    x0, noise, answer = (x.view(2, 1, 3, 2, 2) for x in (x0, noise, answer))
    error = (answer - (noise - x0)).pow(2)
    loss = flow.flow_loss(lambda x, t: answer, x0, t, noise, weight=weight)
    assert loss == pytest.approx(float((error * weight).sum() / weight.sum()), rel=1e-5)
    known = torch.tensor([1.0, 0.0, 0.0]).view(1, 1, 3, 1, 1).expand(2, -1, -1, -1, -1)
    both = flow.flow_loss(lambda x, t: answer, x0, t, noise, known, weight)
    assert both == pytest.approx(float((error * weight)[:, :, 1:].sum() / weight[:, :, 1:].sum()), rel=1e-5)
