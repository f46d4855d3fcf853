"""The prompt box, without a browser: menus write sentences, the button films them, and what cannot be filmed is said."""

import inspect
from types import SimpleNamespace

import pytest
import torch

from sora_course.kit import widgets
from sora_course.kit.captions import parse
from sora_course.kit.scenes import scene
from sora_course.sora import TextToVideo
from sora_course.text import Tokenizer


def box_of(preset, **config):
    """A box over a model that only remembers what it was asked, and its controls by name."""
    asked = []

    def generate(text, **settings):
        asked.append((text, settings))
        return torch.zeros(1, 3, 1, 16, 16)

    tokenizer = Tokenizer.from_texts(["a green curtain closes"])
    model = SimpleNamespace(config={"preset": preset, **config}, tokenizer=tokenizer, generate=generate)
    controls, todo = {}, [widgets.prompt_box(model)]
    while todo:
        one = todo.pop()
        todo += getattr(one, "children", ())
        controls[getattr(one, "description", "") or type(one).__name__] = one
    return controls, asked


def default(name):
    return inspect.signature(TextToVideo.generate).parameters[name].default


def test_menus_write_the_prompt_and_the_button_films_it():
    controls, asked = box_of("full")
    controls["shape"].value, controls["motion"].value, controls["camera"].value = "7", "spinning", "zoom in"
    controls["speed"].value, controls["seed"].value = "slow", 5
    meant = parse(controls["prompt"].value)
    assert meant == scene("red", "7", "spinning", speed="slow", camera="zoom in")
    controls["Make the film"].click()
    text, settings = asked[0]
    assert text == controls["prompt"].value and settings == {"seed": 5, "steps": default("steps"), "guidance_scale": default("guidance_scale")}
    controls["shape"].value = "ring"
    assert "spins looks like" in controls["HTML"].value and parse(controls["prompt"].value) == meant


@pytest.mark.parametrize("preset, prompt", [("starter", "a red dragon moves"), ("own", "a green dragon closes")])
def test_an_unknown_word_is_not_filmed(preset, prompt):
    controls, asked = box_of(preset, example="a green curtain closes")
    assert ("size" in controls) is False and (preset == "starter") == ("colour" in controls)
    controls["prompt"].value = prompt
    controls["Make the film"].click()
    assert not asked and not controls["Make the film"].disabled
    controls["prompt"].value = "a green curtain closes" if preset == "own" else "a red circle moves up"
    controls["Make the film"].click()
    assert len(asked) == 1
