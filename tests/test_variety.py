"""Spreads and copies: what varies as the world does scores 1, what never varies 0, and copies are found."""

from types import SimpleNamespace

import pytest
import torch

from sora_course import report
from sora_course.kit import variety, world

SCENES = [world.scene("red", "circle", "clockwise"), world.scene("blue", "7", "right"), world.scene("green", "star", "ink")]


def test_the_world_varies_as_the_world_does_and_a_single_film_does_not_vary():
    generator = torch.Generator().manual_seed(5)

    def as_the_world(prompts, seeds):
        return world.render([world.parse(p) for p in prompts], generator=generator)

    def always_the_same(prompts, seeds):
        return world.render([world.parse(prompts[0])], generator=torch.Generator().manual_seed(1)).expand(
            len(prompts), -1, -1, -1, -1
        )

    wide, narrow = (variety.spreads(f, SCENES, seeds=24) for f in (as_the_world, always_the_same))
    assert set(wide) == set(narrow) == set(variety.KINDS)
    for kind in variety.KINDS:
        assert wide[kind]["ratio"] == pytest.approx(1, abs=0.2) and narrow[kind]["ratio"] < 1e-3


def test_films_without_the_object_have_no_traits():
    film = world.render([SCENES[0]], generator=torch.Generator().manual_seed(0))[0]
    assert variety.traits(film, SCENES[1]) == {} and set(variety.traits(film, SCENES[0])) == {"places", "phases"}


def test_copies_are_found():
    generator = torch.Generator().manual_seed(0)
    trained, fresh, own = (
        variety.thumbnails(world.render(world.sample_scenes(80, generator=generator), generator=generator, num_frames=9))
        for _ in range(3)
    )
    assert trained.shape == (80, 3, 48, 16) and variety.copied(trained[:40] + 0.01, trained, fresh) == 1
    assert 0.3 < variety.copied(own, trained, fresh) < 0.7
    with pytest.raises(ValueError, match="as many fresh films"):
        variety.copied(own, trained, fresh[:5])


def test_the_report_asks_for_things_that_circle(monkeypatch):
    """Two of sixteen motions have a phase; of 24 scenes drawn as they come there may be none."""
    asked = []
    monkeypatch.setattr(variety, "spreads", lambda generate, scenes: asked.extend(scenes))
    model = SimpleNamespace(config={"preset": "full", "recipe": "tiny"})
    report.measure_variety(model, lambda prompts, seeds: torch.zeros(len(prompts), 3, 17, 64, 64), prompts=128, known=20)
    assert len(asked) == 24 and sum(scene.things[0].motion in variety.CIRCLING for scene in asked) >= 8


def test_training_films_are_those_that_were_encoded_by_one_process_or_several(tmp_path):
    from dataclasses import replace

    from sora_course import buckets, recipes, stages
    from sora_course.text import Tokenizer
    from sora_course.video_vae import VideoVAE

    torch.manual_seed(0)
    recipe, words = recipes.RECIPES["tiny"], stages.vocabulary()
    vae, bucket = VideoVAE(recipe.vae).eval(), replace(recipe.buckets[0], films=140)
    drawn = {"preset": "full", "richness": 0.05}
    films = buckets.encode_bucket(vae, bucket, tmp_path, vocabulary=words, **drawn)
    parts = [buckets.draw_part(number, bucket, **drawn) for number in buckets.parts_of(bucket)]
    with torch.no_grad():
        wanted = torch.cat([vae.encode(world.paint(staging)) for _, _, staging in parts])
    assert len(films.latents) == 140 and torch.allclose(films.latents.float(), wanted, atol=0.05)
    tokens, _ = Tokenizer(words)([text for _, captions, _ in parts for texts in captions for text in texts])
    found = films.words.flatten(0, 1).long()
    assert torch.equal(found[:, : tokens.shape[1]], tokens) and found.shape[1] % 16 == 0 and not found[:, tokens.shape[1] :].any()
    assert [world.BACKDROPS[i] for i in films.behind] == [(s.background, s.camera) for scenes, _, _ in parts for s in scenes]
    again = buckets.encode_bucket(vae, bucket, tmp_path, vocabulary=words, **drawn)
    assert torch.equal(again.latents, films.latents) and len(list(tmp_path.iterdir())) == 1
    (tmp_path / "two").mkdir()
    with buckets.mapping(torch.device("cpu"), processes=2) as map_parts:
        other = buckets.encode_bucket(vae, bucket, tmp_path / "two", map_parts, vocabulary=words, **drawn)
    assert torch.equal(other.latents, films.latents) and torch.equal(other.words, films.words)
