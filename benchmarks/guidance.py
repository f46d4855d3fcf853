"""What guidance buys and costs: python benchmarks/guidance.py [--threads 2]

For several scales, the shipped model films 128 held-out prompts, which the judge reads, and 8 held-out scenes with 16 seeds each,
whose spread of places is compared with that of the world's own films. Writes data/guidance.json; chapter 08 draws it.
"""

import argparse
import json
from pathlib import Path

import torch
from tqdm import tqdm

from sora_course.kit import checkpoints, variety
from sora_course.kit.evaluation import held_out_prompts, summarise
from sora_course.kit.judge import judge
from sora_course.sora import TextToVideo

PATH = Path(__file__).resolve().parents[1] / "data" / "guidance.json"
SCALES, PROMPTS, SCENES = (1.0, 1.5, 2.0, 3.0, 5.0, 8.0), 128, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    torch.set_num_threads(parser.parse_args().threads)
    model = TextToVideo.from_pretrained()
    scenes, prompts = held_out_prompts(PROMPTS, preset=model.config["preset"], seed=11)
    rows = []
    for scale in tqdm(SCALES, desc="scales"):

        def generate(texts, seeds, scale=scale):
            return model.generate(texts, seed=seeds, guidance_scale=scale)

        verdicts = []
        for part in torch.arange(PROMPTS).split(32):
            verdicts += judge(generate([prompts[i] for i in part], part.tolist()), [scenes[i] for i in part])
        found = variety.spreads(generate, scenes[:SCENES])
        rows.append({"scale": scale, **summarise(verdicts)["all"], "spread": {kind: row["ratio"] for kind, row in found.items()}})
        print(rows[-1], flush=True)
    checkpoints.save_atomically(PATH, lambda path: path.write_text(json.dumps(rows, indent=1) + "\n"))


if __name__ == "__main__":
    main()
