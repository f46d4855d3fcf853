"""Showing and writing films and pictures: mp4, gif and png files, players in a notebook, sheets of frames."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange

from .checkpoints import save_atomically
from .world import FPS

FORMATS = (".mp4", ".gif", ".png")


def to_frames(video: torch.Tensor, scale: int = 1):
    """A film (3, t, h, w) in [-1, 1] as uint8 numpy frames (t, scale h, scale w, 3), enlarged smoothly."""
    if video.ndim != 4 or video.shape[0] != 3:
        raise ValueError(f"One film is (3, t, h, w); this tensor is {tuple(video.shape)}. Pass one of a batch at a time.")
    frames = rearrange(video.detach().float().cpu().clamp(-1, 1), "c t h w -> t c h w")
    if scale > 1:
        frames = F.interpolate(frames, scale_factor=scale, mode="bicubic").clamp(-1, 1)
    return ((frames + 1) * 127.5).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def _encode_mp4(frames, target, fps: int) -> None:
    import av

    with av.open(target, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "16", "preset": "medium"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _encode_gif(frames, target, fps: int) -> None:
    from PIL import Image

    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(target, format="GIF", save_all=True, append_images=images[1:], duration=1000 // fps, loop=0)


def write(path: Path | str, video: torch.Tensor, *, scale: int = 4, fps: int = FPS) -> Path:
    """Write one film (3, t, h, w) as .mp4 (H.264, yuv420p), .gif, or .png (the frames side by side; one for a still).

    An existing file is replaced only when the new one is whole.

    Raises:
        ValueError: the ending is none of these, the folder is missing or cannot be written to, or an mp4 would have an odd side.
    """
    path = check_target(path)
    frames = to_frames(video, scale)
    if path.suffix.lower() == ".mp4" and (frames.shape[1] % 2 or frames.shape[2] % 2):
        raise ValueError(f"An mp4 has even sides, and this film would have {frames.shape[2]}x{frames.shape[1]}; scale it by 2, say.")

    def encode(target: Path) -> None:
        if path.suffix.lower() == ".mp4":
            _encode_mp4(frames, str(target), fps)
        elif path.suffix.lower() == ".gif":
            _encode_gif(frames, target, fps)
        else:
            from PIL import Image

            Image.fromarray(rearrange(frames, "t h w c -> h (t w) c")).save(target, format="PNG")

    save_atomically(path, encode)
    return path


def check_target(path: Path | str) -> Path:
    """The path, if a film can be written there.

    Raises:
        ValueError: its ending is unknown, it is a folder, or its folder is missing or not writable.
    """
    import os

    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"A film is written as {', '.join(FORMATS)}, and {path.name!r} ends in none of them.")
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"{path} is a folder, or its folder does not exist; name a file in a folder that does.")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"The folder {path.parent} cannot be written to; choose another with --out.")
    return path


def _embedded(video: torch.Tensor, scale: int, fps: int) -> str:
    """An HTML element that plays the film, with the film inside."""
    frames, buffer = to_frames(video, scale), io.BytesIO()
    h, w = frames.shape[1:3]
    if len(frames) == 1:
        from PIL import Image

        Image.fromarray(frames[0]).save(buffer, format="PNG")
        kind = "png"
    else:
        try:
            _encode_mp4(frames, buffer, fps)
            data = base64.b64encode(buffer.getvalue()).decode()
            return f'<video width="{w}" height="{h}" autoplay loop muted playsinline src="data:video/mp4;base64,{data}"></video>'
        except ImportError:  # no PyAV here: a gif plays everywhere
            _encode_gif(frames, buffer, fps)
            kind = "gif"
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img width="{w}" height="{h}" src="data:image/{kind};base64,{data}">'


def row(videos: list[torch.Tensor], captions: list[str], *, scale: int = 2, fps: int = FPS):
    """Films (3, t, h, w) of any sizes side by side, looping, for a notebook: an IPython HTML object.

    Raises:
        ValueError: there are not as many captions as films.
    """
    import html

    from IPython.display import HTML

    if len(captions) != len(videos):
        raise ValueError(f"There are {len(videos)} films and {len(captions)} captions; give one for each.")
    cells = [
        f'<figure style="margin:4px 10px 4px 0;width:{max(128, video.shape[-1] * scale)}px">{_embedded(video, scale, fps)}'
        f'<figcaption style="font-size:13px;line-height:1.35">{html.escape(text)}</figcaption></figure>'
        for video, text in zip(videos, captions)
    ]
    return HTML(f'<div style="display:flex;flex-wrap:wrap;align-items:flex-start">{"".join(cells)}</div>')


def player(videos: torch.Tensor, captions: list[str], *, scale: int = 3, fps: int = FPS):
    """A batch of films (b, 3, t, h, w) side by side; see `row`."""
    return row(list(videos), captions, scale=scale, fps=fps)


def sheet(videos: torch.Tensor, captions: list[str], *, frames: int = 5, columns: int = 2):
    """A matplotlib figure: each film as a strip of frames evenly spread over its time, under its caption."""
    import matplotlib.pyplot as plt

    rows = -(-len(videos) // columns)
    ratio = frames * videos.shape[-1] / videos.shape[-2]
    height = 5.6 / ratio + 0.35
    figure, axes = plt.subplots(rows, columns, figsize=(6 * columns, height * rows), squeeze=False, layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    chosen = torch.linspace(0, videos.shape[2] - 1, min(frames, videos.shape[2])).round().long()
    for axis, video, text in zip(axes.flat, videos, captions):
        frames_apart = F.pad(torch.from_numpy(to_frames(video[:, chosen])), (0, 0, 0, 2), value=255)
        axis.imshow(rearrange(frames_apart, "t h w c -> h (t w) c").numpy())
        axis.set_title(text, fontsize=10, loc="left")
    return figure
