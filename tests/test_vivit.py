"""Chapter 05's first module: bricks, the four layouts, inflation, and parity with transformers."""

import json

import pytest
import torch
import torch.nn.functional as F
from transformers import VivitConfig as TheirConfig
from transformers import VivitForVideoClassification

from sora_course.kit import published
from sora_course.vit import ViT, ViTConfig
from sora_course.vivit import (
    INFLATIONS,
    LAYOUTS,
    FactorisedAttentionBlock,
    FactorisedDotProductBlock,
    ViViT,
    ViViTConfig,
    attention_pairs,
    inflate,
    sample_frames,
    tubelets,
)

SIZES = {
    "small": {"image_size": 16, "num_frames": 8, "tubelet_size": [2, 8, 8], "hidden_size": 32, "num_hidden_layers": 2},
    "gray, longer bricks": {
        "image_size": 12, "num_frames": 9, "tubelet_size": [3, 4, 6], "hidden_size": 48, "num_hidden_layers": 3,
        "num_channels": 1,
    },
}  # fmt: skip


def random_weights(net):
    torch.manual_seed(0)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return net


def theirs(name, folder):
    torch.manual_seed(0)
    config = TheirConfig(**SIZES[name], num_attention_heads=4, intermediate_size=64, num_labels=5)
    model = VivitForVideoClassification(config).eval()
    for p in model.parameters():  # positions and class token start at 0
        torch.nn.init.normal_(p, std=0.2)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("name", SIZES)
def test_parity_with_transformers(name, tmp_path, generator):
    reference, size = theirs(name, tmp_path), SIZES[name]
    ours = ViViT.from_pretrained(tmp_path)
    x = torch.randn(2, size.get("num_channels", 3), size["num_frames"], *[size["image_size"]] * 2, generator=generator)
    with torch.no_grad():
        wanted = reference(x.transpose(1, 2)).logits  # they put frames before channels
        assert (ours(x) - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in reference.parameters())


def test_the_published_size():
    with torch.device("meta"):  # google/vivit-b-16x2-kinetics400
        reference = VivitForVideoClassification(TheirConfig(num_labels=400))
    sizes = published.vivit_sizes(TheirConfig().to_dict() | {"tubelet_size": [2, 16, 16]})
    with torch.device("meta"):
        net = ViViT(ViViTConfig(**sizes, num_classes=400, pool="class"))
    assert net.positions.shape == (3137, 768)
    assert sum(p.numel() for p in net.parameters()) == sum(p.numel() for p in reference.parameters())


def test_a_linear_embedding_of_bricks_is_a_strided_convolution(generator):
    x, weight = torch.randn(2, 3, 4, 8, 12, generator=generator), torch.randn(5, 3, 2, 4, 4, generator=generator)
    convolved = F.conv3d(x, weight, stride=(2, 4, 4)).flatten(2).transpose(1, 2)
    assert torch.allclose(tubelets(x, (2, 4, 4)) @ weight.flatten(1).T, convolved, atol=1e-4)


def test_frames_are_taken_evenly():
    x = torch.arange(17.0).view(1, 1, 17, 1, 1)
    assert sample_frames(x, 17).flatten().tolist() == list(range(17))
    assert sample_frames(x, 1).item() == 8
    assert sample_frames(x[:, :, :16], 4).flatten().tolist() == [2, 6, 10, 14]


def test_factorised_attention_is_joint_attention_behind_a_mask(generator):
    """Space: a token sees its own frame; time: its own place."""
    b, t, s, d = 2, 3, 5, 16
    x = torch.randn(b, t, s, d, generator=generator)
    frame = torch.arange(t * s) // s
    place = torch.arange(t * s) % s
    same_frame, same_place = frame[:, None] == frame, place[:, None] == place
    block = FactorisedAttentionBlock(d, 4, 4.0)
    flat = x.flatten(1, 2)
    flat = flat + block.attention(block.norm1(flat), same_frame)
    flat = flat + block.attention_time(block.norm_time(flat), same_place)
    flat = flat + block.mlp(block.norm2(flat))
    assert torch.allclose(block(x).flatten(1, 2), flat, atol=1e-5)

    block = FactorisedDotProductBlock(d, 4, 4.0)
    flat = x.flatten(1, 2)
    masks = torch.stack([same_frame, same_frame, same_place, same_place])  # two heads look across, two along
    flat = flat + block.attention(block.norm1(flat), masks)
    flat = flat + block.mlp(block.norm2(flat))
    assert torch.allclose(block(x).flatten(1, 2), flat, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_trains_all_of_its_weights_and_takes_shorter_and_wider_films(layout, generator):
    net = ViViT(ViViTConfig(layout=layout, depth=2, hidden_size=32))
    net(torch.randn(2, 3, 8, 32, 32, generator=generator)).pow(2).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
    assert net(torch.randn(2, 3, 4, 24, 48, generator=generator)).shape == (2, 10)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_attention_pairs_are_the_pairs_that_are_multiplied(layout, generator):
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    net = ViViT(ViViTConfig(layout=layout, depth=3, temporal_depth=0))
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        net(torch.randn(1, 3, 8, 32, 32, generator=generator))
    products = sum(n for op, n in counter.get_flop_counts()["Global"].items() if "bmm" in str(op))
    assert products == 3 * 4 * 64 * attention_pairs((4, 4, 4), layout)


@pytest.mark.parametrize("inflation", INFLATIONS)
@pytest.mark.parametrize("layout", ["joint", "factorised_attention"])
def test_a_static_film_gets_the_image_models_answer(layout, inflation, generator):
    sizes = {
        "depth": 3,
        "num_heads": 2,
        "in_channels": 1,
        "norm_eps": 1e-2,
        "mlp_ratio": 2.0,
        "hidden_size": 32,
        "num_classes": 3,
    }
    vit = random_weights(ViT(ViTConfig(image_size=(8, 24), pool="mean", **sizes)).double())
    net = ViViT.from_image(vit, num_frames=6, tubelet_frames=2, inflation=inflation, layout=layout)
    picture = torch.randn(2, 1, 8, 24, generator=generator).double()
    assert (net(picture[:, :, None].expand(-1, -1, 6, -1, -1)) - vit(picture)).abs().max() <= 1e-9
    assert torch.equal(net.embed.weight, inflate(vit.embed.weight.view(32, 1, 4, 4), 2, inflation).flatten(1))
    net(torch.randn(2, 1, 6, 8, 24, generator=generator).double()).pow(2).sum().backward()
    new = [p for name, p in net.named_parameters() if name not in dict(vit.named_parameters())]
    assert bool(new) == (layout != "joint") and all(p.grad is not None for p in new)
    assert not new or any(p.grad.abs().sum() > 0 for p in new)


def test_what_is_new_is_silent_and_the_class_token_stays():
    vit = random_weights(ViT(ViTConfig()))
    net = ViViT.from_image(vit, num_frames=4)
    assert torch.equal(net.positions, torch.cat([vit.positions, vit.positions[1:]]))
    vit = random_weights(ViT(ViTConfig(pool="mean")))
    net = ViViT.from_image(vit, num_frames=4, layout="factorised_encoder")
    x = torch.randn(2, 2, 64)
    assert all(torch.equal(block(x), x) for block in net.temporal_blocks) and not net.frame_positions.any()


def test_inflation(generator):
    kernel = torch.randn(4, 3, 2, 2, generator=generator)
    central = inflate(kernel, 3, "central")
    assert torch.equal(central[:, :, 1], kernel) and not central[:, :, [0, 2]].any()
    assert torch.equal(inflate(kernel, 4)[:, :, 2], kernel)
    assert torch.allclose(inflate(kernel, 3, "average").sum(2), kernel, atol=1e-6)


def test_without_looking_along_time_the_order_of_frames_is_not_seen(generator):
    """Positions tell time; take them away, and a film and its shuffled twin are one to every layout."""
    x, order = torch.randn(1, 3, 8, 32, 32, generator=generator), [2, 3, 6, 7, 0, 1, 4, 5]  # whole bricks change places
    for layout in LAYOUTS:
        torch.manual_seed(0)
        net = ViViT(ViViTConfig(layout=layout)).eval()
        seen = (net(x) - net(x[:, :, order])).abs().max()
        torch.nn.init.zeros_(net.positions)
        if layout == "factorised_encoder":
            torch.nn.init.zeros_(net.frame_positions)
        unseen = (net(x) - net(x[:, :, order])).abs().max()
        assert unseen < 1e-5 < seen / 10, layout


def test_the_forward_pass_can_be_built_from_the_attention_maps(generator):
    net = random_weights(ViViT(ViViTConfig(depth=2, pool="class")))
    x = torch.randn(1, 3, 8, 32, 32, generator=generator)
    tokens = net.tokens(x)
    for block, weights in zip(net.blocks, net.attention_maps(x)):
        v = block.attention.heads(block.norm1(tokens))[2]
        tokens = tokens + block.attention.proj((weights @ v).transpose(1, 2).flatten(2))
        tokens = tokens + block.mlp(block.norm2(tokens))
    assert torch.allclose(net.head(net.norm(tokens)[:, 0]), net(x), atol=1e-5)


def test_factorised_encoder_by_hand(generator):
    """Half as long as it could be, and not square: the first steps' positions, all places."""
    sizes = {"depth": 2, "hidden_size": 32, "image_size": (16, 24), "norm_eps": 1e-2}
    net = random_weights(ViViT(ViViTConfig(layout="factorised_encoder", **sizes)))
    x = torch.randn(2, 3, 4, 16, 24, generator=generator)
    tokens = (net.embed(tubelets(x, (2, 8, 8))) + net.positions[:12]).view(4, 6, 32)
    for block in net.blocks:
        tokens = block(tokens)
    tokens = tokens.mean(1).view(2, 2, 32) + net.frame_positions[:2]
    for block in net.temporal_blocks:
        tokens = block(tokens)
    assert torch.allclose(net.head(net.norm(tokens).mean(1)), net(x), atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_block_takes_the_config(layout):
    net = ViViT(ViViTConfig(layout=layout, norm_eps=1e-2, approximate="none"))
    assert {m.eps for m in net.modules() if isinstance(m, torch.nn.LayerNorm)} == {1e-2}
    assert {m.approximate for m in net.modules() if isinstance(m, torch.nn.GELU)} == {"none"}


FILM = torch.zeros(1, 3, 8, 32, 32)


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: ViViT(ViViTConfig(layout="axial")), "choose one of joint, factorised_encoder"),
        (lambda: attention_pairs((1, 2, 3), "axial"), "choose one of joint"),
        (lambda: ViViT(ViViTConfig(layout="factorised_encoder", pool="class")), "'class' with factorised_encoder"),
        (lambda: ViViT(ViViTConfig(image_size=(30, 32))), "cannot be cut into bricks"),
        (lambda: ViViT(ViViTConfig(num_frames=7)), "cannot be cut into bricks"),
        (lambda: ViViT(ViViTConfig(num_frames=0)), "cannot be cut into bricks"),
        (lambda: ViViT(ViViTConfig(tubelet_size=(8, 8))), "three whole numbers"),
        (lambda: ViViT(ViViTConfig(num_heads=3)), "multiple of the 3 heads"),
        (lambda: ViViT(ViViTConfig())(FILM.byte()), "of torch.uint8"),
        (lambda: ViViT(ViViTConfig())(FILM[:, :, :0]), "multiples of"),
        (lambda: tubelets(FILM, (16 / 8, 8, 8)), "three whole numbers"),
        (lambda: sample_frames(FILM[0], 4), r"film\[None\]"),
        (lambda: inflate(torch.zeros(4, 12), 2), r"\(d, c, h, w\)"),
        (lambda: ViViT(ViViTConfig(num_heads=1, layout="factorised_dot_product")), "even number"),
        (lambda: ViViT(ViViTConfig())(torch.zeros(1, 3, 10, 32, 32)), "positions for 8 frames, and the film has 10"),
        (lambda: ViViT(ViViTConfig())(FILM[:, :, :7]), "multiples of"),
        (lambda: ViViT(ViViTConfig())(FILM[..., :30]), "multiples of"),
        (lambda: ViViT(ViViTConfig())(FILM[:0]), "at least one"),
        (lambda: ViViT(ViViTConfig())(FILM[:, :1]), r"\(b, 3, t, h, w\)"),
        (lambda: ViViT(ViViTConfig(layout="factorised_attention")).attention_maps(FILM), "joint attention only"),
        (lambda: sample_frames(FILM, 9), "1 to 8 frames, not 9"),
        (lambda: inflate(torch.zeros(1, 3, 2, 2), 2, "middle"), "central, average"),
        (lambda: ViViT.from_image(ViT(ViTConfig(positions="sincos")), num_frames=4), "learned positions"),
    ],
)
def test_refusals(call, said):
    with pytest.raises(ValueError, match=said):
        call()


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"model_type": "vit"}, "model_type = 'vit'"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ({"num_frames": 16}, "do not belong together"),
        ({"tubelet_size": 16}, "a list of three"),
        ({"tubelet_size": [3, 8, 8]}, "cannot be cut into bricks"),
        ({"tubelet_size": [0, 8, 8]}, "a whole number, 1 or more"),
        ({"num_frames": None}, "num_frames is None"),
    ],
)
def test_foreign_configs(changes, said, tmp_path):
    theirs("small", tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=said):
        ViViT.from_pretrained(tmp_path)
