"""The report: a perfect model scores as the ceiling does, with one object and two, in other sizes and lengths."""

from dataclasses import replace

import pytest
import torch

from sora_course.kit import evaluation, world


def perfect(num_frames, size):
    generator = torch.Generator().manual_seed(3)

    def generate(prompts, seeds):
        return world.render([world.parse(p) for p in prompts], generator=generator, num_frames=num_frames, size=size)

    return generate


@pytest.mark.parametrize("objects, num_frames, size", [(1, 17, (64, 64)), (2, 17, (64, 96)), (1, 9, (96, 64))])
def test_a_model_that_films_what_it_is_told(objects, num_frames, size):
    result = evaluation.evaluate(
        perfect(num_frames, size),
        lambda films: films,
        prompts=40,
        preset="full",
        objects=objects,
        num_frames=num_frames,
        size=size,
    )
    assert min(result["rows"][row]["all"]["share"] for row in ("model", "ceiling")) >= 0.95
    assert max(result["rows"][row]["all"]["share"] for row in ("baseline", "chance")) <= 0.1
    assert result["digits"]["shape"]["share"] >= 0.9 and 10 <= result["digits"]["prompts"] <= 40
    said = evaluation.as_table(result)
    assert f"{num_frames} frames of {size[1]}x{size[0]}" in said and "model, digits" in said and said.count("model, chinese") == 1


def test_films_that_are_drawn_again_have_a_row_of_their_own():
    """The model paints everything red; the second look paints what it is told."""
    paint = perfect(17, (64, 64))

    def generate(prompts, seeds):
        return paint(["a red circle moves right" for _ in prompts], seeds)

    def again(films, prompts, seeds):
        return paint(prompts, seeds), 3 * len(films)

    result = evaluation.evaluate(generate, lambda films: films, prompts=20, preset="starter", batch=8, again=again)
    assert result["rows"]["model"]["all"]["share"] <= 0.2 and result["rows"]["checked"]["all"]["share"] >= 0.95
    assert result["checked"]["english"]["all"]["share"] >= 0.9 > result["english"]["all"]["share"] and len(result["failures"]) >= 16
    said = evaluation.as_table(result)
    assert "checked, chinese" in said and f"{result['checked']['films']:.2f} were drawn on average" in said
    assert result["checked"]["films"] == 3
    alone = evaluation.evaluate(generate, lambda films: films, prompts=4, preset="starter")
    assert "checked" not in alone["rows"] and "checked" not in evaluation.as_table(alone)


def test_no_film_is_judged_by_its_own_prompt_as_chance():
    sizes = []

    def generate(prompts, seeds):
        sizes.append(len(prompts))
        return perfect(17, (64, 64))(prompts, seeds)

    result = evaluation.evaluate(generate, lambda films: films, prompts=5, preset="starter", batch=2)
    assert min(sizes) > 1 and sum(sizes) == 5 and result["prompts"] == 5


def test_failures_are_named_and_calls_counted():
    """A model that paints every film red, and needs four calls for the shape."""
    paint = perfect(17, (64, 64))

    def generate(prompts, seeds, calls=4):
        scenes = [world.parse(p) for p in prompts]
        things = [replace(s.things[0], colour="red", shape=s.things[0].shape if calls >= 4 else "ring") for s in scenes]
        scenes = [replace(s, things=(thing,)) for s, thing in zip(scenes, things)]
        return paint([world.caption(s) for s in scenes], seeds)

    result = evaluation.evaluate(generate, lambda films: films, prompts=30, preset="starter", seed=5)
    _, texts = evaluation.held_out_prompts(30, preset="starter", seed=5)
    failures = result["failures"]
    assert len(failures) == min(24, round(30 * (1 - result["rows"]["model"]["all"]["share"])))
    assert all(texts[f["seed"] - 5] == f["prompt"] and "colour" in f["wrong"] for f in failures)
    colours = result["words"]["colour"]
    assert sum(row["prompts"] for row in colours.values()) == 30 and set(result["words"]["camera"]) == {"still"}
    assert {word for word, row in colours.items() if row["share"] > 0} == {"red"} and colours["red"]["share"] == 1
    rows = evaluation.by_calls(generate, prompts=30, preset="starter", calls=(2, 8), seed=5)
    assert [row["calls"] for row in rows] == [2, 8] and rows[0]["share"] <= rows[1]["share"] < 0.4


def test_the_ends_of_the_interval():
    assert evaluation.interval(0, 10)[0] == 0 and evaluation.interval(10, 10)[1] == pytest.approx(1)
    low, high = evaluation.interval(964, 1000)
    assert (low, high) == (pytest.approx(0.9506, abs=1e-3), pytest.approx(0.9738, abs=1e-3))
