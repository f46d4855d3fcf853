"""Stills of the world as latents with labels."""

import pytest
import torch

from sora_course.kit import stills
from sora_course.sora import TextToVideo


@pytest.fixture(scope="module")
def vae():
    return TextToVideo.from_pretrained().vae


def test_one_seed_one_set_and_pictures_show_their_kinds(vae):
    (latents, kinds), (again, _) = (stills.labelled(vae, 96, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(latents, again) and latents.shape == (96, 16, 8, 8)
    pictures = stills.decoded(vae, latents)
    assert pictures.shape == (96, 3, 64, 64) and pictures.abs().max() <= 1
    assert stills.read_right(pictures, kinds)["all"] >= 0.97
    assert stills.read_right(pictures, (kinds + 1) % len(stills.KINDS))["all"] == 0


def test_kinds_are_each_colour_with_each_shape():
    assert len(stills.KINDS) == len(set(stills.KINDS)) == 48
