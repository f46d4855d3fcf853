"""Make data/film_reader.safetensors, which reads films (chapter 08): python data/make_reader.py [--threads 2]

Trains on fresh films of the training side of the split, first as they are, then after the autoencoder, and prints how many films of
held-out scenes, before and after the autoencoder, it reads without a mistake. Resumes if stopped.
"""

import argparse
import time
from pathlib import Path

import torch

from sora_course.film_reader import OF_A_THING, FilmReader, answers_of
from sora_course.kit import world
from sora_course.kit.training import TrainConfig, autocast, compile_if_possible, uncompiled
from sora_course.reading_lessons import train_reader
from sora_course.sora import TextToVideo

PATH = Path(__file__).resolve().parent / "film_reader.safetensors"
TRAIN = TrainConfig(steps=1400, lr=0.02, adamw_lr=2e-3, decay=1.0, seed=0, save_every=150)
AGAIN = TrainConfig(steps=250, lr=0.01, adamw_lr=1e-3, warmup=20, decay=1.0, seed=1, save_every=125)


@torch.no_grad()
def measure(reader: FilmReader, films: torch.Tensor, scenes: list[world.Scene]) -> str:
    """The shares of films of which all is read right, and each kind of word."""
    answers = torch.stack([answers_of(scene) for scene in scenes])
    with autocast("cpu"), uncompiled():
        parts = [reader(part)[0] for part in films.split(64)]
    right = torch.stack([torch.cat(one).argmax(1) == a for one, a in zip(zip(*parts), answers.unbind(1))], dim=1)
    right |= answers < 0
    kinds = {kind: right[:, k : -2 : len(OF_A_THING)].all(1) for k, kind in enumerate(OF_A_THING)}
    kinds |= {"background": right[:, -2], "camera": right[:, -1]}
    return f"{right.all(1).float().mean():.1%} all right; " + ", ".join(f"{k} {v.float().mean():.1%}" for k, v in kinds.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("runs/film_reader"), help="where a stopped run is resumed from")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    def films(objects: int, held_out: bool = True) -> tuple[torch.Tensor, list[world.Scene]]:
        generator = torch.Generator().manual_seed(11 + objects)
        scenes = world.sample_scenes(512, generator=generator, held_out=held_out, objects=objects)
        return world.render(scenes, generator=generator), scenes

    watched = [films(objects, held_out=False) for objects in (1, 2)]

    def look(reader: FilmReader, step: int, seconds: float) -> None:
        for objects, (videos, scenes) in enumerate(watched, 1):
            print(f"\n{step} steps, {seconds / 60:.1f} min, {objects} object(s): {measure(reader, videos, scenes)}", flush=True)

    start = time.perf_counter()
    torch.manual_seed(TRAIN.seed)
    reader, vae = FilmReader(), TextToVideo.from_pretrained().vae
    compile_if_possible([reader.blocks, reader.close_up], "cpu")
    train_reader(TRAIN, args.work / "true", reader=reader, every=look)
    train_reader(AGAIN, args.work / "decoded", reader=reader, vae=vae, every=look)
    print(f"trained for {(time.perf_counter() - start) / 60:.1f} minutes")
    reader.save(PATH)
    reader = FilmReader.from_pretrained(str(PATH))
    for objects in (1, 2):
        videos, scenes = films(objects)
        print(f"held-out scenes, {objects} object(s): {measure(reader, videos, scenes)}")
        with torch.no_grad(), autocast("cpu"):
            parts = [vae.decode(vae.encode(part)).float() for part in videos.split(16)]
        print(f"  after the autoencoder: {measure(reader, torch.cat(parts), scenes)}")


if __name__ == "__main__":
    main()
