"""What notebooks draw with."""

from unittest.mock import MagicMock

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from sora_course.kit import maps, plots, widgets


def test_tiles_lie_in_rows():
    pictures = torch.stack([torch.full((1, 2, 2), v) for v in (-1.0, 0.0, 1.0)])
    tiled = plots.tile(pictures, 2)
    assert tiled.shape == (8, 8)  # two rows of two, each picture with a frame of one pixel
    assert (
        (tiled[1:3, 1:3] == 0).all()
        and (tiled[1:3, 5:7] == 0.5).all()
        and (tiled[5:7, 1:3] == 1).all()
        and (tiled[4:, 4:] == 1).all()
    )
    assert plots.tile(torch.zeros(4, 3, 2, 2), 4).shape == (4, 16, 3)


def test_ink_is_red_where_the_particles_are():
    picture = plots.ink_picture(torch.full((100, 2), 1.5), size=60)  # x and y point right and up
    darkest = np.unravel_index(picture.sum(0).argmin().item(), (60, 60))
    assert darkest[0] in range(12, 18) and darkest[1] in range(42, 48)
    assert torch.allclose(picture[:, 50, 5], torch.tensor(plots.PAPER)) and plots.ink_film(
        [torch.zeros(5, 2)] * 3
    ).shape == (3, 3, 96, 96)
    for outside in (9.0, -3.01):
        empty = plots.ink_picture(torch.full((5, 2), outside))
        assert torch.allclose(empty, torch.tensor(plots.PAPER).view(3, 1, 1).expand_as(empty))


def test_controls_redraw_when_they_change():
    drawn = []

    def draw(steps, shape):
        drawn.append((steps, shape))
        plt.figure()

    box = widgets.explore(draw, steps=(1, 10, 1, 4), shape=["ring", "drop"])
    before = plt.get_fignums()
    slider, menu = box.children[0].children
    slider.value, menu.value = 7, "drop"
    assert drawn == [(4, "ring"), (7, "ring"), (7, "drop")] and plt.get_fignums() == before  # it leaves none of its own open


def test_the_u_shows_every_shape():
    figure = maps.draw_u(down=[(32, 16, 16), (64, 8, 8)], middle=(64, 8, 8), up=[(32, 16, 16), (64, 8, 8)])
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert texts.count("32×16×16") == 2 and texts.count("64×8×8") == 2 and "64×8×8 middle" in texts
    plt.close(figure)


def test_bricks_are_as_many_as_tokens_and_the_unusual_one_is_seen():
    film = torch.ones(3, 4, 12, 24)
    film[:, 2:, 8:, 16:] = torch.tensor([-1.0, 1.0, 1.0]).view(3, 1, 1, 1)  # last in time, lowest row, last column: cyan
    axis = MagicMock()
    plots.bricks(axis, film, (2, 4, 8), frames=[1, 5])
    (x, y, z, filled), colours = axis.voxels.call_args.args, axis.voxels.call_args.kwargs["facecolors"]
    assert filled.sum() == 2 * 3 * 3
    assert np.argwhere(colours[..., 3] > 0.9).tolist() == [[2, 4, 0]]  # rows count upwards
    assert colours[2, 4, 0].tolist() == [0, 1, 1, 1] and 0 < colours[0, 0, 0, 3] < 0.1
    assert np.allclose([x[2, 4, 0], x[3, 4, 0]], [5, 5 + 0.86 * 2]) and np.allclose([y[2, 4, 0], y[2, 5, 0]], [16, 16 + 0.86 * 8])
    assert np.allclose([z[2, 4, 0], z[2, 4, 1], z[2, 4, 2]], [0, 0.86 * 4, 4])
    for size, frames, said in (((2, 8, 8), None, "multiples of"), ((2, 4, 8), [0], "2 layers of bricks")):
        with pytest.raises(ValueError, match=said):
            plots.bricks(axis, film, size, frames=frames)


def test_the_map_of_a_block_names_what_is_in_it():
    words = [text.get_text() for text in maps.draw_dit_block().axes[0].texts]
    assert [words.count(word) for word in ("norm", "scale, shift", "gate", "attention", "MLP", "+")] == [2, 2, 2, 1, 1, 2]
    plt.close("all")
