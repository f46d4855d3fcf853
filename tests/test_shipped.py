"""The checkpoint that ships does what README.md says; the full report is `sora-course evaluate`."""

import pytest
import torch

from sora_course import stages
from sora_course.kit import world
from sora_course.kit.evaluation import held_out_prompts, interval
from sora_course.kit.judge import judge
from sora_course.kit.training import autocast
from sora_course.sora import TextToVideo


@pytest.fixture(scope="module")
def model():
    return TextToVideo.from_pretrained()


def shares(verdicts):
    return {name: sum(v[name] for v in verdicts) / len(verdicts) for name in verdicts[0]}


def test_the_vae_on_fresh_films_of_the_full_world(model, generator):
    assert stages.measure_vae(model.vae, films=128, seed=7).mean() >= 34
    verdicts = []
    for _ in range(4):
        scenes = world.sample_scenes(50, generator=generator)
        films = world.render(scenes, generator=generator)
        with torch.no_grad(), autocast("cpu"):
            verdicts += judge(model.vae.decode(model.vae.encode(films)), scenes)
    assert {name: share for name, share in shares(verdicts).items() if share < 0.97 and name != "all"} == {}


@pytest.mark.parametrize("preset, right, right_in_chinese", [("starter", 0.9, 0.85), ("full", 0.88, 0.85)])
def test_held_out_prompts_are_followed_in_both_languages(model, preset, right, right_in_chinese):
    verdicts, others = [], []
    scenes, prompts = held_out_prompts(60, preset=preset, seed=17)
    for i in range(0, 60, 20):
        films = model.generate(prompts[i : i + 20], seed=list(range(i, i + 20)))
        verdicts += judge(films, scenes[i : i + 20])
        others += judge(films.roll(1, 0), scenes[i : i + 20])
    got = shares(verdicts)
    assert got["all"] >= right and got["camera"] >= 0.95 and got["background"] >= 0.95, got
    assert shares(verdicts[1::2])["all"] >= right_in_chinese
    assert shares(others)["all"] <= 0.2  # and the judge is not easily pleased


def test_intervals_are_wilsons():
    assert interval(0, 10) == pytest.approx((0, 0.2775), abs=1e-3) and interval(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-3)
