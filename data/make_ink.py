"""Make data/ink.safetensors, the particles of chapter 01: `python data/make_ink.py` (about 5 seconds).

Four shapes of red ink in the plane, 12,000 particles of each to learn from and 4,000 fresh ones to compare with. The
character needs any font that has it; the file that ships was made with Noto Serif CJK SC Bold.
"""

import math
from pathlib import Path

import torch

from sora_course.kit import checkpoints

LEARN, FRESH = 12_000, 4_000
FONTS = ("Noto Serif CJK SC", "Noto Serif CJK JP", "Noto Sans CJK SC", "Songti SC", "PingFang SC", "SimSun")


def drop(n: int, generator) -> torch.Tensor:
    """A round drop beside the centre, even inside."""
    radius = 0.6 * torch.rand(n, generator=generator).sqrt()
    angle = 2 * math.pi * torch.rand(n, generator=generator)
    return torch.stack([0.7 + radius * angle.cos(), 0.5 + radius * angle.sin()], 1)


def swirl(n: int, generator) -> torch.Tensor:
    """A spiral of one and three quarter turns, a little blurred."""
    share = torch.rand(n, generator=generator).sqrt()
    angle = 3.5 * math.pi * share
    points = 1.5 * share[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    return points + 0.04 * torch.randn(n, 2, generator=generator)


def ring(n: int, generator) -> torch.Tensor:
    """A ring, a little blurred."""
    angle = 2 * math.pi * torch.rand(n, generator=generator)
    radius = 1.2 + 0.06 * torch.randn(n, generator=generator)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1)


def character(n: int, generator) -> torch.Tensor:
    """The character 墨, ink: points drawn evenly from its strokes."""
    from matplotlib import font_manager
    from PIL import Image, ImageDraw, ImageFont

    known = {entry.name: entry.fname for entry in font_manager.fontManager.ttflist}
    path = next((known[name] for name in FONTS if name in known), None)
    if path is None:
        raise SystemExit("No font with the character 墨 was found; install one of " + ", ".join(FONTS) + ".")
    image = Image.new("L", (300, 300))
    ImageDraw.Draw(image).text((150, 150), "墨", font=ImageFont.truetype(path, 256), fill=255, anchor="mm")
    ink = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).float().view(300, 300)
    chosen = torch.multinomial(ink.flatten(), n, replacement=True, generator=generator)
    rows, columns = chosen // 300, chosen % 300
    points = torch.stack([columns, 299 - rows], 1) + torch.rand(n, 2, generator=generator)
    return (points - 150) / 90


def main() -> None:
    tensors = {}
    for seed, make in enumerate((drop, swirl, character, ring)):
        particles = make(LEARN + FRESH, torch.Generator().manual_seed(seed))
        tensors[make.__name__], tensors[f"{make.__name__}.fresh"] = particles.split([LEARN, FRESH])
    path = Path(__file__).resolve().parent / "ink.safetensors"
    checkpoints.save(path, tensors, {"made by": "data/make_ink.py"})
    print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
