"""The parts of benchmarks/speedrun.py that can be tried in a second: close-ups, smaller films, and that words reach the model."""

import importlib.util
from pathlib import Path

import torch

from sora_course.kit import world


def _speedrun():
    path = Path(__file__).parents[1] / "benchmarks" / "speedrun.py"
    spec = importlib.util.spec_from_file_location("speedrun", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_close_ups_hold_all_of_the_object():
    speedrun, generator = _speedrun(), torch.Generator().manual_seed(0)
    paper = world.backdrop("paper", "still", 17, 64, 64)
    films = world.render([world.scene("red", "square", "up")] * 6, generator=generator)
    close, behind = speedrun.close_ups(films, paper, generator)
    assert close.shape == (6, 3, 9, speedrun.CROP, speedrun.CROP) and behind.shape == close.shape
    ink = ((close - behind).abs().mean(1) > 0.08).flatten(2).sum(2)  # (b, t)
    square = ((films - paper).abs().mean(1) > 0.08)[:, :1].flatten(2).sum(2)
    assert (ink > 0.8 * square).all() and (ink < 1.2 * square).all()


def test_what_is_made_smaller_keeps_its_places():
    speedrun = _speedrun()
    ramp = torch.linspace(-1, 1, 65)[:-1] + 1 / 64  # the places of 64 pixels' centres, from left to right
    smaller = speedrun.resized(ramp.expand(2, 3, 5, 64, 64), 32)
    centres = torch.linspace(-1, 1, 33)[:-1] + 1 / 32
    assert smaller.shape == (2, 3, 5, 32, 32)
    torch.testing.assert_close(smaller[..., 2:-2], centres[2:-2].expand(2, 3, 5, 32, 28), atol=1e-5, rtol=0)


def test_every_word_reaches_the_model():
    speedrun = _speedrun()
    torch.manual_seed(0)
    model = speedrun.Model(20)
    torch.nn.init.normal_(model.dit.final.linear.weight)  # a fresh transformer answers 0 to everything
    x, t = torch.randn(1, 16, 5, 8, 8), torch.tensor([0.5])
    mask, shown, hidden = torch.ones(1, 3, dtype=torch.bool), torch.tensor([False]), torch.tensor([True])
    answers = [model(x, t, (torch.tensor([words]), mask), shown) for words in ([2, 3, 4], [2, 3, 5], [3, 2, 4])]
    assert not any(torch.allclose(answers[0], other) for other in answers[1:])
    unseen = [model(x, t, (torch.tensor([words]), mask), hidden) for words in ([2, 3, 4], [5, 6, 7])]
    torch.testing.assert_close(*unseen)
