"""Chapter 05: NaViT, films of many sizes in one sequence.

Dehghani et al. 2023, Patch n' Pack: NaViT, a Vision Transformer for any Aspect Ratio and Resolution; here over bricks of
space and time. Several films lie behind each other in one row of tokens, and a mask keeps them apart. (Blocks are ViT's and
pooling is a mean; the paper's network normalises queries and keys, has no biases, and pools by attention.)

    pieces = [cut(film, (2, 8, 8)) for film in films]             # each film as tokens and their places
    rows = pack([len(piece.patches) for piece in pieces], 256)    # which films share a row of 256
    scores = net(collate(pieces, rows))                           # (films, classes)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn as nn

from .vit import Block, divides
from .vivit import tubelets


@dataclass(frozen=True)
class NaViTConfig:
    """Sizes of the network; max_grid is the most bricks along time, height and width that it has positions for."""

    max_grid: tuple[int, int, int] = (8, 8, 8)
    tubelet_size: tuple[int, int, int] = (2, 8, 8)
    in_channels: int = 3
    hidden_size: int = 64
    depth: int = 4
    num_heads: int = 4
    mlp_ratio: float = 4.0
    num_classes: int = 10


# Packing -------------------------------------------------------------------------------------------------------------
class Piece(NamedTuple):
    """One film as tokens: its bricks (n, c, p, q, r), and of each the place along time, height and width, (n, 3)."""

    patches: torch.Tensor
    places: torch.Tensor


@dataclass
class Packed:
    """Many films in rows of equal length: bricks (rows, n, c, p, q, r), their places (rows, n, 3), and whose they are."""

    patches: torch.Tensor
    places: torch.Tensor
    film: torch.Tensor  # (rows, n), which film a token belongs to, -1 for padding
    count: int  # of films

    @property
    def fill(self) -> float:
        """The share of tokens that are not padding."""
        return float((self.film >= 0).float().mean())

    def mask(self) -> torch.Tensor | None:
        """Who may attend to whom, (rows, 1, n, n): tokens of one film to each other, and padding to padding, which nobody reads.

        None where each row is just one film.
        """
        if bool((self.film == self.film[:, :1]).all()):
            return None
        return self.film[:, None, :, None] == self.film[:, None, None, :]


def cut(film: torch.Tensor, size: tuple[int, int, int]) -> Piece:
    """One film (c, t, h, w) of any length, height and width as bricks and their places.

    Raises:
        ValueError: it is no film, or a side is not a multiple of the brick's.
    """
    if film.ndim != 4:
        raise ValueError(f"One film (c, t, h, w) is cut at a time, and this is {tuple(film.shape)}.")
    patches = tubelets(film[None], size)[0].unflatten(1, (len(film), *size))
    grid = (torch.arange(side // part, device=film.device) for side, part in zip(film.shape[1:], size))
    return Piece(patches, torch.cartesian_prod(*grid))


def drop(piece: Piece, keep: float, generator: torch.Generator) -> Piece:
    """A random share of a film's tokens, at least one, in their order (section 2.2): cheaper steps, and harder to learn by rote.

    Raises:
        ValueError: the share is not in (0, 1].
    """
    if not 0 < keep <= 1:
        raise ValueError(f"The share of tokens to keep lies between 0 and 1, and this is {keep}.")
    count = len(piece.patches)
    kept = torch.randperm(count, generator=generator)[: max(1, round(keep * count))].sort().values.to(piece.places.device)
    return Piece(piece.patches[kept], piece.places[kept])


def pack(lengths: list[int], budget: int) -> list[list[int]]:
    """Which films share a row: the longest first, each into the first row with room for it.

    Args:
        lengths: how many tokens each film has.
        budget: how many tokens a row may hold.

    Returns:
        Rows of indices into lengths.

    Raises:
        ValueError: there is no film, or one has no tokens, or more than the budget.
    """
    if not lengths or min(lengths) < 1:
        raise ValueError(f"Packing needs films of at least one token each, and the lengths are {list(lengths)}.")
    if max(lengths) > budget:
        raise ValueError(
            f"A film of {max(lengths)} tokens does not fit into rows of {budget}; raise the budget, drop tokens, or shorten it."
        )
    rows, room = [], []
    for film in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        row = next((row for row, left in enumerate(room) if left >= lengths[film]), None)
        if row is None:
            row = len(rows)
            rows.append([])
            room.append(budget)
        rows[row].append(film)
        room[row] -= lengths[film]
    return rows


def collate(pieces: list[Piece], rows: list[list[int]]) -> Packed:
    """Films as tensors, row by row as `pack` says; one film a row, [[0], [1], ...], is plain padding.

    Raises:
        ValueError: there is no film, one is empty, the films have different bricks, or the rows do not name each of them once.
    """
    if not pieces or sorted(film for row in rows for film in row) != list(range(len(pieces))):
        raise ValueError(f"Each of {len(pieces)} films, at least one, must lie in one row; the rows are {rows}.")
    if any(not len(piece.patches) for piece in pieces):
        raise ValueError("A film of no tokens cannot be packed; leave it out.")
    kinds = {(tuple(piece.patches.shape[1:]), piece.patches.dtype) for piece in pieces}
    if len(kinds) > 1:
        said = " and ".join(f"{size} of {dtype}" for size, dtype in sorted(kinds, key=str))
        raise ValueError(f"Films in one batch need bricks (c, p, q, r) of equal size and kind, and these have {said}.")
    n = max(sum(len(pieces[film].patches) for film in row) for row in rows)
    first = pieces[0]
    packed = Packed(
        first.patches.new_zeros(len(rows), n, *first.patches.shape[1:]),
        first.places.new_zeros(len(rows), n, 3),
        first.places.new_full((len(rows), n), -1),
        len(pieces),
    )
    for index, row in enumerate(rows):
        start = 0
        for film in row:
            end = start + len(pieces[film].patches)
            packed.patches[index, start:end] = pieces[film].patches
            packed.places[index, start:end] = pieces[film].places
            packed.film[index, start:end] = film
            start = end
    return packed


# The transformer -----------------------------------------------------------------------------------------------------
class NaViT(nn.Module):
    """From packed films to class scores, (films, num_classes), in the order in which the films were given.

    Positions are factorised (section 2.1): a vector for each step in time, each row and each column, added up, so that
    a film of a new shape consists of known places.

    Raises:
        ValueError: the channels are not a multiple of the heads, or a size does not have three whole numbers.
    """

    def __init__(self, config: NaViTConfig = NaViTConfig()):
        super().__init__()
        if not divides((config.num_heads,), (config.hidden_size,)):
            raise ValueError(f"{config.hidden_size} channels must be a multiple of the {config.num_heads} heads.")
        if not divides((1, 1, 1), config.max_grid) or not divides((1, 1, 1), config.tubelet_size):
            raise ValueError(
                f"max_grid and tubelet_size are three whole numbers each, not {config.max_grid} and {config.tubelet_size}."
            )
        self.config = config
        p, q, r = config.tubelet_size
        d = config.hidden_size
        self.embed = nn.Linear(config.in_channels * p * q * r, d)
        self.positions = nn.ParameterList(nn.Parameter(0.02 * torch.randn(side, d)) for side in config.max_grid)
        self.blocks = nn.ModuleList(Block(d, config.num_heads, config.mlp_ratio) for _ in range(config.depth))
        self.norm = nn.LayerNorm(d, eps=1e-6)
        self.head = nn.Linear(d, config.num_classes)

    def forward(self, packed: Packed) -> torch.Tensor:
        """Raises ValueError where bricks have another size or are no real numbers, or a place lies outside max_grid."""
        if not packed.patches.is_floating_point():
            raise ValueError(f"Films are in real numbers, and these are of {packed.patches.dtype}.")
        size = (self.config.in_channels, *self.config.tubelet_size)
        if packed.patches.shape[2:] != size:
            raise ValueError(f"Bricks (c, p, q, r) of {size} are needed, and these are {tuple(packed.patches.shape[2:])}.")
        needed = [int(places.max()) + 1 for places in packed.places.unbind(-1)]
        if any(side > most for side, most in zip(needed, self.config.max_grid)):
            raise ValueError(f"There are positions for grids up to {self.config.max_grid}, and a film here needs {needed}.")
        tokens = self.embed(packed.patches.flatten(2))  # (rows, n, d)
        for table, places in zip(self.positions, packed.places.unbind(-1)):
            tokens = tokens + table[places]
        mask = packed.mask()
        for block in self.blocks:
            tokens = block(tokens, mask)
        tokens = self.norm(tokens)
        real = packed.film >= 0
        owner = packed.film[real]  # (m,)
        total = tokens.new_zeros(packed.count, tokens.shape[-1]).index_add(0, owner, tokens[real])
        return self.head(total / torch.bincount(owner, minlength=packed.count)[:, None])
