"""Chapter 08: the whole system, from a sentence to a film.

    prompt -> Tokenizer, TextEncoder -> VideoDiT follows the flow from noise to latents -> VideoVAE decodes -> video

One model does text to video, stills, image to video, extension in both directions and connecting, because it is trained
to complete latents of which any part may be given (`draw_known`), in several lengths and shapes of frame.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn as nn

from . import flow
from .ddpm import guided
from .kit import checkpoints
from .kit.training import autocast
from .text import TextConfig, TextEncoder, Tokenizer
from .video_dit import VideoDiT, VideoDiTConfig
from .video_vae import VideoVAE, VideoVAEConfig

DEFAULT_CHECKPOINT = "sora_full"
MAX_PIXELS = 2**22


def draw_known(batch: int, frames: int, *, generator: torch.Generator, none: float = 0.7) -> torch.Tensor:
    """Masks that say which latent frames a training sample is given: (b, 1, t, 1, 1), 1 for given.

    With probability `none` nothing is given (text to video); otherwise, equally often, the first frame, the last frame, a
    first part, a last part, both ends, or random frames, and always at least one frame is left to find. After the unified
    masks of Open-Sora. A still has nothing to give. On the generator's device.
    """
    device = generator.device
    if frames == 1:
        return torch.zeros(batch, 1, 1, 1, 1, device=device)
    kind, first, last = (torch.randint(n, (batch, 1), generator=generator, device=device) for n in (6, frames - 1, frames - 1))
    place = torch.arange(frames, device=device)
    at_random = torch.rand(batch, frames, generator=generator, device=device) < 0.5
    ends = place == 0, place == frames - 1
    ways = [ends[0], ends[1], place <= first, place > last, ends[0] | ends[1], at_random & (place != first)]
    ways = torch.stack([way.expand(batch, frames) for way in ways], dim=1)  # (b, 6, t)
    known = ways.gather(1, kind[..., None].expand(batch, 1, frames)).squeeze(1)
    known &= ~(known.all(1, keepdim=True) & ends[1])
    known &= torch.rand(batch, 1, generator=generator, device=device) >= none
    return known.float().view(batch, 1, frames, 1, 1)


def known_latents(known_frames, num_frames: int) -> torch.Tensor:
    """Which latent frames are wholly covered by the given film frames: (n + 1,), bool.

    Latent frame 0 stands for film frame 0, latent frame i for frames 4i - 3 to 4i.

    Raises:
        ValueError: a frame number is outside the film, or the given frames cover no latent frame, or all of them.
    """
    given = torch.zeros(num_frames, dtype=torch.bool)
    for i in known_frames:
        if not 0 <= i < num_frames:
            raise ValueError(f"Frame {i} was named as given, and the film has frames 0 to {num_frames - 1}.")
        given[i] = True
    covered = torch.cat([given[:1], given[1:].view(-1, 4).all(1)])
    if not covered.any() or covered.all():
        raise ValueError(
            "The given frames must cover frame 0 or a group of four (1-4, 5-8, ...) and leave one such group to find."
        )
    return covered


class TextToVideo(nn.Module):
    """The text encoder, the transformer and the VAE together, with the tokenizer's vocabulary and the training preset."""

    def __init__(self, config: dict):
        super().__init__()
        self.config = config
        self.tokenizer = Tokenizer(config["vocabulary"])
        self.text = TextEncoder(TextConfig(**config["text"]))
        self.dit = VideoDiT(VideoDiTConfig(**config["dit"]))
        vae = {k: tuple(v) if isinstance(v, list) else v for k, v in config["vae"].items()}
        self.vae = VideoVAE(VideoVAEConfig(**vae))
        if self.text.config.hidden_size != self.dit.config.text_size:
            raise ValueError("Text encoder and transformer must agree on the size of a token's features.")
        if (self.vae.config.time_factor, self.vae.config.space_factor) != (4, 8):
            raise ValueError("The system counts on an autoencoder that shrinks time 4 times and height and width 8 times.")

    @classmethod
    def from_pretrained(cls, name: str = DEFAULT_CHECKPOINT) -> TextToVideo:
        """Load a checkpoint by file or by name, ready to generate on the CPU.

        Raises:
            ValueError: it is not there, not whole, not ours, or its config and tensors don't fit.
        """
        path = checkpoints.find(name)
        tensors, config = checkpoints.load(path)
        try:
            model = cls(config)
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"The config inside {path} is not that of a text-to-video model ({error!r}).") from error
        checkpoints.fill(model, tensors, "weights")
        return model.eval()

    def save(self, path: Path | str) -> None:
        """Write one safetensors file with the config inside; the transformer's matrices with 8 bits a weight, the rest with 16."""
        tensors = {name: tensor.half() for name, tensor in self.state_dict().items()}
        matrices = {n: tensors.pop(n) for n in list(tensors) if n.startswith("dit.") and tensors[n].ndim == 2}
        checkpoints.save(path, tensors | checkpoints.in_eight_bits(matrices), self.config)

    def encode_text(self, prompts: list[str] | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Sentences, or numbers of their tokens (b, n), to features (b, n, d), mask (b, n) and pooled (b, d)."""
        tokens, mask = (prompts, prompts > 0) if torch.is_tensor(prompts) else self.tokenizer(prompts)
        tokens, mask = (x.to(self.dit.no_text.device) for x in (tokens, mask))
        features, pooled = self.text(tokens, mask)
        return features, mask, pooled

    def check_size(self, num_frames: int, size: tuple[int, int]) -> None:
        """Refuse what VAE and transformer cannot take, naming the nearest that they can.

        Raises:
            ValueError: frames are not 4n + 1, a side is not a positive multiple of 16, or the film is too large.
        """
        if num_frames * size[0] * size[1] > MAX_PIXELS:
            raise ValueError(
                f"{num_frames} frames of {size[1]}x{size[0]} are more than this small model can paint; "
                f"stay under {MAX_PIXELS:,} pixels in all, such as 33 frames of 256x256."
            )
        unit = 8 * self.dit.config.patch_size
        if num_frames < 1 or num_frames % 4 != 1:
            nearest = max(1, round((num_frames - 1) / 4) * 4 + 1)
            raise ValueError(f"A film has 4n + 1 frames, and {num_frames} were asked for; the nearest is {nearest}.")
        if any(s < unit or s % unit for s in size):
            nearest = [max(unit, round(s / unit) * unit) for s in size]
            raise ValueError(
                f"Both sides must be multiples of {unit}, and {size[1]}x{size[0]} was asked for; "
                f"the nearest is {nearest[1]}x{nearest[0]}."
            )

    @torch.no_grad()
    def generate(
        self,
        prompts: str | list[str],
        *,
        seed: int | list[int] = 0,
        steps: int = 24,
        guidance_scale: float = 2.0,
        guided_until: float = 0.5,
        num_frames: int = 17,
        size: tuple[int, int] = (64, 64),
        solver: str = "euler",
        shift: float = 3.0,
        eta: float | None = None,
        video: torch.Tensor | None = None,
        known_frames=None,
        progress=None,
    ) -> torch.Tensor:
        """Films of what the prompts say.

        Args:
            prompts: sentences of the captioned world, English or Chinese.
            seed: one for all prompts, or one for each; the same seed and prompt give the same film in any batch, up to rounding.
            steps: along the flow; the time taken grows in proportion.
            guidance_scale: how strongly to follow the text; 1 for no guidance.
            guided_until: the flow time, in [0, 1], from which on there is no guidance. What the film shows is settled before, and
                outlines gain from being left alone (Kynkäänniemi et al. 2024, section 3); an unguided step costs half.
            num_frames, size: 4n + 1 frames (1 for a still), and (height, width) in multiples of 16.
            solver: "euler" or "heun".
            shift: above 1, more of the steps go to high noise, where it is decided what will be where.
            eta: how much of the noise is new after each step: 0 for none, 1 for as much as DDPM's, math.inf for all (see
                `flow.sample`); None for math.inf with "euler" and 0 with "heun".
            video, known_frames: a film (b, 3, t, h, w) in [-1, 1] of which the frames with these numbers are given and the
                others are found anew: frame 0 alone animates a picture, the first or last frames extend a film, and both
                ends connect. Given frames count in groups of four (see `known_latents`).
            progress: wraps an iterable of steps and takes how many there are as `total`, such as tqdm.

        Returns:
            (b, 3, t, h, w), float32 in [-1, 1].

        Raises:
            ValueError: an argument is out of range; the message says what would do. Words are not checked here: what
                the tokenizer does not know reads as "unknown" (see `kit.captions.parse`, which refuses them).
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not prompts or not all(p.strip() for p in prompts):
            raise ValueError("The prompt is empty; say what the film should show, such as 'a red circle moves right'.")
        if not guidance_scale >= 0:
            raise ValueError(f"The guidance scale was {guidance_scale}; it must be 0 or more, and 1 means no guidance.")
        if not 0 <= guided_until <= 1:
            raise ValueError(f"Guidance until {guided_until} was asked for; it is a flow time, from 1 (noise) to 0 (the film).")
        self.check_size(num_frames, size)
        if (video is None) != (known_frames is None):
            raise ValueError("Give both, a film and which of its frames are known, or neither.")
        device, b = self.dit.no_text.device, len(prompts)
        shape = (self.vae.config.latent_channels, (num_frames - 1) // 4 + 1, size[0] // 8, size[1] // 8)
        seeds = [seed] * b if isinstance(seed, int) else list(seed)
        if len(seeds) != b:
            raise ValueError(f"There are {b} prompts and {len(seeds)} seeds; give one seed, or one for each prompt.")
        generators = [torch.Generator().manual_seed(s) for s in seeds]
        eta = (math.inf if solver == "euler" else 0.0) if eta is None else eta

        def draw() -> torch.Tensor:
            return torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(device)

        with autocast(device):
            known = clean = None
            if known_frames is not None:
                known, clean = self._given(video, known_frames, b, num_frames, size)
            features, mask, pooled = self.encode_text(prompts)
            both = [torch.cat([x, x]) for x in (features, mask, pooled)]
            drop = torch.arange(2 * b, device=device) >= b

            def velocity(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
                if guidance_scale == 1 or t[0] <= guided_until:
                    return self.dit(x, t, features, mask, pooled, known, clean)
                given = (None, None) if known is None else (torch.cat([known, known]), torch.cat([clean, clean]))
                out = self.dit(torch.cat([x, x]), torch.cat([t, t]), *both, *given, drop_text=drop)
                return guided(*out.chunk(2), guidance_scale)

            states = flow.sample(velocity, draw(), steps=steps, solver=solver, shift=shift, eta=eta, draw=draw)
            for x in progress(states, total=steps) if progress else states:
                pass
            if known is not None:
                x = x * (1 - known) + clean * known
            return self.vae.decode(x).clamp(-1, 1)

    def _given(self, video, known_frames, b: int, num_frames: int, size) -> tuple[torch.Tensor, torch.Tensor]:
        """Mask (b, 1, t, 1, 1) and latents of the given frames; frames not given are filled with the nearest one that is."""
        known_frames = sorted(set(known_frames))
        covered = known_latents(known_frames, num_frames)
        if video.shape != (b, 3, num_frames, *size):
            raise ValueError(f"The given film must be {(b, 3, num_frames, *size)}, as many as prompts; it is {tuple(video.shape)}.")
        frames = torch.tensor(known_frames)
        nearest = frames[(torch.arange(num_frames)[:, None] - frames).abs().argmin(1)]
        clean = self.vae.encode(video[:, :, nearest].to(self.dit.no_text.device))
        return covered.to(clean).view(1, 1, -1, 1, 1).expand(b, -1, -1, -1, -1), clean

    def loss(
        self,
        latents: torch.Tensor,
        captions: list[str] | torch.Tensor,
        *,
        generator: torch.Generator,
        drop: float = 0.1,
        times_mean: float = 1.2,
        weight: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Flow-matching loss of one batch of normalised latents (b, c, t, h, w) with their captions, or these captions' tokens (b, n).

        Times are logit-normal with that mean, `drop` is how often the text is hidden, for guidance, `draw_known` decides what is
        given, and `weight`, (b, 1, t, h, w), says how much each place counts (see `buckets.foreground`).
        A moving object fills many latents, which tell of it together even under heavy noise, so that place and motion are
        settled near t = 1: hence a mean above 0 (Esser et al. 2024, section 5.3.2, say the same of large pictures).
        """
        b, device = len(latents), latents.device
        t = flow.logit_normal_times(b, generator=generator, mean=times_mean, std=1.3).to(device)
        noise = torch.randn(latents.shape, generator=generator, device=generator.device).to(device)
        known = draw_known(b, latents.shape[2], generator=generator).to(device)
        hidden = (torch.rand(b, generator=generator, device=generator.device) < drop).to(device)
        features, mask, pooled = self.encode_text(captions)

        def velocity(x, t):
            return self.dit(x, t, features, mask, pooled, known, latents, drop_text=hidden)

        return {"loss": flow.flow_loss(velocity, latents, t, noise, known, weight)}
