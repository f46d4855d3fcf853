"""Published weights of DiT: diffusers' DiTTransformer2DModel, and the paper's own checkpoints."""

from __future__ import annotations

from pathlib import Path

import torch

from . import checks, published

_HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}  # table 1: the paper's own files do not say
_FIXED = {
    "activation_fn": "gelu-approximate", "norm_type": "ada_norm_zero", "attention_bias": True, "norm_elementwise_affine": False,
    "upcast_attention": False, "dropout": 0.0,
}  # fmt: skip
_PAPER_NAMES = {
    "x_embedder.proj.": "x_embedder.", "y_embedder.embedding_table.": "y_embedder.", ".attn.": ".attention.",
    ".mlp.fc1.": ".mlp.0.", ".mlp.fc2.": ".mlp.2.", "adaLN_modulation.": "ada_ln.", "final_layer.": "final.",
    "pos_embed": "positions",
}  # fmt: skip
_DIFFUSERS_NAMES = {
    "transformer_blocks.": "blocks.", "norm1.linear.": "ada_ln.1.", "attn1.to_out.0.": "attention.proj.",
    "ff.net.0.proj.": "mlp.0.", "ff.net.2.": "mlp.2.", "proj_out_1.": "final.ada_ln.1.", "proj_out_2.": "final.linear.",
    "pos_embed.proj.": "x_embedder.", "pos_embed.pos_embed": "positions",
}  # fmt: skip
_EMBEDDERS = {
    "timestep_embedder.linear_1.": "t_embedder.mlp.0.", "timestep_embedder.linear_2.": "t_embedder.mlp.2.",
    "class_embedder.embedding_table.": "y_embedder.",
}  # fmt: skip


def read(name: str | Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """The arguments of `DiTConfig` and the weights under our names, with the paper's fixed table of positions where it is there.

    Args:
        name: a folder as diffusers writes it, with "transformer" in it or not; or the paper's weights, a .safetensors or .pt
            file or a folder with one; or a ModelScope id.

    Raises:
        ValueError: it is none of these, or damaged, or of another network.
    """
    path = Path(name)
    if path.is_file():
        return _understood(_paper, _load(path))
    folder = published.folder_of(name, ("*.json", "transformer/*", "*.safetensors", "*.pt"))
    folder = folder / "transformer" if (folder / "transformer").is_dir() else folder
    if (folder / "config.json").is_file():
        return _understood(_diffusers, *published.read(folder))
    files = [file for file in sorted(folder.iterdir()) if file.suffix in (".safetensors", ".pt")]
    if len(files) != 1:
        raise ValueError(
            f"{folder} holds {len(files)} files of weights and no config.json; name the folder of one model, or its file."
        )
    return _understood(_paper, _load(files[0]))


def _understood(form, *given) -> tuple[dict, dict[str, torch.Tensor]]:
    """What that form says, with one sentence for all that damaged tensors of other shapes can lead to."""
    try:
        return form(*given)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ZeroDivisionError) as error:
        raise ValueError(
            f"These weights are damaged, or not those of a DiT ({type(error).__name__}: {error}); fetch them again."
        ) from error


def _load(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a .safetensors file, or of a foreign .pt file, of which nothing but tensors is read."""
    from safetensors.torch import load_file

    try:
        tensors = (
            load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # whatever the reader of that format raises on what it cannot read
        raise ValueError(
            f"{path} cannot be read as weights ({type(error).__name__}): it is damaged, of another kind, or holds more than tensors."
        ) from error
    if not isinstance(tensors, dict) or not all(isinstance(key, str) for key in tensors):
        raise ValueError(f"{path} holds no table of tensors; name the file of a DiT.")
    tables = [key for key, value in tensors.items() if isinstance(value, dict)]
    if tables:
        raise ValueError(f"{path} holds the tables {', '.join(tables)}, as a training run leaves them; save one of them alone.")
    if not all(isinstance(tensor, torch.Tensor) and tensor.is_floating_point() for tensor in tensors.values()):
        raise ValueError(f"{path} holds other things than real numbers, or quantised ones; take weights in full or half precision.")
    return tensors


def _paper(tensors: dict[str, torch.Tensor]) -> tuple[dict, dict[str, torch.Tensor]]:
    """Sizes are read off the tensors."""
    tensors = published.renamed(tensors, _PAPER_NAMES)
    needed = ("x_embedder.weight", "y_embedder.weight", "final.linear.bias", "blocks.0.mlp.0.bias")
    missing = [name for name in needed if name not in tensors]
    if missing:
        raise ValueError(
            f"The weights hold no {missing[0]} under the paper's name or diffusers', so they are not those of a DiT."
        )
    embedding = tensors["x_embedder.weight"]
    if embedding.ndim != 4 or len(embedding) not in _HEADS:
        raise ValueError(
            f"The patch embedding is {tuple(embedding.shape)}; one of the paper's widths, {', '.join(map(str, _HEADS))}, is expected."
        )
    d, in_channels, p = embedding.shape[:3]
    tensors["x_embedder.weight"] = embedding.flatten(1)
    sizes = {
        "in_channels": in_channels, "out_channels": len(tensors["final.linear.bias"]) // p**2, "patch_size": p, "hidden_size": d,
        "depth": len({name.split(".")[1] for name in tensors if name.startswith("blocks.")}), "num_heads": _HEADS[d],
        "mlp_ratio": len(tensors["blocks.0.mlp.0.bias"]) / d, "num_classes": len(tensors["y_embedder.weight"]) - 1,
    }  # fmt: skip
    return sizes, tensors


def _diffusers(config: dict, tensors: dict[str, torch.Tensor]) -> tuple[dict, dict[str, torch.Tensor]]:
    unusual = [f"{key} = {config[key]!r}" for key, value in _FIXED.items() if config.get(key, value) != value]
    if unusual:
        raise ValueError(f"Only DiTs of the paper's form can be loaded; this config says {', '.join(unusual)}.")
    keys = ("num_attention_heads", "attention_head_dim", "in_channels", "num_layers", "patch_size", "num_embeds_ada_norm")
    out_channels = config["in_channels"] if config.get("out_channels") is None else config["out_channels"]
    checks.whole({key: config.get(key) for key in keys} | {"out_channels": out_channels}, where=published.HERE)
    d, c, p = config["num_attention_heads"] * config["attention_head_dim"], config["in_channels"], config["patch_size"]
    sizes = {
        "in_channels": c, "out_channels": out_channels, "patch_size": p, "hidden_size": d, "depth": config["num_layers"],
        "num_heads": config["num_attention_heads"], "num_classes": config["num_embeds_ada_norm"],
    }  # fmt: skip
    tensors = published.renamed(tensors, _DIFFUSERS_NAMES)
    tensors["x_embedder.weight"] = _of_shape(tensors.pop("x_embedder.weight"), (d, c, p, p)).flatten(1)
    for i in range(sizes["depth"]):
        for theirs, ours in _EMBEDDERS.items():  # each block has a copy of its own
            for kind in ("weight", "bias") if ours.startswith("t_") else ("weight",):
                tensor = tensors.pop(f"blocks.{i}.norm1.emb.{theirs}{kind}")
                if not torch.equal(tensors.setdefault(ours + kind, tensor), tensor):
                    raise ValueError(f"Block {i}'s {theirs}{kind} differs from block 0's, and DiT embeds time and label once.")
        for kind, shape in (("weight", (d, d)), ("bias", (d,))):
            parts = [_of_shape(tensors.pop(f"blocks.{i}.attn1.to_{part}.{kind}"), shape) for part in "qkv"]
            tensors[f"blocks.{i}.attention.qkv.{kind}"] = torch.cat(parts)
    return sizes, tensors


def _of_shape(tensor: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    if tensor.shape != shape:
        raise ValueError(f"A tensor of the weights is {tuple(tensor.shape)}, and {shape} is expected of this config.")
    return tensor
