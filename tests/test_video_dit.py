"""The diffusion transformer: identities at the start, positions for any size, what masks and dropped texts hide."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from sora_course.unet import sincos
from sora_course.video_dit import VideoDiT, VideoDiTBlock, VideoDiTConfig, grid_positions, rotary_angles, rotate

CONFIG = VideoDiTConfig(in_channels=4, hidden_size=32, depth=2, num_heads=2, text_size=16)


def inputs(generator, t=3, h=4, w=6):
    def draw(*shape):
        return torch.randn(shape, generator=generator)

    return dict(x=draw(2, 4, t, h, w), t=torch.rand(2, generator=generator), text=draw(2, 5, 16), pooled=draw(2, 16),
                text_mask=torch.tensor([[True] * 5, [True] * 3 + [False] * 2]))  # fmt: skip


@pytest.fixture(scope="module")
def dit():
    torch.manual_seed(0)
    dit = VideoDiT(CONFIG).eval()
    for p in dit.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return dit


def test_a_fresh_block_is_the_identity_and_a_fresh_model_says_zero(generator):
    torch.manual_seed(0)
    x, c, text = (torch.randn(s, generator=generator) for s in ((2, 7, 32), (2, 32), (2, 5, 16)))
    block = VideoDiTBlock(CONFIG)
    assert (block.ada_ln[1].weight == 0).all() and torch.equal(block(x, c, text, torch.ones(2, 5, dtype=torch.bool)), x)
    assert (VideoDiT(CONFIG)(**inputs(generator)) == 0).all()


def test_every_parameter_learns_once_the_gates_are_open(dit, generator):
    dit.zero_grad()
    dit(**inputs(generator), drop_text=torch.tensor([True, False])).pow(2).sum().backward()
    assert [n for n, p in dit.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_masked_words_are_never_looked_at(dit, generator):
    given = inputs(generator)
    changed = given | {"text": given["text"].clone()}
    changed["text"][1, 3:] = 9.0
    assert torch.equal(dit(**given), dit(**changed))
    changed["text"][1, 2] = 9.0
    assert not torch.equal(dit(**given)[1], dit(**changed)[1])


def test_a_dropped_text_is_not_seen(dit, generator):
    given = inputs(generator)
    other = given | {"text": given["text"] + 1, "pooled": given["pooled"] - 1}
    drop = torch.tensor([True, False])
    a, b = dit(**given, drop_text=drop), dit(**other, drop_text=drop)
    assert torch.equal(a[0], b[0]) and not torch.allclose(a[1], b[1])


def test_where_latents_are_known_their_noise_is_not_seen_and_elsewhere_the_clean_ones_are_not(dit, generator):
    given, clean = inputs(generator), torch.randn(2, 4, 3, 4, 6, generator=generator)
    known = torch.tensor([1.0, 0, 0]).view(1, 1, 3, 1, 1).expand(2, -1, -1, -1, -1)
    out = dit(**given, known=known, clean=clean)
    assert torch.equal(out, dit(**given | {"x": given["x"] + 5 * known}, known=known, clean=clean))
    assert torch.equal(out, dit(**given, known=known, clean=clean + 5 * (1 - known)))
    assert not torch.allclose(out, dit(**given, known=known, clean=clean + known))


def test_each_sample_is_answered_alone(dit, generator):
    given = inputs(generator)
    alone = dit(**{k: v[:1] for k, v in given.items()})
    assert torch.allclose(dit(**given)[:1], alone, atol=1e-4)


def test_embeddings_begin_with_cosines():
    e = sincos(torch.tensor([0.0, 1.0]), 6)
    assert torch.equal(e[0], torch.tensor([1.0, 1, 1, 0, 0, 0])) and e[1, 0] == torch.tensor(1.0).cos()


def test_positions_differ_everywhere_and_a_larger_frame_extends_the_smaller():
    small, large = grid_positions(2, 4, 4, 64), grid_positions(5, 8, 6, 64).view(5, 8, 6, 64)
    assert torch.allclose(large[:2, 2:6, 1:5].reshape(32, 64), small, atol=1e-5)
    far = torch.cdist(grid_positions(5, 8, 6, 64), grid_positions(5, 8, 6, 64)) + 9 * torch.eye(240)
    assert far.min() > 0.1


def test_rotated_products_depend_on_distance_alone(generator):
    q, k = torch.randn(2, 16, generator=generator)
    angles = rotary_angles(4, 5, 6, 16)
    turned = [rotate(x.expand(120, 16), angles.cos(), angles.sin()).view(4, 5, 6, 16) for x in (q, k)]
    near, far = ((turned[0][t, y, x] * turned[1][t + 1, y + 2, x + 1]).sum() for t, y, x in ((0, 0, 0), (2, 2, 4)))
    other = (turned[0][0, 0, 0] * turned[1][0, 0, 1]).sum()
    assert torch.allclose(near, far, atol=1e-4) and not torch.allclose(near, other, atol=1e-2)
    assert torch.allclose(turned[0].norm(dim=-1), q.norm().expand(4, 5, 6), atol=1e-4)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"t": torch.rand(1)}, r"times must be \(2,\)"), ({"pooled": torch.zeros(16)}, r"pooled text must be \(2, 16\)"),
        ({"text_mask": torch.ones(2, 5)}, "torch.bool"), ({"text": torch.zeros(1, 5, 16)}, r"text must be \(2, 5, 16\)"),
        ({"clean": torch.zeros(2, 4, 3, 4, 6)}, "Give both"), ({"x": torch.zeros(2, 3, 3, 4, 6)}, r"Latents are \(b, 4, t, h, w\)"),
        ({"drop_text": torch.tensor([True])}, "drop_text must be"),
        ({"known": torch.zeros(1, 1, 3, 1, 1), "clean": torch.zeros(2, 4, 3, 4, 6)}, r"\(2, 1, 3, ...\)"),
    ],
)  # fmt: skip
def test_nothing_is_shared_or_ignored_in_silence(changes, said, dit, generator):
    with pytest.raises(ValueError, match=said):
        dit(**inputs(generator) | changes)


def test_shared_modulation_saves_weights_and_all_of_them_learn(generator):
    torch.manual_seed(0)
    own, shared = (VideoDiT(replace(CONFIG, conditioning=kind)) for kind in ("adaln_zero", "adaln_single"))
    count = [sum(p.numel() for p in net.parameters()) for net in (own, shared)]
    d = CONFIG.hidden_size
    assert count[0] - count[1] == (CONFIG.depth - 1) * (6 * d * d + 6 * d) - CONFIG.depth * 6 * d
    for p in shared.parameters():
        torch.nn.init.normal_(p, std=0.2)
    shared(**inputs(generator), drop_text=torch.tensor([True, False])).pow(2).sum().backward()
    assert [n for n, p in shared.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_configs_that_contradict_themselves():
    for changes, said in (({"conditioning": "film"}, "no way to condition"), ({"depth": 0}, "depth is 0"), ({"hidden_size": 34}, "not divisible into pairs")):
        with pytest.raises(ValueError, match=said):
            VideoDiT(VideoDiTConfig(**{"num_heads": 4} | changes))


def test_sizes_it_cannot_cut(dit, generator):
    with pytest.raises(ValueError, match="5x6.*2x2"):
        dit(**inputs(generator, h=5))


def test_gelu_is_the_same_when_compiled():
    from sora_course.video_dit import GELU

    x, seen = torch.linspace(-6, 6, 101), []

    def backend(graph, inputs):
        seen.append([str(node.target) for node in graph.graph.nodes])
        return graph

    assert torch.equal(GELU()(x), F.gelu(x, approximate="tanh"))
    assert torch.allclose(torch.compile(GELU(), backend=backend)(x), F.gelu(x, approximate="tanh"), atol=1e-6)
    assert "sigmoid" in str(seen)
