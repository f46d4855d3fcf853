"""What to spend latents on: many small video VAEs, each with one setting changed: python benchmarks/vae_sweep.py [--threads 2]

All are trained alike, on the same fresh films of the full world in the same number of steps, and measured on the same 128 fresh
films: PSNR, SSIM, and what the judge reads after the round trip. Writes data/vae_sweep.json after each; one that is there
is not trained again. Chapter 06 draws the results. Needs scikit-image (pip install -e ".[test]").
"""

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
from skimage.metrics import structural_similarity

from sora_course.kit import checkpoints, world
from sora_course.kit.judge import ATTRIBUTES, judge
from sora_course.kit.training import TrainConfig, autocast, train
from sora_course.vae import psnr
from sora_course.video_vae import VideoVAE, VideoVAEConfig

PATH = Path(__file__).resolve().parents[1] / "data" / "vae_sweep.json"
BASE = VideoVAEConfig(channels=(48, 72), encoder_channels=(48, 72))
STEPS, BATCH, KL_WEIGHT = 800, 4, 3e-5
VARIANTS = {
    "factor in space": {"4": {"patch_size": 2}, "8": {}, "16": {"patch_size": 8}},
    "factor in time": {"1": {"time_factor": 1}, "2": {"time_factor": 2}, "4": {}, "8": {"time_factor": 8}},
    "latent channels": {str(c): {"latent_channels": c} for c in (4, 8, 16, 32)},
    "encoder width": {f"{c}, {3 * c // 2}": {"encoder_channels": (c, 3 * c // 2)} for c in (12, 24, 48, 96)},
    "temporal kernel": {str(k): {"time_kernel": k} for k in (1, 2, 3, 5)},
    "about equal numbers": {
        "film": {},
        "frames": {"time_factor": 1, "time_kernel": 1, "latent_channels": 5},
    },
}


def train_one(config: VideoVAEConfig) -> tuple[VideoVAE, float]:
    """A trained VAE, and how many seconds that took."""
    torch.manual_seed(0)
    vae = VideoVAE(config)

    def loss(generator):
        scenes = world.sample_scenes(BATCH, generator=generator)
        return vae.loss(world.render(scenes, generator=generator), generator=generator, kl_weight=KL_WEIGHT)

    start = time.perf_counter()
    train(vae, loss, TrainConfig(steps=STEPS, decay=0.7))
    return vae, time.perf_counter() - start


@torch.no_grad()
def measure(vae: VideoVAE, films: int = 128) -> dict:
    """PSNR in dB, SSIM, and the share of films of which the judge still reads each attribute right."""
    generator, ratios, likeness, verdicts = torch.Generator().manual_seed(1), [], [], []
    for _ in range(films // 16):
        scenes = world.sample_scenes(16, generator=generator)
        truth = world.render(scenes, generator=generator)
        with autocast("cpu"):
            decoded = vae.decode(vae.encode(truth)).clamp(-1, 1)
        ratios.append(psnr(decoded, truth))
        for ours, theirs in zip(decoded.transpose(1, 2).flatten(0, 1).numpy(), truth.transpose(1, 2).flatten(0, 1).numpy()):
            likeness.append(structural_similarity(ours, theirs, channel_axis=0, data_range=2.0))
        verdicts += judge(decoded, scenes)
    right = {name: sum(v[name] for v in verdicts) / len(verdicts) for name in (*ATTRIBUTES, "all")}
    return {"psnr": torch.cat(ratios).mean().item(), "ssim": float(sum(likeness) / len(likeness)), "right": right}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    torch.set_num_threads(parser.parse_args().threads)
    done = json.loads(PATH.read_text()) if PATH.exists() else {}
    for setting, values in VARIANTS.items():
        for value, changes in values.items():
            config = replace(BASE, **changes)
            key = json.dumps(asdict(config))
            row = next((row for row in done.values() if row["config"] == json.loads(key)), None)
            if row is None:
                vae, seconds = train_one(config)
                film = torch.zeros(1, 3, 17, 64, 64)
                latents = vae.encode(film).numel()
                row = {
                    "config": json.loads(key), "steps": STEPS, "batch": BATCH, "seconds": round(seconds, 1),
                    "parameters": sum(p.numel() for p in vae.parameters()), "compression": film.numel() / latents,
                    **measure(vae),
                }  # fmt: skip
            done[f"{setting}: {value}"] = row
            checkpoints.save_atomically(PATH, lambda path: path.write_text(json.dumps(done, indent=1) + "\n"))
            print(
                f"{setting}: {value:8} {row['compression']:6.1f}x {row['psnr']:.1f} dB {row['ssim']:.3f} {row['right']['all']:.1%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
