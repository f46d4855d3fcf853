"""How small DiTs sample: python benchmarks/dit_samplers.py [--threads 2], about seven minutes

The two networks of data/dit_stills.safetensors (one architecture, trained as DDPM and as rectified flow) paint the world's
stills: samplers by number of calls of the network, and guidance by scale, on all channels and on three quarters of them.
Measured on ten samples of each of 48 kinds: what the judge reads; the Frechet distance to fresh stills, in 20 principal
components of latents; and how far apart samples of one kind are placed. Writes data/dit_samplers.json for chapter 07.
"""

import argparse
import json
from pathlib import Path

import torch

from sora_course import flow
from sora_course.ddpm import DDPM, guided, linear_schedule
from sora_course.dit import DiT, DiTConfig
from sora_course.kit import checkpoints, measure, stills
from sora_course.kit.digits import Frechet
from sora_course.kit.judge import read
from sora_course.kit.training import autocast
from sora_course.sora import TextToVideo

PATH = Path(__file__).resolve().parents[1] / "data" / "dit_samplers.json"
CALLS = (1, 2, 4, 8, 16, 50)
SCALES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
EACH = 10


def model_of(net: DiT, labels: torch.Tensor, scale: float, channels: int):
    """The network guided with that scale on so many channels, as a function of x and t in 0..1000."""

    def answer(x, t):
        if scale == 1:
            return net(x, t, labels)
        none = torch.full_like(labels, net.num_classes)
        conditional, unconditional = net(torch.cat([x, x]), torch.cat([t, t]), torch.cat([labels, none])).chunk(2)
        some = guided(conditional[:, :channels], unconditional[:, :channels], scale)
        return torch.cat([some, conditional[:, channels:]], dim=1)

    return answer


def as_flow(model):
    """A model that names DDPM's noise as one that says the flow's velocity, with t in 0..1000 at the nearest of DDPM's times."""
    bars = DDPM(linear_schedule()).alphas_cumprod
    sums = bars.sqrt() + (1 - bars).sqrt()  # what a state of DDPM is larger by than the flow's with the same mixture
    times = (1 - bars).sqrt() / sums

    def velocity(x, t):
        step = int((times - float(t[0]) / 1000).abs().argmin())
        noise = model(x * float(sums[step]), torch.full((len(x),), step))
        return (noise - x) / (1 - float(times[step]))

    return velocity


@torch.no_grad()
def paint(net: DiT, sampler: str, calls: int, labels: torch.Tensor, scale: float = 1.0, channels: int = 16) -> torch.Tensor:
    """Latents of these kinds from noise of seed 8, with at most so many calls of the network a sample."""
    noise = torch.randn(len(labels), 16, 8, 8, generator=torch.Generator().manual_seed(8))
    model, latents = model_of(net, labels, scale, channels), noise
    with autocast("cpu"):
        if sampler in ("ddim", "ddpm"):
            eta = float(sampler == "ddpm")
            states = DDPM(linear_schedule()).sample(
                model, noise, steps=calls, eta=eta, generator=torch.Generator().manual_seed(9)
            )
        else:
            model = as_flow(model) if sampler == "ddpm as flow" else model
            solver, steps = ("heun", (calls + 1) // 2) if sampler == "heun" else ("euler", calls)  # Heun's last step calls once
            states = flow.sample(lambda x, t: model(x, 1000 * t), noise, steps=steps, solver=solver)
        for latents in states:
            pass
    return latents


def places(pictures: torch.Tensor) -> torch.Tensor:
    """The centre of the largest object of each picture, as far as there is one: (n, 2), nan where there is none."""
    centres = []
    for picture in pictures:
        things = read(picture[:, None]).things
        if things:
            _, x, y = measure.moments(things[0].coverage)
        centres.append(torch.stack([x[0], y[0]]) if things else torch.full((2,), torch.nan))
    return torch.stack(centres)


def spread(pictures: torch.Tensor, kinds: torch.Tensor) -> float:
    """Root mean square distance of an object's centre from the mean centre of its kind, over kinds."""
    centres = places(pictures)
    seen = ~centres.isnan().any(1)
    squares = [(c - c.mean(0)).pow(2).sum(1) for k in kinds.unique() if len(c := centres[seen & (kinds == k)]) > 1]
    return float(torch.cat(squares).mean().sqrt())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    torch.set_num_threads(parser.parse_args().threads)
    tensors, config = checkpoints.load(checkpoints.find("dit_stills"))
    nets = {name: DiT(DiTConfig(**config["dit"])).eval() for name in ("ddpm", "flow")}
    for name, net in nets.items():
        weights = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
        checkpoints.fill(net, weights, "weights")
    vae = TextToVideo.from_pretrained().vae
    kinds = torch.arange(len(stills.KINDS)).repeat(EACH)
    one, two = (stills.encoded(vae, kinds, generator=torch.Generator().manual_seed(seed)) for seed in (200, 201))
    frechet, real = Frechet(one), stills.decoded(vae, two)
    real_spread = spread(real, kinds)

    def row(latents: torch.Tensor) -> dict:
        pictures = stills.decoded(vae, latents)
        figures = {"right": stills.read_right(pictures, kinds), "frechet": round(frechet.distance(latents, one), 2)}
        return figures | {"spread": round(spread(pictures, kinds) / real_spread, 3)}

    result = {"samples": len(kinds), "real": row(two), "calls": {}, "guidance": {}}
    print("real", result["real"], flush=True)
    pairs = (("ddpm", "ddpm"), ("ddim", "ddpm"), ("ddpm as flow", "ddpm"), ("euler", "flow"), ("heun", "flow"))
    for sampler, net in pairs:
        for calls in CALLS:
            result["calls"].setdefault(sampler, {})[calls] = row(paint(nets[net], sampler, calls, kinds))
            print(sampler, calls, result["calls"][sampler][calls], flush=True)
    for channels in (16, 12):
        for scale in SCALES:
            latents = paint(nets["flow"], "euler", 24, kinds, scale, channels)
            result["guidance"].setdefault(channels, {})[scale] = row(latents)
            print(f"{channels} channels, scale {scale}", result["guidance"][channels][scale], flush=True)
    checkpoints.save_atomically(PATH, lambda path: path.write_text(json.dumps(result, indent=1) + "\n"))


if __name__ == "__main__":
    main()
