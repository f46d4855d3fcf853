"""What the recipes add to the chapters: growing a transformer, and looking more at things than at paper."""

import shutil
from dataclasses import replace

import pytest
import torch

from sora_course import buckets, flow, recipes, stages
from sora_course.kit import checkpoints, world
from sora_course.sora import TextToVideo
from sora_course.text import Reader


def test_things_count_more_than_what_lies_behind_them():
    empty = torch.zeros(1, 4, 1, 2, 2)
    film = empty.clone()
    film[:, :, 0, 0, 0] = 10.0
    weight = buckets.foreground(film, empty, 8.0)
    assert weight.shape == (1, 1, 1, 2, 2) and weight[0, 0, 0, 0, 0] == pytest.approx(9, abs=0.1)
    assert (weight.flatten()[1:] == 1).all()


def test_every_backdrop_is_there(tiny_model):
    found = buckets.backdrop_latents(tiny_model.vae, recipes.RECIPES["tiny"].buckets[2])
    assert found.shape == (10, 8, 3, 8, 12)
    night = [world.BACKDROPS.index(("night", camera)) for camera in ("still", "zoom in")]
    assert not torch.allclose(*found[night], atol=1e-3)


def test_a_recipe_for_the_whole_world_in_miniature(tiny_model, tiny_checkpoint, tmp_path):
    """All that the recipe "full" adds: another model's autoencoder, a reader, a curriculum, a loss that looks at things."""
    tiny = recipes.RECIPES["tiny"]
    recipe = replace(
        tiny, preset="full", taken_over={"vae": str(tiny_checkpoint)}, reading=True, text_batch=48, foreground=4.0, richness=0.25,
        dit=replace(tiny.dit, conditioning="adaln_single"), text_train=replace(tiny.text_train, steps=3),
        buckets=(replace(tiny.buckets[0], films=8), replace(tiny.buckets[1], films=8)), dit_train=replace(tiny.dit_train, steps=3),
    )  # fmt: skip
    vae = stages.train_vae(recipe, tmp_path)
    lent = {name: tensor.half().float() for name, tensor in tiny_model.vae.state_dict().items()}
    assert all(torch.equal(lent[name], tensor) for name, tensor in vae.state_dict().items())
    text = stages.train_text(recipe, tmp_path).state_dict()
    model = stages.train_dit(recipe, tmp_path, name="mini")
    assert model.config["preset"] == "full"
    assert all(torch.equal(text[name], tensor) for name, tensor in model.text.state_dict().items())
    assert (tmp_path / "sora_mini.safetensors").is_file()
    with pytest.raises(ValueError, match="another recipe"):
        stages.train_dit(replace(recipe, foreground=1.0), tmp_path, name="mini")
    tensors, config = checkpoints.load(tmp_path / "vae.safetensors")
    checkpoints.save(tmp_path / "vae.safetensors", tensors | {"latent_std": 2 * tensors["latent_std"]}, config)
    with pytest.raises(ValueError, match="another recipe, autoencoder"):
        stages.train_dit(recipe, tmp_path, name="mini")


def test_a_recipe_goes_on_from_a_model(tiny_model, tiny_checkpoint, tmp_path, monkeypatch):
    """What "longer" and "finish" add: three parts of another model, two of which stay, buckets of a seed and of two things, and times."""
    tiny, draw, means = recipes.RECIPES["tiny"], flow.logit_normal_times, set()
    monkeypatch.setattr(flow, "logit_normal_times", lambda n, *, mean, **more: means.add(mean) or draw(n, mean=mean, **more))
    recipe = replace(
        tiny, preset="full", taken_over=dict.fromkeys(("vae", "text", "dit"), str(tiny_checkpoint)),
        buckets=(replace(tiny.buckets[0], films=8), replace(tiny.buckets[0], films=8, seed=1, objects=2)), times_mean=0.8,
        dit_train=replace(tiny.dit_train, steps=1, warmup=0, lr=1e-6, adamw_lr=1e-6),
    )  # fmt: skip
    stages.train_vae(recipe, tmp_path)
    stages.train_text(recipe, tmp_path)
    model = stages.train_dit(recipe, tmp_path, name="mini")
    assert means == {0.8}
    begun, ended = TextToVideo.from_pretrained(str(tiny_checkpoint)).state_dict(), model.state_dict()
    kept = {part: all(torch.equal(begun[n], ended[n].half().float()) for n in begun if n.startswith(part)) for part in ("vae", "text")}
    assert kept == {"vae": True, "text": True}
    learned = [name for name in begun if name.startswith("dit.") and not torch.equal(begun[name], ended[name])]
    assert learned and all(torch.allclose(begun[name], ended[name], atol=1e-4) for name in learned)
    with pytest.raises(ValueError, match="'vae' to take over"):
        stages.train_vae(replace(recipe, vae=replace(tiny.vae, channels=(16, 32))), tmp_path / "other")


def test_what_lies_in_the_folder_is_kept_and_what_does_not_fit_is_refused(tiny_model, tiny_checkpoint, tmp_path):
    tiny = recipes.RECIPES["tiny"]
    recipe = replace(
        tiny, taken_over=dict.fromkeys(("vae", "text", "dit"), str(tiny_checkpoint)), buckets=(replace(tiny.buckets[0], films=4),),
        dit_train=replace(tiny.dit_train, steps=1),
    )  # fmt: skip
    own = {name: tensor + 1 for name, tensor in tiny_model.vae.state_dict().items()}
    checkpoints.save(tmp_path / "vae.safetensors", own, tiny_model.vae.config_dict())
    assert all(torch.equal(own[name], tensor) for name, tensor in stages.train_vae(recipe, tmp_path).state_dict().items())
    stages.train_text(recipe, tmp_path)
    stages.train_dit(recipe, tmp_path, name="mini")

    tensors, config = checkpoints.load(tiny_checkpoint)
    model, another = tmp_path / "model.safetensors", tmp_path / "another.safetensors"
    checkpoints.save(model, tensors, config)
    recipe = replace(recipe, taken_over=dict.fromkeys(("vae", "text", "dit"), str(model)))
    stages.train_dit(recipe, shutil.copytree(tmp_path, tmp_path / "copy", ignore=shutil.ignore_patterns("dit", "*.json")), name="mini")
    checkpoints.save(model, tensors | {"dit.no_text": tensors["dit.no_text"] + 1}, config)
    with pytest.raises(ValueError, match="text encoder or transformer"):
        stages.train_dit(recipe, tmp_path / "copy", name="mini")

    turned = config | {"vocabulary": [*config["vocabulary"][:2], *config["vocabulary"][:1:-1]]}
    checkpoints.save(another, tensors, turned)
    with pytest.raises(ValueError, match="numbers its words in another way"):
        stages.train_text(replace(recipe, taken_over={"text": str(another)}), tmp_path / "other")

    checkpoints.save(tmp_path / "vae.safetensors", tensors, config)  # a whole model in the place of a stage
    with pytest.raises(ValueError, match="something else than stage 'vae' makes"):
        stages.train_dit(recipe, tmp_path, name="mini")


def test_buckets_of_another_seed_of_two_things_or_of_small_ones_hold_other_films():
    bucket = buckets.Bucket(17, 64, 64, films=32, batch=1, weight=1.0)
    drawn = {"preset": "full", "richness": 1.0}
    changes = ({}, {"seed": 1}, {"objects": 2}, {"objects": 1, "small": True})
    usual, other, pairs, small = (buckets.draw_part(0, replace(bucket, **change), **drawn)[0] for change in changes)
    assert usual != other and {len(scene.things) for scene in pairs} == {2} and {len(scene.things) for scene in usual} == {1, 2}
    assert {thing.size for scene in small for thing in scene.things} == {"small"} != {scene.things[0].size for scene in usual}
    assert all(world.may_train(scene) for scene in (*other, *pairs, *small))


def test_films_grow_richer_and_more_of_them_are_shown():
    bucket = buckets.Bucket(17, 64, 64, films=896, batch=1, weight=1.0)
    parts = [buckets.draw_part(number, bucket, preset="full", richness=0.05)[0] for number in buckets.parts_of(bucket)]
    rich = [
        sum(len(s.things) == 2 or s.background != "paper" or s.things[0].size == "small" for s in part) for part in parts
    ]
    assert len(rich) == 7 and rich[0] < 50 and min(rich[4:]) > 70
    assert [buckets.shown_films(400, richness=0.05, progress=p) for p in (0.0, 0.2, 0.4, 1.0)] == [40, 220, 400, 400]
    assert buckets.shown_films(3, richness=0.05, progress=0.0) == 1 and buckets.shown_films(400, richness=1, progress=0.0) == 400


def test_a_question_without_answers_leaves_the_reader_s_loss_finite(generator):
    reader = Reader(8, [3, 4])
    loss = reader.loss(torch.randn(2, 5, 8, generator=generator), torch.ones(2, 5, dtype=torch.bool), torch.tensor([[1, -1], [2, -1]]))
    assert loss["loss"].isfinite()
