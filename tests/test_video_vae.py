"""The causal video VAE: causality, shapes, the bound's closed form, refusals."""

import pytest
import torch

from sora_course.vae import psnr
from sora_course.video_vae import VideoVAE, VideoVAEConfig


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    vae = VideoVAE(VideoVAEConfig(latent_channels=4, channels=(8, 8)))
    for p in vae.parameters():  # residual branches start as zero; give them something to do
        torch.nn.init.normal_(p, std=0.1)
    return vae


@pytest.mark.parametrize("frames, latent_frames", [(1, 1), (5, 2), (17, 5)])
def test_4n_plus_1_frames_become_n_plus_1(vae, frames, latent_frames):
    latents = vae.encode(torch.zeros(2, 3, frames, 16, 24))
    assert latents.shape == (2, 4, latent_frames, 2, 3)
    assert vae.decode(latents).shape == (2, 3, frames, 16, 24)


@pytest.mark.parametrize("time_factor, patch_size, time_kernel", [(1, 2, 3), (2, 4, 1), (8, 8, 2)])
def test_other_factors(time_factor, patch_size, time_kernel, generator):
    sizes = {"time_factor": time_factor, "patch_size": patch_size, "time_kernel": time_kernel}
    vae = VideoVAE(VideoVAEConfig(latent_channels=4, channels=(8, 16), encoder_channels=(8, 8), **sizes))
    video = torch.randn(1, 3, 2 * time_factor + 1, 32, 16, generator=generator)
    latents = vae.encode(video)
    assert latents.shape == (1, 4, 3, 32 // (2 * patch_size), 16 // (2 * patch_size))
    film = vae.decode(latents)
    assert film.shape == video.shape
    assert torch.allclose(torch.cat(list(vae.decode_in_chunks(latents, 1)), dim=2), film, atol=1e-5)
    assert torch.allclose(torch.cat(list(vae.encode_in_chunks(video, 2)), dim=2), latents, atol=1e-5)
    with pytest.raises(ValueError, match=f"sides divisible by {2 * patch_size}"):
        vae.encode(video[..., :-1])


def test_no_latent_frame_depends_on_later_frames(vae, generator):
    video = torch.randn(1, 3, 17, 16, 16, generator=generator, requires_grad=True)
    for i in range(5):
        (gradient,) = torch.autograd.grad(vae.encode(video)[:, :, i].sum(), video)
        reached = gradient.abs().sum((0, 1, 3, 4)) > 0
        assert not reached[4 * i + 1 :].any() and reached[max(0, 4 * i - 3) : 4 * i + 1].all()


def test_no_frame_depends_on_later_latents_and_a_still_is_the_first_frame(vae, generator):
    latents = torch.randn(1, 4, 5, 2, 2, generator=generator)
    whole = vae.decode(latents)
    for n in (1, 2, 4):
        assert torch.allclose(vae.decode(latents[:, :, :n]), whole[:, :, : 4 * n - 3], atol=1e-5)


@pytest.mark.parametrize("latent_frames, chunk", [(1, 1), (2, 1), (5, 1), (5, 2), (6, 3), (7, 5), (3, 9)])
def test_piece_by_piece_equals_the_whole(vae, latent_frames, chunk, generator):
    video = torch.randn(1, 3, 4 * latent_frames - 3, 16, 24, generator=generator)
    whole, pieces = vae.encode(video), list(vae.encode_in_chunks(video, chunk))
    assert all(piece.shape[2] <= chunk for piece in pieces)
    assert (torch.cat(pieces, dim=2) - whole).abs().max() <= 1e-5 * whole.abs().max()
    film, pieces = vae.decode(whole), list(vae.decode_in_chunks(whole, chunk))
    assert pieces[0].shape[2] == 4 * min(chunk, latent_frames) - 3
    assert (torch.cat(pieces, dim=2) - film).abs().max() <= 1e-5 * film.abs().max()


def test_kl_is_that_of_torch_distributions(vae, generator):
    from torch.distributions import Normal, kl_divergence

    video = torch.randn(2, 3, 5, 16, 16, generator=generator).clamp(-1, 1)
    mean, log_var = vae.posterior(video)
    expected = kl_divergence(Normal(mean, (0.5 * log_var).exp()), Normal(0.0, 1.0)).mean()
    loss = vae.loss(video, generator=generator, kl_weight=0.5)
    assert torch.allclose(loss["kl"], expected, rtol=1e-5) and torch.allclose(loss["loss"], loss["mse"] + 0.5 * loss["kl"])


def test_normalising_latents_changes_no_film(vae, generator):
    video = torch.randn(1, 3, 5, 16, 16, generator=generator)
    before = vae.decode(vae.encode(video))
    vae.latent_mean.fill_(0.3)
    vae.latent_std.fill_(2.0)
    assert torch.allclose(vae.decode(vae.encode(video)), before, atol=1e-5)


def test_refused_latents_and_pieces(vae):
    with pytest.raises(ValueError, match=r"Latents are \(b, 4, t, h, w\)"):
        vae.decode(torch.zeros(1, 3, 2, 2, 2))
    with pytest.raises(ValueError, match="latent frames in a piece is 0"):
        next(vae.decode_in_chunks(torch.zeros(1, 4, 2, 2, 2), 0))
    with pytest.raises(ValueError, match="4n . 1 frames"):
        next(vae.encode_in_chunks(torch.zeros(1, 3, 4, 16, 16), 1))


def test_psnr_of_a_known_error():
    reference = torch.zeros(2, 3, 1, 8, 8)
    assert torch.allclose(psnr(reference + 0.02, reference), torch.full((2,), 40.0))


@pytest.mark.parametrize(
    "shape, said",
    [((1, 3, 16, 16, 16), "4n . 1 frames.*17 frames of 16x16"), ((1, 3, 17, 20, 16), "17 frames of 16x16"), ((3, 17, 16, 16), "A video is"),
     ((1, 1, 17, 16, 16), "A video is")],
)  # fmt: skip
def test_videos_it_cannot_take(vae, shape, said):
    with pytest.raises(ValueError, match=said):
        vae.encode(torch.zeros(shape))
