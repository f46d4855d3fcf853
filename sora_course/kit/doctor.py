"""`sora-course doctor`: is everything here that the course needs? One line a check."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

_NEEDED = {
    "numpy": "1.26", "einops": "0.7", "safetensors": "0.4.3", "scikit-learn": "1.3", "scipy": "1.11", "matplotlib": "3.8.4",
    "pillow": "10", "av": "12", "tqdm": "4.66", "jupyterlab": "4", "ipywidgets": "8", "modelscope": "1.15", "nbval": "0.11",
    "pytest": "8", "pytest-xdist": "3.8",
}  # fmt: skip
_FREE = 2e9


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", text)[:3])


def _python() -> str:
    found = sys.version.split()[0]
    if sys.version_info < (3, 10):
        raise RuntimeError(f"Python {found} is too old; install 3.10 or newer")
    return f"Python {found}"


def _torch() -> str:
    import torch

    if _version(torch.__version__) < (2, 4):
        raise RuntimeError(f"torch {torch.__version__} is too old; pip install -U torch torchvision")
    try:
        import torchvision
        import torchvision.ops  # noqa: F401  (fails if its kernels don't fit this torch)
    except (ImportError, RuntimeError) as error:
        raise RuntimeError(
            f"torchvision does not fit torch {torch.__version__} ({str(error).splitlines()[0]}); "
            "reinstall both from one place: pip install --force-reinstall torch torchvision"
        ) from error
    return f"torch {torch.__version__} and torchvision {torchvision.__version__} agree"


def _device() -> str:
    import torch

    from .training import gains_from_bf16, training_device

    name = training_device()
    threads = f", {torch.get_num_threads()} threads" if name == "cpu" else ""
    mps = "; --device mps trains on this Mac's GPU" if torch.backends.mps.is_available() else ""
    return f"training on {name}{threads}, in {'bfloat16' if gains_from_bf16(name) else 'float32'}{mps}"


def _packages() -> str:
    wrong = []
    for name, least in _NEEDED.items():
        try:
            found = importlib.metadata.version(name)
            if _version(found) < _version(least):
                wrong.append(f"{name} {found} (needs {least})")
        except importlib.metadata.PackageNotFoundError:
            wrong.append(name)
    if wrong:
        raise RuntimeError(f"missing or too old: {', '.join(wrong)}; pip install -e . in the course's folder")
    return f"{len(_NEEDED)} packages"


def _checkpoints() -> str:
    from . import checkpoints  # needs torch, which may be what is missing

    folder = checkpoints.data_folder()
    files = sorted(folder.glob("sora_*.safetensors"))
    if not files:
        raise RuntimeError(f"no checkpoint in {folder}; clone the whole repository or set SORA_COURSE_DATA")
    files += folder.glob("film_reader.safetensors")
    for file in files:
        checkpoints.load(file)
    return "checkpoints whole: " + ", ".join(f"{file.name} ({file.stat().st_size / 1e6:.0f} MB)" for file in files)


def _disk() -> str:
    free = shutil.disk_usage(Path.cwd()).free
    if free < _FREE:
        raise RuntimeError(f"only {free / 1e9:.1f} GB free; make room for {_FREE / 1e9:.0f} GB")
    return f"{free / 1e9:.0f} GB of disk free"


def _write() -> str:
    try:
        with tempfile.NamedTemporaryFile(dir=Path.cwd()):
            pass
    except OSError as error:
        raise RuntimeError(f"cannot write to this folder ({os.strerror(error.errno)}); work in one that is yours") from error
    return "this folder can be written to"


CHECKS: tuple[Callable[[], str], ...] = (_python, _torch, _device, _packages, _checkpoints, _disk, _write)


def run(checks: tuple[Callable[[], str], ...] = CHECKS) -> bool:
    """Print a line for each check, [OK] or [FAIL] with the remedy, and say whether all passed."""
    passed = True
    for check in checks:
        try:
            print(f"[OK]   {check()}")
        except Exception as error:  # a broken package can raise anything, and the other checks must still be run
            passed = False
            print(f"[FAIL] {error}")
    print("All is well. Next: jupyter lab notebooks/00_welcome.ipynb" if passed else "Mend what failed, then run `sora-course doctor` again.")
    return passed
