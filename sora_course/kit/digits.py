"""scikit-learn's handwritten digits as data to learn from, and measures of how well a model has learned to write them.

1,797 pictures of 8x8 (UCI Optical Recognition of Handwritten Digits, Alpaydin & Kaynak 1998), which come with scikit-learn.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F

HELD_OUT = 500


@lru_cache(maxsize=2)
def _load(size: int) -> tuple[torch.Tensor, ...]:
    from sklearn.datasets import load_digits as load

    data = load()
    pictures = torch.from_numpy(data.images).float()[:, None] / 8 - 1
    if size > 8:
        pictures = F.interpolate(pictures, size=(size, size), mode="bicubic").clamp(-1, 1)
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(0))
    pictures, labels = pictures[order], torch.from_numpy(data.target)[order].long()
    return pictures[HELD_OUT:], labels[HELD_OUT:], pictures[:HELD_OUT], labels[:HELD_OUT]


def load_digits(size: int = 8) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pictures (n, 1, size, size) in [-1, 1] and labels (n,) to learn from, and 500 held-out ones of both.

    Raises:
        ValueError: size is not 8, or a larger multiple of it, to which the pictures are enlarged smoothly.
    """
    if size < 8 or size % 8:
        raise ValueError(f"Digits come as 8x8 and can be enlarged to multiples of it, and {size} is not one.")
    return tuple(tensor.clone() for tensor in _load(size))


class Reader:
    """A classifier of pictures fitted on real ones: a support vector machine, as in scikit-learn's own example of digits.

    Args:
        pictures, labels: to fit on, (n, c, h, w) and (n,).
    """

    def __init__(self, pictures: torch.Tensor, labels: torch.Tensor):
        from sklearn.svm import SVC

        self.machine = SVC(gamma="scale", C=10.0).fit(pictures.flatten(1).numpy(), labels.numpy())

    def read(self, pictures: torch.Tensor) -> torch.Tensor:
        """The label of each picture: (n,)."""
        return torch.from_numpy(self.machine.predict(pictures.float().flatten(1).numpy()))

    def accuracy(self, pictures: torch.Tensor, labels: torch.Tensor) -> float:
        """The share of pictures that read as their labels."""
        return (self.read(pictures) == labels).float().mean().item()


class Frechet:
    """Frechet distance of sets of pictures: of their means and covariances, in the leading principal components of real ones.

    Like FID (Heusel et al. 2017, section 2) with principal components in place of Inception's features, which were learned
    on photographs. Smaller sets have larger distances, so compare sets of one size.
    """

    def __init__(self, pictures: torch.Tensor, components: int = 20):
        from sklearn.decomposition import PCA

        self.pca = PCA(components, random_state=0).fit(pictures.flatten(1).numpy())

    def distance(self, a: torch.Tensor, b: torch.Tensor) -> float:
        """|mean_a - mean_b|^2 + trace(C_a + C_b - 2 (C_a C_b)^(1/2)) of two sets of pictures (n, c, h, w)."""
        a, b = (torch.from_numpy(self.pca.transform(x.float().flatten(1).numpy())).double() for x in (a, b))
        means, covariances = (a.mean(0), b.mean(0)), (a.T.cov(), b.T.cov())
        roots = torch.linalg.eigvals(covariances[0] @ covariances[1]).real.clamp(min=0).sqrt()
        traces = covariances[0].trace() + covariances[1].trace() - 2 * roots.sum()
        return float((means[0] - means[1]).pow(2).sum() + traces)


def nearest(pictures: torch.Tensor, known: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For each picture the Euclidean distance to the nearest of the known ones, and which that is: (n,), (n,)."""
    return torch.cdist(pictures.float().flatten(1), known.flatten(1)).min(1)


def nearer_to_known(pictures: torch.Tensor, known: torch.Tensor, fresh: torch.Tensor) -> float:
    """The share of pictures whose nearest neighbour is a known one and not a fresh one.

    Without copying it is about len(known) / (len(known) + len(fresh)); copies of known pictures score 1.
    """
    return (nearest(pictures, known)[0] < nearest(pictures, fresh)[0]).float().mean().item()
