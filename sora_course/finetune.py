"""Chapter 08: the model goes on learning from films of your own, by the same loop and into the same kind of checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn as nn

from .kit import checkpoints
from .kit.films import Clip
from .kit.training import TrainConfig, autocast, train
from .sora import TextToVideo
from .text import Tokenizer

OWN = "own"  # what stands for the preset in the config of a model that learned from films of one's own


def with_words(model: TextToVideo, captions: list[str]) -> TextToVideo:
    """A model with the same weights that also knows the words of these captions; new words begin as small random vectors.

    Raises:
        ValueError: a caption has more tokens than the text encoder takes, or none.
    """
    Tokenizer(model.config["vocabulary"])(captions)  # refuses what is too long
    known = model.config["vocabulary"]
    new = [token for token in Tokenizer.from_texts(captions).vocabulary if token not in known]
    vocabulary = [*known, *new]
    config = model.config | {"vocabulary": vocabulary, "preset": OWN, "example": captions[0]}
    larger = TextToVideo(config | {"text": config["text"] | {"vocab_size": len(vocabulary)}})
    tensors = model.state_dict()
    old = tensors["text.embed.weight"]
    generator = torch.Generator().manual_seed(0)
    fresh = float(old[2:].std()) * torch.randn(len(new), old.shape[1], generator=generator)
    larger.load_state_dict(tensors | {"text.embed.weight": torch.cat([old, fresh.to(old)])})
    return larger


def finetune(
    model: TextToVideo,
    clips: list[Clip],
    folder: Path,
    *,
    name: str,
    steps: int = 1000,
    batch: int = 16,
    device: str = "cpu",
) -> TextToVideo:
    """Train transformer and word vectors on the clips; VAE and the rest of the text encoder stay. Writes sora_NAME.safetensors.

    Stopped and called again with the same clips it goes on from its last save. Films of different shapes are never mixed in
    a batch: each batch is of one shape, drawn as often as there are clips of it.

    Raises:
        ValueError: a caption is too long, or the folder holds a save of other clips, settings, or of another model to begin with,
            or the training of a recipe.
    """
    if (folder / "recipe.json").exists():
        raise ValueError(f"{folder} holds the training of a recipe, which this might overwrite; name another folder.")
    model = with_words(model, [clip.caption for clip in clips]).to(device)
    model.requires_grad_(False)
    model.dit.requires_grad_(True)
    model.text.embed.requires_grad_(True)
    groups: dict[tuple[int, int, int], list[int]] = {}
    latents = []
    for i, clip in enumerate(clips):
        groups.setdefault(clip.shape, []).append(i)
        video = clip.video[None].to(device).float() / 127.5 - 1
        with torch.no_grad(), autocast(device):
            latents.append(model.vae.encode(video)[0].float())
    weights = torch.tensor([float(len(members)) for members in groups.values()])

    def loss(generator):
        members = list(groups.values())[int(torch.multinomial(weights, 1, generator=generator))]
        chosen = [members[i] for i in torch.randint(len(members), (batch,), generator=generator).tolist()]
        captions = [clips[i].caption for i in chosen]
        return model.loss(torch.stack([latents[i] for i in chosen]), captions, generator=generator)

    begun = {f"clip {i}": clip.video for i, clip in enumerate(clips)} | model.state_dict()
    digest = checkpoints.digest(begun, repr(([clip.caption for clip in clips], batch)))
    seed = int(digest[:8], 16)  # so that a save of other clips or of another model is told apart
    # With AdamW a new word was learned within 60 steps, with Muon (learning rate 0.005) not yet.
    config = TrainConfig(
        steps=steps, optimizer="adamw", adamw_lr=1e-3, warmup=20, decay=1.0, ema=0.99, seed=seed,
        save_every=min(100, max(1, steps // 4)),
    )
    train(_Trained(model), loss, config, folder=folder, describe=name)
    model.save(folder / f"sora_{name}.safetensors")
    return model


class _Trained(nn.Module):
    """What changes, so that a save holds this and not the VAE."""

    def __init__(self, model: TextToVideo):
        super().__init__()
        self.dit, self.embed = model.dit, model.text.embed


def unknown_words(model: TextToVideo, prompt: str) -> list[str]:
    """The prompt's tokens that are not in the model's vocabulary (which holds the captioned world's words, too)."""
    return [token for token in Tokenizer.split(prompt) if token not in model.tokenizer.index]
