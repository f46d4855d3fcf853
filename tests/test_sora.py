"""The whole system, with a tiny untrained model: what goes in, what comes out, what is refused."""

import math

import pytest
import torch

from sora_course.kit.training import autocast
from sora_course.sora import TextToVideo, draw_known, known_latents

PROMPT = "a red circle moves right"


@pytest.mark.parametrize("frames, size", [(17, (64, 64)), (1, (64, 64)), (9, (32, 96))])
def test_films_of_the_size_that_was_asked_for(tiny_model, frames, size):
    films = tiny_model.generate([PROMPT, "一个蓝色的方形"], steps=2, num_frames=frames, size=size)
    assert films.shape == (2, 3, frames, *size) and films.dtype == torch.float32
    assert films.isfinite().all() and films.abs().max() <= 1


def test_the_seed_decides(tiny_model):
    a, b, c = (tiny_model.generate(PROMPT, steps=2, seed=s) for s in (1, 1, 2))
    assert torch.equal(a, b) and not torch.allclose(a, c, atol=0.05)


def test_a_film_does_not_depend_on_its_batch(tiny_model):
    alone = tiny_model.generate(PROMPT, steps=2, seed=4)
    together = tiny_model.generate([PROMPT, "a small blue square moves up and to the left"], steps=2, seed=[4, 9])
    assert torch.allclose(alone[0], together[0], atol=0.1)  # bf16 rounds differently in other batches


def test_text_and_guidance_matter(tiny_model):
    plain = tiny_model.generate(PROMPT, steps=2, guidance_scale=1.0)
    assert torch.allclose(plain, tiny_model.generate(PROMPT, steps=2, guidance_scale=4.0, guided_until=1.0), atol=1e-4)
    early, all_the_way = (tiny_model.generate(PROMPT, steps=4, guidance_scale=4.0, guided_until=until) for until in (0.5, 0.0))
    assert not torch.allclose(early, all_the_way, atol=1e-3)  # the last of the four steps begins at t = 0.5
    assert not torch.allclose(plain, tiny_model.generate(PROMPT, steps=2, guidance_scale=4.0), atol=0.05)
    assert not torch.allclose(plain, tiny_model.generate("a blue star", steps=2, guidance_scale=1.0), atol=0.05)


def test_new_noise_at_each_step_is_part_of_the_seed(tiny_model):
    still, new, again = (tiny_model.generate(PROMPT, steps=3, seed=3, eta=eta) for eta in (0.0, math.inf, math.inf))
    assert torch.equal(new, again) and not torch.allclose(still, new, atol=0.05)
    assert torch.equal(tiny_model.generate(PROMPT, steps=3, seed=3), new)
    assert torch.equal(*(tiny_model.generate(PROMPT, steps=2, solver="heun", **eta) for eta in ({}, {"eta": 0.0})))


def test_a_sentence_and_its_tokens_say_the_same(tiny_model):
    texts = [PROMPT, "a small blue square moves up and to the left"]
    tokens, mask = tiny_model.tokenizer(texts)
    longer = torch.nn.functional.pad(tokens, (0, 5))
    with torch.no_grad():
        (features, _, pooled), (same, same_mask, same_pooled) = tiny_model.encode_text(texts), tiny_model.encode_text(longer)
    assert torch.allclose(pooled, same_pooled, atol=1e-5) and torch.equal(same_mask[:, :-5], mask) and not same_mask[:, -5:].any()
    assert torch.allclose(features[mask], same[:, :-5][mask], atol=1e-5)


def test_saved_and_loaded_it_makes_the_same_film(tiny_model, tiny_checkpoint):
    loaded = TextToVideo.from_pretrained(str(tiny_checkpoint))
    a, b = (m.generate(PROMPT, steps=2) for m in (tiny_model, loaded))
    assert torch.allclose(a, b, atol=0.1)  # weights are stored with 8 and 16 bits
    again = TextToVideo.from_pretrained(str(tiny_checkpoint))
    assert torch.equal(b, again.generate(PROMPT, steps=2))


@pytest.mark.parametrize("known", [[0], range(5), range(9, 17), [0, *range(13, 17)]])
def test_given_frames_come_back(tiny_model, known, generator, monkeypatch):
    film = torch.rand(1, 3, 17, 64, 64, generator=generator) * 2 - 1
    whole, decode, decoded = tiny_model.vae.decode(tiny_model.vae.encode(film)).clamp(-1, 1), tiny_model.vae.decode, []
    monkeypatch.setattr(tiny_model.vae, "decode", lambda x: decoded.append(x) or decode(x))
    found = tiny_model.generate(PROMPT, steps=2, video=film, known_frames=known)
    filled = film[:, :, [min(known, key=lambda k: abs(k - i)) for i in range(17)]]  # the nearest frame that is given
    with autocast("cpu"):
        wanted = tiny_model.vae.encode(filled)
    covered = known_latents(known, 17)
    assert torch.allclose(decoded[0][:, :, covered].float(), wanted[:, :, covered].float(), atol=1e-3)
    if min(known) == 0:  # what the first latents say depends on nothing else
        assert torch.allclose(found[:, :, 0], whole[:, :, 0], atol=0.1)
    other = tiny_model.generate(PROMPT, steps=2, video=-film, known_frames=known)
    assert not torch.allclose(found, other, atol=0.1)


def test_frames_that_are_not_given_are_not_seen(tiny_model, generator):
    film = torch.rand(1, 3, 17, 64, 64, generator=generator) * 2 - 1
    changed = film.clone()
    changed[:, :, 5:] = 0
    a, b = (tiny_model.generate(PROMPT, steps=2, video=v, known_frames=range(5)) for v in (film, changed))
    assert torch.equal(a, b)


def test_which_latents_given_frames_cover():
    assert known_latents([0], 17).tolist() == [True, False, False, False, False]
    assert known_latents(range(1, 9), 17).tolist() == [False, True, True, False, False]
    assert known_latents([0, *range(12, 17)], 17).tolist() == [True, False, False, False, True]


def test_drawn_masks_leave_something_to_find_and_show_every_kind(generator):
    masks = draw_known(3000, 5, generator=generator).view(3000, 5)
    assert masks.unique().tolist() == [0, 1] and not masks.all(1).any()
    assert 0.67 < (masks.sum(1) == 0).float().mean() < 0.74
    kinds = {tuple(m) for m in masks.int().tolist()}
    assert {(0,) * 5, (1, 0, 0, 0, 0), (0, 0, 0, 0, 1), (1, 1, 1, 0, 0), (0, 0, 1, 1, 1), (1, 0, 0, 0, 1), (0, 1, 0, 1, 0)} <= kinds
    assert not draw_known(100, 1, generator=generator).any() and not draw_known(500, 2, generator=generator).view(500, 2).all(1).any()


def test_loss_trains_text_and_transformer(tiny_model, generator):
    tiny_model.zero_grad()
    tiny_model.loss(torch.randn(4, 8, 5, 8, 8), [PROMPT] * 4, generator=generator)["loss"].backward()
    for module in (tiny_model.text.embed, tiny_model.dit.x_embedder):
        assert module.weight.grad.abs().sum() > 0
    tiny_model.zero_grad()


@pytest.mark.parametrize(
    "change, said",
    [
        (dict(prompts=""), "empty"),
        (dict(prompts=[]), "empty"),
        (dict(num_frames=16), "nearest is 17"),
        (dict(num_frames=0), "nearest is 1"),
        (dict(size=(60, 64)), "nearest is 64x64"),
        (dict(size=(0, 64)), "nearest is 64x16"),
        (dict(steps=0), "at least 1 step"),
        (dict(guidance_scale=-1.0), "0 or more"),
        (dict(guided_until=1.5), "from 1 \\(noise\\) to 0"),
        (dict(solver="rk4"), "'euler' or 'heun'"),
        (dict(seed=[1, 2]), "1 prompts and 2 seeds"),
        (dict(known_frames=[0]), "Give both"),
        (dict(video=torch.zeros(1, 3, 17, 64, 64)), "Give both"),
        (dict(known_frames=[0], video=torch.zeros(1, 3, 9, 64, 64)), "given film must be"),
        (dict(known_frames=[3], video=torch.zeros(1, 3, 17, 64, 64)), "group of four"),
        (dict(known_frames=range(17), video=torch.zeros(1, 3, 17, 64, 64)), "leave one such group"),
        (dict(known_frames=[20], video=torch.zeros(1, 3, 17, 64, 64)), "frames 0 to 16"),
    ],
)
def test_what_generate_refuses(tiny_model, change, said):
    with pytest.raises(ValueError, match=said):
        tiny_model.generate(**({"prompts": PROMPT, "steps": 1} | change))


def test_an_autoencoder_of_other_factors_is_refused(tiny_model):
    for change in ({"patch_size": 2}, {"time_factor": 8}):
        with pytest.raises(ValueError, match="shrinks time 4 times"):
            TextToVideo(tiny_model.config | {"vae": tiny_model.config["vae"] | change})
