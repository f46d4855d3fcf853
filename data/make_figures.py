"""Draws the figures of README.md and data/README.md: python data/make_figures.py

films.png from the shipped model; accuracy.png from data/starter_accuracy.jsonl, which `sora-course train starter --measure`
wrote; calls.png from data/full_report.json, which `sora-course evaluate --calls` wrote.
"""

import json
from pathlib import Path

import matplotlib
import torch

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from sora_course.kit import display
from sora_course.sora import TextToVideo

BEFORE = 61.2  # minutes that VAE, text encoder and the encoding of the films took (data/README.md)
DATA = Path(__file__).resolve().parent
PROMPTS = {  # what the model is asked, and how the figure says it
    "a red circle moves right": "“a red circle moves right”",
    "一个紫色的心形顺时针绕圈": "“一个紫色的心形顺时针绕圈” (a purple heart circles clockwise)",
    "a cyan star drifts to the upper left at night, the camera pans right":
        "“a cyan star drifts to the upper left at night, the camera pans right”",
    "一个绿色的数字2缓慢旋转，镜头推近": "“一个绿色的数字2缓慢旋转，镜头推近” (a green 2 spins slowly, the camera zooms in)",
    "an orange triangle rises and a blue square moves left": "“an orange triangle rises and a blue square moves left”",
}


def films() -> None:
    plt.rcParams["font.family"] = ["DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP"]
    model = TextToVideo.from_pretrained()
    made = model.generate(list(PROMPTS), seed=[1, 2, 3, 4, 5])
    display.sheet(made, list(PROMPTS.values()), frames=9, columns=1).savefig(DATA / "figures" / "films.png", dpi=110)


def accuracy() -> None:
    rows = [json.loads(line) for line in (DATA / "starter_accuracy.jsonl").read_text().splitlines()]
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    minutes = [BEFORE + row["seconds"] / 60 for row in rows]
    for name, style in (("colour", "-"), ("shape", "-"), ("motion", "-"), ("kept", ":"), ("all", "-")):
        axis.plot(minutes, [100 * row[name] for row in rows], style, lw=3 if name == "all" else 1.5, label=name, marker=".")
    axis.set(xlabel="minutes from nothing, on two cores (VAE and text encoder included)", ylim=(0, 101))
    axis.set_ylabel("right on 64 held-out prompts, %")
    axis.axhline(90, color="grey", lw=0.8, ls="--")
    axis.legend()
    figure.savefig(DATA / "figures" / "accuracy.png", dpi=110)


def calls() -> None:
    rows = json.loads((DATA / "full_report.json").read_text())["calls"]
    figure, axis = plt.subplots(figsize=(7, 3.4), layout="constrained")
    numbers = [row["calls"] for row in rows]
    axis.fill_between(numbers, [100 * row["low"] for row in rows], [100 * row["high"] for row in rows], alpha=0.2)
    axis.plot(numbers, [100 * row["share"] for row in rows], "o-")
    axis.set_xscale("log", base=2)
    axis.set_xticks(numbers, [str(n) for n in numbers])
    axis.set(xlabel="calls of the transformer for a film", ylabel="all right, % (shaded: 95 %)", ylim=(-3, 103))
    figure.savefig(DATA / "figures" / "calls.png", dpi=110)


if __name__ == "__main__":
    torch.manual_seed(0)
    films()
    accuracy()
    calls()
