"""Does a text encoder know whose word is whose? python benchmarks/text_binding.py

Two text encoders are trained alike but for one thing: one by contrast alone, as for the starter, one with twins and a reader
beside it, as for the full model. Then each is frozen, and a fresh reader learns to answer questions from its
features: which colour, shape and motion has the first thing, and which the second? Measured on captions of held-out pairs.
Writes data/text_binding.json.
"""

import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from sora_course import binding, recipes, stages
from sora_course.kit import checkpoints, world
from sora_course.kit.captions import LANGUAGES, caption
from sora_course.kit.training import TrainConfig, train
from sora_course.text import Reader, Tokenizer

PATH = Path(__file__).resolve().parents[1] / "data" / "text_binding.json"
PAIRS, FRESH, STEPS, BATCH = 8_000, 2_000, 1_500, 128
ASKED = {"colour": 0, "shape": 1, "motion": 2}  # where these questions stand for the first thing; five on for the second


def features_of(text, tokenizer, count: int, *, held_out: bool, seed: int):
    """Features (count, n, d) and mask of captions of pairs, padded alike, and the answers (count, questions)."""
    generator = torch.Generator().manual_seed(seed)
    scenes = world.sample_scenes(count, generator=generator, objects=2, held_out=held_out)
    tokens, mask = tokenizer([caption(s, LANGUAGES[i % 2], generator=generator) for i, s in enumerate(scenes)])
    with torch.no_grad():
        parts = [text(t, m)[0] for t, m in zip(tokens.split(500), mask.split(500))]
    return torch.cat(parts), mask, torch.tensor([binding.answers_of(s) for s in scenes])


def read_anew(text) -> dict[str, float]:
    """Train a fresh reader on the frozen encoder; the shares of right answers on held-out pairs."""
    tokenizer = Tokenizer(stages.vocabulary())
    features, mask, answers = features_of(text, tokenizer, PAIRS, held_out=False, seed=1)
    torch.manual_seed(0)
    reader = Reader(features.shape[-1], [len(known) for known in binding.QUESTIONS])

    def loss(generator):
        chosen = torch.randint(PAIRS, (BATCH,), generator=generator)
        return reader.loss(features[chosen], mask[chosen], answers[chosen])

    train(reader, loss, TrainConfig(steps=STEPS, optimizer="adamw", adamw_lr=2e-3), describe="reader")
    features, mask, answers = features_of(text, tokenizer, FRESH, held_out=True, seed=2)
    with torch.no_grad():
        said = torch.stack([one.argmax(1) for one in reader(features, mask)], dim=1)
    right = (said == answers).float()
    return {name: float(right[:, [i, i + 5]].mean()) for name, i in ASKED.items()}


def main() -> None:
    contrast = replace(recipes.RECIPES["starter"], text_train=TrainConfig(steps=600, lr=0.01, adamw_lr=1e-3))
    rows = []
    for name, recipe in {"contrast": contrast, "contrast and reading": replace(contrast, reading=True)}.items():
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            text = stages.train_text(recipe, Path(folder)).eval()
        seconds = time.perf_counter() - start
        rows.append({"encoder": name, "steps": recipe.text_train.steps, "seconds": round(seconds, 1), **read_anew(text)})
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True)
    checkpoints.save_atomically(PATH, lambda path: path.write_text(json.dumps(rows, indent=1) + "\n"))


if __name__ == "__main__":
    main()
