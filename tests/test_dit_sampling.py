"""Sampling as the paper's DiT was published: every step equals diffusers', and the whole way from folders to pictures."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler
from safetensors.torch import save_file
from test_dit import paper_tensors, theirs

from sora_course.ddpm import DDPM, linear_schedule
from sora_course.dit import DiT, DiTConfig
from sora_course.dit_sampling import learned_variance, paint_classes, respaced, sample_classes, spread
from sora_course.vae import VAE


@pytest.fixture
def net(tmp_path):
    theirs("as published, small").save_pretrained(tmp_path / "dit")
    net = DiT.from_pretrained(tmp_path / "dit")
    with torch.no_grad():
        for p in net.final.linear.parameters():
            p *= 0.01  # so that the variances it says lie where a trained network's do
    return net


@pytest.mark.parametrize("steps, channels", [(5, 3), (7, 4)])
def test_every_step_is_that_of_diffusers_with_learned_variances(steps, channels, net, generator):
    scheduler = DDPMScheduler(1000, 1e-4, 0.02, variance_type="learned_range", clip_sample=False)
    scheduler.set_timesteps(timesteps=spread(1000, steps))
    labels = torch.tensor([3, 8])
    noise = x = torch.randn(2, 4, 8, 8, generator=generator)
    states = sample_classes(
        net,
        labels,
        noise,
        generator=torch.Generator().manual_seed(1),
        steps=steps,
        guidance_scale=2.5,
        guided_channels=channels,
    )
    theirs_generator = torch.Generator().manual_seed(1)
    for t, state in zip(scheduler.timesteps, states, strict=True):
        with torch.no_grad():
            both = [net(x, t.repeat(2), one) for one in (labels, torch.full_like(labels, 10))]
        answer = both[0].clone()
        answer[:, :channels] = both[1][:, :channels] + 2.5 * (both[0] - both[1])[:, :channels]
        x = scheduler.step(answer, t, x, generator=theirs_generator).prev_sample
        assert (state - x).abs().max() <= 1e-5 * x.abs().max()
        x = state


def test_the_published_way_of_spreading_250_steps():
    times = spread(1000, 250)
    assert (
        len(set(times)) == 250 and times[0] == 999 and times[-1] == 0 and max(a - b for a, b in zip(times, times[1:])) == 5
    )
    assert 499 in spread(1000, 21)  # added up, 499.5 falls just short


@pytest.fixture
def published(tmp_path):
    """Folders as they are published, with tiny random weights: a VAE's, and a DiT's in three forms."""
    torch.manual_seed(0)
    vae = AutoencoderKL(block_out_channels=[8, 8], norm_num_groups=4, down_block_types=["DownEncoderBlock2D"] * 2,
                        up_block_types=["UpDecoderBlock2D"] * 2)  # fmt: skip
    vae.save_pretrained(tmp_path / "sd-vae-ft-ema")
    theirs("as published, small").save_pretrained(tmp_path / "diffusers" / "transformer")
    tensors = paper_tensors(DiT.from_pretrained(tmp_path / "diffusers"))
    (tmp_path / "DiT-XL-2-256x256").mkdir()
    torch.save(tensors, tmp_path / "DiT-XL-2-256x256" / "DiT-XL-2-256x256.pt")
    save_file(tensors, tmp_path / "DiT.safetensors")
    return tmp_path


def test_from_folders_as_published_to_pictures(published):
    vae, labels = VAE.from_pretrained(published / "sd-vae-ft-ema"), torch.tensor([1, 2, 3])
    first, *others = [
        paint_classes(DiT.from_pretrained(published / name), vae, labels, seed=3, side=8, steps=4)
        for name in ("diffusers", "DiT-XL-2-256x256", "DiT.safetensors")
    ]
    assert first.shape == (3, 3, 16, 16) and first.isfinite().all() and first.std() > 0.01
    assert all(torch.equal(first, other) for other in others)


def test_the_notebooks_cell_paints_from_such_folders(published, monkeypatch):
    import matplotlib.pyplot as plt
    import nbformat

    from sora_course.kit import plots

    notebook = nbformat.read(Path(__file__).parents[1] / "notebooks" / "07_dit.ipynb", as_version=4)
    source = next(cell.source for cell in notebook.cells if cell.id == "published")
    source = source.replace("FETCH = False", "FETCH = True").replace(", 250\n", ", 3\n")
    for name, here in (
        ("AI-ModelScope/", f"{published}/"),
        (": 207", ": 7"),
        (": 88", ": 8"),
        (": 387", ": 3"),
        (": 974", ": 9"),
    ):
        assert name in source
        source = source.replace(name, here)
    shown = []
    monkeypatch.setattr(plots, "show_tiles", lambda axis, pictures, columns, title: shown.append((pictures, title)))
    exec(source, {"torch": torch, "plt": plt, "plots": plots, "DiT": DiT})  # noqa: S102
    ((pictures, title),) = shown
    assert pictures.shape == (4, 3, 64, 64) and title.startswith("golden retriever")


def test_a_network_in_half_precision_keeps_its_precision_to_the_end(generator):
    net = DiT(DiTConfig(hidden_size=8, depth=1, num_heads=1, num_classes=3)).bfloat16()
    *_, last = sample_classes(net, torch.tensor([1]), torch.zeros(1, 4, 8, 8).bfloat16(), generator=generator, steps=3)
    assert last.isfinite().all()


def test_the_respaced_process_keeps_its_target_and_its_noise():
    process = DDPM(linear_schedule(), target="v")
    few = respaced(process, [999, 500, 0])
    assert few.target == "v" and torch.allclose(few.alphas_cumprod, process.alphas_cumprod[[0, 500, 999]])
    for times in ([0, 500], [1000, 0], [5.0, 1.0], [], [3, 3]):
        with pytest.raises(ValueError, match="whole numbers that fall"):
            respaced(process, times)


def test_learned_variances_lie_between_the_posteriors_and_beta():
    process = DDPM(linear_schedule())
    low, high = learned_variance(process, torch.tensor([-1.0, 1.0]), 5)
    _, posterior = process.posterior(torch.zeros(1, 1), torch.zeros(1, 1), torch.tensor([5]))
    assert torch.allclose(low, posterior.double()) and torch.allclose(high, process.betas[5])
    for t in (0, -1, 1000, torch.tensor([5])):
        with pytest.raises(ValueError, match="steps 1 to 999"):
            learned_variance(process, torch.zeros(1), t)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"steps": 1}, "from 2 to 1000"), ({"steps": 1001}, "from 2 to 1000"), ({"guided_channels": 5}, "latents have 4"),
        ({"labels": torch.tensor([11])}, "Labels go from 0 to 10"), ({"labels": torch.tensor([1, 2])}, "There are 1 latents"),
    ],
)  # fmt: skip
def test_refusals(changes, said, net, generator):
    given = {
        "labels": torch.tensor([1]),
        "noise": torch.randn(1, 4, 8, 8, generator=generator),
        "generator": generator,
    } | changes
    with pytest.raises(ValueError, match=said):
        next(sample_classes(net, **given))


def test_a_network_without_variances_is_refused(generator):
    net = DiT(DiTConfig(in_channels=4, out_channels=4, hidden_size=8, depth=1, num_heads=1))
    with pytest.raises(ValueError, match="8 channels out for 4 in"):
        next(sample_classes(net, torch.tensor([1]), torch.zeros(1, 4, 8, 8), generator=generator))
