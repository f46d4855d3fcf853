"""The map of the whole system, with a mark where a chapter is."""

from __future__ import annotations

# name: (x, y, text, chapters that build it)
_BOXES = {
    "prompt": (0.2, 2.0, "a sentence\n“a red circle\nmoves right”", ""),
    "text": (2.9, 2.0, "text encoder\nwords → vectors", "08"),
    "noise": (2.9, 0.4, "noise\n5×8×8 latents", "01"),
    "dit": (5.6, 1.2, "diffusion transformer\nspacetime patches", "04  05  07"),
    "flow": (5.6, 2.8, "flow\na step towards data", "01  02  07"),
    "latents": (8.3, 1.2, "latents\n5×8×8, 16 channels", ""),
    "vae": (11.0, 1.2, "video VAE\nlatents → pixels", "03  06"),
    "film": (13.7, 1.2, "a film\n17×64×64", "08"),
}
_ARROWS = [("prompt", "text"), ("text", "dit"), ("noise", "dit"), ("dit", "latents"), ("latents", "vae"), ("vae", "film")]
_WIDTH, _HEIGHT = 2.2, 1.0


def draw_map(here: str | None = None):
    """Draw the way from a sentence to a film, as a matplotlib figure.

    Args:
        here: the name of the box to mark as "you are here": prompt, text, noise, dit, flow, latents, vae or film;
            None marks none.

    Raises:
        ValueError: there is no such box.
    """
    import matplotlib.pyplot as plt
    from matplotlib.patches import FancyBboxPatch

    if here is not None and here not in _BOXES:
        raise ValueError(f"{here!r} is not on the map; it has {', '.join(_BOXES)}.")
    figure, axis = plt.subplots(figsize=(13, 3.4), layout="constrained")
    axis.set(xlim=(0, 16.1), ylim=(-0.3, 4.5))
    axis.axis("off")
    for name, (x, y, text, chapters) in _BOXES.items():
        face = "#f7c8c4" if name == here else "#eef1f6" if chapters else "#ffffff"
        box = FancyBboxPatch((x, y), _WIDTH, _HEIGHT, boxstyle="round,pad=0.04,rounding_size=0.15", fc=face, ec="#44506b", lw=1.3)
        axis.add_patch(box)
        axis.text(x + _WIDTH / 2, y + _HEIGHT / 2, text, ha="center", va="center", fontsize=10)
        edge, out, va = (y + _HEIGHT, 1, "bottom") if name == "flow" else (y, -1, "top")  # the side that no arrow leaves
        label = {"x": x + _WIDTH / 2, "ha": "center", "va": va, "color": "#b03028"}
        if chapters:
            axis.text(s="chapter " + chapters.replace("  ", ", "), y=edge + 0.08 * out, fontsize=9, **label)
        if name == here:
            axis.text(s="you are here", y=edge + 0.34 * out, fontsize=10, weight="bold", **label)

    def arrow(start, end, bend=0.0):
        style = {"arrowstyle": "-|>", "color": "#44506b", "lw": 1.4, "connectionstyle": f"arc3,rad={bend}"}
        axis.annotate("", end, start, arrowprops=style)

    for start, end in _ARROWS:
        (x0, y0), (x1, y1) = _BOXES[start][:2], _BOXES[end][:2]
        lift = {"text": 0.25, "noise": -0.25}.get(start, 0.0)
        arrow((x0 + _WIDTH + 0.06, y0 + _HEIGHT / 2), (x1 - 0.06, y1 + _HEIGHT / 2 + lift))
    x, y = _BOXES["dit"][:2]
    arrow((x + 0.7, y + _HEIGHT + 0.06), (x + 0.7, y + 1.6 - 0.06))
    arrow((x + 1.5, y + 1.6 - 0.06), (x + 1.5, y + _HEIGHT + 0.06))
    axis.text(x + _WIDTH + 0.2, y + 2.1, "again and again:\n24 steps", fontsize=8.5, va="center", color="#44506b")
    return figure


def draw_u(down: list[tuple[int, ...]], middle: tuple[int, ...], up: list[tuple[int, ...]]):
    """Draw a U-Net as its U, as a matplotlib figure.

    Args:
        down, up: the shape (c, h, w) at the end of each level on the way down, and at the start of each on the way up, both
            with the finest level first.
        middle: the shape at the bottom.
    """
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle

    figure, axis = plt.subplots(figsize=(9, 1.3 * len(down) + 1.6), layout="constrained")
    axis.axis("off")
    depth = len(down)

    def box(x, y, shape, note=""):
        axis.add_patch(Rectangle((x, y), 2.2, 0.7, fc="#eef1f6" if not note else "#f7c8c4", ec="#44506b", lw=1.3))
        axis.text(x + 1.1, y + 0.35, "×".join(map(str, shape)) + note, ha="center", va="center", fontsize=10)

    def arrow(start, end, **style):
        axis.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "#44506b", "lw": 1.4, **style})

    for level, (left, right) in enumerate(zip(down, up)):
        y, inset = 1.3 * (depth - level), 0.6 * level
        x0, x1 = inset, 10 - 2.2 - inset
        box(x0, y, left)
        box(x1, y, right)
        arrow((x0 + 2.25, y + 0.35), (x1 - 0.05, y + 0.35), ls="--", color="#b03028")
        axis.text(5, y + 0.42, "skips", ha="center", fontsize=9, color="#b03028")
        end = (x0 + 1.7, y - 0.57) if level < depth - 1 else (3.9, 0.72)
        start = (x1 + 0.5, y - 0.57) if level < depth - 1 else (6.1, 0.72)
        arrow((x0 + 1.1, y - 0.03), end)
        arrow(start, (x1 + 1.1, y - 0.03))
        word = "half the size" if level < depth - 1 else "same size"
        axis.text(x0 + 1.0, y - 0.33, word, ha="right", fontsize=8.5, color="#44506b")
    box(3.9, 0, middle, " middle")
    axis.set(xlim=(-0.6, 10.6), ylim=(-0.2, 1.3 * depth + 0.9))
    return figure


def draw_dit_block():
    """Draw a DiT block with adaLN-zero, from tokens on the left to tokens on the right, as a matplotlib figure."""
    import matplotlib.pyplot as plt
    from matplotlib.patches import FancyBboxPatch

    figure, axis = plt.subplots(figsize=(13, 2.9), layout="constrained")
    axis.set(xlim=(-0.7, 17.7), ylim=(-0.1, 3.9))
    axis.axis("off")
    line = {"arrowstyle": "-|>", "color": "#44506b", "lw": 1.4}

    def box(x, y, width, text, face="#eef1f6"):
        style = "round,pad=0.04,rounding_size=0.12"
        axis.add_patch(FancyBboxPatch((x, y), width, 0.7, boxstyle=style, fc=face, ec="#44506b", lw=1.2))
        axis.text(x + width / 2, y + 0.35, text, ha="center", va="center", fontsize=9.5)

    box(7.1, 3.1, 2.8, "time + label: c", face="#ffffff")
    for start, name in ((0.6, "attention"), (9.0, "MLP")):
        axis.plot([start - 0.4, start - 0.4, start + 7.15], [0.35, 1.55, 1.55], c="#44506b", lw=1.4)  # the stream goes by
        axis.annotate("", (start + 7.15, 0.78), (start + 7.15, 1.57), arrowprops=line)
        inside = ((0.0, 1.2, "norm"), (1.7, 1.6, "scale, shift"), (3.8, 1.5, name), (5.8, 0.8, "gate"), (7.0, 0.3, "+"))
        for x, width, text in inside:
            box(start + x, 0.0, width, text, face="#f7c8c4" if text in ("scale, shift", "gate") else "#eef1f6")
        for (x, width, _), (after, _, _) in zip(inside, inside[1:]):
            axis.annotate("", (start + after - 0.06, 0.35), (start + x + width + 0.06, 0.35), arrowprops=line)
        for x in (2.5, 6.2):
            way = line | {"color": "#b03028", "connectionstyle": "arc3,rad=0"}
            axis.annotate("", (start + x, 0.8), (8.5, 3.02), arrowprops=way)
    axis.annotate("", (0.54, 0.35), (-0.6, 0.35), arrowprops=line)
    axis.annotate("", (8.94, 0.35), (7.96, 0.35), arrowprops=line)
    axis.annotate("", (17.4, 0.35), (16.36, 0.35), arrowprops=line)
    axis.text(-0.6, 0.75, "tokens", fontsize=9.5)
    axis.text(17.4, 0.75, "tokens", fontsize=9.5, ha="right")
    return figure


def draw_way(rows: dict[str, list[tuple[str, str]]]):
    """Draw the data's way as rows of boxes joined by arrows, as a matplotlib figure.

    Args:
        rows: under a title each, the row's boxes: what happens there, and what comes out, written at the arrow that leaves.
    """
    import matplotlib.pyplot as plt
    from matplotlib.patches import FancyBboxPatch

    step, width, height = 3.55, 1.75, 2.0
    figure, axis = plt.subplots(figsize=(13, 1.35 * len(rows)), layout="constrained")
    axis.set(xlim=(-0.2, step * max(map(len, rows.values()))), ylim=(-height * len(rows) + 0.9, 1.5))
    axis.axis("off")
    line = {"arrowstyle": "-|>", "color": "#44506b", "lw": 1.4}
    for i, (title, boxes) in enumerate(rows.items()):
        y = -height * i
        axis.text(0, y + 1.08, title, fontsize=10, weight="bold", va="bottom")
        for j, (doing, out) in enumerate(boxes):
            x = step * j
            box = FancyBboxPatch((x, y), width, 0.9, boxstyle="round,pad=0.04,rounding_size=0.12", fc="#eef1f6", ec="#44506b", lw=1.2)
            axis.add_patch(box)
            axis.text(x + width / 2, y + 0.45, doing, ha="center", va="center", fontsize=9)
            axis.annotate("", (x + step - 0.08, y + 0.45), (x + width + 0.08, y + 0.45), arrowprops=line)
            axis.text(x + (width + step) / 2, y + 0.56, out, ha="center", va="bottom", fontsize=8, color="#b03028")
    return figure
