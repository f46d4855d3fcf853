"""The film reader: its answers, what it learns from, and films that are drawn again."""

import json

import pytest
import torch

from sora_course.film_reader import (
    CLOSE_UP, END, FRAMES, KEPT, OF_A_THING, SHAPE, SPEED, FilmReader, answers_of, can_read, close_ups, draw_again, log_likelihood,
    seed_of_try, some_frames,
)  # fmt: skip
from sora_course.kit import measure, world
from sora_course.kit.judge import judge
from sora_course.kit.shapes import textures
from sora_course.kit.training import TrainConfig
from sora_course.reading_lessons import FILMED, films_to_read, seen_alike, spoil, train_reader, twins

STAR, HEART = world.scene("red", "star", "left"), world.scene("blue", "heart", "still")


@pytest.fixture
def reader():
    torch.manual_seed(0)
    return FilmReader(width=8, hidden_size=16, num_heads=2, close_size=8)


@pytest.fixture(scope="module")
def shipped():
    return FilmReader.from_pretrained()


def test_answers_are_the_words_of_each_colour():
    of_things = answers_of(STAR)[:-2].view(8, 6)
    red = of_things[list(world.COLOURS).index("red")]
    assert [known[i] for known, i in zip(OF_A_THING.values(), red.tolist())] == ["star", "left", "large", "fast", True, "star"]
    assert (of_things[:, [SHAPE, END]] == len(world.SHAPES)).all(1).sum() == 7 and (of_things[:, 1:5] == -1).all(1).sum() == 7
    assert answers_of(HEART)[:-2].view(8, 6)[list(world.COLOURS).index("blue"), SPEED] == -1  # what stands still has no speed
    assert answers_of(world.scene("red", "ring", "ink"))[:-2].view(8, 6)[list(world.COLOURS).index("red"), END] == -1


@pytest.mark.parametrize("frames, size", [(17, (64, 64)), (9, (64, 96)), (25, (96, 64))])
def test_one_answer_a_question_for_films_of_any_size(reader, frames, size, generator):
    films = torch.rand(2, 3, frames, *size, generator=generator)
    logits, where = reader(films)
    assert [one.shape for one in logits] == [(2, n) for n in (*[18, 16, 2, 2, 2, 18] * 8, 2, 5)] and where.shape == (2, FRAMES, 8, 3)
    alone, _ = reader(films[1:])
    assert all(torch.allclose(a[1:], b, atol=1e-4) for a, b in zip(logits, alone))
    assert 0 <= float(reader.belief(films, [STAR, HEART]).min()) <= float(reader.belief(films, [STAR, HEART]).max()) <= 1


def test_belief_is_the_product_of_all_answers(reader, generator):
    films = torch.rand(1, 3, 17, 64, 64, generator=generator)
    answers = answers_of(STAR)[None]
    by_hand = 1.0
    with torch.no_grad():
        for one, a in zip(reader(films)[0], answers[0].tolist()):
            by_hand *= float(one.softmax(-1)[0, a]) if a >= 0 else 1.0
        assert float(log_likelihood(reader(films)[0], answers).sum().exp()) == pytest.approx(by_hand, rel=1e-3)


@pytest.mark.parametrize("frames, asked", [(9, False), (17, True), (25, False)])
def test_speed_is_asked_about_in_films_of_the_usual_length(reader, frames, asked, generator):
    films, slow = torch.rand(1, 3, frames, 64, 64, generator=generator), world.scene("red", "star", "left", speed="slow")
    assert (reader.belief(films, [STAR]) != reader.belief(films, [slow])).all() == asked


@pytest.mark.parametrize("shape", [(17, 64, 64), (25, 64, 96)])
def test_it_learns_from_films_of_the_training_side(shape):
    """What is asked about them is true of the scenes, but for things whose outlines were spoilt."""
    scenes, draw = [], world.sample_scenes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "sample_scenes", lambda *a, **k: scenes.extend(draw(*a, **k)) or scenes[-a[0] :])
        films, answers, _ = films_to_read(40, generator=torch.Generator().manual_seed(1), shape=shape)
    assert films.shape == (40, 3, FRAMES, *shape[1:]) and all(map(world.may_train, scenes)) and len(scenes) == 40
    true = torch.stack([answers_of(scene) for scene in scenes])
    of_things, wanted = (a[:, :-2].view(40, 8, 6) for a in (answers, true))
    there = wanted[..., 1] >= 0
    assert there.sum() == 40 + 16 and torch.equal(of_things[..., 1:4], wanted[..., 1:4]) and torch.equal(answers[:, -2:], true[:, -2:])
    for question, most in ((SHAPE, 20), (END, 30)):
        shapes = of_things[..., question][there]
        spoilt = shapes != wanted[..., question][there]
        assert 2 <= spoilt.sum() <= most and set(shapes[spoilt].tolist()) <= {-1, len(world.SHAPES)}
    assert 2 <= (of_things[..., KEPT] == 0).sum() <= 25


def test_where_things_are_in_films_of_what_becomes_small(monkeypatch):
    monkeypatch.setattr("sora_course.reading_lessons.spoil", lambda outlines, generator: outlines)
    films, answers, where = films_to_read(40, generator=torch.Generator().manual_seed(3), shape=(25, 64, 64), small=0.6)
    small = answers[:24, :-2].view(24, 8, 6)[..., list(OF_A_THING).index("size")] == list(world.SIZES).index("small")
    becomes = where[:24, -1, :, 2] < where[:24, 0, :, 2]
    assert (small | becomes).any(1).all() and becomes.any(1).sum() >= 5
    for film, places in zip(films[:24], where[:24]):
        (colour, coverage), = measure.coverages(film, measure.read_background(film)).items()
        x, y, radius = places[:, list(world.COLOURS).index(colour)].T
        _, seen_x, seen_y = measure.moments((coverage > 0.4).float())  # what is less may be noise
        inside = torch.maximum(x.abs(), y.abs()) + radius.exp() < 0.9
        assert (torch.hypot(seen_x - x, seen_y - y) < 0.5 * radius.exp())[inside].all()
        assert places.isnan().all(-1).sum() >= 7 * FRAMES


def test_films_may_go_through_an_autoencoder():
    class Paler(torch.nn.Module):
        def encode(self, films):
            assert films.shape[2:] == (9, 64, 64)  # all frames, not only those that are looked at
            return films.half()

        def decode(self, latents):
            return latents / 2

    plain, pale = (films_to_read(6, generator=torch.Generator().manual_seed(1), shape=(9, 64, 64), vae=vae) for vae in (None, Paler()))
    assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(plain[1:], pale[1:]))
    assert (plain[0] / 2 - pale[0]).abs().max() < 0.06 * 5 / 2 and (plain[0] - pale[0]).abs().max() > 0.3


def test_a_close_up_is_centred_and_of_one_size():
    tracks = torch.tensor([[-0.4, 0.3, 0.5, 0.0, 0.0], [0.5, -0.5, 0.12, 0.0, 0.0]])
    x, y, pixel = world.pixel_centres(64, 96)
    discs = world.coverage_of(textures(torch.zeros(2, dtype=torch.long)), tracks[:, None], x, y, pixel)  # circles, (2, 1, h, w)
    where = torch.cat([tracks[:, :2], tracks[:, 2:3].log()], dim=1)[:, None]
    near = close_ups(discs.expand(-1, 3, -1, -1), where)
    assert near.shape == (2, 3, CLOSE_UP, CLOSE_UP)
    assert all((near - near.flip(side)).abs().mean() < 0.02 for side in (-1, -2))
    large, small = near[:, 0].mean((1, 2)).tolist()
    assert 0.1 < small < large < 3 * small  # in the frame it has 17 times the area; the margin is relatively wider where it is small


def test_films_without_spoilt_outlines_are_those_of_the_world(monkeypatch):
    monkeypatch.setattr("sora_course.reading_lessons.spoil", lambda outlines, generator: outlines)
    staged, stage = [], world.stage
    monkeypatch.setattr(world, "stage", lambda *a, **k: staged.append(stage(*a, **k)) or staged[-1])
    films, _, _ = films_to_read(8, generator=torch.Generator().manual_seed(1), shape=(25, 64, 64))
    assert (films - some_frames(world.paint(staged[0]))).abs().max() < 0.06 * 6  # the noise


def test_a_thing_that_is_there_twice_is_not_kept(monkeypatch):
    monkeypatch.setattr("sora_course.reading_lessons.spoil", lambda outlines, generator: outlines)
    films, answers, where = films_to_read(40, generator=torch.Generator().manual_seed(2), shape=(17, 96, 64), twice=0.6)
    kept = answers[:, :-2].view(40, 8, 6)[:24, :, KEPT].amax(1)  # of those with one thing
    assert where[:24].isnan().all(-1).all(-1).all(-1)[kept == 0].all()  # which of the two should be found?
    seen = [measure.coverages(film, measure.read_background(film)) for film in films[:24]]
    pieces = [measure.pieces(next(iter(one.values()))[0], measure.pixel_area(films)) for one in seen]
    assert set(kept.tolist()) == {0, 1} and pieces == [1 if one else 2 for one in kept.tolist()]


def test_where_no_thing_has_room_for_a_twin_there_is_none(monkeypatch):
    monkeypatch.setattr("torch.rand", lambda *shape, draw=torch.rand, **k: draw(*shape, **k).clamp(min=0.01))
    films = [films_to_read(4, generator=torch.Generator().manual_seed(1), twice=twice)[0] for twice in (0.001, 1.0)]
    assert textures(torch.zeros(0, dtype=torch.long)).shape == (0, 128, 128) and not torch.equal(*films)


def test_twins_keep_clear_of_all_that_is_there():
    scenes = world.sample_scenes(20, generator=torch.Generator().manual_seed(2), objects=2)
    staging = world.stage(scenes, generator=torch.Generator().manual_seed(3))
    added, doubled = twins(staging, scenes, share=1.0, generator=torch.Generator().manual_seed(4))
    assert 0 < len(added.film) == doubled.sum() < 40 and torch.equal(added.colour, staging.colour[doubled])
    for film, track in zip(added.film.tolist(), added.tracks):
        there = staging.film == film
        distance = (staging.tracks[there, :, :2] - track[:, :2]).norm(dim=-1)
        assert (distance > staging.tracks[there, :, 2] + track[:, 2]).all()


def test_spoilt_outlines_and_how_much_of_them_is_seen(generator):
    whole = textures(torch.arange(7).repeat(8))
    spoilt = spoil(whole, generator=generator)
    near, far = (torch.tensor([[0.0, 0.0, radius, 0.0, 0.0]]).expand(56, 5) for radius in (0.5, 0.08))
    left = seen_alike(whole, spoilt, near, (64, 64))
    assert torch.allclose(seen_alike(whole, whole, near, (64, 64)), torch.ones(56)) and (left < 0.7).sum() >= 8 and (left > 0.8).sum() >= 8
    assert seen_alike(whole[:1], whole[5:6], near[:1], (64, 64)) < 0.7  # a circle is no ring
    assert (seen_alike(whole, spoilt, far, (64, 64)) > left).float().mean() > 0.6  # far away one sees less of it


def test_training_lowers_the_loss_and_resumes(tmp_path):
    looks = []
    config = TrainConfig(steps=6, warmup=1, save_every=3)
    reader = train_reader(config, tmp_path, batch=8, every=lambda reader, step, seconds: looks.append((type(reader), step)))
    losses = [json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0] and looks == [(FilmReader, 3), (FilmReader, 6)]
    again = train_reader(config, tmp_path, batch=8, every=lambda reader, step, seconds: looks.append(step))
    assert looks[2:] == [6]  # all steps were done before; the last look is taken once more
    assert all(torch.equal(one, other) for one, other in zip(reader.parameters(), again.parameters()))


def test_saved_and_loaded(reader, tmp_path, tiny_checkpoint, generator):
    reader.save(tmp_path / "reader.safetensors")
    films = torch.rand(1, 3, 17, 64, 64, generator=generator)
    again = FilmReader.from_pretrained(str(tmp_path / "reader.safetensors"))
    assert torch.allclose(reader.belief(films, [STAR]), again.belief(films, [STAR]), rtol=0.05)
    with pytest.raises(ValueError, match="something else than a film reader"):
        FilmReader.from_pretrained(str(tiny_checkpoint))


class Believer:
    """Believes in a film as far as its brightness says."""

    def belief(self, films, scenes):
        assert len(films) == len(scenes)
        return films.mean((1, 2, 3, 4))


def test_only_doubtful_films_are_drawn_again_and_the_likeliest_is_kept():
    asked = []

    def generate(prompts, seeds):
        asked.append((prompts, seeds))
        return torch.stack([torch.full((3, 5, 16, 16), {1: 0.3, 2: 0.95, 3: 0.1}[len(asked)]) for _ in prompts])

    prompts = ["a red star moves left", "a blue heart", "a green ring moves up"]
    films = torch.tensor([0.92, 0.2, 0.4]).view(3, 1, 1, 1, 1).expand(-1, 3, 5, 16, 16)
    kept, drawn = draw_again(films, prompts, [1, 2, 3], generate, Believer(), tries=4)
    assert asked == [(prompts[1:], [seed_of_try(2, 1), seed_of_try(3, 1)]), (prompts[1:], [seed_of_try(2, 2), seed_of_try(3, 2)])]
    assert drawn == 3 + 2 + 2 and kept[:, 0, 0, 0, 0].tolist() == pytest.approx([0.92, 0.95, 0.95])
    asked.clear()
    kept, drawn = draw_again(films, prompts, [1, 2, 3], generate, Believer(), tries=2)
    assert drawn == 5 and kept[:, 0, 0, 0, 0].tolist() == pytest.approx([0.92, 0.3, 0.4])  # a worse film takes no one's place
    assert draw_again(films, prompts, [1, 2, 3], generate, Believer(), tries=1)[1] == 3


@pytest.mark.parametrize("wrong", [{"tries": 0}, {"tries": 2, "sure": 1.5}])
def test_tries_and_belief_in_range(wrong):
    with pytest.raises(ValueError, match="tried once or more"):
        draw_again(torch.zeros(1, 3, 5, 16, 16), ["a red star"], [0], None, Believer(), **wrong)


def test_films_it_cannot_read(reader):
    with pytest.raises(ValueError, match="takes 5 frames or more"):
        reader(torch.zeros(1, 3, 1, 64, 64))
    with pytest.raises(ValueError, match="2 films and 1 scenes"):
        reader.belief(torch.zeros(2, 3, 17, 64, 64), [STAR])
    assert all(can_read(frames, tuple(size)) for frames, *size in FILMED) and not can_read(1, (64, 64)) and not can_read(17, (64, 128))


def test_the_reader_that_ships_believes_in_true_films_of_held_out_scenes_and_not_in_those_of_others(shipped, generator):
    scenes = world.sample_scenes(60, generator=generator, held_out=True)
    films = world.render(scenes, generator=generator)
    assert all(verdict["all"] for verdict in judge(films, scenes))
    assert (shipped.belief(films, scenes) > 0.5).float().mean() >= 0.9
    others = world.sample_scenes(60, generator=generator, held_out=True)
    assert (shipped.belief(films, others) > 0.5).float().mean() <= 0.02
