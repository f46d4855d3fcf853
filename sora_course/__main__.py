"""The command line: `sora-course generate "a red circle moves right"`, and what goes with it."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import re
import sys
from pathlib import Path

from .arguments import parser_of_commands


def _load(name: str | None):
    """The checkpoint's model, on the CPU."""
    from .finetune import OWN
    from .kit.scenes import PRESETS
    from .sora import DEFAULT_CHECKPOINT, TextToVideo

    model = TextToVideo.from_pretrained(name or DEFAULT_CHECKPOINT)
    if model.config.get("preset") not in (*PRESETS, OWN):
        raise ValueError(f"{name or DEFAULT_CHECKPOINT} does not say which part of the world it was trained on; name a checkpoint of ours.")
    return model


def _default_name(prompt: str, seed: int) -> str:
    name = re.sub(r"[^\w\u4e00-\u9fff]+", "_", prompt.lower()).strip("_")
    if len(name.encode()) > 150:  # file systems take 255 bytes; what is cut off must still tell prompts apart
        name = name.encode()[:140].decode(errors="ignore") + "_" + hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name}_{seed}.mp4"


def _as_trained(model, prompt: str, frames: int) -> str:
    """The prompt in the words of the captions that the model learned from; refused where it never saw what is asked for."""
    from .finetune import OWN, unknown_words
    from .kit.captions import caption, language_of, parse
    from .kit.scenes import check_known

    if model.config["preset"] != OWN:
        return caption(check_known(parse(prompt), model.config["preset"], num_frames=frames), language_of(prompt))
    unknown = unknown_words(model, prompt)
    if unknown:
        raise ValueError(
            f"This model never saw {', '.join(map(repr, unknown))}; it learned from captions such as {model.config['example']!r}."
        )
    return prompt


def _second_look(model, tries: int | None, frames: int, size: tuple[int, int]):
    """`film_reader.draw_again` with the reader that ships, or None for one try; refused for films that it cannot read.

    None asks for four tries of films that it can read, and for one of others.
    """
    from functools import partial

    from .film_reader import DEFAULT_READER, FilmReader, can_read, draw_again
    from .kit import checkpoints
    from .kit.scenes import PRESETS

    readable = can_read(frames, size) and model.config["preset"] in PRESETS
    if readable and tries is None and not (checkpoints.data_folder() / f"{DEFAULT_READER}.safetensors").is_file():
        print(f"No second look, for there is no {DEFAULT_READER}.safetensors in {checkpoints.data_folder()}.", file=sys.stderr)
        return None
    tries = tries or (4 if readable else 1)
    if tries == 1:
        return None
    if not readable:
        raise ValueError(
            "Only films of the captioned world, of 9 to 25 frames and 64 to 96 pixels a side, can be read; leave out --tries."
        )
    return partial(draw_again, reader=FilmReader.from_pretrained(), tries=tries)


def _generate(a: argparse.Namespace) -> None:
    from .kit import display
    from .kit.training import training_device

    device = training_device(a.device)
    if a.out:
        display.check_target(a.out)
    model = _load(a.checkpoint).to(device)
    model.check_size(a.frames, a.size)
    text = _as_trained(model, a.prompt, a.frames)
    again = _second_look(model, a.tries, a.frames, a.size)
    from tqdm import tqdm

    def generate(prompts, seeds):
        return model.generate(
            prompts, seed=seeds, steps=a.steps, guidance_scale=a.guidance_scale, num_frames=a.frames, size=a.size,
            progress=lambda steps, total: tqdm(steps, total=total, desc="painting", leave=False),
        ).cpu()  # fmt: skip

    for i in range(a.count):
        path = a.out or Path("videos") / _default_name(a.prompt, a.seed + i)
        if not a.out:
            path.parent.mkdir(exist_ok=True)
        if a.out and a.count > 1:
            path = path.with_stem(f"{path.stem}_{a.seed + i}")
        films, drawn = generate([text], [a.seed + i]), 1
        if again:
            films, drawn = again(films, [text], [a.seed + i], generate=generate)
        print(f"Wrote {display.write(path, films[0])}" + (f", the best of {drawn} films" if drawn > 1 else ""))


def _train(a: argparse.Namespace) -> None:
    from . import recipes, stages
    from .kit.training import training_device

    device = training_device(a.device)
    recipe = recipes.recipe_named(a.recipe)
    folder = a.folder or Path("runs") / a.recipe
    folder.mkdir(parents=True, exist_ok=True)
    if a.stage in ("vae", "all"):
        vae = stages.train_vae(recipe, folder, device=device)
        values = stages.measure_vae(vae, films=64)
        print(f"VAE: {values.mean():.1f} dB PSNR on 64 fresh films")
    if a.stage in ("text", "all"):
        stages.train_text(recipe, folder, device=device)
    if a.stage in ("dit", "all"):
        every = _accuracy_log(recipe, folder, a.measure) if a.measure else None
        stages.train_dit(recipe, folder, name=a.recipe, device=device, every=every)
        print(f"Wrote {folder / f'sora_{a.recipe}.safetensors'}; try it with `sora-course generate --checkpoint` and this file.")


def _finetune(a: argparse.Namespace) -> None:
    from .finetune import finetune
    from .kit import films
    from .kit.training import training_device
    from .text import Tokenizer

    if not re.fullmatch(r"[\w-]+", a.name):
        raise ValueError(f"A name has letters, digits, - and _, and {a.name!r} has others.")
    device, model = training_device(a.device), _load(a.checkpoint)
    tokenizer = Tokenizer(model.config["vocabulary"])
    clips, summary = films.read_folder(a.films, num_frames=a.frames, skip=a.skip, check=lambda text: tokenizer([text]))
    print(summary)
    folder = a.folder or Path("runs") / a.name
    folder.mkdir(parents=True, exist_ok=True)
    finetune(model, clips, folder, name=a.name, steps=a.steps, device=device)
    print(f"Wrote {folder / f'sora_{a.name}.safetensors'}; try it with `sora-course generate --checkpoint` and this file.")


def _accuracy_log(recipe, folder: Path, prompts: int):
    """A callback that judges films of held-out prompts and appends the shares to accuracy.jsonl, once for each step."""
    from .kit.evaluation import held_out_prompts, summarise
    from .kit.judge import judge

    scenes, texts = held_out_prompts(prompts, preset=recipe.preset, seed=99)

    def every(model, step: int, seconds: float) -> None:
        path = folder / "accuracy.jsonl"
        if path.exists() and any(json.loads(line)["step"] == step for line in path.read_text().splitlines()):
            return
        verdicts = []
        for i in range(0, prompts, 32):
            films = model.generate(texts[i : i + 32], seed=list(range(i, min(i + 32, prompts))))
            verdicts += judge(films, scenes[i : i + 32])
        shares = {name: round(row["share"], 4) for name, row in summarise(verdicts).items()}
        with open(path, "a") as file:
            file.write(json.dumps({"step": step, "seconds": round(seconds, 1), **shares}) + "\n")
        print(f"\n{step} steps, {seconds / 60:.1f} min: {shares}")

    return every


def _evaluate(a: argparse.Namespace) -> None:
    from functools import partial

    from tqdm import tqdm

    from .kit import checkpoints, evaluation
    from .kit.scenes import PRESETS
    from .kit.training import autocast, training_device
    from .recipes import recipe_named

    device = training_device(a.device)

    if a.json and (a.json.is_dir() or not a.json.parent.is_dir() or not os.access(a.json.parent, os.W_OK)):
        raise ValueError(f"The numbers cannot be written to {a.json}; name a file in a folder that exists and is yours.")
    model = _load(a.checkpoint).to(device)
    if model.config["preset"] not in PRESETS:
        raise ValueError("The judge reads films of the captioned world; it cannot tell what films of your own should show.")

    model.check_size(a.frames, a.size)
    if a.objects == 2 and model.config["preset"] != "full":
        raise ValueError("This model never saw two objects; leave out --objects, or name a model of the full preset.")
    if a.variety:
        recipe_named(model.config.get("recipe"))  # whose films its films are compared with
    if a.variety and (a.objects, a.frames, a.size) != (1, 17, (64, 64)):
        raise ValueError("--variety compares one object in 17 frames of 64x64 with the world; leave out --objects, --frames and --size.")
    filmed = {"num_frames": a.frames, "size": a.size}
    sampler = {"guidance_scale": a.guidance_scale, "guided_until": 0.5, "solver": "euler", "shift": 3.0, "eta": math.inf}

    again = _second_look(model, a.tries, a.frames, a.size)

    def generate(prompts, seeds, steps=a.steps):
        return model.generate(prompts, seed=seeds, steps=steps, **sampler, **filmed).cpu()

    def round_trip(films):
        import torch

        with torch.no_grad(), autocast(device):
            return model.vae.decode(model.vae.encode(films.to(device))).cpu()

    result = evaluation.evaluate(
        generate, round_trip, prompts=a.prompts, preset=model.config["preset"], objects=a.objects, seed=a.seed, **filmed,
        again=again and partial(again, generate=generate), progress=lambda batches: tqdm(batches, desc="judging"),
    )  # fmt: skip
    result |= {"tries": a.tries, "steps": a.steps, **sampler, "eta": str(sampler["eta"])}  # JSON knows no infinity
    print(evaluation.as_table(result))

    def keep() -> None:
        if a.json:
            checkpoints.save_atomically(a.json, lambda p: p.write_text(json.dumps(result, indent=1) + "\n"))

    keep()
    if a.variety:
        from .report import as_lines, measure_variety

        result["variety"] = measure_variety(model, generate, prompts=min(256, a.prompts))
        print(as_lines(result["variety"]))
        keep()
    if a.calls:
        result["calls"] = evaluation.by_calls(
            generate, prompts=min(256, a.prompts), preset=model.config["preset"], objects=a.objects, seed=a.seed,
            progress=lambda rows: tqdm(rows, desc="calls"),
        )  # fmt: skip
        for row in result["calls"]:
            print(f"{row['calls']:3} calls: {row['share']:.1%} all right ({100 * row['low']:.1f}-{100 * row['high']:.1f})")
        keep()


def _world(a: argparse.Namespace) -> None:
    import matplotlib
    import torch

    matplotlib.use("Agg")
    from .kit import checkpoints, display, world

    if a.out.suffix.lower() != ".png":
        raise ValueError(f"The sheet is a picture, and {a.out.name!r} does not end in .png.")
    display.check_target(a.out)
    generator = torch.Generator().manual_seed(a.seed)
    scenes = world.sample_scenes(a.count, generator=generator, preset=a.preset)
    texts = [world.caption(scene, generator=generator) for scene in scenes]
    figure = display.sheet(world.render(scenes, generator=generator), texts)
    checkpoints.save_atomically(a.out, lambda p: figure.savefig(p, dpi=110))
    print(f"Wrote {a.out}")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 if all went well, 1 if the doctor found something, 2 for bad input, 130 if it was stopped."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a Chinese file name must not stop a terminal that cannot show it
            stream.reconfigure(errors="backslashreplace")
    a = parser_of_commands().parse_args(arguments)
    try:
        if a.command == "doctor":
            from .kit import doctor

            return 0 if doctor.run() else 1
        {"generate": _generate, "train": _train, "finetune": _finetune, "evaluate": _evaluate, "world": _world}[a.command](a)
    except (ValueError, OSError, ImportError, FloatingPointError, MemoryError) as error:
        print(error, file=sys.stderr)
        return 2
    except RuntimeError as error:
        if not re.search("out of memory|allocate memory|not enough memory", str(error)):  # as torch says it
            raise
        print("There is not enough memory for this; smaller, shorter or fewer films take less, or take a machine with more.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped." + (" A second call goes on from the last save." if a.command in ("train", "finetune") else ""), file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
