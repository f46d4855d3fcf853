"""The one training loop of the course.

`train` asks a task for a loss, step by step, and looks after the rest: Muon and AdamW, warm-up and decay, bf16, gradient
clipping, an exponential moving average of the weights, metrics in a file, and checkpoints from which it resumes exactly.
All chance in step n comes from a generator seeded with (seed, n), so a run that was killed and resumed sees the same
batches, noise and losses as one that was not.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn as nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm.auto import tqdm

from . import checkpoints
from .muon import Muon

Loss = Callable[[torch.Generator], dict[str, torch.Tensor]]
_SEEDS_APART = 1_000_003  # step n of seed s draws from generator s * this + n


@dataclass(frozen=True)
class TrainConfig:
    """How to train. Learning rates rise over `warmup` steps, stay, and fall to zero over the last `decay` share."""

    steps: int
    optimizer: str = "muon"  # for matrices; everything else takes AdamW
    lr: float = 0.02
    adamw_lr: float = 2e-3
    weight_decay: float = 0.0
    warmup: int = 50
    decay: float = 0.5
    clip: float = 1.0
    ema: float = 0.99
    seed: int = 0
    save_every: int = 200


def _optimizers(model: nn.Module, config: TrainConfig) -> dict[str, torch.optim.Optimizer]:
    """Muon for every parameter of two or more dimensions but token embeddings; AdamW for those, and for biases and scales."""
    if config.optimizer not in ("muon", "adamw"):
        raise ValueError(f"{config.optimizer!r} is not an optimizer here; use 'muon' or 'adamw'.")
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    wanted = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in wanted if p.ndim >= 2 and id(p) not in embeddings and config.optimizer == "muon"]
    chosen = {id(p) for p in matrices}
    rest = [p for p in wanted if id(p) not in chosen]
    optimizers = {}
    if matrices:
        dtype = torch.bfloat16 if gains_from_bf16(matrices[0].device) else torch.float32
        optimizers["muon"] = Muon(matrices, lr=config.lr, weight_decay=config.weight_decay, dtype=dtype)
    if rest:
        optimizers["adamw"] = torch.optim.AdamW(rest, lr=config.adamw_lr, betas=(0.9, 0.95), weight_decay=config.weight_decay)
    return optimizers


def _schedule(step: int, config: TrainConfig) -> float:
    """The factor on all learning rates: linear up, flat, linear down."""
    rise = (step + 1) / config.warmup if config.warmup else 1.0
    fall = (config.steps - step) / max(1.0, config.decay * config.steps)
    return min(1.0, rise, fall)


def training_device(asked: str | None = None) -> str:
    """Where to train: cpu, cuda or mps as asked, else a CUDA GPU if there is one, else the CPU.

    Raises:
        ValueError: torch does not find the device that was asked for.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if asked is None:
        return "cuda" if there["cuda"] else "cpu"
    if not there[asked]:
        raise ValueError(f"Torch finds no {asked} on this machine; leave out --device, or name cpu.")
    return asked


def autocast(device: torch.device | str):
    """bf16 where it makes matrix products faster: CPUs with AMX or AVX-512-BF16, and recent CUDA GPUs; else nothing."""
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16) if gains_from_bf16(device) else nullcontext()


def gains_from_bf16(device: torch.device | str) -> bool:
    """Whether the device multiplies bf16 matrices in hardware."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return kind == "cpu" and any(getattr(torch.cpu, f"_is_{f}_supported", bool)() for f in ("amx_tile", "avx512_bf16"))


def attention_for_training(device: torch.device | str):
    """On CPUs the plain kernel of attention: at our lengths its gradient is several times faster than the fused one's."""
    if torch.device(device).type != "cpu":
        return nullcontext()
    return sdpa_kernel(SDPBackend.MATH)


def compile_if_possible(modules, device: torch.device | str) -> bool:
    """Let torch compile each module in place, which fuses what lies between matrix products; False where no compiler works."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(2, device=device))
    except Exception as error:  # no C++ compiler, no triton, or a device that torch cannot compile for: train without
        print(f"Training without torch.compile ({type(error).__name__}), which takes about half as long again.")
        return False
    for module in modules:
        module.compile(dynamic=True if torch.device(device).type == "cuda" else None)  # once for films of all sizes
    return True


def uncompiled():
    """Within it, compiled modules run as they are written, so that a seldom shape need not be compiled for (from torch 2.6)."""
    return torch.compiler.set_stance("force_eager") if hasattr(torch.compiler, "set_stance") else nullcontext()


def generator_on(device: torch.device | str, generator: torch.Generator) -> torch.Generator:
    """A generator on the device with the given one's seed; on a CPU the given one itself."""
    if torch.device(device).type == "cpu":
        return generator
    return torch.Generator(device).manual_seed(generator.initial_seed())


def step_of(generator: torch.Generator, config: TrainConfig) -> int:
    """The step, from 0, for which `train` made the generator; for a loss that changes as training goes on."""
    return generator.initial_seed() - config.seed * _SEEDS_APART


def _flatten(optimizers: dict[str, torch.optim.Optimizer]) -> dict[str, torch.Tensor]:
    return {
        f"optimizer.{name}.{index}.{key}": value
        for name, optimizer in optimizers.items()
        for index, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
    }


def _unflatten(tensors: dict[str, torch.Tensor], optimizers: dict[str, torch.optim.Optimizer]) -> None:
    for name, optimizer in optimizers.items():
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith(f"optimizer.{name}."):
                index, entry = key.split(".")[2:]
                state.setdefault(int(index), {})[entry] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}


def train(
    model: nn.Module,
    loss: Loss,
    config: TrainConfig,
    *,
    folder: Path | str | None = None,
    every: Callable[[int, float], None] | None = None,
    describe: str = "training",
) -> list[dict[str, float]]:
    """Train the model in place; at the end it holds the moving average of its weights.

    Args:
        loss: takes the step's generator, which is on the CPU, and returns {"loss": ..., more to log}.
        folder: where state.safetensors (to resume from) and metrics.jsonl go; None keeps nothing. If a state is there,
            training goes on from it.
        every: called with (steps done, seconds trained so far) whenever a state is saved, with the averaged weights in place; and
            once more for the state from which training goes on, as the call for that one may have been cut short.

    Returns:
        One dict a step: step, seconds, lr and what `loss` returned.

    Raises:
        ValueError: the state in the folder is of another model or another config.
        FloatingPointError: the loss is not finite; looked at every ten steps, and before a state is saved.
    """
    optimizers = _optimizers(model, config)
    average = {name: value.detach().clone() for name, value in model.state_dict().items()}
    device = next(model.parameters()).device
    history, unread, done, before = [], [], 0, 0.0
    state_path = Path(folder) / "state.safetensors" if folder else None
    if state_path:
        Path(folder).mkdir(parents=True, exist_ok=True)
        if state_path.exists():
            tensors, saved = checkpoints.load(state_path)
            if saved.keys() != {"config", "step", "seconds"} or not (Path(folder) / "metrics.jsonl").is_file():
                raise ValueError(f"{folder} does not hold a whole training; name another folder, or delete it to start anew.")
            if saved["config"] != vars(config):
                raise ValueError(f"{state_path} was written with other settings; name another folder, take the old settings again, or delete it to start anew.")
            checkpoints.fill(model, _part(tensors, "model."), "training state")
            average = {name: value.to(device) for name, value in _part(tensors, "average.").items()}
            _unflatten(tensors, optimizers)
            done, before = saved["step"], saved["seconds"]
            lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()[:done]
            history = [json.loads(line) for line in lines]
        checkpoints.save_atomically(
            Path(folder) / "metrics.jsonl", lambda p: p.write_text("".join(json.dumps(h) + "\n" for h in history))
        )

    def read() -> None:
        """Take down the losses since the last look; seldom, for on a GPU each look waits until all work is done."""
        for row in unread:
            row |= {key: float(value) for key, value in row.items()} | {"step": row["step"]}
            if not math.isfinite(row["loss"]):
                raise FloatingPointError(f"The loss is {row['loss']} at step {row['step']}; lower the learning rate.")
            if log:
                log.write(json.dumps(row) + "\n")
        history.extend(unread)
        unread.clear()

    def save(step: int) -> None:
        seconds = before + time.perf_counter() - start
        if state_path:
            tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
            tensors |= {f"average.{k}": v for k, v in average.items()} | _flatten(optimizers)
            checkpoints.save(state_path, tensors, {"config": vars(config), "step": step, "seconds": seconds})
        look(step, seconds)

    def look(step: int, seconds: float) -> None:
        if every:
            current = {name: value.clone() for name, value in model.state_dict().items()}
            model.load_state_dict(average)
            model.eval()
            every(step, seconds)
            model.load_state_dict(current)
            model.train()

    model.train()
    if done:
        look(done, before)
    start = time.perf_counter()
    log = open(Path(folder) / "metrics.jsonl", "a") if folder else None
    try:
        for step in (bar := tqdm(range(done, config.steps), initial=done, total=config.steps, desc=describe)):
            generator = torch.Generator().manual_seed(config.seed * _SEEDS_APART + step)
            with autocast(device), attention_for_training(device):
                metrics = loss(generator)
                metrics["loss"].backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            factor = _schedule(step, config)
            for name, optimizer in optimizers.items():
                for group in optimizer.param_groups:
                    group["lr"] = factor * (config.lr if name == "muon" else config.adamw_lr)
                optimizer.step()
            model.zero_grad(set_to_none=True)
            with torch.no_grad():
                keep = min(config.ema, (step + 1) / (step + 10))  # a short memory while all is still new
                state = model.state_dict()
                floating = [name for name, value in state.items() if value.is_floating_point()]
                torch._foreach_lerp_([average[n] for n in floating], [state[n] for n in floating], 1 - keep)
                for name in state.keys() - set(floating):
                    average[name].copy_(state[name])
            row = {"step": step + 1, "seconds": round(before + time.perf_counter() - start, 2), "lr": factor}
            unread.append(row | {key: value.detach() for key, value in metrics.items()})
            saves = (step + 1) % config.save_every == 0 or step + 1 == config.steps
            if (step + 1) % 10 == 0 or saves:
                read()
                bar.set_postfix({key: f"{history[-1][key]:.4f}" for key in metrics})
            if saves:
                if log:
                    log.flush()
                save(step + 1)
    finally:
        if log:
            log.close()
    model.load_state_dict(average)
    model.eval()
    return history
