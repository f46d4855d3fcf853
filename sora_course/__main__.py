"""The command line: `sora-course generate "a red circle moves right"`, and what goes with it."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
from pathlib import Path


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        self.exit(2, f"{message[:1].upper()}{message[1:]}; `{self.prog} --help` shows how.\n")


def _positive(text: str) -> int:
    if not re.fullmatch(r"\d+", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def _natural(text: str) -> int:
    if not re.fullmatch(r"\d+", text) or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    return int(text)


def _scale(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 up; 1 means no guidance, 2 is usual")
    return value


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT, such as 64x64")
    return int(match[2]), int(match[1])


def _arguments() -> argparse.ArgumentParser:
    parser = _Parser(prog="sora-course", description="Make, train and measure small text-to-video models.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    p = commands.add_parser("generate", help="turn a sentence into a film", description="Turn a sentence into a film.")
    p.add_argument("prompt", metavar="PROMPT", help="what to show, English or Chinese: 'a red circle moves right'")
    p.add_argument("--out", type=Path, help="FILE.mp4, .gif or .png (default: an mp4 in videos/, named after prompt and seed)")
    p.add_argument("--seed", type=_natural, default=0, metavar="N", help="another seed, another film (default 0)")
    p.add_argument("--steps", type=_positive, default=24, metavar="N", help="steps from noise to film (default 24)")
    p.add_argument("--guidance-scale", type=_scale, default=2.0, metavar="X", help="how closely to follow the text; 1: none (2)")
    p.add_argument("--frames", type=_positive, default=17, metavar="N", help="at 8 a second, 4n + 1; 1 is a still (17)")
    p.add_argument("--size", type=_size, default=(64, 64), metavar="WxH", help="multiples of 16 (default 64x64)")
    p.add_argument("--count", type=_positive, default=1, metavar="N", help="so many films, with seeds from --seed on (1)")
    p.add_argument("--tries", type=_positive, default=1, metavar="N", help="up to N films, until one reads as the prompt (default 1)")
    p.add_argument("--checkpoint", default=None, metavar="FILE", help="another model than the one that ships")

    p = commands.add_parser("train", help="train a model from nothing", description="Train a model; a second call resumes.")
    p.add_argument(
        "recipe", nargs="?", default="starter", metavar="RECIPE",
        help="'starter' (default), 'full' for a GPU, or 'tiny' to try it out",
    )  # fmt: skip
    p.add_argument("--stage", choices=("vae", "text", "dit", "all"), default="all", help="which part (default all, in order)")
    p.add_argument("--folder", type=Path, help="where everything goes (default runs/RECIPE)")
    p.add_argument("--device", choices=("cpu", "cuda", "mps"), help="default: cuda where there is one, else cpu")
    p.add_argument("--measure", type=_natural, default=0, metavar="N", help="at each save, judge films of N held-out prompts")

    p = commands.add_parser("finetune", help="go on training on films of your own", description=(
        "Go on training on a folder of films or GIFs with a captions.csv (columns file, caption); a second call resumes."))  # fmt: skip
    p.add_argument("films", type=Path, metavar="FOLDER", help="films and captions.csv")
    p.add_argument("--name", default="own", help="the result is sora_NAME.safetensors (default own)")
    p.add_argument("--folder", type=Path, help="where everything goes (default runs/NAME)")
    p.add_argument("--steps", type=_positive, default=1000, metavar="N", help="training steps (default 1000)")
    p.add_argument("--frames", type=_positive, default=17, metavar="N", help="of a clip, at 8 a second, 4n + 1 (default 17)")
    p.add_argument("--skip", action="store_true", help="leave out films that cannot be used, instead of refusing the folder")
    p.add_argument("--checkpoint", default=None, metavar="FILE", help="go on from another model than the one that ships")
    p.add_argument("--device", choices=("cpu", "cuda", "mps"), help="default: cuda where there is one, else cpu")

    p = commands.add_parser(
        "evaluate", help="how well films follow held-out prompts", description="Prompt following, beside three anchors."
    )
    p.add_argument("--prompts", type=_positive, default=500, metavar="N", help="so many prompts (default 500)")
    p.add_argument("--objects", type=int, choices=(1, 2), default=1, help="in each scene (default 1; two need the full preset)")
    p.add_argument("--frames", type=_positive, default=17, metavar="N", help="at 8 a second, 4n + 1 (default 17)")
    p.add_argument("--size", type=_size, default=(64, 64), metavar="WxH", help="multiples of 16 (default 64x64)")
    p.add_argument("--seed", type=_natural, default=0, metavar="N", help="which prompts, and which noise (default 0)")
    p.add_argument("--steps", type=_positive, default=24, metavar="N", help="steps from noise to film (default 24)")
    p.add_argument("--guidance-scale", type=_scale, default=2.0, metavar="X", help="1: none (default 2)")
    p.add_argument("--checkpoint", default=None, metavar="FILE", help="another model than the one that ships")
    p.add_argument("--tries", type=_positive, default=1, metavar="N", help="also judge the best of up to N films, as `generate` draws them")
    p.add_argument("--variety", action="store_true", help="also compare the spread over seeds with the world's, and look for copies")
    p.add_argument("--calls", action="store_true", help="also measure with 1, 2, 4, 8, 16 and 32 calls of the network a film")
    p.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here too")

    p = commands.add_parser("world", help="a sheet of captioned samples", description="Draw samples of the captioned world.")
    p.add_argument("--out", type=Path, default=Path("world.png"), help="FILE.png (default world.png)")
    p.add_argument("--count", type=_positive, default=16, metavar="N", help="so many films (default 16)")
    p.add_argument("--preset", choices=("full", "starter"), default="full", help="which part of the world (default full)")
    p.add_argument("--seed", type=_natural, default=0, metavar="N", help="which samples (default 0)")

    commands.add_parser("doctor", help="check this machine", description="Check this machine, one line each.")
    return parser


def _load(name: str | None):
    from .sora import DEFAULT_CHECKPOINT, TextToVideo

    return TextToVideo.from_pretrained(name or DEFAULT_CHECKPOINT)


def _default_target(prompt: str, seed: int) -> Path:
    Path("videos").mkdir(exist_ok=True)
    name = re.sub(r"[^\w\u4e00-\u9fff]+", "_", prompt.lower()).strip("_")[:80]
    return Path("videos") / f"{name}_{seed}.mp4"


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


def _second_look(model, tries: int, frames: int, size: tuple[int, int]):
    """`film_reader.draw_again` with the reader that ships, or None for one try; refused for films that it cannot read."""
    from functools import partial

    from .film_reader import FilmReader, can_read, draw_again
    from .kit.scenes import PRESETS

    if tries == 1:
        return None
    if not can_read(frames, size) or model.config["preset"] not in PRESETS:
        raise ValueError(
            "Only films of the captioned world, of 9 to 25 frames and 64 to 96 pixels a side, can be read; leave out --tries."
        )
    return partial(draw_again, reader=FilmReader.from_pretrained(), tries=tries)


def _generate(a: argparse.Namespace) -> None:
    from .kit import display

    if a.out:
        display.check_target(a.out)
    model = _load(a.checkpoint)
    model.check_size(a.frames, a.size)
    text = _as_trained(model, a.prompt, a.frames)
    again = _second_look(model, a.tries, a.frames, a.size)
    from tqdm import tqdm

    def generate(prompts, seeds):
        return model.generate(
            prompts, seed=seeds, steps=a.steps, guidance_scale=a.guidance_scale, num_frames=a.frames, size=a.size,
            progress=lambda steps, total: tqdm(steps, total=total, desc="painting", leave=False),
        )  # fmt: skip

    for i in range(a.count):
        path = a.out if a.out else _default_target(a.prompt, a.seed + i)
        if a.out and a.count > 1:
            path = path.with_stem(f"{path.stem}_{a.seed + i}")
        films, drawn = generate([text], [a.seed + i]), 1
        if again:
            films, drawn = again(films, [text], [a.seed + i], generate=generate)
        print(f"Wrote {display.write(path, films[0])}" + (f", the best of {drawn} films" if drawn > 1 else ""))


def _train(a: argparse.Namespace) -> None:
    from . import recipes
    from .kit.training import training_device

    device = training_device(a.device)
    recipe = recipes.recipe_named(a.recipe)
    folder = a.folder or Path("runs") / a.recipe
    folder.mkdir(parents=True, exist_ok=True)
    if a.stage in ("vae", "all"):
        vae = recipes.train_vae(recipe, folder, device=device)
        values = recipes.measure_vae(vae, films=64)
        print(f"VAE: {values.mean():.1f} dB PSNR on 64 fresh films")
    if a.stage in ("text", "all"):
        recipes.train_text(recipe, folder, device=device)
    if a.stage in ("dit", "all"):
        every = _accuracy_log(recipe, folder, a.measure) if a.measure else None
        recipes.train_dit(recipe, folder, name=a.recipe, device=device, every=every)
        print(f"Wrote {folder / f'sora_{a.recipe}.safetensors'}; try it with `sora-course generate --checkpoint` and this file.")


def _finetune(a: argparse.Namespace) -> None:
    from .finetune import finetune
    from .kit import films
    from .kit.training import training_device

    if not re.fullmatch(r"[\w-]+", a.name):
        raise ValueError(f"A name has letters, digits, - and _, and {a.name!r} has others.")
    device, model = training_device(a.device), _load(a.checkpoint)
    clips, summary = films.read_folder(a.films, num_frames=a.frames, skip=a.skip)
    print(summary)
    folder = a.folder or Path("runs") / a.name
    folder.mkdir(parents=True, exist_ok=True)
    finetune(model, clips, folder, name=a.name, steps=a.steps, device=device)
    print(f"Wrote {folder / f'sora_{a.name}.safetensors'}; try it with `sora-course generate --checkpoint` and this file.")


def _accuracy_log(recipe, folder: Path, prompts: int):
    """A callback that judges films of held-out prompts and appends the shares to accuracy.jsonl."""
    from .kit.evaluation import held_out_prompts, summarise
    from .kit.judge import judge

    scenes, texts = held_out_prompts(prompts, preset=recipe.preset, seed=99)

    def every(model, step: int, seconds: float) -> None:
        verdicts = []
        for i in range(0, prompts, 32):
            films = model.generate(texts[i : i + 32], seed=list(range(i, min(i + 32, prompts))))
            verdicts += judge(films, scenes[i : i + 32])
        shares = {name: round(row["share"], 4) for name, row in summarise(verdicts).items()}
        with open(folder / "accuracy.jsonl", "a") as file:
            file.write(json.dumps({"step": step, "seconds": round(seconds, 1), **shares}) + "\n")
        print(f"\n{step} steps, {seconds / 60:.1f} min: {shares}")

    return every


def _evaluate(a: argparse.Namespace) -> None:
    from functools import partial

    from tqdm import tqdm

    from .kit import checkpoints, evaluation
    from .kit.scenes import PRESETS
    from .kit.training import autocast

    if a.json and (a.json.is_dir() or not a.json.parent.is_dir() or not os.access(a.json.parent, os.W_OK)):
        raise ValueError(f"The numbers cannot be written to {a.json}; name a file in a folder that exists and is yours.")
    model = _load(a.checkpoint)
    if model.config["preset"] not in PRESETS:
        raise ValueError("The judge reads films of the captioned world; it cannot tell what films of your own should show.")

    model.check_size(a.frames, a.size)
    if a.objects == 2 and model.config["preset"] != "full":
        raise ValueError("This model never saw two objects; leave out --objects, or name a model of the full preset.")
    if a.variety and (a.objects, a.frames, a.size) != (1, 17, (64, 64)):
        raise ValueError("--variety compares one object in 17 frames of 64x64 with the world; leave out --objects, --frames and --size.")
    filmed = {"num_frames": a.frames, "size": a.size}
    sampler = {"guidance_scale": a.guidance_scale, "solver": "euler", "shift": 3.0, "eta": math.inf}

    again = _second_look(model, a.tries, a.frames, a.size)

    def generate(prompts, seeds, steps=a.steps):
        return model.generate(prompts, seed=seeds, steps=steps, **sampler, **filmed)

    def round_trip(films):
        import torch

        with torch.no_grad(), autocast("cpu"):
            return model.vae.decode(model.vae.encode(films))

    result = evaluation.evaluate(
        generate, round_trip, prompts=a.prompts, preset=model.config["preset"], objects=a.objects, seed=a.seed, **filmed,
        again=again and partial(again, generate=generate), progress=lambda batches: tqdm(batches, desc="judging"),
    )  # fmt: skip
    result |= {"tries": a.tries, "steps": a.steps, **sampler, "eta": str(sampler["eta"])}  # JSON knows no infinity
    print(evaluation.as_table(result))
    if a.variety:
        from .report import as_lines, measure_variety

        result["variety"] = measure_variety(model, generate, prompts=min(256, a.prompts))
        print(as_lines(result["variety"]))
    if a.calls:
        result["calls"] = evaluation.by_calls(
            generate, prompts=min(256, a.prompts), preset=model.config["preset"], objects=a.objects, seed=a.seed,
            progress=lambda rows: tqdm(rows, desc="calls"),
        )  # fmt: skip
        for row in result["calls"]:
            print(f"{row['calls']:3} calls: {row['share']:.1%} all right ({100 * row['low']:.1f}-{100 * row['high']:.1f})")
    if a.json:
        checkpoints.save_atomically(a.json, lambda p: p.write_text(json.dumps(result, indent=1) + "\n"))


def _world(a: argparse.Namespace) -> None:
    import matplotlib
    import torch

    matplotlib.use("Agg")
    from .kit import checkpoints, display, world

    if a.out.suffix != ".png":
        raise ValueError(f"The sheet is a picture, and {a.out.name!r} does not end in .png.")
    display.check_target(a.out)
    generator = torch.Generator().manual_seed(a.seed)
    scenes = world.sample_scenes(a.count, generator=generator, preset=a.preset)
    texts = [world.caption(scene, generator=generator) for scene in scenes]
    figure = display.sheet(world.render(scenes, generator=generator), texts)
    checkpoints.save_atomically(a.out, lambda p: figure.savefig(p, dpi=110))
    print(f"Wrote {a.out}")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 if all went well, 1 if the doctor found something, 2 for bad input."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a Chinese file name must not stop a terminal that cannot show it
            stream.reconfigure(errors="backslashreplace")
    a = _arguments().parse_args(arguments)
    try:
        if a.command == "doctor":
            from .kit import doctor

            return 0 if doctor.run() else 1
        {"generate": _generate, "train": _train, "finetune": _finetune, "evaluate": _evaluate, "world": _world}[a.command](a)
    except (ValueError, OSError, ImportError, FloatingPointError, MemoryError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped." + (" A second call goes on from the last save." if a.command in ("train", "finetune") else ""), file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
