"""Shared by all tests: a seeded generator, a tiny untrained model, and how many threads a worker takes."""

import os

import matplotlib
import pytest
import torch

matplotlib.use("Agg")


def pytest_configure(config):
    """Workers of `pytest -n` share the processor: each takes its part of the threads, and so do the notebooks that it runs."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    if workers > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // workers))
        os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def tiny_model():
    """A text-to-video model with random weights, small enough to run in milliseconds."""
    from dataclasses import asdict

    from sora_course import recipes, stages
    from sora_course.sora import TextToVideo

    torch.manual_seed(0)
    recipe, words = recipes.RECIPES["tiny"], stages.vocabulary()
    config = {
        "preset": "starter", "recipe": "tiny", "vocabulary": words, "vae": asdict(recipe.vae), "dit": asdict(recipe.dit),
        "text": {"vocab_size": len(words), "hidden_size": 32, "depth": 1},
    }  # fmt: skip
    model = TextToVideo(config)
    for p in model.dit.parameters():  # a fresh transformer answers zero to everything
        torch.nn.init.normal_(p, std=0.1)
    return model.eval()


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    tiny_model.save(path)
    return path
