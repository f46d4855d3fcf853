"""How a model is trained by a recipe: in three stages, each of which resumes where it stopped.

    vae    the autoencoder learns on fresh films of the full world
    text   the text encoder learns which captions say the same
    dit    films of the recipe's preset are encoded once, and the transformer learns to find them again from noise

Everything a stage makes goes to a folder of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
import torch.nn as nn

from .binding import QUESTIONS, answers_of, twin
from .buckets import WORDINGS, backdrop_latents, encode_bucket, foreground, mapping, shown_films
from .kit import checkpoints, world
from .kit.captions import caption
from .kit.training import autocast, compile_if_possible, generator_on, step_of, train, uncompiled
from .kit.words import LANGUAGES, NAMES
from .recipes import Recipe
from .sora import TextToVideo
from .text import Reader, TextConfig, TextEncoder, Tokenizer
from .vae import psnr
from .video_vae import ResidualBlock, VideoVAE, VideoVAEConfig


def _go_on_only_with(folder: Path, recipe: Recipe, parts: dict[str, str] | None = None) -> None:
    """Write down what a training begins with, or refuse to go on from what began with something else."""
    path, ours = folder / "recipe.json", json.dumps({"recipe": asdict(recipe), "parts": parts}, indent=1)
    if path.exists() and path.read_text() != ours:
        of = "recipe, autoencoder, text encoder or transformer" if parts else "recipe"
        raise ValueError(f"{folder} was begun with another {of}; name another folder, or delete it to start anew.")
    folder.mkdir(parents=True, exist_ok=True)
    checkpoints.save_atomically(path, lambda p: p.write_text(ours))


def _load_stage(folder: Path, stage: str) -> tuple[dict[str, torch.Tensor], dict]:
    path = folder / f"{stage}.safetensors"
    if not path.is_file():
        raise ValueError(f"Stage 'dit' needs {path}; run stage {stage!r} first, or all stages.")
    tensors, config = checkpoints.load(path)
    wanted = {"vae": asdict(VideoVAEConfig()).keys(), "text": {"vocabulary", "text"}}[stage]
    if config.keys() != wanted:
        raise ValueError(f"{path} holds something else than stage {stage!r} makes; run that stage, or put its own file there.")
    return tensors, config


def _part_to_take_over(part: str, recipe: Recipe) -> tuple[dict[str, torch.Tensor], dict]:
    """The tensors of that part of the model that the recipe names for it, and the model's config."""
    tensors, config = checkpoints.load(checkpoints.find(recipe.taken_over[part]))
    its = {name.removeprefix(f"{part}."): tensor for name, tensor in tensors.items() if name.startswith(f"{part}.")}
    return its, config


def _take_over(part: str, module: nn.Module, own: dict, recipe: Recipe, folder: Path) -> None:
    """Fill the module, of that config of its own, with the part of the model that the recipe names, and write it into the folder.

    What lies there already, from an earlier call or put there by hand, is kept and taken instead.
    """
    path = folder / f"{part}.safetensors"
    if path.exists():
        checkpoints.fill(module, _load_stage(folder, part)[0], f"part {part!r}")
        return
    tensors, config = _part_to_take_over(part, recipe)
    if "vocabulary" in own and own["vocabulary"] != config.get("vocabulary"):
        raise ValueError(f"The text encoder of {recipe.taken_over[part]} numbers its words in another way; train one (recipe 'full').")
    checkpoints.fill(module, tensors, f"part {part!r} to take over")
    checkpoints.save(path, module.state_dict(), own)


# VAE -----------------------------------------------------------------------------------------------------------------
_CLIPS = ((17, 64, 64), (17, 64, 64), (17, 64, 64), (9, 64, 96), (9, 96, 64), (1, 64, 64))


def train_vae(recipe: Recipe, folder: Path, *, device: str = "cpu") -> VideoVAE:
    """Train on fresh films of the full world, then measure the latents' mean and deviation. Writes vae.safetensors.

    A recipe that takes over an autoencoder trains none.
    """
    _go_on_only_with(folder, recipe)
    torch.manual_seed(recipe.vae_train.seed)
    vae = VideoVAE(recipe.vae).to(device)
    if "vae" in recipe.taken_over:
        _take_over("vae", vae, vae.config_dict(), recipe, folder)
        return vae

    def loss(generator):
        t, h, w = _CLIPS[int(torch.randint(len(_CLIPS), (), generator=generator))]
        batch = recipe.vae_batch * (4 if t == 1 else 1)
        scenes = world.sample_scenes(batch, generator=generator)
        films = world.render(scenes, generator=generator, num_frames=t, size=(h, w)).to(device)
        return vae.loss(films, generator=generator, kl_weight=recipe.kl_weight)

    if recipe.compile:
        compile_if_possible((block for block in vae.modules() if isinstance(block, ResidualBlock)), device)
    train(vae, loss, recipe.vae_train, folder=folder / "vae", describe="vae")
    generator = torch.Generator().manual_seed(1)
    films = [world.render(world.sample_scenes(16, generator=generator), generator=generator) for _ in range(16)]
    with torch.no_grad(), autocast(device):
        latents = torch.cat([vae.posterior(f.to(device))[0] for f in films]).transpose(0, 1).flatten(1)  # (c, many)
    vae.latent_mean.copy_(latents.mean(1).view(-1, 1, 1, 1))
    vae.latent_std.copy_(latents.std(1).view(-1, 1, 1, 1))
    checkpoints.save(folder / "vae.safetensors", vae.state_dict(), vae.config_dict())
    return vae


def measure_vae(vae: VideoVAE, *, films: int = 256, seed: int = 2) -> torch.Tensor:
    """PSNR in dB of fresh films of the full world after encoding and decoding: (films,)."""
    generator, values, device = torch.Generator().manual_seed(seed), [], vae.latent_std.device
    for start in range(0, films, 16):
        batch = world.render(world.sample_scenes(min(16, films - start), generator=generator), generator=generator).to(device)
        with torch.no_grad(), autocast(device):
            values.append(psnr(vae.decode(vae.encode(batch)), batch))
    return torch.cat(values)


# Text ----------------------------------------------------------------------------------------------------------------
def vocabulary() -> list[str]:
    """Every token that a caption can hold, in both languages."""
    texts = [phrase for table in NAMES.values() for words in table.values() for phrases in words.values() for phrase in phrases]
    return Tokenizer.from_texts([*texts, "a an and , 一个的，"]).vocabulary


def _language(generator) -> str:
    return LANGUAGES[int(torch.randint(2, (), generator=generator))]


class _ReadText(nn.Module):
    """The encoder with the reader that it is trained beside and that is dropped afterwards."""

    def __init__(self, text: TextEncoder):
        super().__init__()
        self.text, self.reader = text, Reader(text.config.hidden_size, [len(known) for known in QUESTIONS])


def train_text(recipe: Recipe, folder: Path, *, device: str = "cpu") -> TextEncoder:
    """Train on pairs of captions of the full world. Writes text.safetensors.

    With recipe.reading, half of each batch are twins of the other half, and a reader asks after every word. A recipe that takes
    over a text encoder trains none.
    """
    _go_on_only_with(folder, recipe)
    torch.manual_seed(recipe.text_train.seed)
    tokenizer = Tokenizer(vocabulary())
    text = TextEncoder(TextConfig(len(tokenizer.vocabulary), recipe.text_size, recipe.text_depth)).to(device)
    config = {"vocabulary": tokenizer.vocabulary, "text": text.config_dict()}
    if "text" in recipe.taken_over:
        _take_over("text", text, config, recipe, folder)
        return text
    model = _ReadText(text).to(device) if recipe.reading else text

    def loss(generator):
        scenes = world.sample_scenes(recipe.text_batch // (2 if recipe.reading else 1), generator=generator)
        scenes += [twin(scene, generator) for scene in scenes] if recipe.reading else []
        one, other = ([caption(s, _language(generator), generator=generator) for s in scenes] for _ in range(2))
        one, other = ([x.to(device) for x in tokenizer(texts)] for texts in (one, other))
        same = torch.tensor([[a == b for a in scenes] for b in scenes], device=device)
        contrast = text.contrastive_loss(one, other, same)
        if not recipe.reading:
            return contrast
        answers = torch.tensor([answers_of(scene) for scene in scenes], device=device)
        reading = model.reader.loss(text(*one)[0], one[1], answers)
        return contrast | reading | {"loss": contrast["loss"] + reading["loss"]}

    train(model, loss, recipe.text_train, folder=folder / "text", describe="text")
    checkpoints.save(folder / "text.safetensors", text.state_dict(), config)
    return text


# DiT -----------------------------------------------------------------------------------------------------------------
def train_dit(
    recipe: Recipe, folder: Path, *, name: str, device: str = "cpu", every: Callable[[TextToVideo, int, float], None] | None = None
) -> TextToVideo:
    """Train the transformer on encoded films; VAE and text encoder stay as they are. Writes sora_NAME.safetensors.

    Args:
        every: called with (model, steps, seconds) at each checkpoint, with averaged weights in place.

    Raises:
        ValueError: an earlier stage is missing, or the folder holds what another recipe, VAE, text encoder or transformer began.
    """
    (vae_tensors, vae_config), (text_tensors, text_config) = (_load_stage(folder, s) for s in ("vae", "text"))
    parts = {"autoencoder": checkpoints.digest(vae_tensors), "text encoder": checkpoints.digest(text_tensors)}
    begun = _part_to_take_over("dit", recipe)[0] if "dit" in recipe.taken_over else {}
    _go_on_only_with(folder, recipe)
    _go_on_only_with(folder / "dit", recipe, parts | ({"transformer": checkpoints.digest(begun)} if begun else {}))
    torch.manual_seed(recipe.dit_train.seed)
    config = {
        "preset": recipe.preset, "recipe": name, **text_config, "vae": vae_config, "dit": asdict(recipe.dit),
    }  # fmt: skip
    model = TextToVideo(config)
    checkpoints.fill(model.vae, vae_tensors, "VAE")
    checkpoints.fill(model.text, text_tensors, "text encoder")
    if begun:
        checkpoints.fill(model.dit, begun, "part 'dit' to take over")
    model.vae.requires_grad_(False)
    model.text.requires_grad_(False)  # trained along, at the transformer's pace, it forgets what sets left apart from right
    model.to(device)
    drawn = {"preset": recipe.preset, "richness": recipe.richness, "vocabulary": config["vocabulary"]}
    with mapping(torch.device(device)) as map_parts:
        data = [encode_bucket(model.vae, bucket, folder, map_parts, **drawn) for bucket in recipe.buckets]
    empty = [backdrop_latents(model.vae, bucket) for bucket in recipe.buckets] if recipe.foreground else []
    weights = torch.tensor([bucket.weight for bucket in recipe.buckets])

    def loss(generator):
        which = int(torch.multinomial(weights, 1, generator=generator))
        films, progress = data[which], step_of(generator, recipe.dit_train) / recipe.dit_train.steps
        shown = shown_films(len(films.latents), richness=recipe.richness, progress=progress)
        generator = generator_on(device, generator)
        any_of = partial(torch.randint, size=(recipe.buckets[which].batch,), generator=generator, device=generator.device)
        chosen, wording = any_of(shown), any_of(WORDINGS)
        x0, weight = films.latents[chosen].float(), None
        if recipe.foreground:
            weight = foreground(x0, empty[which][films.behind[chosen]], recipe.foreground)
        words = films.words[chosen, wording].long()
        return model.loss(x0, words, generator=generator, times_mean=recipe.times_mean, weight=weight)

    if recipe.compile:
        compile_if_possible(model.dit.blocks, device)

    def look(steps, seconds):
        with uncompiled() if device != "cpu" else nullcontext():
            every(model, steps, seconds)

    train(model.dit, loss, recipe.dit_train, folder=folder / "dit", every=look if every else None, describe="dit")
    model.save(folder / f"sora_{name}.safetensors")
    return model
