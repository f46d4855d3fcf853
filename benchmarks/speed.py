"""How fast each part is, beside what this machine's matrix products allow: python benchmarks/speed.py [--threads 2]

Prints a Markdown table; benchmarks/README.md keeps one. Each rate is the best of three rounds of about two seconds.
"""

import argparse
import platform
import time

import torch

from sora_course import recipes
from sora_course.kit import world
from sora_course.kit.judge import judge
from sora_course.kit.training import attention_for_training, autocast, gains_from_bf16
from sora_course.sora import TextToVideo


def rate(work, units: int) -> float:
    """Units of work a second."""
    work()
    best = 0.0
    for _ in range(3):
        start, done = time.perf_counter(), 0
        while time.perf_counter() - start < 2 or done == 0:
            work()
            done += units
        best = max(best, done / (time.perf_counter() - start))
    return best


def matmul_rate(dtype: torch.dtype, n: int = 2048) -> float:
    a, b = torch.randn(n, n).to(dtype), torch.randn(n, n).to(dtype)
    return rate(lambda: a @ b, 2 * n**3)


def flops_of(work) -> float:
    """Floating-point operations of one call, counted by torch."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    threads = parser.parse_args().threads
    torch.set_num_threads(threads)
    dtypes = {"float32": torch.float32} | ({"bfloat16": torch.bfloat16} if gains_from_bf16("cpu") else {})
    peaks = {name: matmul_rate(dtype) for name, dtype in dtypes.items()}
    used, peak = list(peaks.items())[-1]  # the models run in bf16 where it is multiplied in hardware
    print(f"{platform.machine()}, {threads} threads, torch {torch.__version__.split('+')[0]}; 2048 x 2048 products: ", end="")
    print(", ".join(f"{name} {value / 1e9:.0f} GFLOP/s" for name, value in peaks.items()) + "\n")
    rows, generator = [], torch.Generator().manual_seed(0)

    def measure(name: str, work, units: int, unit: str, counted: bool = True) -> None:
        flops = flops_of(work) if counted else 0
        value = rate(work, units)
        share = f"{100 * value / units * flops / peak:.0f} %" if flops else ""
        rows.append(f"| {name} | {value:.1f} {unit} | {share} |")

    for preset in world.PRESETS:
        scenes = world.sample_scenes(64, generator=generator, preset=preset)
        measure(f"world: render, {preset}", lambda: world.render(scenes, generator=generator), 64, "films/s", counted=False)
    films = world.render(scenes, generator=generator)
    measure("judge", lambda: judge(films[:16], scenes[:16]), 16, "films/s", counted=False)

    model = TextToVideo.from_pretrained()
    vae, kl = model.vae, recipes.RECIPES["starter"].kl_weight

    def vae_step():
        with autocast("cpu"):
            vae.loss(films[:8], generator=generator, kl_weight=kl)["loss"].backward()

    def dit_step():
        with autocast("cpu"), attention_for_training("cpu"):
            model.loss(latents, ["a red circle moves right"] * 64, generator=generator)["loss"].backward()

    with torch.no_grad(), autocast("cpu"):
        latents = vae.encode(films)
        measure("VAE: encode", lambda: vae.encode(films[:32]), 32, "films/s")
        measure("VAE: decode", lambda: vae.decode(latents[:32]), 32, "films/s")
    measure("VAE: training step, batch 8", vae_step, 8, "films/s")
    measure("DiT: training step, batch 64", dit_step, 64, "films/s")
    measure("generate: 1 film, 24 steps, guided", lambda: model.generate("a red circle moves right"), 1, "films/s")
    measure("generate: 16 films at once", lambda: model.generate(["a red circle moves right"] * 16), 16, "films/s")
    print("\n".join([f"| part | rate | share of the {used} matmul rate |", "|---|---|---|", *rows]))


if __name__ == "__main__":
    main()
