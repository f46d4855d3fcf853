"""How small DiTs compare: sizes, patches, ways to condition, times: python benchmarks/dit_sweep.py [--threads 2]

Each paints latents (the shipped VAE's) of the world's stills, 48 kinds, by rectified flow, and all are trained alike: as many
steps, the same pictures, times and noise (one run draws its times evenly). Measured: the loss on fresh stills at fixed times
and noise, every 250 steps; the operations spent until then; and what the judge reads on four samples of each kind, without guidance. Writes data/dit_sweep.json after each;
what is there is not trained again. Chapter 07 draws the results.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sora_course import flow
from sora_course.ddpm import drop_labels
from sora_course.dit import CONDITIONINGS, DiT, DiTConfig
from sora_course.kit import checkpoints, stills
from sora_course.kit.stills import KINDS
from sora_course.kit.training import TrainConfig, autocast, train
from sora_course.sora import TextToVideo

PATH = Path(__file__).resolve().parents[1] / "data" / "dit_sweep.json"
BASE = DiTConfig(in_channels=16, out_channels=16, hidden_size=128, depth=6, num_heads=4, num_classes=len(KINDS))
SIZES = {"96 x 4": (96, 4, 4), "128 x 6": (128, 6, 4), "192 x 8": (192, 8, 4), "256 x 8": (256, 8, 4)}
STEPS, BATCH, EVERY, SEEDS = 1500, 128, 250, (0, 1, 2)


def jobs() -> dict[str, tuple[DiTConfig, int, Callable]]:
    """Config, seed and how times are drawn, by name; sizes and two ways to condition have three seeds, for the error bar."""
    sizes = {
        f"size: {name}": replace(BASE, hidden_size=hidden_size, depth=depth, num_heads=num_heads)
        for name, (hidden_size, depth, num_heads) in SIZES.items()
    }
    patches = {f"patch: {patch_size}": replace(BASE, patch_size=patch_size) for patch_size in (1, 4)}
    patches["patch: 4, width 384"] = replace(BASE, patch_size=4, hidden_size=384)
    ways = {f"conditioning: {kind}": replace(BASE, conditioning=kind) for kind in CONDITIONINGS[1:]}
    deep = {f"deep: {kind}": replace(BASE, hidden_size=96, depth=16, conditioning=kind) for kind in ("adaln_zero", "adaln")}
    once, thrice = patches | ways | deep, sizes | {"conditioning: adaln": ways["conditioning: adaln"]}
    named = {f"{name}: seed 0": (config, 0, flow.logit_normal_times) for name, config in (thrice | once).items()}
    named["times: uniform: seed 0"] = (BASE, 0, torch.rand)
    for seed in SEEDS[1:]:
        named |= {f"{name}: seed {seed}": (config, seed, flow.logit_normal_times) for name, config in thrice.items()}
    return named


def operations_of_a_step(config: DiTConfig) -> int:
    """Forward and backward of one batch: three times the forward pass."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        DiT(config)(torch.zeros(1, 16, 8, 8), torch.zeros(1), torch.zeros(1, dtype=torch.long))
    return 3 * BATCH * counter.get_total_flops()


@torch.no_grad()
def held_out_loss(net: DiT, latents: torch.Tensor, kinds: torch.Tensor) -> float:
    """Flow-matching loss at times spread evenly over (0, 1), with fixed noise."""
    generator, losses = torch.Generator().manual_seed(5), []
    times = (torch.arange(len(latents)) + 0.5) / len(latents)
    for x0, t, labels in zip(
        latents.split(256), times[torch.randperm(len(times), generator=generator)].split(256), kinds.split(256)
    ):
        noise = torch.randn(x0.shape, generator=generator)
        with autocast("cpu"):
            losses.append(flow.flow_loss(lambda x, t: net(x, 1000 * t, labels), x0, t, noise) * len(x0))  # noqa: B023
    return float(sum(losses) / len(latents))


@torch.no_grad()
def read_right(net: DiT, vae, each: int = 4, steps: int = 24) -> dict[str, float]:
    """Shares of samples of which the judge reads colour, shape and all right."""
    labels = torch.arange(len(KINDS)).repeat(each)
    x = torch.randn(len(labels), 16, 8, 8, generator=torch.Generator().manual_seed(6))
    with autocast("cpu"):
        for x in flow.sample(lambda x, t: net(x, 1000 * t, labels), x, steps=steps):
            pass
    return stills.read_right(stills.decoded(vae, x), labels)


def run(config: DiTConfig, seed: int, draw_times, data: dict, vae) -> dict:
    torch.manual_seed(seed)
    net, (latents, kinds), curve = DiT(config), data["train"], []

    def loss(generator):
        chosen = torch.randint(len(latents), (BATCH,), generator=generator)
        labels = drop_labels(kinds[chosen], net.num_classes, generator=generator)
        t = draw_times(BATCH, generator=generator)
        noise = torch.randn(latents[chosen].shape, generator=generator)
        return {"loss": flow.flow_loss(lambda x, t: net(x, 1000 * t, labels), latents[chosen], t, noise)}

    def every(step: int, _) -> None:
        curve.append((step, held_out_loss(net, *data["held out"])))

    start = time.perf_counter()
    train(net, loss, TrainConfig(steps=STEPS, seed=seed, save_every=EVERY, decay=1.0), every=every)
    seconds = time.perf_counter() - start
    return {
        "config": asdict(config), "seed": seed, "steps": STEPS, "batch": BATCH, "seconds": round(seconds, 1),
        "parameters": sum(p.numel() for p in net.parameters()), "operations_of_a_step": operations_of_a_step(config),
        "curve": curve, "right": read_right(net, vae),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    torch.set_num_threads(parser.parse_args().threads)
    done = json.loads(PATH.read_text()) if PATH.exists() else {}
    vae = TextToVideo.from_pretrained().vae
    drawn = {"train": (24_000, 100), "held out": (2_048, 101)}
    data = {
        name: stills.labelled(vae, count, generator=torch.Generator().manual_seed(seed))
        for name, (count, seed) in drawn.items()
    }
    for name, (config, seed, draw_times) in jobs().items():
        if name not in done:
            done[name] = run(config, seed, draw_times, data, vae)
            checkpoints.save_atomically(PATH, lambda path: path.write_text(json.dumps(done, indent=1) + "\n"))
        row = done[name]
        print(f"{name:40} loss {row['curve'][-1][1]:.4f} right {row['right']['all']:.1%} {row['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
