"""Make data/dit_stills.safetensors, two small DiTs of chapter 07: python data/make_dit.py [--threads 2]

One and the same network, trained twice alike to paint latents (the shipped VAE's) of the world's stills of 48 kinds: as
DDPM, which says what noise is in them, and as rectified flow. Prints what the judge reads on samples; resumes if stopped.
"""

import argparse
import time
from dataclasses import asdict
from pathlib import Path

import torch

from sora_course import flow
from sora_course.ddpm import DDPM, drop_labels, linear_schedule, with_labels
from sora_course.dit import DiT, DiTConfig
from sora_course.kit import checkpoints, stills
from sora_course.kit.training import TrainConfig, autocast, compile_if_possible, train
from sora_course.sora import TextToVideo

PATH = Path(__file__).resolve().parent / "dit_stills.safetensors"
CONFIG = DiTConfig(
    in_channels=16, out_channels=16, patch_size=1, hidden_size=96, depth=4, num_heads=4, num_classes=len(stills.KINDS)
)
TRAIN = TrainConfig(steps=5000, seed=0, decay=1.0, save_every=500)
BATCH = 128


def ddpm_loss(net, x0, labels, noise, generator):
    t = torch.randint(1000, (len(x0),), generator=generator)
    return DDPM(linear_schedule()).loss(lambda x, t: net(x, t, labels), x0, t, noise)


def flow_loss(net, x0, labels, noise, generator):
    t = flow.logit_normal_times(len(x0), generator=generator)
    return flow.flow_loss(lambda x, t: net(x, 1000 * t, labels), x0, t, noise)


def learn(name: str, objective, data, folder: Path) -> DiT:
    torch.manual_seed(0)
    net, (latents, kinds) = DiT(CONFIG), data
    compile_if_possible(net.blocks)

    def loss(generator):
        chosen = torch.randint(len(latents), (BATCH,), generator=generator)
        labels = drop_labels(kinds[chosen], net.num_classes, generator=generator)
        noise = torch.randn(latents[chosen].shape, generator=generator)
        return {"loss": objective(net, latents[chosen], labels, noise, generator)}

    start = time.perf_counter()
    train(net, loss, TRAIN, folder=folder, describe=name)
    print(f"{name}: {(time.perf_counter() - start) / 60:.1f} minutes", flush=True)
    return net


@torch.no_grad()
def measure(name: str, net: DiT, vae) -> None:
    kinds = torch.arange(len(stills.KINDS)).repeat(4)
    noise = torch.randn(len(kinds), 16, 8, 8, generator=torch.Generator().manual_seed(7))
    for scale in (1, 2):
        model = with_labels(net, kinds, scale)
        with autocast("cpu"):
            if name == "ddpm":
                states = DDPM(linear_schedule()).sample(model, noise, steps=50)
            else:
                states = flow.sample(lambda x, t: model(x, 1000 * t), noise, steps=50)
            for x in states:
                pass
        shares = stills.read_right(stills.decoded(vae, x), kinds)
        print(f"{name}, guidance {scale}: " + ", ".join(f"{key} {share:.1%}" for key, share in shares.items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("runs/dit_stills"), help="where a stopped run is resumed from")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    vae = TextToVideo.from_pretrained().vae
    data = stills.labelled(vae, 24_000, generator=torch.Generator().manual_seed(100))
    tensors = {}
    for name, objective in (("ddpm", ddpm_loss), ("flow", flow_loss)):
        net = learn(name, objective, data, args.work / name)
        measure(name, net, vae)
        tensors |= {f"{name}.{key}": tensor.half() for key, tensor in net.state_dict().items()}
    checkpoints.save(PATH, tensors, {"dit": asdict(CONFIG), "made by": "data/make_dit.py"})
    print(f"{PATH.name}: {PATH.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
