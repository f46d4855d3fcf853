"""The captioned world: words and scenes, captions there and back, the held-out split, the films."""

import itertools

import pytest
import torch

from sora_course.kit import world
from sora_course.kit.captions import LANGUAGES, caption, parse
from sora_course.kit.scenes import (
    COLOURS,
    MOTIONS,
    PRESETS,
    SHAPES,
    Scene,
    Thing,
    is_held_out,
    may_train,
    sample_scenes,
    scene,
)


def all_single_scenes(preset):
    words = PRESETS[preset]
    for c, s, m in itertools.product(words["colours"], words["shapes"], words["motions"]):
        if not (m == "spinning" and s in ("circle", "ring")):
            yield scene(c, s, m)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_caption_reads_back_as_its_scene(language, preset, generator):
    for drawn in sample_scenes(1500, generator=generator, preset=preset):
        for text in (caption(drawn, language), caption(drawn, language, generator=generator)):
            assert parse(text) == drawn, text


def test_captions_have_several_phrasings(generator):
    red = scene("red", "circle", "right")
    for language in LANGUAGES:
        assert len({caption(red, language, generator=generator) for _ in range(200)}) >= 8


@pytest.mark.parametrize(
    "prompt, meaning",
    [
        ("A red ball moving to the left", scene("red", "circle", "left")),
        ("a purple seven", scene("purple", "7")),
        ("one red circle moves slowly to the right", scene("red", "circle", "right", speed="slow")),
        ("a red ring drifts quickly from left to right", scene("red", "ring", "right", speed="fast")),
        ("a star (cyan, small) going upward", scene("cyan", "star", "up", size="small")),
        ("counter-clockwise red heart", scene("red", "heart", "anticlockwise")),
        ("橘色的球往左边", scene("orange", "circle", "left")),
        ("晚上，粉红爱心像墨水一样散开", scene("pink", "heart", "ink", background="night")),
        ("a green box rises and a pink star sinks",
         Scene((Thing("green", "square", "up", "small", "slow"), Thing("pink", "star", "down", "small", "slow")))),
        ("夜空下，蓝星星快速向左上方移动，镜头推近", scene("blue", "star", "up-left", speed="fast", background="night", camera="zoom in")),
    ],
)  # fmt: skip
def test_free_wordings(prompt, meaning):
    assert parse(prompt) == meaning


@pytest.mark.parametrize(
    "prompt, said",
    [
        ("", "empty"),
        ("   ", "empty"),
        ("a red dragon moves left", "'dragon' is not a shape this world has; it has circle, square"),
        ("a shiny red circle", "does not know the word 'shiny'. It knows colours: red"),
        ("一只红色的龙", "'龙'.*圆形"),
        ("a circle moves left", "names no colour.*red"),
        ("a red thing", "'thing'"),
        ("red", "names no shape.*circle"),
        ("a red circle moves left moves right", "two words for motion"),
        ("a red circle moves left, the camera zooms in quickly", "only one speed"),
        ("a red circle in a blue square", "cannot be read"),
        ("a red circle spins", "looks like one that stands still"),
        ("a red circle and a red star", "two colours"),
        ("a red circle, a blue star and a green ring", "one or two"),
        ("a large red circle and a blue star", "always small"),
    ],
)
def test_prompts_that_cannot_be_read(prompt, said):
    with pytest.raises(ValueError, match=f"(?s){said}"):
        parse(prompt)


def test_one_in_seven_is_held_out_and_every_pair_of_words_is_trained():
    for preset in PRESETS:
        scenes = list(all_single_scenes(preset))
        assert 0.12 < sum(map(is_held_out, scenes)) / len(scenes) < 0.17
        kept = [s.things[0] for s in scenes if not is_held_out(s)]
        words = PRESETS[preset]
        assert {(t.colour, t.shape) for t in kept} == set(itertools.product(words["colours"], words["shapes"]))
        assert {(t.colour, t.motion) for t in kept} == set(itertools.product(words["colours"], words["motions"]))
    pairs = sample_scenes(1000, generator=torch.Generator().manual_seed(0), objects=2)
    swapped = [is_held_out(Scene(p.things[::-1])) for p in pairs]
    assert any(swapped)  # the order of a pair counts
    things = [Thing(c, s, m, "small", "slow") for c, s, m in itertools.product(COLOURS, SHAPES[:7], MOTIONS[:4])][::5]
    shares = [is_held_out(Scene((a, b))) for a in things for b in things if a.colour != b.colour]
    assert 0.12 < sum(shares) / len(shares) < 0.17


@pytest.mark.parametrize("preset", PRESETS)
def test_the_training_stream_never_shows_what_is_held_out(preset, generator):
    for drawn in sample_scenes(4000, generator=generator, preset=preset):
        assert not is_held_out(drawn) and all(not is_held_out(Scene((t,))) for t in drawn.things)
    assert all(map(is_held_out, sample_scenes(500, generator=generator, preset=preset, held_out=True)))


def test_the_stills_that_training_shows_are_not_held_out(generator):
    from sora_course.buckets import Bucket, draw_part, parts_of

    bucket = Bucket(1, 64, 64, 500, 1, 1.0)
    drawn = [s for number in parts_of(bucket) for s in draw_part(number, bucket, preset="starter", richness=1.0)[0]]
    assert len(drawn) == 500 and all(may_train(s) and s.things[0].motion == "still" for s in drawn)


def test_richness_leads_from_the_starter_to_the_whole_world(generator):
    def departures(richness):
        drawn = sample_scenes(600, generator=generator, richness=richness)
        assert all(may_train(s) for s in drawn)
        words = PRESETS["starter"]
        things = [s.things[0] for s in drawn]
        return [
            sum(len(s.things) == 2 for s in drawn) / 600,
            sum(t.motion not in words["motions"] for t in things) / 600,
            sum(s.background == "night" for s in drawn) / 600,
            sum(s.camera != "still" for s in drawn) / 600,
            sum(t.size == "small" for t in things) / 600,
        ]

    assert departures(0) == [0] * 5
    assert {s.things[0].shape for s in sample_scenes(300, generator=generator, richness=0)} == set(SHAPES)
    for low, middle, high in zip(departures(0.2), departures(0.6), departures(1)):
        assert 0 < low < middle < high
    whole, default = (sample_scenes(50, generator=torch.Generator().manual_seed(1), **kw) for kw in ({"richness": 1}, {}))
    assert whole == default
    for bad in ({"richness": 1.5}, {"richness": -0.1}, {"richness": 0, "objects": 2}):
        with pytest.raises(ValueError, match="richness"):
            sample_scenes(1, generator=generator, **bad)


def test_films_repeat_with_the_seed_and_differ_without():
    scenes = sample_scenes(6, generator=torch.Generator().manual_seed(3))
    films = [world.render(scenes, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(films[0], films[1]) and not torch.equal(films[0], films[2])
    assert films[0].shape == (6, 3, 17, 64, 64) and films[0].abs().max() <= 1


@pytest.mark.parametrize("frames, size", [(1, (64, 64)), (9, (32, 80)), (33, (96, 48))])
def test_films_of_any_size_keep_the_object_in_the_frame(frames, size, generator):
    scenes = [scene("red", s, m) for s in ("circle", "star") for m in ("left", "up", "clockwise")]
    films = world.render(scenes, generator=generator, num_frames=frames, size=size)
    assert films.shape == (6, 3, frames, *size)
    red = (films[:, 0] - films[:, 1]).clamp(min=0).sum((2, 3))  # (b, t): the amount of red
    assert (red > 0.9 * red[:, :1]).all()


def test_edges_are_anti_aliased(generator):
    film = world.render([scene("red", "circle")], generator=generator, num_frames=1)[0, 1, 0]
    edge = ((film > film.min() + 0.2) & (film < film.max() - 0.5)).sum()
    assert 20 < edge < 120  # about one pixel's width along a rim of 64 pixels


def test_ink_spreads_as_the_square_root_of_time():
    time = torch.tensor([0.25, 1.0])
    assert torch.allclose(world.path_of("ink", "slow", time)["spread"][1], 2 * world.path_of("ink", "slow", time)["spread"][0])


@pytest.mark.parametrize("bad", [dict(num_frames=0), dict(size=(8, 64))])
def test_films_that_cannot_be_made(bad, generator):
    with pytest.raises(ValueError, match="Cannot film"):
        world.render([scene("red", "circle")], generator=generator, **bad)


def test_films_painted_together_are_those_painted_alone(generator):
    scenes = sample_scenes(20, generator=generator)
    staging = world.stage(scenes, generator=generator, num_frames=5, size=(32, 48))
    together = world.paint(staging)
    assert {1, 2} == {len(scene.things) for scene in scenes}
    for i in range(20):
        mine = staging.film == i
        things = {name: getattr(staging, name)[mine] for name in ("colour", "texture", "tracks")}
        alone = world.Staging(staging.behind[i : i + 1], 0 * staging.film[mine], size=staging.size, **things)
        assert torch.allclose(world.paint(alone)[0], together[i], atol=1e-6)
