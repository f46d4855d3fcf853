"""Published weights: a folder with config.json and safetensors, as diffusers and transformers write them, or a ModelScope id."""

from __future__ import annotations

import json
from pathlib import Path

import torch

WEIGHTS = ("diffusion_pytorch_model.safetensors", "model.safetensors")


def folder_of(name: str | Path) -> Path:
    """The folder of that path; else the model of that id ("owner/name"), fetched from ModelScope.

    Raises:
        ValueError: there is no such folder, and it is no id or could not be fetched.
    """
    path = Path(name)
    if path.is_dir():
        return path
    if str(name).count("/") != 1 or str(name).startswith((".", "/", "~")):
        raise ValueError(f"There is no folder {str(name)!r}; name one that holds config.json and weights, or a model id, owner/name.")
    try:
        from modelscope import snapshot_download

        return Path(snapshot_download(str(name), allow_patterns=["config.json", "*.safetensors"]))
    except Exception as error:  # no network, no such model: whatever the hub's client raises
        raise ValueError(
            f"{str(name)!r} is neither a folder here nor could it be fetched from ModelScope ({type(error).__name__}); "
            "fetch it where there is a network, and name the folder."
        ) from error


def read(name: str | Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """Config and tensors of a published model.

    Raises:
        ValueError: there is no such model, or config or weights are missing, damaged, or pickled.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = folder_of(name)
    weights = next((folder / file for file in WEIGHTS if (folder / file).is_file()), None)
    if weights is None:
        raise ValueError(f"{folder} holds none of {', '.join(WEIGHTS)}; pickled weights (.bin, .pth) are not read, so convert them first.")
    try:
        return json.loads((folder / "config.json").read_text()), load_file(weights)
    except FileNotFoundError as error:
        raise ValueError(f"{folder} has no config.json, which tells the model's sizes; fetch it again.") from error
    except (SafetensorError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"The model in {folder} is damaged ({error}); fetch it again.") from error
