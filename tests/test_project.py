"""The project's own files: one source of dependencies, and what ships."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_conda_brings_python_and_pip_and_nothing_else():
    text = (ROOT / "environment.yml").read_text()
    entries = re.findall(r"^\s*- (.+)$", text.split("dependencies:")[1], re.M)
    least = re.search(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text())[1]
    assert entries == [f"python>={least}", "pip", "pip:", "-e .[test]"]


def test_versions_are_ranges_and_torch_may_stay_as_it_is():
    text = (ROOT / "pyproject.toml").read_text()
    wanted = re.findall(r'^    "([^"]+)",$', text.split("dependencies = [")[1].split("]")[0], re.M)
    assert len(wanted) > 10 and all(re.fullmatch(r"[\w-]+>=[\d.]+", w) for w in wanted)
    assert {"torch", "torchvision", "einops", "matplotlib", "ipywidgets", "jupyterlab", "nbval", "modelscope"} <= {
        w.split(">=")[0] for w in wanted
    }


def test_the_doctor_knows_every_package():
    from sora_course.kit.doctor import _NEEDED

    text = (ROOT / "pyproject.toml").read_text()
    wanted = dict(re.findall(r'^    "([\w-]+)>=([\d.]+)",', text, re.M))
    assert {name: least for name, least in wanted.items() if name not in ("torch", "torchvision")} == _NEEDED


def test_the_kit_imports_no_chapter_and_chapters_nothing_later():
    order = [
        "ink", "ddpm", "unet", "vit", "vivit", "navit", "vae", "video_vae", "flow", "dit", "dit_sampling", "video_dit", "text",
        "sora", "film_reader", "reading_lessons", "buckets", "recipes", "stages", "finetune", "report",
    ]  # fmt: skip
    for path in (ROOT / "sora_course").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        imports = set(re.findall(r"^\s*from \.+(\w+)(?:\.\w+)* import", text, re.M))
        for names in re.findall(r"^\s*from \. import (.+)$", text, re.M):
            imports |= set(names.split(", "))
        if path.parent.name == "kit":
            assert not re.search(r"^\s*from \.\.", text, re.M), path
        elif path.stem in order:
            assert not imports & set(order[order.index(path.stem) :]), path


def test_weights_stay_small():
    assert sum(p.stat().st_size for p in (ROOT / "data").rglob("*") if p.is_file()) < 40e6
