"""What makes an answer right: one judge for each exercise, chapter by chapter, found by its name in `JUDGES`.

A judge takes the learner's function, calls it, and raises AssertionError with a hint where an answer is wrong. A stub that
returns `...` is not solved yet: `_call` raises NotImplementedError for it.
"""

from __future__ import annotations

from collections.abc import Callable

JUDGES: dict[str, Callable] = {}


def _exercise(judge: Callable) -> Callable:
    JUDGES[judge.__name__] = judge
    return judge


def _call(answer: Callable, *arguments):
    result = answer(*arguments)
    if result is ...:
        raise NotImplementedError
    return result


# 00_welcome ----------------------------------------------------------------------------------------------------------
@_exercise
def my_prompt(answer):
    """A sentence that means: a green heart spreads like ink."""
    from .captions import parse
    from .scenes import scene

    text = _call(answer)
    assert isinstance(text, str), "return a sentence in quotation marks"
    try:
        meant = parse(text)
    except ValueError as error:
        raise AssertionError(f"the world cannot read {text!r}: {error}") from error
    assert meant == scene("green", "heart", "ink"), f"{text!r} was read as {meant}"


@_exercise
def latent_frames(answer):
    """How many latent frames 4n + 1 film frames become."""
    for frames, wanted in ((17, 5), (1, 1), (5, 2), (121, 31)):
        got = _call(answer, frames)
        assert got == wanted, f"{frames} frames become {wanted} latent frames, and your function says {got}"


@_exercise
def compression(answer):
    """Numbers in a film over numbers in its latents."""
    for size, wanted in (((17, 64, 64), 40.8), ((1, 64, 64), 12.0), ((121, 256, 256), 46.8387)):
        got = _call(answer, *size)
        assert abs(got - wanted) < 0.01, f"for {size} the ratio is {wanted:.1f}, and your function says {got:.1f}"


# 01_red_ink ----------------------------------------------------------------------------------------------------------
@_exercise
def signal_left(answer):
    """What is left of the drop after steps that add noise of variance beta each."""
    import torch

    for betas, wanted in (([0.19], 0.9), ([0.19, 0.36], 0.72), ([0.5] * 4, 0.25)):
        got = float(_call(answer, torch.tensor(betas)))
        assert abs(got - wanted) < 1e-4, (
            f"after betas of {betas} a share of {wanted} is left, and your function says {got:.4f}"
        )


@_exercise
def gaussian_score(answer):
    """The score of a normal distribution."""
    import torch

    x = torch.tensor([[1.0, 2.0], [0.0, -1.0]])
    for mean, std in ((torch.tensor([0.0, 0.0]), 1.0), (torch.tensor([1.0, -1.0]), 0.5)):
        got, density = _call(answer, x.clone(), mean, std), torch.distributions.Normal(mean, std)
        at = x.clone().requires_grad_()
        (wanted,) = torch.autograd.grad(density.log_prob(at).sum(), at)
        assert got.shape == x.shape, (
            f"the score is one arrow for each point, {tuple(x.shape)}, and yours is {tuple(got.shape)}"
        )
        assert torch.allclose(got.float(), wanted, atol=1e-4), (
            f"for mean {mean.tolist()} and std {std} it is {wanted.tolist()}, not {got.tolist()}"
        )


@_exercise
def step_back(answer):
    """One step of the way back that takes no chance."""
    import torch

    x, score = torch.tensor([[1.0, 0.0]]), torch.tensor([[-3.0, 2.0]])
    wanted = x + 0.5 * 4.0 * (x + score) * 0.05
    got = _call(answer, x.clone(), score.clone(), 4.0, 0.05)
    assert got.shape == x.shape, f"the step leads to a place for each particle, {tuple(x.shape)}, not {tuple(got.shape)}"
    assert torch.allclose(got, wanted), (
        f"for x = {x.tolist()}, score = {score.tolist()}, beta = 4, dt = 0.05 it is {wanted.tolist()}, not {got.tolist()}"
    )


# 02_ddpm -------------------------------------------------------------------------------------------------------------
@_exercise
def signal_to_noise(answer):
    """Variance of the picture over variance of the noise, at every step."""
    import torch

    for betas in ([0.5, 0.5], [0.1, 0.2, 0.3]):
        got = _call(answer, torch.tensor(betas))
        left = (1 - torch.tensor(betas)).cumprod(0)
        wanted = left / (1 - left)
        assert got.shape == wanted.shape, (
            f"one number for each of {len(betas)} steps is wanted, and yours has shape {tuple(got.shape)}"
        )
        assert torch.allclose(got, wanted), (
            f"for betas of {betas} it is {wanted.tolist()}, and your function says {got.tolist()}"
        )


@_exercise
def x0_from_v(answer):
    """The clean sample that v stands for."""
    import torch

    x0, noise = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 0.25])
    for a in (0.25, 0.9):
        x_t, v = a**0.5 * x0 + (1 - a) ** 0.5 * noise, a**0.5 * noise - (1 - a) ** 0.5 * x0
        got = _call(answer, v, x_t, a)
        assert torch.allclose(got, x0, atol=1e-5), (
            f"at alpha_bar = {a} x0 was {x0.tolist()}, and your function says {got.tolist()}"
        )


@_exercise
def invert_step(answer):
    """A DDIM step towards noise."""
    import torch

    x0, eps = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 0.25])
    at = lambda a: a**0.5 * x0 + (1 - a) ** 0.5 * eps  # noqa: E731
    for a, a_next in ((0.9, 0.4), (0.5, 0.1)):
        got = _call(answer, at(a), eps, a, a_next)
        assert torch.allclose(got, at(a_next), atol=1e-5), (
            f"from {a} to {a_next} it leads to {at(a_next).tolist()}, and yours to {got.tolist()}"
        )


# 03_unet -------------------------------------------------------------------------------------------------------------
@_exercise
def conv_parameters(answer):
    """How many numbers a convolution learns."""
    import torch.nn as nn

    for arguments in ((3, 32, 3), (64, 64, 1), (1, 8, 5)):
        wanted = sum(p.numel() for p in nn.Conv2d(*arguments).parameters())
        got = _call(answer, *arguments)
        assert got == wanted, f"Conv2d{arguments} has {wanted} parameters, and your function says {got}"


@_exercise
def clock_hands(answer):
    """Sines and cosines of a time."""
    import math

    import torch

    times = (0.0, 1.0, 500.0)
    for size in (4, 8):
        hands = [10000 ** (-i / (size // 2)) for i in range(size // 2)]
        wanted = torch.tensor([[math.cos(t * w) for w in hands] + [math.sin(t * w) for w in hands] for t in times])
        got = _call(answer, torch.tensor(times), size)
        assert got.shape == wanted.shape, f"for 3 times and size {size} the shape is (3, {size}), not {tuple(got.shape)}"
        said = f"for t = 1 and size {size} it is {wanted[1].tolist()}, not {got[1].tolist()}"
        assert torch.allclose(got.float(), wanted, atol=1e-3), said


@_exercise
def channels_on_the_way_up(answer):
    """How many channels each block on the way up takes in."""
    cases = {
        ((32, 64), 1): [128, 96, 96, 64],
        ((8, 16, 24), 1): [48, 40, 40, 24, 24, 16],
        ((8, 16), 2): [32, 32, 24, 24, 16, 16],
    }
    for (widths, layers), wanted in cases.items():
        got = list(_call(answer, widths, layers))
        assert got == wanted, f"for widths {widths} and {layers} blocks a level it is {wanted}, and your function says {got}"


# 04_vit --------------------------------------------------------------------------------------------------------------
@_exercise
def unscramble(answer):
    """The inverse of a rearrangement that mixed rows and columns of blocks."""
    import torch
    from einops import rearrange

    for shape in ((2, 12, 18), (3, 8, 30)):
        picture = torch.arange(shape[0] * shape[1] * shape[2]).view(shape)
        got = _call(answer, rearrange(picture, "c (a h) (b w) -> c (h a) (w b)", a=4, b=3))
        assert got.shape == picture.shape, f"the picture is {tuple(picture.shape)}, and yours is {tuple(got.shape)}"
        assert torch.equal(got, picture), (
            "some pixels are not where they were; which letter varies fastest in the scrambled rows?"
        )


@_exercise
def count_tokens(answer):
    """How many tokens a picture becomes, with a class token."""
    for (height, width, patch), wanted in {(224, 224, 16): 197, (16, 16, 4): 17, (32, 48, 8): 25}.items():
        got = _call(answer, height, width, patch)
        assert got == wanted, f"{height}x{width} in patches of {patch} makes {wanted} tokens, and your function says {got}"


@_exercise
def one_head(answer):
    """Attention of a single head."""
    import torch
    import torch.nn.functional as F

    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 5, 8, generator=generator)
    got, wanted = (
        _call(answer, q.clone(), k.clone(), v.clone()),
        F.scaled_dot_product_attention(q[None], k[None], v[None])[0],
    )
    assert got.shape == wanted.shape, f"five tokens of 8 channels come out, and yours is {tuple(got.shape)}"
    rounded = [[round(number, 3) for number in row[0].tolist()] for row in (wanted, got)]
    said = f"the first token becomes {rounded[0]}, not {rounded[1]}"
    assert torch.allclose(got.float(), wanted, atol=1e-5), said


# 05_vivit ------------------------------------------------------------------------------------------------------------
@_exercise
def pairs_saved(answer):
    """Pairs of joint attention over pairs of factorised self-attention."""
    for t, s in ((4, 16), (1, 9), (64, 64)):
        wanted = (t * s) ** 2 / (t * s**2 + s * t**2)
        got = float(_call(answer, t, s))
        assert abs(got - wanted) < 1e-6 * wanted, (
            f"for {t} steps of {s} places it is {wanted:.3f}, and your function says {got:.3f}"
        )


@_exercise
def along_time(answer):
    """Attention of each place to itself over time."""
    import torch

    x = torch.arange(2.0 * 3 * 4 * 5).view(2, 3, 4, 5)
    groups = []

    def attend(tokens):
        groups.append(tuple(tokens.shape))
        return tokens.cumsum(1)  # tells who talks to whom, and in which order

    got = _call(answer, x.clone(), attend)
    assert groups, "call attend"
    assert groups[0][-2:] == (3, 5), f"attend should get lists of t = 3 tokens, and got a tensor of shape {groups[0]}"
    assert got.shape == x.shape, f"the result is {tuple(x.shape)} again, and yours is {tuple(got.shape)}"
    assert torch.equal(got, x.cumsum(1)), "places, steps or films were mixed up on the way there or back"


@_exercise
def block_mask(answer):
    """Who may ask whom in a packed row."""
    import torch

    for lengths, n in (([2, 1], 4), ([3], 3), ([1, 2, 2], 7)):
        wanted = torch.eye(n, dtype=torch.bool)
        for start, length in zip([sum(lengths[:i]) for i in range(len(lengths))], lengths):
            wanted[start : start + length, start : start + length] = True
        got = _call(answer, list(lengths), n)
        assert tuple(got.shape) == (n, n), f"the table is ({n}, {n}), and yours is {tuple(got.shape)}"
        assert torch.equal(got.bool(), wanted), (
            f"for lengths {lengths} in a row of {n} it is {wanted.int().tolist()}, not {got.int().tolist()}"
        )


@_exercise
def minute_tokens(answer):
    """Tokens of a film behind a causal VAE."""
    for case, wanted in (
        ((60, 30, 256, 256, 4, 8), 115_200), ((1, 17, 64, 64, 4, 8), 80), ((5, 24, 480, 832, 4, 8), 46_800),
        ((1, 1, 64, 64, 4, 8), 16), ((2, 16, 256, 256, 8, 16), 256),
    ):  # fmt: skip
        got = _call(answer, *case)
        assert got == wanted, f"for (seconds, fps, height, width, vt, vs) = {case} it is {wanted:,}, and your function says {got}"


# 06_vae --------------------------------------------------------------------------------------------------------------
@_exercise
def latent_numbers(answer):
    """Numbers in the latents of a film, for a causal VAE."""
    for case, wanted in (
        ((17, 64, 64, 4, 8, 16), 5_120), ((1, 64, 64, 4, 8, 16), 1_024), ((121, 480, 704, 8, 32, 128), 675_840),
        ((33, 256, 256, 4, 8, 16), 147_456), ((17, 64, 64, 1, 8, 16), 17_408),
    ):  # fmt: skip
        got = _call(answer, *case)
        assert isinstance(got, int), f"a count is a whole number, and your function says {got!r}; divide with //"
        assert got == wanted, (
            f"for (frames, height, width, p, q, channels) = {case} it is {wanted:,}, and your function says {got}"
        )


@_exercise
def kl_between(answer):
    """KL divergence between two normal distributions."""
    import torch
    from torch.distributions import Normal, kl_divergence

    generator = torch.Generator().manual_seed(0)
    for shape in ((3, 2), (4,), (2, 3, 2)):
        mean, log_var, other_mean, other_log_var = torch.randn(4, *shape, generator=generator)
        wanted = kl_divergence(Normal(mean, (log_var / 2).exp()), Normal(other_mean, (other_log_var / 2).exp()))
        got = _call(answer, mean.clone(), log_var.clone(), other_mean.clone(), other_log_var.clone())
        assert got.shape == shape, f"there is one number for each pair, {shape}, and yours is {tuple(got.shape)}"
        said = f"for the first pair it is {float(wanted.flatten()[0]):.4f}, and your function says {float(got.flatten()[0]):.4f}"
        assert torch.allclose(got, wanted, atol=1e-4), said


@_exercise
def running_mean(answer):
    """A causal mean over three numbers, in pieces."""
    import torch

    x = torch.arange(1.0, 15.0).view(2, 7)
    padded = torch.cat([torch.zeros(2, 2), x], dim=1)
    wanted = (padded[:, 2:] + padded[:, 1:-1] + padded[:, :-2]) / 3
    result = _call(answer, x.clone(), None)
    assert isinstance(result, tuple) and len(result) == 2, "return two things: y, and what the next piece needs"
    assert result[0].shape == x.shape, f"y has the shape of x, {tuple(x.shape)}, and yours is {tuple(result[0].shape)}"
    assert torch.allclose(result[0], wanted), f"in one piece the first row is {wanted[0].tolist()}, not {result[0][0].tolist()}"
    for ends in ((3, 7), (1, 2, 7), (4, 5, 6, 7)):
        memory, pieces, start = None, [], 0
        for end in ends:
            y, memory = _call(answer, x[:, start:end].clone(), memory)
            assert memory.numel() <= 2 * len(x), f"keep two numbers of each row, not {tuple(memory.shape)}"
            pieces.append(y)
            start = end
        assert torch.allclose(torch.cat(pieces, dim=1), wanted), (
            f"in pieces that end after {ends} the result differs from that in one piece"
        )


# 07_dit --------------------------------------------------------------------------------------------------------------
@_exercise
def put_together(answer):
    """Tokens back to a picture, for a grid of any size."""
    import torch
    import torch.nn.functional as F

    for c, (h, w), p in ((3, (2, 3), 2), (1, (4, 1), 4), (2, (3, 3), 1)):
        picture = torch.arange(2.0 * c * h * p * w * p).view(2, c, h * p, w * p)
        patches = F.unfold(picture, p, stride=p).view(2, c, p, p, h * w)
        tokens = patches.permute(0, 4, 2, 3, 1).reshape(2, h * w, p * p * c)
        got = _call(answer, tokens.clone(), (h, w), p)
        assert got.shape == picture.shape, (
            f"{h}x{w} tokens of {p}x{p} patches with {c} channels make {tuple(picture.shape)}, and yours is {tuple(got.shape)}"
        )
        assert torch.equal(got, picture), f"the shape is right, but with {h}x{w} tokens pixels are in the wrong places"


@_exercise
def midpoint_step(answer):
    """One step of the midpoint rule."""
    import torch

    times, x = [], torch.tensor([[1.0, -2.0], [0.5, 4.0]])

    def velocity(x, t):
        assert t.shape == (2,), f"velocity takes one time for each sample, (2,), and you gave {tuple(t.shape)}"
        times.append(float(t[0]))
        return x * t[:, None] ** 2

    for t, t_next in ((1.0, 0.5), (0.8, 0.7), (0.5, 0.0)):
        times.clear()
        got = _call(answer, velocity, x.clone(), t, t_next)
        middle = (t + t_next) / 2
        wanted = x + (t_next - t) * (x + (t_next - t) / 2 * x * t**2) * middle**2
        assert len(times) == 2, f"the midpoint rule asks for the velocity twice, and you asked {len(times)} times"
        assert abs(times[1] - middle) < 1e-6, f"from {t} to {t_next} the second time is {middle:.2f}, and yours is {times[1]:.2f}"
        assert torch.allclose(got, wanted, atol=1e-6), f"from {t} to {t_next} x becomes {wanted.tolist()}, and yours {got.tolist()}"


@_exercise
def velocity_from_noise(answer):
    """The flow's velocity from a prediction of the noise."""
    import torch

    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 3, 4, 2, 2, generator=generator)
    t = torch.tensor([0.1, 0.5, 0.9])
    column = t.view(3, 1, 1, 1)
    got = _call(answer, (1 - column) * x0 + column * noise, noise.clone(), t)
    assert got.shape == x0.shape, f"one velocity for each number of x, {tuple(x0.shape)}, and yours is {tuple(got.shape)}"
    for i, one in enumerate(t.tolist()):
        assert torch.allclose(got[i], noise[i] - x0[i], atol=1e-4), f"at t = {one:.1f} it is not noise - x0"


@_exercise
def guide_some(answer):
    """Guidance on the first channels only."""
    import torch

    generator = torch.Generator().manual_seed(0)
    conditional, unconditional = torch.randn(2, 2, 4, 3, 3, generator=generator)
    for scale, channels in ((4.0, 3), (2.0, 4), (1.5, 0)):
        wanted = conditional.clone()
        wanted[:, :channels] = (unconditional + scale * (conditional - unconditional))[:, :channels]
        given = conditional.clone(), unconditional.clone()
        got = _call(answer, *given, scale, channels)
        untouched = torch.equal(given[0], conditional) and torch.equal(given[1], unconditional)
        assert untouched, "leave what you are given as it is: write into a copy"
        assert got.shape == wanted.shape, f"the answer has the shape {tuple(wanted.shape)}, and yours is {tuple(got.shape)}"
        wrong = [k for k in range(4) if not torch.allclose(got[:, k], wanted[:, k], atol=1e-5)]
        assert not wrong, f"with scale {scale} on the first {channels} channels, channel {wrong[0]} is wrong (counted from 0)"


# 08_text_to_video ----------------------------------------------------------------------------------------------------
@_exercise
def masked_mean(answer):
    """The mean over the real tokens."""
    import torch

    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3, 5, 4, generator=generator)
    mask = torch.arange(5) < torch.tensor([[5], [2], [1]])
    got = _call(answer, features.clone(), mask)
    assert got.shape == (3, 4), f"one vector for each text, (3, 4), and yours is {tuple(got.shape)}"
    for row, length in enumerate((5, 2, 1)):
        wanted = features[row, :length].mean(0)
        assert torch.allclose(got[row], wanted, atol=1e-5), f"a text with {length} real of 5 tokens has another mean"
    changed = _call(answer, torch.where(mask[..., None], features, 99.0), mask)
    assert torch.allclose(changed, got, atol=1e-4), "what stands in the padding must not matter"


@_exercise
def word_weights(answer):
    """Cross-attention's weights: for each place, how much it looks at each real word."""
    import torch

    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 3, 6, 8, generator=generator), torch.randn(2, 3, 4, 8, generator=generator)
    mask = torch.tensor([[True, True, True, True], [True, True, False, False]])
    got = _call(answer, q.clone(), k.clone(), mask)
    assert got.shape == (2, 3, 6, 4), f"one weight for each place and word, (2, 3, 6, 4), and yours is {tuple(got.shape)}"
    assert torch.allclose(got.sum(-1), torch.ones(2, 3, 6), atol=1e-5), "the weights of one place add up to 1"
    assert not got[1, :, :, 2:].any(), "a padded word gets the weight 0"
    one = torch.eye(4).expand(2, 3, 4, 4)  # with the identity for values, attention returns its weights
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, one, attn_mask=mask[:, None, None])
    assert torch.allclose(got, wanted, atol=1e-5), "divide the products by the square root of the head's size before the softmax"


@_exercise
def wilson(answer):
    """Wilson's 95 % interval of a share."""
    from .evaluation import interval

    for hits, n in ((50, 100), (0, 10), (970, 1000), (3, 3)):
        low, high = _call(answer, hits, n)
        wanted = interval(hits, n)
        close = max(abs(low - wanted[0]), abs(high - wanted[1])) < 2e-3
        assert close, f"for {hits} of {n} it is {wanted[0]:.3f} to {wanted[1]:.3f}, and yours {low:.3f} to {high:.3f}"


@_exercise
def cut(answer):
    """Which part of a film fits a size: the largest with the size's aspect, from the middle."""
    cases = (((120, 160), (64, 64), (0, 20, 120, 120)), ((90, 160), (64, 96), (0, 12, 90, 135)),
             ((200, 100), (64, 64), (50, 0, 100, 100)), ((128, 192), (64, 96), (0, 0, 128, 192)))  # fmt: skip
    for film, size, wanted in cases:
        got = tuple(_call(answer, film, size))
        assert got == wanted, f"from {film} for {size} it is (top, left, height, width) = {wanted}, and yours is {got}"


@_exercise
def two_texts(answer):
    """Euler's method, with a text of its own for each part of the frame."""
    import torch

    generator, times = torch.Generator().manual_seed(0), torch.tensor([1.0, 0.7, 0.2, 0.0])
    halves = torch.tensor([[[1.0, 1.0, 0.0, 0.0]], [[0.0, 0.0, 1.0, 1.0]]]).expand(2, 3, 4)
    overlapping = torch.tensor([[[1.0, 1.0, 0.0]], [[0.0, 1.0, 1.0]], [[0.0, 1.0, 0.0]]]).expand(3, 2, 3)
    for regions, name in ((halves, "two halves"), (overlapping, "regions that overlap")):
        start, calls = torch.randn(2, 4, 3, *regions.shape[1:], generator=generator), []

        def velocity(x, t, i):
            assert t.shape == (2,), f"velocity takes one time for each sample, (2,), and you gave {tuple(t.shape)}"
            calls.append((round(float(t[0]), 3), i))
            return (i + 1) * x * t.view(2, 1, 1, 1, 1) + i

        wanted, n = start.clone(), len(regions)
        for t, t_next in zip(times, times[1:]):
            mean = sum(regions[i] * ((i + 1) * wanted * t + i) for i in range(n)) / sum(regions)
            wanted = wanted + (t_next - t) * mean
        got = _call(answer, velocity, start.clone(), regions.clone(), times)
        asked = [(round(float(t), 3), i) for t in times[:-1] for i in range(n)]
        assert sorted(calls) == sorted(asked), (
            f"with {n} texts and {len(times) - 1} steps each text is asked once a step, at the step's first time: "
            f"{len(asked)} questions, and you asked {len(calls)}"
        )
        assert got.shape == start.shape, f"the film's latents stay {tuple(start.shape)}, and yours are {tuple(got.shape)}"
        assert torch.allclose(got, wanted, atol=1e-5), f"with {name} the result is not that of Euler's method on the texts' mean"
