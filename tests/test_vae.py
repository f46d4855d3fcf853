"""Chapter 06's image VAE: parity with diffusers' AutoencoderKL, old attention names, refusals."""

import json

import pytest
import torch
from diffusers import AutoencoderKL

from sora_course.vae import VAE, VAEConfig, kl_divergence, sample_posterior

SIZES = {
    "two levels": {"block_out_channels": [16, 32], "layers_per_block": 1, "norm_num_groups": 8, "latent_channels": 4},
    "three levels, gray": {
        "block_out_channels": [8, 16, 24], "layers_per_block": 2, "norm_num_groups": 4, "latent_channels": 3,
        "in_channels": 1, "out_channels": 1, "scaling_factor": 0.5,
    },
    "one level": {"block_out_channels": [16], "layers_per_block": 2, "norm_num_groups": 8, "latent_channels": 16},
}  # fmt: skip


def theirs(name, folder):
    torch.manual_seed(0)
    levels = len(SIZES[name]["block_out_channels"])
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * levels, "up_block_types": ["UpDecoderBlock2D"] * levels}
    model = AutoencoderKL(**SIZES[name], **blocks).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.1)
    model.save_pretrained(folder)
    return model


def agree(ours, reference):
    return (ours - reference).abs().max() <= 1e-5 * reference.abs().max()


@pytest.mark.parametrize("name", SIZES)
def test_parity_with_diffusers(name, tmp_path, generator):
    reference, channels = theirs(name, tmp_path), SIZES[name].get("in_channels", 3)
    ours = VAE.from_pretrained(tmp_path)
    x = torch.randn(2, channels, 24, 40, generator=generator)
    with torch.no_grad():
        distribution = reference.encode(x).latent_dist
        mean, log_var = ours.posterior(x)
        assert agree(mean, distribution.mean) and agree(log_var, distribution.logvar)
        assert agree(kl_divergence(mean, log_var).sum((1, 2, 3)), distribution.kl())
        latents = distribution.mean * reference.config.scaling_factor
        assert agree(ours.encode(x), latents)
        assert agree(ours.decode(latents), reference.decode(latents / reference.config.scaling_factor).sample)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in reference.parameters())


def test_the_published_size():
    with torch.device("meta"):  # stabilityai/sd-vae-ft-ema
        vae = VAE(VAEConfig(block_out_channels=(128, 256, 512, 512), layers_per_block=2, norm_num_groups=32))
    assert sum(p.numel() for p in vae.parameters()) == 83_653_863 and vae.factor == 8


def test_old_attention_names_are_read(tmp_path, generator):
    from safetensors.torch import load_file, save_file

    reference = theirs("two levels", tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    renamed = {}
    for name, tensor in load_file(path).items():
        for new, before in old.items():
            name = name.replace(new, before)
        matrix = "attentions" in name and tensor.ndim == 2
        renamed[name] = tensor[:, :, None, None].contiguous() if matrix else tensor  # the oldest had 1x1 convolutions
    save_file(renamed, path)
    x = torch.randn(1, 3, 16, 16, generator=generator)
    with torch.no_grad():
        assert agree(VAE.from_pretrained(tmp_path).posterior(x)[0], reference.encode(x).latent_dist.mean)


def test_a_sample_has_the_posteriors_mean_and_deviation_and_gradients(generator):
    mean, log_var = torch.full((20000,), 2.0, requires_grad=True), torch.full((20000,), -1.0, requires_grad=True)
    z = sample_posterior(mean, log_var, generator)
    assert abs(z.mean() - 2.0) < 0.02 and abs(z.std() - 0.6065) < 0.02
    z.sum().backward()
    assert torch.equal(mean.grad, torch.ones(20000)) and torch.allclose(log_var.grad, 0.5 * (z - 2.0).detach(), atol=1e-5)


def test_every_weight_learns(generator):
    torch.manual_seed(0)
    vae = VAE(VAEConfig(block_out_channels=(16, 16)))
    for p in vae.parameters():
        torch.nn.init.normal_(p, std=0.1)
    vae.loss(torch.randn(2, 3, 16, 16, generator=generator), generator=generator, kl_weight=0.1)["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in vae.parameters())


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: VAE(VAEConfig(block_out_channels=())), "number of levels is 0"),
        (lambda: VAE(VAEConfig(layers_per_block=0)), "layers_per_block is 0"),
        (lambda: VAE(VAEConfig(scaling_factor=0.0)), "scaling factor is 0.0"),
        (lambda: VAE(VAEConfig(block_out_channels=(30, 60))), "cannot be divided into 8 groups"),
        (lambda: VAE(VAEConfig()).encode(torch.zeros(1, 3, 15, 16)), "multiples of 2"),
        (lambda: VAE(VAEConfig()).encode(torch.zeros(1, 1, 16, 16)), r"\(b, 3, h, w\)"),
        (lambda: VAE(VAEConfig()).decode(torch.zeros(1, 3, 8, 8)), r"Latents are \(b, 4, h, w\)"),
    ],
)
def test_refusals(call, said):
    with pytest.raises(ValueError, match=said):
        call()


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"block_out_channels": None}, "a list of numbers"),
        ({"down_block_types": ["DownBlock2D", "DownEncoderBlock2D"]}, "latent diffusion's form"),
        ({"use_quant_conv": False}, "use_quant_conv = False"),
        ({"latent_channels": "4"}, "a whole number, 1 or more"),
        ({"latent_channels": 8}, "do not belong together"),
    ],
)
def test_foreign_configs(changes, said, tmp_path):
    theirs("two levels", tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=said):
        VAE.from_pretrained(tmp_path)
