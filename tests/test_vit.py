"""Chapter 04's module: ViT equals transformers' and torchvision's on random weights, at other sizes too."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torchvision.models import VisionTransformer
from transformers import ViTConfig as TheirConfig
from transformers import ViTForImageClassification

from sora_course.kit import published
from sora_course.vit import Attention, ViT, ViTConfig, patchify, resize_positions, sincos_positions, unpatchify

SIZES = {
    "small": {"image_size": 32, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    "deeper, gray": {
        "image_size": 24, "patch_size": 4, "hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 3, "num_channels": 1,
    },
}  # fmt: skip


def theirs(name, folder):
    torch.manual_seed(0)
    model = ViTForImageClassification(
        TheirConfig(**SIZES[name], intermediate_size=64, num_labels=5, layer_norm_eps=1e-6)
    ).eval()
    for p in model.parameters():  # positions and class token start near 0
        torch.nn.init.normal_(p, std=0.2)
    model.save_pretrained(folder)
    return model


def random_weights(net):
    torch.manual_seed(0)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return net


def agree(ours, reference):
    return float((ours - reference).abs().max()) <= 1e-5 * float(reference.abs().max())


@pytest.mark.parametrize("name", SIZES)
def test_parity_with_transformers(name, tmp_path, generator):
    reference, size = theirs(name, tmp_path), SIZES[name]["image_size"]
    ours = ViT.from_pretrained(tmp_path)
    x = torch.randn(3, SIZES[name].get("num_channels", 3), size, size, generator=generator)
    wide = torch.randn(2, x.shape[1], size, 2 * size, generator=generator)
    with torch.no_grad():
        assert agree(ours(x), reference(x).logits)
        assert agree(ours(wide), reference(wide, interpolate_pos_encoding=True).logits)  # positions resized
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in reference.parameters())


@pytest.mark.parametrize("size, patch, layers, heads, width, mlp", [(32, 8, 2, 4, 32, 64), (48, 16, 3, 2, 64, 256)])
def test_parity_with_torchvision(size, patch, layers, heads, width, mlp, generator):
    torch.manual_seed(0)
    reference = VisionTransformer(size, patch, layers, heads, width, mlp, num_classes=7).eval()
    for p in reference.parameters():  # its head and class token start at 0
        torch.nn.init.normal_(p, std=0.2)
    x = torch.randn(2, 3, size, size, generator=generator)
    with torch.no_grad():
        assert agree(ViT.from_torchvision(reference)(x), reference(x))


def test_torchvisions_own_sizes_are_taken_over(generator):
    from functools import partial

    odd = VisionTransformer(16, 8, 1, 2, 32, 48, num_classes=7, norm_layer=partial(torch.nn.LayerNorm, eps=1e-2))
    odd.heads.head = torch.nn.Linear(32, 3)  # as one does for a task of one's own
    odd = random_weights(odd).double().eval()
    x = torch.randn(2, 3, 16, 16, generator=generator).double()
    assert torch.allclose(ViT.from_torchvision(odd)(x), odd(x), atol=1e-9)
    with pytest.raises(ValueError, match="one layer for its patches and one for its classes"):
        ViT.from_torchvision(VisionTransformer(16, 8, 1, 2, 32, 48, representation_size=8))


def test_what_a_config_does_not_say_is_as_in_transformers():
    sizes = {
        "image_size": [16, 32], "patch_size": 8, "hidden_size": 180, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 416,
    }  # fmt: skip
    ours = published.vit_sizes(sizes)
    assert ours["norm_eps"] == 1e-12 and ours["image_size"] == (16, 32)
    assert ViT(ViTConfig(**ours)).blocks[0].mlp[0].out_features == 416  # not 415
    assert {m.eps for m in ViT(ViTConfig(norm_eps=1e-3)).modules() if isinstance(m, torch.nn.LayerNorm)} == {1e-3}
    assert published.vit_sizes(sizes | {"layer_norm_eps": 1e-3})["norm_eps"] == 1e-3
    with pytest.raises(ValueError, match="does not say image_size"):
        published.vit_sizes({key: value for key, value in sizes.items() if key != "image_size"})


@pytest.mark.parametrize("lost", ["classifier.bias", "vit.embeddings.patch_embeddings.projection.weight", "query.bias"])
def test_damaged_weights(lost, tmp_path):
    theirs("small", tmp_path)
    reference = load_file(tmp_path / "model.safetensors")
    save_file({name: t for name, t in reference.items() if not name.endswith(lost)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=f"hold no .*{lost.removeprefix('vit.')}"):
        ViT.from_pretrained(tmp_path)


def test_a_linear_embedding_is_a_strided_convolution(generator):
    x, weight = torch.randn(2, 3, 8, 12, generator=generator), torch.randn(5, 3, 4, 4, generator=generator)
    convolved = F.conv2d(x, weight, stride=4).flatten(2).transpose(1, 2)
    assert torch.allclose(patchify(x, 4) @ weight.flatten(1).T, convolved, atol=1e-5)
    assert torch.equal(unpatchify(patchify(x, 4), 4, (2, 3)), x)


def test_attention_maps_are_those_of_the_fused_kernel(generator):
    attention, x = Attention(16, 4), torch.randn(2, 5, 16, generator=generator)
    weights, (_, _, v) = attention.weights(x), attention.heads(x)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 4, 5))
    by_hand = attention.proj((weights @ v).transpose(1, 2).flatten(2))
    assert torch.allclose(by_hand, attention(x), atol=1e-6)
    net = ViT(ViTConfig(depth=3))
    assert net.attention_maps(torch.randn(2, 3, 16, 16, generator=generator)).shape == (3, 2, 4, 17, 17)


@pytest.mark.parametrize("pool", ["mean", "class"])
def test_the_forward_pass_can_be_built_from_the_attention_maps(pool, generator):
    net = random_weights(ViT(ViTConfig(depth=2, pool=pool)))
    x = torch.randn(2, 3, 16, 16, generator=generator)
    tokens = net.tokens(x)
    for block, weights in zip(net.blocks, net.attention_maps(x)):
        v = block.attention.heads(block.norm1(tokens))[2]
        tokens = tokens + block.attention.proj((weights @ v).transpose(1, 2).flatten(2))
        tokens = tokens + block.mlp(block.norm2(tokens))
    tokens = net.norm(tokens)
    assert torch.allclose(net.head(tokens[:, 0] if pool == "class" else tokens.mean(1)), net(x), atol=1e-5)


def test_without_positions_order_is_not_seen(generator):
    x = torch.randn(2, 3, 16, 16, generator=generator)
    order = torch.randperm(16, generator=generator)
    scrambled = unpatchify(patchify(x, 4)[:, order], 4, (4, 4))
    for positions, seen in (("none", False), ("learned", True), ("sincos", True)):
        torch.manual_seed(0)
        net = ViT(ViTConfig(positions=positions)).eval()
        assert torch.allclose(net(x), net(scrambled), atol=1e-5) != seen, positions


def test_resizing_is_enlarging_a_picture(generator):
    positions = torch.randn(15, 4, generator=generator)
    picture = F.interpolate(positions.view(1, 3, 5, 4).permute(0, 3, 1, 2), size=(6, 7), mode="bicubic")
    assert torch.allclose(resize_positions(positions, (3, 5), (6, 7)), picture.flatten(2)[0].T, atol=1e-5)


def test_positions():
    grid = sincos_positions((3, 5), 16)
    assert grid.shape == (15, 16) and torch.equal(grid[0], torch.tensor([1.0] * 4 + [0] * 4 + [1] * 4 + [0] * 4))
    assert torch.equal(grid[0, 8:], grid[5, 8:]) and torch.equal(grid[0, :8], grid[1, :8])  # one half row, one half column
    same = torch.randn(15, 4)
    assert resize_positions(same, (3, 5), (3, 5)) is same
    flat = torch.ones(15, 4)
    assert torch.allclose(resize_positions(flat, (3, 5), (6, 10)), torch.ones(60, 4), atol=1e-5)


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: patchify(torch.zeros(1, 3, 10, 8), 4), "multiples of 4"),
        (lambda: ViT(ViTConfig(image_size=(10, 8))), "cannot be cut into patches of 4"),
        (lambda: ViT(ViTConfig(positions="rotary")), "one of learned, sincos, none"),
        (lambda: ViT(ViTConfig(pool="max")), "one of class, mean"),
        (lambda: ViT(ViTConfig(hidden_size=6, num_heads=2)), "a multiple of 4"),
        (lambda: ViT(ViTConfig(num_heads=0)), "a multiple of 4"),
        (lambda: ViT(ViTConfig(image_size=16)), "give .height, width."),
        (lambda: ViT(ViTConfig(patch_size=0)), "a whole number that divides"),
        (lambda: patchify(torch.zeros(1, 3, 8, 8), 8 / 2), "a whole number"),
        (lambda: patchify(torch.zeros(1, 3, 0, 8), 4), "a whole number"),
        (lambda: unpatchify(torch.zeros(1, 4, 16), 4, (2, 3)), r"need \(b, 6"),
        (lambda: sincos_positions((2, 2), 6), "by fours"),
        (lambda: resize_positions(torch.zeros(16, 4), (4, 5), (8, 8)), "has 20 places"),
        (lambda: ViT(ViTConfig())(torch.zeros(1, 3, 16, 16, dtype=torch.uint8)), "of torch.uint8"),
        (lambda: ViT(ViTConfig())(torch.zeros(0, 3, 16, 16)), "at least one"),
        (lambda: ViT(ViTConfig())(torch.zeros(1, 1, 16, 16)), r"\(b, 3, h, w\)"),
        (lambda: ViT.from_torchvision(torch.nn.Linear(2, 2)), "not this Linear"),
    ],
)
def test_refusals(call, said):
    with pytest.raises(ValueError, match=said):
        call()


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"model_type": "deit"}, "model_type = 'deit'"),
        ({"hidden_act": "gelu_new"}, "hidden_act = 'gelu_new'"),
        ({"num_hidden_layers": 3}, "do not belong together"),
        ({"patch_size": None}, "a whole number"),
        ({"num_attention_heads": True}, "a whole number"),
        ({"image_size": [32]}, r"image_size is \[32\]"),
        ({"num_channels": "3"}, "num_channels is '3'"),
        ({"layer_norm_eps": "1e-6"}, "a number above 0"),
        ({"qkv_bias": False}, "qkv_bias = False"),
    ],
)
def test_foreign_configs(changes, said, tmp_path):
    theirs("small", tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=said):
        ViT.from_pretrained(tmp_path)
