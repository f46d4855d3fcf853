"""A folder of short films with a captions file, made ready for training: read, checked, cut, cropped and sorted by shape.

The folder holds films (.mp4, .webm, .mov, .mkv, .avi, .gif) or pictures (.png, .jpg), and captions.csv with the columns file
and caption. Films are read with PyAV at the world's frame rate.
"""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange

from .world import FPS

SUFFIXES = (".mp4", ".webm", ".mov", ".mkv", ".avi", ".gif", ".png", ".jpg", ".jpeg")
SIZES = ((64, 64), (64, 96), (96, 64))  # height, width: square, wide, tall
CAPTIONS = "captions.csv"


@dataclass(frozen=True)
class Clip:
    """A piece of a film as the model takes it, and what it shows."""

    video: torch.Tensor  # uint8, (3, t, h, w)
    caption: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, height, width."""
        return tuple(self.video.shape[1:])


def read_film(path: Path | str) -> torch.Tensor:
    """Frames at `FPS` a second, whatever rate the file has: uint8, (3, t, h, w). A picture is one frame.

    A film within 5 % of that rate keeps its frames: a GIF counts in hundredths, and cannot say an eighth of a second.

    Raises:
        ValueError: it cannot be read, or shows nothing.
    """
    import av

    frames, times = [], []
    try:
        with av.open(str(path)) as container:
            rate = container.streams.video[0].average_rate or FPS
            for frame in container.decode(video=0):
                times.append(len(times) / float(rate) if frame.time is None else frame.time)
                frames.append(torch.from_numpy(frame.to_ndarray(format="rgb24")))
    except (av.error.FFmpegError, IndexError, OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a film ({type(error).__name__})") from error
    if not frames:
        raise ValueError(f"{path} shows nothing")
    if len(frames) == 1:
        return rearrange(frames[0], "h w c -> c 1 h w")
    times = torch.tensor(times, dtype=torch.float64) - times[0]
    if abs(float(times[-1]) * FPS / (len(times) - 1) - 1) < 0.05:
        return rearrange(torch.stack(frames), "t h w c -> c t h w")
    length = float(times[-1] + times[1:].diff().median() if len(times) > 2 else times[-1] + 1 / float(rate))
    wanted = torch.arange(max(1, round(length * FPS)), dtype=torch.float64) / FPS
    shown = (torch.searchsorted(times, wanted + 1e-6, right=True) - 1).clamp(min=0)  # the frame on screen at that time
    return rearrange(torch.stack([frames[i] for i in shown.tolist()]), "t h w c -> c t h w")


def fit(film: torch.Tensor, sizes=SIZES) -> torch.Tensor:
    """The film (3, t, h, w) in that size whose aspect is nearest, its middle cut out, nothing stretched: uint8."""
    height, width = film.shape[2:]
    size = min(sizes, key=lambda one: abs(torch.tensor(width * one[0] / (height * one[1])).log()))
    scale = max(size[0] / height, size[1] / width)
    inner = [max(1, round(side / scale)) for side in size]
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    frames = rearrange(film[:, :, top : top + inner[0], left : left + inner[1]], "c t h w -> t c h w").float()
    frames = F.interpolate(frames, size, mode="bilinear", antialias=True, align_corners=False)
    return rearrange(frames.round().clamp(0, 255).byte(), "t c h w -> c t h w")


def read_captions(folder: Path) -> list[tuple[str, str]]:
    """The rows of captions.csv: file and caption.

    Raises:
        ValueError: there is no such file, or it is not a table of file and caption.
    """
    path = folder / CAPTIONS
    if not path.is_file():
        raise ValueError(f"{folder} holds no {CAPTIONS}; write one with the columns file and caption, a row for each film.")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as a table in UTF-8 ({error}); save it as CSV UTF-8.") from error
    if not rows or not {"file", "caption"} <= rows[0].keys():
        raise ValueError(f"{path} needs a first line `file,caption` and a row for each film.")
    return [((row["file"] or "").strip(), (row["caption"] or "").strip()) for row in rows]


def read_folder(folder: Path | str, *, num_frames: int = 17, skip: bool = False) -> tuple[list[Clip], str]:
    """All clips of a folder, and a summary of what was used and what was not.

    A film gives as many clips as its frames allow, one after the other; a picture gives one of one frame.

    Args:
        num_frames: of each clip, 4n + 1, 5 or more.
        skip: leave out what is unreadable, too short, without a caption or without a file, instead of refusing the folder.

    Raises:
        ValueError: there is no such folder or captions file, nothing is left, or, without `skip`, anything is wrong.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}; name one with films and a {CAPTIONS}.")
    if type(num_frames) is not int or num_frames < 5 or num_frames % 4 != 1:
        raise ValueError(f"Clips have 4n + 1 frames, 5 or more, such as 17, and {num_frames} were asked for.")
    rows, clips, problems, used = read_captions(folder), [], [], set()
    named = {(folder / name).resolve() for name, _ in rows}
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES):
        if path.resolve() not in named:
            problems.append(f"{path.relative_to(folder)} has no caption")
    for number, (name, text) in enumerate(rows, start=2):
        path = folder / name
        if not name or not text:
            problems.append(f"line {number} of {CAPTIONS} names no {'caption' if name else 'file'}")
        elif folder.resolve() not in path.resolve().parents or path.suffix.lower() not in SUFFIXES:
            problems.append(f"{name} is no film inside the folder")
        elif not path.is_file():
            problems.append(f"{name} has a caption and is not there")
        else:
            try:
                film = read_film(path)
            except ValueError as error:
                problems.append(str(error).replace(f"{folder}/", ""))
                continue
            if 1 < film.shape[1] < num_frames:
                problems.append(f"{name} has {film.shape[1]} frames at {FPS} a second, and {num_frames} are asked for")
                continue
            length = min(num_frames, film.shape[1])
            clips += [Clip(fit(piece), text) for piece in film.split(length, dim=1) if piece.shape[1] == length]
            used.add(path)
    if problems and not skip:
        more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError(
            f"In {folder} something is wrong: {'; '.join(problems[:5])}{more}. Mend it, or leave it out with --skip."
        )
    if not clips:
        raise ValueError(f"In {folder} nothing is left to learn from: {'; '.join(problems[:5])}.")
    counts = Counter(clip.shape for clip in clips)
    shapes = ", ".join(f"{n} of {t}x{h}x{w}" for (t, h, w), n in sorted(counts.items()))
    left = f"; left out: {'; '.join(problems)}" if problems else ""
    return clips, f"{len(clips)} clips (frames x height x width: {shapes}) from {len(used)} files{left}."
