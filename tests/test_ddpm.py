"""Chapter 02: schedules, steps and samplers equal diffusers' over the whole range of t, and obey their own identities."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.schedulers.scheduling_ddpm import rescale_zero_terminal_snr

from sora_course import ddpm
from sora_course.ddpm import DDPM

PREDICTION = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
SCHEDULES = {"linear": ddpm.linear_schedule(), "squaredcos_cap_v2": ddpm.cosine_schedule()}


def reference(kind, schedule, target):
    """Diffusers' scheduler without its clipping and "leading" spacing, and in float64.

    In float32 it computes 1 - alpha_bar by subtraction, which at t = 0, where that is 0.0001, keeps three digits only.
    """
    scheduler = kind(
        num_train_timesteps=1000, beta_schedule=schedule, clip_sample=False, timestep_spacing="trailing",
        prediction_type=PREDICTION[target],
    )  # fmt: skip
    assert torch.allclose(SCHEDULES[schedule].float(), scheduler.betas, rtol=1e-4, atol=1e-7)
    scheduler.betas = SCHEDULES[schedule]
    scheduler.alphas = 1 - scheduler.betas
    scheduler.alphas_cumprod = scheduler.alphas.cumprod(0)
    return scheduler


def close(ours, theirs):
    return ours.dtype == theirs.dtype and float((ours - theirs).abs().max()) <= 1e-9 * max(1.0, float(theirs.abs().max()))


def test_zero_terminal_snr():
    ours = ddpm.zero_terminal_snr(SCHEDULES["linear"])
    assert torch.allclose(ours, rescale_zero_terminal_snr(SCHEDULES["linear"])) and ours[-1] == 1


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("target", ddpm.TARGETS)
def test_every_step_equals_diffusers(schedule, target, generator):
    ours = DDPM(SCHEDULES[schedule], target)
    one_by_one, ddim = reference(DDPMScheduler, schedule, target), reference(DDIMScheduler, schedule, target)
    ddim.set_timesteps(50)
    x0, x_t, output, noise = torch.randn(4, 2, 3, 4, 4, generator=generator, dtype=torch.float64)
    for t in range(1000):
        at = torch.full((2,), t)
        assert close(ours.q_sample(x0, at, noise), one_by_one.add_noise(x0, noise, at)), t
        if target == "v":
            assert close(ours.target_of(x0, noise, at), one_by_one.get_velocity(x0, noise, at)), t
        fresh = torch.randn(output.shape, generator=torch.Generator().manual_seed(t), dtype=torch.float64)
        theirs = one_by_one.step(output, t, x_t, generator=torch.Generator().manual_seed(t))
        assert close(ours.predict_x0(output, x_t, at), theirs.pred_original_sample), t
        assert close(ours.p_step(output, x_t, at, fresh), theirs.prev_sample), t
        for eta in (0.0, 1.0):
            theirs = ddim.step(output, t, x_t, eta=eta, variance_noise=fresh).prev_sample
            assert close(ours.ddim_step(output, x_t, t, max(t - 20, -1), fresh, eta), theirs), (t, eta)


@pytest.mark.parametrize("target", ddpm.TARGETS)
def test_float32_loses_no_digits(target, generator):
    process = DDPM(SCHEDULES["squaredcos_cap_v2"], target)
    double = torch.randn(4, 2, 3, generator=generator, dtype=torch.float64)
    for t in [*range(0, 1000, 37), 999]:
        at = torch.full((2,), t)
        x0, x_t, output, noise = double
        wanted = [
            *process.posterior(x0, x_t, at),
            process.predict_eps(output, x_t, at),
            process.p_step(output, x_t, at, noise),
        ]
        x0, x_t, output, noise = double.float()
        got = [*process.posterior(x0, x_t, at), process.predict_eps(output, x_t, at), process.p_step(output, x_t, at, noise)]
        for a, b in zip(got, wanted):
            assert a.dtype == torch.float32 and (a - b).abs().max() <= 1e-5 * max(b.abs().max(), 1), t


def test_timesteps_are_diffusers_trailing_ones():
    for steps in (1, 5, 20, 50, 250, 1000):
        theirs = reference(DDIMScheduler, "linear", "eps")
        theirs.set_timesteps(steps)
        assert DDPM(SCHEDULES["linear"]).timesteps(steps) == theirs.timesteps.tolist()


@pytest.mark.parametrize("target", ddpm.TARGETS)
def test_targets_are_names_of_one_thing(target, generator):
    process = DDPM(SCHEDULES["linear"], target)
    x0, noise = torch.randn(2, 8, 5, generator=generator, dtype=torch.float64)
    t = torch.randint(1000, (8,), generator=generator)
    x_t, output = process.q_sample(x0, t, noise), process.target_of(x0, noise, t)
    assert torch.allclose(process.predict_x0(output, x_t, t), x0) and torch.allclose(
        process.predict_eps(output, x_t, t), noise
    )
    assert process.loss(lambda x, t: output, x0, t, noise) == 0


def test_ddim_with_eta_1_and_single_steps_is_ddpm(generator):
    process = DDPM(SCHEDULES["linear"])
    x, output, noise = torch.randn(3, 4, 6, generator=generator, dtype=torch.float64)
    for t in (1, 10, 999):
        at = torch.full((4,), t)
        assert torch.allclose(process.ddim_step(output, x, t, t - 1, noise, 1.0), process.p_step(output, x, at, noise))


def test_the_bound_is_the_kl_divergence(generator):
    """Equation 12's weight times the squared error of the noise is equation 8's, between normals of one width."""
    process = DDPM(SCHEDULES["linear"])
    x0, noise, guess = torch.randn(3, 5, 1, generator=generator, dtype=torch.float64)
    t = torch.tensor([1, 50, 300, 700, 999])
    x_t = process.q_sample(x0, t, noise)
    true, variance = process.posterior(x0, x_t, t)
    guessed, _ = process.posterior(process.predict_x0(guess, x_t, t), x_t, t)
    kl = (true - guessed).pow(2) / (2 * variance)
    assert torch.allclose(process.bound_weight(t)[:, None] * (noise - guess).pow(2), kl)


@pytest.mark.parametrize("target, schedule", [("eps", "linear"), ("v", "zero"), ("x0", "zero")])
@pytest.mark.parametrize("eta, steps", [(0.0, 100), (1.0, 1000)])
def test_sampling_with_the_ideal_answer_finds_the_data(target, schedule, eta, steps, generator):
    """For data N(m, s^2) the best answer is known in closed form."""
    m, s = 1.5, 0.3
    betas = ddpm.zero_terminal_snr(SCHEDULES["linear"]) if schedule == "zero" else SCHEDULES["linear"]
    process = DDPM(betas, target)

    def ideal(x, t):
        a = process.alpha_bar(t, x)
        x0 = m + a.sqrt() * s**2 / (a * s**2 + 1 - a) * (x - a.sqrt() * m)
        eps = (x - a.sqrt() * x0) / (1 - a).sqrt()
        return {"eps": eps, "x0": x0, "v": a.sqrt() * eps - (1 - a).sqrt() * x0}[target]

    start = torch.randn(8000, 1, generator=generator)
    *_, x = process.sample(ideal, start, steps=steps, eta=eta, generator=generator)
    assert x.mean().item() == pytest.approx(m, abs=0.02) and x.std().item() == pytest.approx(s, rel=0.05)


def test_labels_are_dropped_and_guided(generator):
    labels = ddpm.drop_labels(torch.zeros(10_000, dtype=torch.long), 10, generator=generator)
    assert set(labels.tolist()) == {0, 10} and (labels == 10).float().mean().item() == pytest.approx(0.1, abs=0.01)
    c, u = torch.tensor([2.0]), torch.tensor([1.0])
    assert ddpm.guided(c, u, 1.0) == c and ddpm.guided(c, u, 0.0) == u and ddpm.guided(c, u, 3.0) == 4.0
    net = ddpm.DigitMLP(hidden_size=16, depth=1)
    x, t, wanted = torch.randn(3, 1, 8, 8, generator=generator), torch.full((3,), 500), torch.tensor([1, 2, 3])
    none = torch.full((3,), 10)
    expected = net(x, t, none) + 2.5 * (net(x, t, wanted) - net(x, t, none))
    assert torch.allclose(ddpm.with_labels(net, wanted, 2.5)(x, t), expected, atol=1e-6)


PROCESS = DDPM(SCHEDULES["linear"])
X = torch.zeros(2, 3)


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: DDPM(torch.tensor([0.1, 0.0])), "every step adds noise"),
        (lambda: DDPM(torch.tensor([0.1, -0.2])), "every step adds noise"),
        (lambda: DDPM(torch.tensor([1.0, 0.1])), "every step adds noise"),
        (lambda: DDPM(torch.zeros(0)), "every step adds noise"),
        (lambda: DDPM(torch.ones(3, 2) / 2), "every step adds noise"),
        (lambda: DDPM(torch.tensor([0.1]), "noise"), "not a target; a model predicts one of eps, x0, v"),
        (lambda: DDPM(ddpm.zero_terminal_snr(SCHEDULES["linear"]), "eps"), "take target 'v' or 'x0'"),
        (lambda: PROCESS.q_sample(X, torch.tensor([0, 1000]), X), "this schedule has steps 0 to 999"),
        (lambda: PROCESS.q_sample(X, torch.tensor([-2, 0]), X), "this schedule has steps 0 to 999"),
        (lambda: PROCESS.q_sample(X, torch.tensor([0.5, 0.1]), X), "whole numbers from 0 to 999"),
        (lambda: PROCESS.q_sample(X, torch.tensor([1, 2, 3]), X), "give one time, or one for each"),
        (lambda: PROCESS.ddim_step(X, X, 10, 10), "to an earlier one"),
        (lambda: PROCESS.ddim_step(X, X, 10, 5, eta=1.0), "the noise is missing"),
        (lambda: PROCESS.ddim_step(X, X, 10, 5, X, eta=2.0), "from 0 to 1"),
        (lambda: PROCESS.q_sample(X, torch.tensor([1, 2]), X[:1]), "have one shape"),
        (lambda: PROCESS.loss(lambda x, t: x[:, 0], X, torch.tensor([1, 2]), X), "have one shape"),
        (lambda: PROCESS.p_step(X[:1], X, torch.tensor([1, 2]), X), "have one shape"),
        (lambda: PROCESS.bound_weight(torch.tensor([0, 1])), "from 1 on"),
        (lambda: PROCESS.timesteps(0), "take 1 to that many"),
        (lambda: PROCESS.timesteps(1001), "take 1 to that many"),
    ],
)
def test_refusals(call, said):
    with pytest.raises(ValueError, match=said):
        call()
