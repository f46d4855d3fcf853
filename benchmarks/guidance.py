"""What guidance and new noise buy and cost: python benchmarks/guidance.py [--threads 2]

For several scales of guidance, and with eta 0 and 1 (no new noise; as much as DDPM) instead of all new, the shipped model
films 128 held-out prompts, which the judge reads, and 6 held-out scenes with 6 seeds each, whose spread is compared with that
of the world's own films. Writes data/guidance.json; chapter 08 draws it.
"""

import argparse
import json
import math
from pathlib import Path

import torch
from tqdm import tqdm

from sora_course.kit import checkpoints, variety
from sora_course.kit.evaluation import held_out_prompts, summarise
from sora_course.kit.judge import judge
from sora_course.sora import TextToVideo

PATH = Path(__file__).resolve().parents[1] / "data" / "guidance.json"
SCALES, ETAS, PROMPTS, SCENES, SEEDS = (1.0, 2.0, 4.0, 8.0), (0.0, 1.0), 128, 6, 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    torch.set_num_threads(parser.parse_args().threads)
    model = TextToVideo.from_pretrained()
    scenes, prompts = held_out_prompts(PROMPTS, preset=model.config["preset"], seed=11)
    rows = []
    for settings in tqdm([{"guidance_scale": scale} for scale in SCALES] + [{"eta": eta} for eta in ETAS], desc="settings"):
        settings = {"guidance_scale": 2.0, "eta": math.inf} | settings

        def generate(texts, seeds, settings=settings):
            return model.generate(texts, seed=seeds, **settings)

        verdicts = []
        for part in torch.arange(PROMPTS).split(32):
            verdicts += judge(generate([prompts[i] for i in part], part.tolist()), [scenes[i] for i in part])
        found = variety.spreads(generate, scenes[:SCENES], seeds=SEEDS)
        row = settings | {"eta": str(settings["eta"]), "prompts": PROMPTS}  # JSON knows no infinity
        rows.append(row | summarise(verdicts)["all"] | {"spread": {kind: row["ratio"] for kind, row in found.items()}})
        print(rows[-1], flush=True)
    checkpoints.save_atomically(PATH, lambda path: path.write_text(json.dumps(rows, indent=1) + "\n"))


if __name__ == "__main__":
    main()
