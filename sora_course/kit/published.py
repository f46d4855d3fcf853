"""Published weights: a folder of config.json and safetensors, as diffusers and transformers write it, or a ModelScope id."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from . import checks

HERE = "In config.json "
WEIGHTS = ("diffusion_pytorch_model.safetensors", "model.safetensors")


def folder_of(name: str | Path, wanted: tuple[str, ...] = ("config.json", "*.safetensors")) -> Path:
    """The folder of that path; else the wanted files of the model of that id ("owner/name"), fetched from ModelScope.

    Raises:
        ValueError: there is no such folder, and it is no id or could not be fetched.
    """
    path = Path(name)
    if path.is_dir():
        return path
    if path.exists():
        raise ValueError(f"{path} is a file; name the folder that holds it together with config.json.")
    if str(name).count("/") != 1 or str(name).startswith((".", "/", "~")):
        raise ValueError(
            f"There is no folder {str(name)!r}; name one that holds config.json and weights, or a model id, owner/name."
        )
    try:
        from modelscope import snapshot_download

        return Path(snapshot_download(str(name), allow_patterns=list(wanted)))
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
        raise ValueError(
            f"{folder} holds none of {', '.join(WEIGHTS)}; pickled weights (.bin, .pth) are not read, so convert them first."
        )
    try:
        config, tensors = json.loads((folder / "config.json").read_text()), load_file(weights)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ValueError(f"{folder} has no config.json, which tells the model's sizes; fetch it again.") from error
    except (SafetensorError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"The model in {folder} is damaged ({error}); fetch it again.") from error
    if not isinstance(config, dict) or not all(tensor.is_floating_point() for tensor in tensors.values()):
        raise ValueError(
            f"The model in {folder} is damaged or quantised: a config of names and weights of real numbers are expected."
        )
    return config, tensors


def renamed(tensors: dict[str, torch.Tensor], names: dict[str, str]) -> dict[str, torch.Tensor]:
    """Tensors with each part of a name that is a key of names replaced by its value, in order.

    Raises:
        ValueError: two tensors come to have one name.
    """
    result = {}
    for name, tensor in tensors.items():
        for theirs, ours in names.items():
            name = name.replace(theirs, ours)
        if name in result:
            raise ValueError(f"The weights hold {name} twice, under two names, so they are damaged; fetch them again.")
        result[name] = tensor
    return result


# diffusers' UNet2DModel ----------------------------------------------------------------------------------------------
OLD_ATTENTION_NAMES = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
_UNET_DEFAULTS = {
    "in_channels": 3, "out_channels": 3, "layers_per_block": 2, "attention_head_dim": 8, "norm_num_groups": 32,
    "norm_eps": 1e-5, "downsample_padding": 1, "flip_sin_to_cos": True, "freq_shift": 0, "num_class_embeds": None,
}  # fmt: skip
_UNET_FIXED = {
    "act_fn": "silu", "time_embedding_type": "positional", "center_input_sample": False, "mid_block_scale_factor": 1,
    "resnet_time_scale_shift": "default", "class_embed_type": None, "add_attention": True, "attn_norm_num_groups": None,
}  # fmt: skip
_UNET_BLOCKS = {"DownBlock2D": False, "UpBlock2D": False, "AttnDownBlock2D": True, "AttnUpBlock2D": True}


def unet_sizes(config: dict) -> dict:
    """The arguments of `UNetConfig` in the config.json of a UNet2DModel.

    Raises:
        ValueError: it asks for something that the DDPM paper's network does not have.
    """
    missing = [key for key in ("block_out_channels", "down_block_types", "up_block_types") if not config.get(key)]
    if missing:
        raise ValueError(f"config.json does not say {missing[0]}, so it is not that of a UNet2DModel.")
    attention = tuple(_UNET_BLOCKS.get(kind) if "Down" in kind else None for kind in config["down_block_types"])
    upwards = tuple(_UNET_BLOCKS.get(kind) if "Up" in kind else None for kind in reversed(config["up_block_types"]))
    unusual = [f"{key} = {config[key]!r}" for key, value in _UNET_FIXED.items() if config.get(key, value) != value]
    if None in attention or attention != upwards or unusual:
        what = ", ".join(unusual) or "other blocks"
        raise ValueError(f"Only U-Nets of the DDPM paper's form can be loaded; this one has {what}.")
    sizes = {key: config.get(key, value) for key, value in _UNET_DEFAULTS.items()}
    wrong = [key for key in sizes if not isinstance(sizes[key], (int, float)) and sizes[key] is not _UNET_DEFAULTS[key]]
    wrong = [key for key in wrong if not (key == "attention_head_dim" and sizes[key] is None)]
    if wrong:
        raise ValueError(f"In config.json {wrong[0]} is {sizes[wrong[0]]!r}, and a number is expected.")
    return sizes | {"block_out_channels": tuple(config["block_out_channels"]), "attention": attention}


# diffusers' AutoencoderKL ---------------------------------------------------------------------------------------------
_VAE_FIXED = {
    "act_fn": "silu", "use_quant_conv": True, "use_post_quant_conv": True, "mid_block_add_attention": True,
    "shift_factor": None, "latents_mean": None, "latents_std": None,
}  # fmt: skip
_VAE_BLOCKS = {"down_block_types": "DownEncoderBlock2D", "up_block_types": "UpDecoderBlock2D"}


def vae_sizes(config: dict) -> dict:
    """The arguments of `VAEConfig` in the config.json of an AutoencoderKL.

    Raises:
        ValueError: it is of another model, or asks for something that the latent diffusion paper's autoencoder does not have.
    """
    widths = config.get("block_out_channels")
    if not isinstance(widths, list) or not widths or not all(isinstance(width, int) for width in widths):
        raise ValueError(f"In config.json block_out_channels is {widths!r}, and a list of numbers is expected of an AutoencoderKL.")
    unusual = [f"{key} = {config[key]!r}" for key, value in _VAE_FIXED.items() if config.get(key, value) != value]
    unusual += [f"{key} = {config.get(key)!r}" for key, kind in _VAE_BLOCKS.items() if config.get(key) != [kind] * len(widths)]
    if config.get("in_channels", 3) != config.get("out_channels", 3):
        unusual.append("other channels out than in")
    if unusual:
        raise ValueError(f"Only autoencoders of latent diffusion's form can be loaded; this one has {', '.join(unusual)}.")
    sizes = {"in_channels": 3, "latent_channels": 4, "layers_per_block": 1, "norm_num_groups": 32, "scaling_factor": 0.18215}
    sizes = {key: config.get(key, value) for key, value in sizes.items()}
    checks.whole({key: value for key, value in sizes.items() if key != "scaling_factor"}, where=HERE)
    if type(sizes["scaling_factor"]) not in (int, float):
        raise ValueError(f"In config.json scaling_factor is {sizes['scaling_factor']!r}, and a number is expected.")
    return sizes | {"block_out_channels": tuple(widths)}


def vae_tensors(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of an AutoencoderKL under their present names; old ones had 1x1 convolutions in the middle's attention."""
    named = renamed(tensors, OLD_ATTENTION_NAMES)
    return {name: t.flatten(1) if ".attentions." in name and t.ndim == 4 else t for name, t in named.items()}


# transformers' ViT and ViViT, torchvision's VisionTransformer ------------------------------------------------------------------
_QKV = ("query", "key", "value")
_VIT_FIXED = {"model_type": "vit", "hidden_act": "gelu", "qkv_bias": True}
_VIVIT_FIXED = {"model_type": "vivit", "hidden_act": "gelu_fast", "qkv_bias": True}
_VIT_NAMES = {
    "embeddings.cls_token": "class_token", "embeddings.position_embeddings": "positions", "encoder.layer.": "blocks.",
    "embeddings.patch_embeddings.projection": "embed", "attention.output.dense": "attention.proj",
    "intermediate.dense": "mlp.0", "output.dense": "mlp.2", "layernorm_before": "norm1", "layernorm_after": "norm2",
    "layernorm.": "norm.", "classifier.": "head.",
}  # fmt: skip
_TORCHVISION_NAMES = {
    "encoder.pos_embedding": "positions", "conv_proj": "embed", "encoder.layers.encoder_layer_": "blocks.",
    "ln_1": "norm1", "self_attention.in_proj_": "attention.qkv.", "self_attention.out_proj": "attention.proj",
    "ln_2": "norm2", "mlp.3": "mlp.2", "encoder.ln.": "norm.", "heads.head.": "head.",
}  # fmt: skip


def _transformer_sizes(config: dict, fixed: dict, tubelet: str, default_eps: float) -> dict:
    """What `ViTConfig` and `ViViTConfig` have in common, from a config.json."""
    unusual = [f"{key} = {config.get(key, value)!r}" for key, value in fixed.items() if config.get(key, value) != value]
    if unusual:
        wanted = ", ".join(f"{key} = {value!r}" for key, value in fixed.items())
        raise ValueError(f"Only weights with {wanted} can be loaded; this config says {', '.join(unusual)}.")
    numbers = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    missing = [key for key in (*numbers, "image_size", tubelet) if key not in config]
    if missing:
        raise ValueError(f"config.json does not say {missing[0]}, so it is not that of a {fixed['model_type']}.")
    size, width, eps = config["image_size"], config["hidden_size"], config.get("layer_norm_eps", default_eps)
    sides = tuple(size) if isinstance(size, (list, tuple)) else (size, size)
    checks.whole({key: config[key] for key in numbers} | {"num_channels": config.get("num_channels", 3)}, where=HERE)
    checks.whole({"image_size": side for side in sides} if len(sides) == 2 else {"image_size": size}, where=HERE)
    if not isinstance(eps, (int, float)) or not eps > 0:
        raise ValueError(f"In config.json layer_norm_eps is {eps!r}, and a number above 0 is expected.")
    return {
        "image_size": sides, "hidden_size": width, "in_channels": config.get("num_channels", 3),
        "depth": config["num_hidden_layers"], "num_heads": config["num_attention_heads"],
        "mlp_ratio": config["intermediate_size"] / width, "norm_eps": eps,
    }  # fmt: skip


def vit_sizes(config: dict) -> dict:
    """The arguments of `ViTConfig` but the number of classes in the config.json of a ViTForImageClassification.

    Raises:
        ValueError: it is of another model, or does not say all sizes.
    """
    sizes = _transformer_sizes(config, _VIT_FIXED, "patch_size", default_eps=1e-12)
    checks.whole({"patch_size": config["patch_size"]}, where=HERE)
    return sizes | {"patch_size": config["patch_size"]}


def vivit_sizes(config: dict) -> dict:
    """The arguments of `ViViTConfig` but the number of classes in the config.json of a VivitForVideoClassification.

    Raises:
        ValueError: it is of another model, or does not say all sizes.
    """
    sizes = _transformer_sizes(config, _VIVIT_FIXED, "tubelet_size", default_eps=1e-6)
    tubelet = config["tubelet_size"]
    if not isinstance(tubelet, list) or len(tubelet) != 3:
        raise ValueError(f"In config.json tubelet_size is {tubelet!r}, and a list of three is expected.")
    sides = {f"tubelet_size[{i}]": side for i, side in enumerate(tubelet)}
    checks.whole({"num_frames": config.get("num_frames")} | sides, where=HERE)
    return sizes | {"num_frames": config["num_frames"], "tubelet_size": tuple(tubelet)}


def _vit_names(tensors: dict[str, torch.Tensor], names: dict[str, str]) -> dict[str, torch.Tensor]:
    """Tensors under our names, with the patch embedding as a matrix and positions without a batch."""
    named = renamed(tensors, names)
    named["embed.weight"] = named["embed.weight"].flatten(1)
    named["positions"] = named["positions"][0]
    return named


def vit_tensors(tensors: dict[str, torch.Tensor], prefix: str = "vit.") -> dict[str, torch.Tensor]:
    """The weights of a ViTForImageClassification under our names; queries, keys and values in one matrix.

    Those of a VivitForVideoClassification differ by the prefix "vivit.".

    Raises:
        ValueError: there is no classifier among them, or no picture is embedded.
    """
    tensors = {name.removeprefix(prefix): t for name, t in tensors.items() if "pooler." not in name}
    names = ["classifier.bias", "embeddings.position_embeddings", "embeddings.patch_embeddings.projection.weight"]
    layers = {name.partition("attention.attention.")[0] for name in tensors if "attention.attention." in name}
    names += [f"{layer}attention.attention.{part}.{kind}" for layer in sorted(layers) for part in _QKV for kind in ("weight", "bias")]
    missing = [name for name in names if name not in tensors or not tensors[name].ndim]
    if missing:
        raise ValueError(f"The weights hold no {missing[0]}, so they are damaged, or not those of a classifier.")
    parts, rest = {}, {}
    for name, tensor in tensors.items():
        layer, found, kind = name.partition("attention.attention.")
        (parts.setdefault(layer, {}) if found else rest)[kind if found else name] = tensor
    for layer, qkv in parts.items():
        for kind in ("weight", "bias"):
            rest[f"{layer}attention.qkv.{kind}"] = torch.cat([qkv[f"{part}.{kind}"] for part in _QKV])
    return _vit_names(rest, _VIT_NAMES)


def vit_tensors_of_torchvision(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of a torchvision VisionTransformer under our names."""
    return _vit_names(tensors, _TORCHVISION_NAMES)
