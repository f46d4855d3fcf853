"""What the command line takes: its commands, their options, and one sentence for each mistake."""

from __future__ import annotations

import argparse
import re
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


def parser_of_commands() -> argparse.ArgumentParser:
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
    p.add_argument("--tries", type=_positive, metavar="N", help="up to N films, until one reads as the prompt (4 for what can be read, else 1)")
    p.add_argument("--checkpoint", default=None, metavar="FILE", help="another model than the one that ships")
    p.add_argument("--device", choices=("cpu", "cuda", "mps"), help="default: cuda where there is one, else cpu")

    p = commands.add_parser("train", help="train a model by a recipe", description="Train a model; a second call resumes.")
    p.add_argument(
        "recipe", nargs="?", default="starter", metavar="RECIPE",
        help="'starter' (default), 'full', 'longer', 'longest' and 'finish' for a GPU, or 'tiny' to try it out",
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
    p.add_argument("--device", choices=("cpu", "cuda", "mps"), help="default: cuda where there is one, else cpu")

    p = commands.add_parser("world", help="a sheet of captioned samples", description="Draw samples of the captioned world.")
    p.add_argument("--out", type=Path, default=Path("world.png"), help="FILE.png (default world.png)")
    p.add_argument("--count", type=_positive, default=16, metavar="N", help="so many films (default 16)")
    p.add_argument("--preset", choices=("full", "starter"), default="full", help="which part of the world (default full)")
    p.add_argument("--seed", type=_natural, default=0, metavar="N", help="which samples (default 0)")

    commands.add_parser("doctor", help="check this machine", description="Check this machine, one line each.")
    return parser
