"""Chapter 05's second module: packing loses nothing, mixes nothing, and is undone by pooling."""

import copy

import pytest
import torch

from sora_course.navit import NaViT, NaViTConfig, Piece, collate, cut, drop, pack
from sora_course.vivit import ViViT, ViViTConfig

CONFIG = NaViTConfig(max_grid=(4, 5, 5), tubelet_size=(2, 4, 4), hidden_size=32, depth=2, num_classes=6)


def films(generator, count=7):
    sides = torch.stack([torch.randint(1, most + 1, (count,), generator=generator) for most in CONFIG.max_grid], 1)
    return [torch.randn(3, 2 * t, 4 * h, 4 * w, generator=generator) for t, h, w in sides.tolist()]


def net():
    torch.manual_seed(0)
    model = NaViT(CONFIG)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return model


@pytest.mark.parametrize("seed", range(6))
def test_packed_equals_one_by_one_and_so_do_gradients(seed):
    generator = torch.Generator().manual_seed(seed)
    pieces = [cut(film, CONFIG.tubelet_size) for film in films(generator)]
    lengths = [len(piece.patches) for piece in pieces]
    packed = collate(pieces, pack(lengths, max(lengths) + seed * 20))
    together, alone = net(), net()
    weight = torch.randn(len(pieces), 6, generator=generator)
    a = together(packed)
    b = torch.cat([alone(collate([piece], [[0]])) for piece in pieces])
    assert (a - b).abs().max() <= 1e-5 * b.abs().max()
    (a * weight).sum().backward()
    (b * weight).sum().backward()
    for p, q in zip(together.parameters(), alone.parameters()):
        assert (p.grad - q.grad).abs().max() <= 1e-5 * q.grad.abs().max()


def test_a_film_never_hears_of_its_neighbours(generator):
    pieces = [cut(film, CONFIG.tubelet_size) for film in films(generator)]
    packed = collate(pieces, pack([len(piece.patches) for piece in pieces], 200))
    packed.patches.requires_grad_()
    net()(packed)[3].sum().backward()
    felt = packed.patches.grad.flatten(2).abs().sum(-1) > 0
    assert torch.equal(felt, packed.film == 3)


def test_packing_by_hand():
    assert pack([3, 5, 2, 4], 7) == [[1, 2], [3, 0]]
    assert pack([4], 4) == [[0]]
    lengths = torch.randint(1, 50, (200,), generator=torch.Generator().manual_seed(0)).tolist()
    rows = pack(lengths, 64)
    assert sorted(film for row in rows for film in row) == list(range(200))
    assert all(sum(lengths[film] for film in row) <= 64 for row in rows)
    assert sum(lengths) / (64 * len(rows)) > 0.95


def test_padding_and_fill(generator):
    pieces = [cut(torch.randn(3, 2, 4, 4 * n, generator=generator), CONFIG.tubelet_size) for n in (1, 3)]
    padded = collate(pieces, [[0], [1]])
    assert padded.fill == pytest.approx(4 / 6) and padded.film.tolist() == [[0, -1, -1], [1, 1, 1]]
    assert padded.mask()[0, 0].tolist() == [[True, False, False], [False, True, True], [False, True, True]]
    assert collate(pieces[1:], [[0]]).mask() is None


def test_one_size_is_vivit(generator):
    """With positions added up from the three tables, joint attention over one film is the same network."""
    model = net()
    config = ViViTConfig(
        num_frames=4, image_size=(12, 16), tubelet_size=(2, 4, 4), hidden_size=32, depth=2, num_classes=6, approximate="none"
    )
    twin = ViViT(config)
    for name in ("embed", "blocks", "norm", "head"):
        setattr(twin, name, copy.deepcopy(getattr(model, name)))
    t, h, w = (table[:side] for table, side in zip(model.positions, (2, 3, 4)))
    twin.positions = torch.nn.Parameter((t[:, None, None] + h[:, None] + w).flatten(0, 2))
    x = torch.randn(3, 3, 4, 12, 16, generator=generator)
    pieces = [cut(film, CONFIG.tubelet_size) for film in x]
    assert torch.allclose(model(collate(pieces, [[2], [0, 1]])), twin(x), atol=1e-4)


def test_dropped_tokens_keep_their_places(generator):
    film = torch.randn(3, 4, 12, 16, generator=generator)
    piece = cut(film, CONFIG.tubelet_size)
    some = drop(piece, 0.5, torch.Generator().manual_seed(1))
    again = drop(piece, 0.5, torch.Generator().manual_seed(1))
    assert len(some.patches) == 12 and torch.equal(some.patches, again.patches)
    t, h, w = some.places[0].tolist()
    brick = film[:, 2 * t : 2 * t + 2, 4 * h : 4 * h + 4, 4 * w : 4 * w + 4]
    assert torch.equal(some.patches[0], brick)
    assert len(drop(piece, 0.001, generator).patches) == 1
    assert torch.equal(drop(piece, 1.0, generator).places, piece.places)


def test_dropping_is_random_and_keeps_its_share(generator):
    piece = cut(torch.randn(3, 2, 20, 20, generator=generator), (2, 4, 4))
    draws = [drop(piece, 0.5, torch.Generator().manual_seed(seed)).places for seed in range(50)]
    kept = torch.stack([5 * places[:, 1] + places[:, 2] for places in draws])
    assert (kept.diff() > 0).all() and (kept.diff() > 1).any(1).all()  # in order, with holes
    assert torch.bincount(kept.flatten(), minlength=25).min() > 10  # every token about as often
    assert len(drop(piece, 0.27, generator).places) == 7 and len(drop(piece, 0.33, generator).places) == 8


@pytest.mark.parametrize("film", [(3, 4, 4, 4), (3, 2, 8, 4), (3, 2, 4, 8)])
def test_each_axis_has_its_own_bound(film):
    small = NaViT(NaViTConfig(max_grid=(1, 1, 1), tubelet_size=(2, 4, 4)))
    with pytest.raises(ValueError, match="positions for grids up to"):
        small(collate([cut(torch.zeros(film), (2, 4, 4))], [[0]]))


PIECE = cut(torch.zeros(3, 2, 4, 4), (2, 4, 4))


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: pack([], 8), "at least one token"),
        (lambda: pack([3, 0], 8), "at least one token"),
        (lambda: pack([3, 9], 8), "A film of 9 tokens does not fit into rows of 8"),
        (lambda: cut(torch.zeros(3, 3, 4, 4), (2, 4, 4)), "multiples of"),
        (lambda: cut(torch.zeros(3, 4, 4), (2, 4, 4)), r"One film \(c, t, h, w\)"),
        (lambda: cut(torch.zeros(3, 0, 4, 4), (2, 4, 4)), "multiples of"),
        (lambda: collate([PIECE, Piece(PIECE.patches.half(), PIECE.places)], [[0, 1]]), "equal size and kind"),
        (lambda: collate([PIECE, Piece(PIECE.patches[:0], PIECE.places[:0])], [[0], [1]]), "no tokens"),
        (lambda: NaViT(NaViTConfig(max_grid=(8, 8))), "three whole numbers"),
        (lambda: net()(collate([Piece(PIECE.patches.byte(), PIECE.places)], [[0]])), "of torch.uint8"),
        (lambda: collate([], []), "at least one"),
        (lambda: collate([PIECE, PIECE], [[0], [0]]), "must lie in one row"),
        (lambda: collate([PIECE, cut(torch.zeros(1, 2, 4, 4), (2, 4, 4))], [[0, 1]]), "equal size"),
        (lambda: drop(PIECE, 0.0, torch.Generator()), "between 0 and 1"),
        (lambda: NaViT(NaViTConfig(hidden_size=30)), "multiple of the 4 heads"),
        (lambda: net()(collate([cut(torch.zeros(3, 2, 4, 24), (2, 4, 4))], [[0]])), r"needs \[1, 1, 6\]"),
        (lambda: net()(collate([cut(torch.zeros(1, 2, 4, 4), (2, 4, 4))], [[0]])), r"these are \(1, 2, 4, 4\)"),
        (lambda: net()(collate([cut(torch.zeros(3, 4, 8, 8), (4, 4, 2))], [[0]])), r"these are \(3, 4, 4, 2\)"),
        (lambda: collate([PIECE, cut(torch.zeros(3, 4, 4, 2), (4, 4, 2))], [[0, 1]]), "equal size"),
    ],
)
def test_refusals(call, said):
    with pytest.raises(ValueError, match=said):
        call()
