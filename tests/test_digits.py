"""Measures of written digits, against cases whose answers are known."""

import pytest
import torch

from sora_course.kit import digits


def test_digits_and_their_reader():
    pictures, labels, held_out, held_out_labels = digits.load_digits(16)
    assert pictures.shape == (1297, 1, 16, 16) and held_out.shape == (500, 1, 16, 16)
    assert -1 <= pictures.min() and pictures.max() <= 1 and set(labels.tolist()) == set(range(10))
    assert digits.Reader(pictures, labels).accuracy(held_out, held_out_labels) > 0.97
    assert (torch.cdist(held_out.flatten(1), pictures.flatten(1)).min() > 0).all()  # nothing held out is also learned from
    with pytest.raises(ValueError, match="multiples of it"):
        digits.load_digits(12)


def test_frechet_distance():
    pictures, _, held_out, _ = digits.load_digits()
    frechet = digits.Frechet(pictures, components=5)
    assert frechet.distance(held_out, held_out) == pytest.approx(0, abs=1e-6)
    shifted = held_out + 2 * torch.from_numpy(frechet.pca.components_[0]).float().view(1, 1, 8, 8)  # the mean moves by 2
    assert frechet.distance(held_out, shifted) == pytest.approx(4, rel=1e-3)
    mean = held_out.mean(0)
    wider = mean + 1.5 * (held_out - mean)  # deviations grow by half
    variance = torch.from_numpy(frechet.pca.transform(held_out.flatten(1).numpy())).T.cov().trace().item()
    assert frechet.distance(held_out, wider) == pytest.approx(0.25 * variance, rel=1e-2)


def test_copies_are_found(generator):
    known, fresh, others = torch.randn(3, 400, 1, 4, 4, generator=generator)
    assert digits.nearer_to_known(known, known, fresh) == 1 and digits.nearer_to_known(fresh, known, fresh) == 0
    assert digits.nearer_to_known(others, known, fresh) == pytest.approx(0.5, abs=0.08)
    assert digits.nearer_to_known(others, known, fresh[:100]) == pytest.approx(0.8, abs=0.08)
