"""A folder of short films with a captions file, made ready for training: read, checked, cut, cropped and sorted by shape.

The folder holds films (.mp4, .m4v, .webm, .mov, .mkv, .avi, .gif) or pictures (.png, .jpg), and captions.csv with the columns file
and caption. Films are read with PyAV at the world's frame rate.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange

from .world import FPS

PICTURES = (".png", ".jpg", ".jpeg")
SUFFIXES = (".mp4", ".m4v", ".webm", ".mov", ".mkv", ".avi", ".gif", *PICTURES)
MAX_SECONDS = 300
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


def _frames(path: Path | str):
    """The decoded frames of a film, one after the other.

    Raises:
        ValueError: it cannot be read.
    """
    import av

    name = str(Path(path).resolve())  # or PyAV takes "take:1.mp4" for an address
    try:
        try:
            container = av.open(name, metadata_errors="replace")  # a title that is not UTF-8 is no reason to refuse a film
        except TypeError:  # newer versions have no such argument
            container = av.open(name)
        with container:
            yield from container.decode(video=0)
    except (av.error.FFmpegError, IndexError, OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a film ({type(error).__name__})") from error


def _shown(path: Path | str) -> list[int]:
    """Which frame of the film is on screen at each tick of `FPS`; all of them, if each lasts that long, give or take 5 %."""
    times = []
    for frame in _frames(path):
        times.append(len(times) / FPS if frame.time is None else frame.time)
    if not times:
        raise ValueError(f"{path} shows nothing")
    if len(times) == 1:
        return [0]
    times = torch.tensor(times, dtype=torch.float64) - times[0]
    length = float(times[-1] + times.diff().median())
    if length > MAX_SECONDS:
        raise ValueError(f"{path} lasts {length:.0f} seconds, and {MAX_SECONDS} are the most; cut it into pieces")
    if bool(((times.diff() * FPS - 1).abs() < 0.05).all()):
        return list(range(len(times)))
    ticks = torch.arange(max(1, round(length * FPS)), dtype=torch.float64) / FPS
    return (torch.searchsorted(times, ticks + 1e-6, right=True) - 1).clamp(min=0).tolist()


def read_film(path: Path | str) -> torch.Tensor:
    """Frames at `FPS` a second, whatever rate the file has, in the nearest of `SIZES`: uint8, (3, t, h, w).

    A picture is one frame. A film within 5 % of that rate keeps its frames: a GIF counts in hundredths of a second, and cannot
    say an eighth. The file is decoded twice, so that never more than one frame is there at full size.

    Raises:
        ValueError: it cannot be read, shows nothing, or lasts too long.
    """
    shown, film, size = _shown(path), {}, None
    wanted = set(shown)
    for number, frame in enumerate(_frames(path)):
        if number not in wanted:
            continue
        picture = rearrange(torch.from_numpy(frame.to_ndarray(format="rgb24")), "h w c -> c 1 h w")
        picture = torch.rot90(picture, round(getattr(frame, "rotation", 0) / 90), dims=(2, 3))  # as phones film
        size = size or nearest_size(*picture.shape[2:])
        film[number] = fit(picture, size)
    return torch.cat([film[number] for number in shown], dim=1)


def nearest_size(height: int, width: int) -> tuple[int, int]:
    """That of `SIZES` whose aspect is nearest."""
    return min(SIZES, key=lambda size: abs(math.log(width * size[0] / (height * size[1]))))


def fit(film: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The film (3, t, h, w) in that size (height, width), its middle cut out, nothing stretched: uint8."""
    height, width = film.shape[2:]
    scale = max(size[0] / height, size[1] / width)
    inner = [max(1, round(side / scale)) for side in size]
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    frames = rearrange(film[:, :, top : top + inner[0], left : left + inner[1]], "c t h w -> t c h w").float()
    frames = F.interpolate(frames, size, mode="bilinear", antialias=True, align_corners=False)
    return rearrange(frames.round().clamp(0, 255).byte(), "t c h w -> c t h w")


def read_captions(folder: Path) -> list[tuple[int, str, str | None]]:
    """The rows of captions.csv: line, file and caption; None for a caption with commas outside quotation marks.

    Raises:
        ValueError: there is no such file, or it is not a table of file and caption.
    """
    path, rows = folder / CAPTIONS, []
    if not path.is_file():
        raise ValueError(f"{folder} holds no {CAPTIONS}; write one with the columns file and caption, a row for each film.")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            for row in reader:
                text = None if None in row else (row.get("caption") or "").strip()
                rows.append((reader.line_num, (row.get("file") or "").strip(), text))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as a table in UTF-8 ({error}); save it as CSV UTF-8.") from error
    if not rows or not {"file", "caption"} <= set(reader.fieldnames or ()):
        raise ValueError(f"{path} needs a first line `file,caption` and a row for each film.")
    return rows


def _problem(folder: Path, line: int, name: str, text: str | None, check: Callable[[str], object] | None) -> str | None:
    """What is wrong with a row of captions.csv before its film is read."""
    if text is None:
        return f"line {line} of {CAPTIONS} has more cells than its first line; put captions with commas in quotation marks"
    if not name or not text:
        return f"line {line} of {CAPTIONS} names no {'caption' if name else 'file'}"
    path = folder / name
    if path.suffix.lower() not in SUFFIXES:
        return f"{name} does not end as films and pictures do ({', '.join(SUFFIXES)})"
    if folder.resolve() not in path.resolve().parents:
        return f"{name} is no film inside the folder"
    if not path.is_file():
        return f"{name} has a caption and is not there"
    try:
        if check:
            check(text)
    except ValueError as error:
        return f"line {line} of {CAPTIONS}: {str(error).rstrip('.')}"
    return None


def _file_itself(path: Path) -> tuple[int, int]:
    """The same for all names of one file: some systems know `Film.gif` as `film.gif`, and an accented letter by two spellings."""
    found = path.stat()
    return found.st_dev, found.st_ino


def read_folder(
    folder: Path | str, *, num_frames: int = 17, skip: bool = False, check: Callable[[str], object] | None = None
) -> tuple[list[Clip], str]:
    """All clips of a folder, and a summary of what was used and what was not.

    A film gives as many clips as its frames allow, one after the other; a picture gives one of one frame.

    Args:
        num_frames: of each clip, 4n + 1, 5 or more.
        skip: leave out what is unreadable, too short, without a caption or without a file, instead of refusing the folder.
        check: raises a ValueError for a caption that cannot be used; a tokenizer, say, for one that is too long.

    Raises:
        ValueError: there is no such folder or captions file, nothing is left, or, without `skip`, anything is wrong.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}; name one with films and a {CAPTIONS}.")
    if type(num_frames) is not int or num_frames < 5 or num_frames % 4 != 1:
        raise ValueError(f"Clips have 4n + 1 frames, 5 or more, such as 17, and {num_frames} were asked for.")
    rows, clips, problems, used = read_captions(folder), [], [], set()
    named = {_file_itself(folder / name) for _, name, _ in rows if (folder / name).is_file()}
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)  # Jupyter's checkpoints, say
        if not hidden and (not path.is_file() or _file_itself(path) not in named):
            problems.append(f"{path.relative_to(folder)} has no caption")
    for line, name, text in rows:
        path, problem = folder / name, _problem(folder, line, name, text, check)
        if problem:
            problems.append(problem)
            continue
        try:
            film = read_film(path)
        except ValueError as error:
            problems.append(str(error).replace(str(path), name))
            continue
        length = num_frames
        if path.suffix.lower() in PICTURES:
            film, length = film[:, :1], 1  # a PNG may hold several
        if film.shape[1] < length:
            problems.append(f"{name} has {film.shape[1]} frames at {FPS} a second, and {num_frames} are asked for")
            continue
        clips += [Clip(piece, text) for piece in film.split(length, dim=1) if piece.shape[1] == length]
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
