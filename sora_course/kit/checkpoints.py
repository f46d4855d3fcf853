"""Checkpoints: one safetensors file with its config inside, looked for locally first and on ModelScope second."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

import torch

MODELSCOPE_REPOSITORY = os.environ.get("SORA_COURSE_MODELSCOPE", "")


def data_folder() -> Path:
    """Where checkpoints and data that ship with the course lie: SORA_COURSE_DATA, else data/ beside the package."""
    return Path(os.environ.get("SORA_COURSE_DATA") or Path(__file__).resolve().parents[2] / "data")


def save_atomically(path: Path, write) -> None:
    """Call write(temporary path), then rename to path, so that path is only ever absent, old, or whole."""
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".part-", suffix=path.suffix)
    os.close(handle)
    try:
        write(Path(temporary))
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def save(path: Path | str, tensors: dict[str, torch.Tensor], config: dict) -> None:
    """Write tensors and a JSON-able config as one safetensors file, whole or not at all.

    Raises:
        OSError: it cannot be written; the disk is full, say.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_atomically(Path(path), lambda p: save_file(tensors, p, metadata={"sora_course": json.dumps(config)}))
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written ({error}); what was there before is still there.") from error


def load(path: Path | str) -> tuple[dict[str, torch.Tensor], dict]:
    """Read what `save` wrote: (tensors, config).

    Raises:
        ValueError: there is no such file, it is truncated or of another format, or another program wrote it.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise ValueError(f"There is no checkpoint at {path}; train one with `sora-course train`, or name another file.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # or Windows keeps the file open
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is not a whole safetensors file ({error}); fetch or train it again."
        ) from error
    if "sora_course" not in metadata:
        raise ValueError(f"{path} was not written by this course, for it holds no config; name a checkpoint of ours.")
    config = json.loads(metadata["sora_course"])
    if not isinstance(config, dict):
        raise ValueError(f"The config inside {path} is no table of names and values; fetch or train it again.")
    return _from_eight_bits(tensors), config


def in_eight_bits(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Matrices as whole numbers from -127 to 127 and one scale for each row, under two names; `load` puts them together again.

    A row's largest weight sets its scale, so that no weight is off by more than 1/254 of it.
    """
    packed = {}
    for name, matrix in tensors.items():
        scale = matrix.float().abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
        packed |= {f"{name}#int8": (matrix.float() / scale).round().to(torch.int8), f"{name}#scale": scale}
    return packed


def _from_eight_bits(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    names = [name.removesuffix("#int8") for name in tensors if name.endswith("#int8")]
    for name in names:
        if f"{name}#scale" not in tensors:
            continue  # a damaged file: `fill` will miss the matrix and say so
        tensors[name] = tensors.pop(f"{name}#int8").float() * tensors.pop(f"{name}#scale")
    return tensors


def digest(tensors: dict[str, torch.Tensor], more: str = "") -> str:
    """64 hexadecimal digits that change with any name or number among the tensors, or with the text."""
    sha = hashlib.sha256(more.encode())
    for name, tensor in tensors.items():
        sha.update(name.encode() + tensor.cpu().numpy().tobytes())
    return sha.hexdigest()


def find(name: str) -> Path:
    """The path of a checkpoint by file path or by name: as given, then in data/, then fetched from ModelScope.

    The last needs the package modelscope, a network, and SORA_COURSE_MODELSCOPE to name a repository ("owner/name").

    Raises:
        ValueError: it is in none of these places.
    """
    given, shipped = Path(name), data_folder() / f"{name}.safetensors"
    if given.is_file():
        return given
    if shipped.is_file():
        return shipped
    if MODELSCOPE_REPOSITORY and given.suffix == "" and given.name == name:
        try:
            from modelscope import snapshot_download

            folder = snapshot_download(MODELSCOPE_REPOSITORY, allow_patterns=[f"{name}.safetensors"])
            if (Path(folder) / f"{name}.safetensors").is_file():
                return Path(folder) / f"{name}.safetensors"
        except Exception as error:  # no network, no such repository: whatever the hub's client raises
            raise ValueError(f"{name!r} is not in {data_folder()}, and ModelScope did not give it: {error}.") from error
    raise ValueError(
        f"There is no checkpoint {name!r}, neither as a file nor in {data_folder()}; "
        "clone the whole repository, or train one with `sora-course train`."
    )


def fill(module: torch.nn.Module, tensors: dict[str, torch.Tensor], what: str) -> None:
    """Copy tensors into a module's parameters and buffers, all of them.

    Raises:
        ValueError: a name is missing or left over, or a shape differs: the file and its config don't belong together.
    """
    state = module.state_dict()
    wrong = sorted(state.keys() ^ tensors.keys())
    wrong += [k for k in state.keys() & tensors.keys() if state[k].shape != tensors[k].shape]
    if wrong:
        raise ValueError(
            f"Tensors of the {what} and their config do not belong together ({wrong[0]!r} is the first of {len(wrong)} that differ): "
            "if they come from a file, it is damaged or from another version, so fetch or train it again."
        )
    module.load_state_dict({name: tensor.to(state[name].dtype) for name, tensor in tensors.items()})
