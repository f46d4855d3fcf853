"""How far the judge can be trusted: python benchmarks/judge.py [--films 400] [--threads 2]

Of true films of the training side, as they are and after the shipped autoencoder, it prints how many the judge finds right: of films
as they come, and of those whose thing reaches the frame's edge to begin with. And of films whose thing becomes spoilt on the way it
prints how many are taken for kept, by how much of the outline, at the same place and size, still lies in the true one.
"""

import argparse
from dataclasses import replace

import torch

from sora_course.kit import world
from sora_course.kit.judge import judge
from sora_course.kit.shapes import textures
from sora_course.reading_lessons import encoded_and_decoded, paint_changing, seen_alike, spoil
from sora_course.sora import TextToVideo

LEFT = (0.0, 0.45, 0.6, 0.75, 1.01)  # of an outline


def staged(n: int, frames: int, generator: torch.Generator, *, cut: bool, motions: set[str]) -> tuple[list[world.Scene], world.Staging]:
    """Scenes with one thing of such a motion, staged; with cut, only those in which the thing reaches the edge of the first frame."""
    scenes, parts = [], []
    x, y, pixel = world.pixel_centres(64, 64)
    while len(scenes) < n:
        some = [s for s in world.sample_scenes(200, generator=generator, objects=1) if s.things[0].motion in motions]
        staging = world.stage(some, generator=generator, num_frames=frames)
        edge = world.coverage_of(textures(staging.texture), staging.tracks[:, :1], x, y, pixel)[:, 0]
        edge[:, 1:-1, 1:-1] = 0
        chosen = (edge.amax((1, 2)) > 0.3).nonzero()[:, 0] if cut else torch.arange(len(some))
        scenes += [some[i] for i in chosen.tolist()]
        parts.append([getattr(staging, name)[chosen] for name in ("behind", "colour", "texture", "tracks")])
    behind, colour, texture, tracks = (torch.cat(part)[:n] for part in zip(*parts))
    return scenes[:n], replace(staging, behind=behind, film=torch.arange(n), colour=colour, texture=texture, tracks=tracks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--films", type=int, default=400)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    vae, generator = TextToVideo.from_pretrained().vae, torch.Generator().manual_seed(0)
    stays = set(world.MOTIONS) - {"ink"}  # what spreads has no edge that the frame could cut
    for frames in (17, 25):
        for cut in (False, True):
            scenes, staging = staged(args.films, frames, generator, cut=cut, motions=stays if cut else set(world.MOTIONS))
            films = world.paint(staging)
            for name, seen in (("as they are", films), ("after the autoencoder", encoded_and_decoded(vae, films))):
                found = judge(seen, scenes)
                right = ", ".join(f"{key} {sum(v[key] for v in found)}" for key in ("all", "shape", "kept"))
                print(f"{frames} frames, {'cut to begin with' if cut else 'any'}, {name}: of {len(films)} {right}", flush=True)
    for frames in (17, 25):
        scenes, staging = staged(args.films, frames, generator, cut=False, motions=stays - {"spinning"})  # its outline isn't compared
        whole = textures(staging.texture)
        last = spoil(whole, generator=generator)
        near = torch.tensor([[0.0, 0.0, 0.3, 0.0, 0.0]]).expand(len(whole), -1)  # where all of it is seen
        left = seen_alike(whole, last, near, (64, 64))
        films = paint_changing(staging, whole, last, torch.arange(frames))
        for name, seen in (("as they are", films), ("after the autoencoder", encoded_and_decoded(vae, films))):
            kept = torch.tensor([v["kept"] for v in judge(seen, scenes)])
            bands = [(left >= low) & (left < high) for low, high in zip(LEFT, LEFT[1:])]
            passed = ", ".join(f"{low:.0%} and more: {int(kept[band].sum())} of {int(band.sum())}" for low, band in zip(LEFT, bands))
            print(f"{frames} frames, spoilt on the way, {name}; kept, by what is left: {passed}", flush=True)


if __name__ == "__main__":
    main()
