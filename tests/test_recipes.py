"""What the recipes add to the chapters: growing a transformer, and looking more at things than at paper."""

from dataclasses import replace

import pytest
import torch

from sora_course import buckets, recipes
from sora_course.kit import checkpoints
from sora_course.text import Reader
from sora_course.video_dit import VideoDiT, VideoDiTConfig


def test_a_grown_transformer_says_the_same_until_it_learns(generator):
    torch.manual_seed(0)
    sizes = {"in_channels": 4, "hidden_size": 16, "num_heads": 2, "text_size": 8}
    small, deep = (VideoDiT(VideoDiTConfig(depth=depth, **sizes)).eval() for depth in (1, 3))
    for parameter in small.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    given = (torch.randn(2, 4, 2, 4, 4, generator=generator), torch.rand(2, generator=generator))
    text = (torch.randn(2, 5, 8, generator=generator), torch.ones(2, 5, dtype=torch.bool), torch.randn(2, 8, generator=generator))
    recipes.grow_from(deep, small.state_dict())
    assert torch.allclose(deep(*given, *text), small(*given, *text), atol=1e-5) and small(*given, *text).abs().mean() > 0.1
    with pytest.raises(ValueError, match="transformer to begin with"):
        recipes.grow_from(VideoDiT(VideoDiTConfig(depth=3, **sizes | {"hidden_size": 24})), small.state_dict())


def test_things_count_more_than_what_lies_behind_them():
    empty = torch.zeros(1, 4, 1, 2, 2)
    film = empty.clone()
    film[:, :, 0, 0, 0] = 10.0
    weight = buckets.foreground(film, empty, 8.0)
    assert weight.shape == (1, 1, 1, 2, 2) and weight[0, 0, 0, 0, 0] == pytest.approx(9, abs=0.1)
    assert (weight.flatten()[1:] == 1).all()


def test_every_backdrop_is_there(tiny_model):
    found = buckets.backdrops(tiny_model.vae, recipes.RECIPES["tiny"].buckets[2])
    assert len(found) == 10 and {latents.shape for latents in found.values()} == {(8, 3, 8, 12)}
    assert not torch.allclose(found["night", "still"], found["night", "zoom in"], atol=1e-3)


def test_a_recipe_goes_on_from_a_model_into_the_whole_world(tiny_model, tiny_checkpoint, tmp_path):
    """All that the recipe "full" adds, in miniature: a start, a reader, a block more, a loss that looks at things."""
    tiny = recipes.RECIPES["tiny"]
    recipe = replace(
        tiny, preset="full", start=str(tiny_checkpoint), reading=True, text_batch=48, foreground=4.0, richness=0.25,
        dit=replace(tiny.dit, depth=2), buckets=(replace(tiny.buckets[0], films=8), replace(tiny.buckets[1], films=8)),
        text_train=replace(tiny.text_train, steps=3), dit_train=replace(tiny.dit_train, steps=3),
    )  # fmt: skip
    vae = recipes.train_vae(recipe, tmp_path)
    begun = {name: tensor.half().float() for name, tensor in tiny_model.vae.state_dict().items()}
    assert all(torch.equal(begun[name], tensor) for name, tensor in vae.state_dict().items())
    text = recipes.train_text(recipe, tmp_path).state_dict()
    assert not torch.equal(text["embed.weight"], tiny_model.text.state_dict()["embed.weight"].half().float())
    model = recipes.train_dit(recipe, tmp_path, name="mini")
    assert len(model.dit.blocks) == 2 and model.config["preset"] == "full"
    assert all(torch.equal(text[name], tensor) for name, tensor in model.text.state_dict().items())
    assert (tmp_path / "sora_mini.safetensors").is_file()
    with pytest.raises(ValueError, match="another recipe"):
        recipes.train_dit(replace(recipe, foreground=1.0), tmp_path, name="mini")
    tensors, config = checkpoints.load(tmp_path / "vae.safetensors")
    checkpoints.save(tmp_path / "vae.safetensors", tensors | {"latent_std": 2 * tensors["latent_std"]}, config)
    with pytest.raises(ValueError, match="another recipe, autoencoder"):
        recipes.train_dit(recipe, tmp_path, name="mini")
    drift = (model.dit.blocks[0].attn.q.weight - tiny_model.dit.blocks[0].attn.q.weight).norm()
    assert 0 < drift < 0.2 * tiny_model.dit.blocks[0].attn.q.weight.norm()  # it went on; it did not begin anew


def test_films_grow_richer_and_so_do_those_that_are_shown():
    bucket = buckets.Bucket(17, 64, 64, films=400, batch=1, weight=1.0)
    scenes = list(buckets.scenes_for(bucket, preset="full", richness=0.05, generator=torch.Generator().manual_seed(0)))
    rich = [len(s.things) == 2 or s.background != "paper" or s.things[0].size == "small" for s in scenes]
    assert sum(rich[:200]) + 20 < sum(rich[200:])
    assert buckets.shown_films(400, richness=0.05, progress=0.0) == range(200)
    assert buckets.shown_films(400, richness=0.05, progress=1 / 3) == range(100, 300)
    assert buckets.shown_films(401, richness=0.05, progress=0.7) == range(200, 401)
    assert buckets.shown_films(401, richness=0.05, progress=1.0) == range(200, 401)
    assert buckets.shown_films(400, richness=1, progress=0.5) == range(400)


def test_a_question_without_answers_leaves_the_reader_s_loss_finite(generator):
    reader = Reader(8, [3, 4])
    loss = reader.loss(torch.randn(2, 5, 8, generator=generator), torch.ones(2, 5, dtype=torch.bool), torch.tensor([[1, -1], [2, -1]]))
    assert loss["loss"].isfinite()
