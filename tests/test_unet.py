"""Chapter 03: the U-Net equals diffusers' on random weights, and refuses what does not fit."""

import json

import pytest
import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file, save_file

from sora_course.unet import UNet, UNetConfig, sincos

CIFAR10 = {
    "sample_size": 32, "block_out_channels": (128, 256, 256, 256), "layers_per_block": 2, "norm_eps": 1e-6,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": None, "downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1,
}  # fmt: skip
SMALL = {
    "sample_size": 16, "in_channels": 1, "out_channels": 2, "block_out_channels": (16, 32), "layers_per_block": 1,
    "norm_num_groups": 8, "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}  # fmt: skip
CONFIGS = {
    "ddpm-cifar10-32": CIFAR10,
    "small, diffusers' defaults": SMALL,
    "labels, many heads": SMALL | {"num_class_embeds": 11, "attention_head_dim": 4},
    "three levels, attention on top": SMALL | {
        "block_out_channels": (8, 16, 24), "layers_per_block": 2, "attention_head_dim": None, "flip_sin_to_cos": False,
        "down_block_types": ("AttnDownBlock2D", "DownBlock2D", "DownBlock2D"), "downsample_padding": 0,
        "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D"), "freq_shift": 1,
    },
}  # fmt: skip


def small(**changes):
    return UNet(UNetConfig(**({"in_channels": 1, "out_channels": 1, "block_out_channels": (8, 16)} | changes)))


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder as diffusers writes it, of the small network with labels."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("unet")
    UNet2DModel(**CONFIGS["labels, many heads"]).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", CONFIGS)
def test_parity_with_diffusers(name, tmp_path, generator):
    torch.manual_seed(0)
    reference = UNet2DModel(**CONFIGS[name]).eval()
    reference.save_pretrained(tmp_path)
    ours = UNet.from_pretrained(str(tmp_path))
    size = CONFIGS[name]["sample_size"]
    x = torch.randn(3, ours.config.in_channels, size, 2 * size, generator=generator)
    t = torch.tensor([0, 7, 999])
    labels = torch.tensor([0, 5, 10]) if "num_class_embeds" in CONFIGS[name] else None
    with torch.no_grad():
        theirs = reference(x, t, class_labels=labels).sample
        assert (ours(x, t, labels) - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in reference.parameters())


def test_the_papers_network_has_its_size():
    """DDPM, appendix B: 35.7 million parameters for CIFAR-10."""
    config = UNetConfig(block_out_channels=(128, 256, 256, 256), attention=(False, True, False, False), layers_per_block=2,
                        norm_num_groups=32, downsample_padding=0)  # fmt: skip
    assert sum(p.numel() for p in UNet(config).parameters()) == 35_746_307


def test_old_names_of_attention_are_read(published, tmp_path):
    tensors = load_file(published / "diffusion_pytorch_model.safetensors")
    for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
        tensors = {name.replace(f".{new}.", f".{old}."): tensor for name, tensor in tensors.items()}
    save_file(tensors, tmp_path / "diffusion_pytorch_model.safetensors")
    (tmp_path / "config.json").write_text((published / "config.json").read_text())
    now, before = UNet.from_pretrained(tmp_path), UNet.from_pretrained(published)
    assert all(torch.equal(a, b) for a, b in zip(now.parameters(), before.parameters()))


def test_a_new_network_answers_zero_and_its_blocks_are_their_shortcuts(generator):
    net = small()
    x = torch.randn(2, 1, 8, 8, generator=generator)
    assert (net(x, torch.tensor([1, 2])) == 0).all()
    block = net.down_blocks[0].resnets[0]
    h = torch.randn(2, 8, 8, 8, generator=generator)
    assert torch.equal(block(h, torch.randn(2, 32, generator=generator)), h)


def test_cosines_come_first():
    e = sincos(torch.tensor([0.0, 1.0]), 6)
    assert e[0].tolist() == [1, 1, 1, 0, 0, 0] and e[1, 0] == pytest.approx(0.5403, abs=1e-4)


X, T = torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.long)


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: small()(torch.zeros(2, 3, 8, 8), T), r"takes pictures \(b, 1, h, w\), and these are \(2, 3, 8, 8\)"),
        (lambda: small()(torch.zeros(2, 1, 8, 9), T), r"multiples of 2; they are \(8, 9\)"),
        (lambda: small()(X, T[:1]), "2 pictures and times of shape"),
        (lambda: small()(X, T, T), "not conditional: pass no labels"),
        (lambda: small(num_class_embeds=11)(X, T), "conditional: pass a row of labels"),
        (lambda: small(num_class_embeds=11)(X, T, T + 11), "Labels go from 0 to 10"),
        (lambda: small(num_class_embeds=11)(X, T, T[:1]), "2 pictures and labels of shape"),
        (lambda: small(attention=(True,)), "2 levels have widths and 1 say whether they attend"),
        (lambda: small(block_out_channels=(8, 12)), "12 channels"),
        (lambda: UNet.from_pretrained("no/such/folder"), "There is no folder"),
        (lambda: UNet.from_pretrained(__file__), "is a file; name the folder"),
    ],
)
def test_refusals(call, said):
    with pytest.raises(ValueError, match=said):
        call()


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "is damaged"),
        (lambda folder: (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"PK"), "is damaged"),
        (lambda folder: (folder / "diffusion_pytorch_model.safetensors").rename(folder / "a.bin"), "pickled weights"),
        (lambda folder: edit(folder, down_block_types=["DownBlock2D", "SkipDownBlock2D"]), "other blocks"),
        (lambda folder: edit(folder, time_embedding_type="fourier"), "time_embedding_type = 'fourier'"),
        (lambda folder: edit(folder, layers_per_block=2), "do not belong together"),
        (lambda folder: edit(folder, layers_per_block=0), "1 block or more"),
        (lambda folder: edit(folder, norm_eps="small"), "a number is expected"),
        (lambda folder: edit(folder, block_out_channels=None), "does not say block_out_channels"),
        (lambda folder: edit(folder, up_block_types=["AttnDownBlock2D", "UpBlock2D"]), "other blocks"),
        (lambda folder: (folder / "config.json").write_text("[]"), "damaged or quantised"),
    ],
)
def test_damaged_and_foreign_folders(published, tmp_path, change, said):
    for file in published.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    change(tmp_path)
    with pytest.raises(ValueError, match=said):
        UNet.from_pretrained(tmp_path)


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_an_id_without_a_network_is_refused(monkeypatch):
    import modelscope

    def offline(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(modelscope, "snapshot_download", offline)
    with pytest.raises(ValueError, match="neither a folder here nor could it be fetched"):
        UNet.from_pretrained("google/ddpm-cifar10-32")


def test_an_id_is_fetched_from_modelscope(monkeypatch, published):
    import modelscope

    asked = []
    monkeypatch.setattr(modelscope, "snapshot_download", lambda name, **_: asked.append(name) or str(published))
    assert UNet.from_pretrained("google/ddpm-cifar10-32").num_classes == 10 and asked == ["google/ddpm-cifar10-32"]
