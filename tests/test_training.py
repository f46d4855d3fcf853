"""The training loop: resuming after a kill, Muon, averages, refusals; and checkpoint files."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sora_course.kit import checkpoints, training
from sora_course.kit.muon import Muon
from sora_course.kit.training import TrainConfig, _schedule, step_of, train

SCRIPT = """
import os, signal, sys, torch
from sora_course.kit.training import TrainConfig, train
folder, die_at, optimizer = sys.argv[1], int(sys.argv[2]), sys.argv[3]
torch.manual_seed(0)
torch.set_num_threads(1)
model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.GELU(), torch.nn.Linear(8, 2))
calls = 0
def loss(generator):
    global calls
    calls += 1
    if calls == die_at:
        os.kill(os.getpid(), signal.SIGKILL)
    x = torch.randn(16, 3, generator=generator)
    return {"loss": (model(x).float() - x[:, :2] * x[:, 1:]).pow(2).mean()}
train(model, loss, TrainConfig(steps=30, warmup=3, save_every=4, optimizer=optimizer), folder=folder)
from sora_course.kit import checkpoints
checkpoints.save(folder + "/final.safetensors", model.state_dict(), {})
"""


def run(folder: Path, die_at: int, optimizer: str) -> int:
    arguments = [sys.executable, "-c", SCRIPT, str(folder), str(die_at), optimizer]
    return subprocess.run(arguments, capture_output=True).returncode


@pytest.mark.skipif(os.name == "nt", reason="needs kill -9")
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_killed_run_resumes_to_the_same_losses_and_weights(tmp_path, optimizer):
    assert run(tmp_path / "whole", 0, optimizer) == 0
    assert run(tmp_path / "killed", 11, optimizer) == -signal.SIGKILL  # after the save at step 8
    assert run(tmp_path / "killed", 14, optimizer) == -signal.SIGKILL  # again
    assert run(tmp_path / "killed", 0, optimizer) == 0
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "killed")
    ]
    assert len(losses[0]) == 30 and losses[0] == losses[1]
    whole, killed = (checkpoints.load(tmp_path / name / "final.safetensors")[0] for name in ("whole", "killed"))
    assert all(torch.equal(whole[k], killed[k]) for k in whole)


def test_a_look_that_was_cut_short_is_made_up_for(tmp_path):
    """With the weights and seconds of the state that was saved before it, also after the last step."""
    seen, config = [], TrainConfig(steps=4, save_every=2, warmup=0)

    def stopped(step, seconds):
        if step == 4:
            raise KeyboardInterrupt
        seen.append((step, model.weight.item()))

    def loss(generator):
        return {"loss": (model.weight - torch.randn((), generator=generator)).pow(2).sum()}

    model = torch.nn.Linear(1, 1, bias=False)
    with pytest.raises(KeyboardInterrupt):
        train(model, loss, config, folder=tmp_path, every=stopped)
    saved, _ = checkpoints.load(tmp_path / "state.safetensors")
    model = torch.nn.Linear(1, 1, bias=False)
    train(model, loss, config, folder=tmp_path, every=lambda step, seconds: seen.append((step, model.weight.item())))
    assert [step for step, _ in seen] == [2, 4] and seen[1][1] == saved["average.weight"].item() == model.weight.item()


def test_a_state_of_other_settings_is_not_resumed(tmp_path):
    model = torch.nn.Linear(2, 2)

    def loss(generator):
        return {"loss": model(torch.randn(4, 2, generator=generator)).pow(2).mean()}

    train(model, loss, TrainConfig(steps=2), folder=tmp_path)
    with pytest.raises(ValueError, match="other settings; .* or delete it"):
        train(model, loss, TrainConfig(steps=3), folder=tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run():
    model = torch.nn.Linear(2, 2)
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        train(model, lambda g: {"loss": model(torch.full((1, 2), float("inf"))).sum()}, TrainConfig(steps=2))


def test_the_last_save_is_whole_when_a_loss_stops_being_finite(tmp_path):
    model = torch.nn.Linear(2, 2)

    def loss(generator):
        value = model(torch.randn(3, 2, generator=generator)).pow(2).mean()
        return {"loss": value * float("nan") if step_of(generator, config) == 5 else value}

    config = TrainConfig(steps=20, warmup=2, save_every=4)
    with pytest.raises(FloatingPointError, match="at step 6"):
        train(model, loss, config, folder=tmp_path)
    tensors, saved = checkpoints.load(tmp_path / "state.safetensors")
    assert saved["step"] == 4 and all(t.isfinite().all() for t in tensors.values() if t.is_floating_point())


def test_muon_moves_a_matrix_along_its_polar_factor():
    torch.manual_seed(0)
    gradient = torch.randn(6, 10)
    u, _, v = torch.linalg.svd(gradient, full_matrices=False)
    weight = torch.nn.Parameter(torch.zeros(6, 10))
    weight.grad = gradient
    Muon([weight], lr=1.0).step()
    inner = u.T @ -weight.detach() @ v.T  # diagonal, with entries near 1
    assert 0.6 < inner.diagonal().min() and inner.diagonal().max() < 1.3
    assert (inner - inner.diagonal().diag()).abs().max() < 0.1


@pytest.mark.parametrize(("gains", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_muon_multiplies_bf16_only_where_the_hardware_does(monkeypatch, gains, dtype):
    """On a CPU without instructions for bf16 its products take hundreds of times as long as those of float32."""
    seen, orthogonalise = [], Muon.orthogonalise
    monkeypatch.setattr(training, "gains_from_bf16", lambda device: gains)
    monkeypatch.setattr(Muon, "orthogonalise", staticmethod(lambda x: (seen.append(x.dtype), orthogonalise(x))[1]))
    model = torch.nn.Linear(4, 4)
    train(model, lambda generator: {"loss": model(torch.ones(1, 4)).float().sum()}, TrainConfig(steps=1))
    assert seen == [dtype]


def test_muon_treats_a_kernel_as_a_matrix():
    torch.manual_seed(0)
    gradient = torch.randn(4, 3, 1, 3, 3)
    kernel, matrix = torch.nn.Parameter(torch.zeros(4, 3, 1, 3, 3)), torch.nn.Parameter(torch.zeros(4, 27))
    kernel.grad, matrix.grad = gradient, gradient.flatten(1)
    for p in (kernel, matrix):
        Muon([p], lr=0.1).step()
    assert torch.equal(kernel.flatten(1), matrix)


def test_the_learning_rate_rises_stays_and_falls_to_zero():
    config = TrainConfig(steps=100, warmup=10, decay=0.5)
    rates = [_schedule(step, config) for step in range(101)]
    assert rates[0] == 0.1 and rates[9:51] == [1.0] * 42 and rates[75] == 0.5 and rates[100] == 0


def test_a_loss_can_tell_its_step():
    config, seen, model = TrainConfig(steps=5, seed=3, save_every=2), [], torch.nn.Linear(2, 1)

    def loss(generator):
        seen.append(step_of(generator, config))
        return {"loss": model(torch.randn(4, 2, generator=generator)).square().mean()}

    train(model, loss, config)
    assert seen == [0, 1, 2, 3, 4]


def test_the_model_ends_with_its_average():
    model = torch.nn.Linear(1, 1, bias=False)
    seen = []

    def loss(generator):
        seen.append(model.weight.item())
        return {"loss": (model.weight - 5).pow(2).sum()}

    train(model, loss, TrainConfig(steps=40, warmup=0, optimizer="adamw", adamw_lr=0.05, ema=0.9))
    assert min(seen) < model.weight.item() < max(seen)


def test_unknown_optimizer():
    with pytest.raises(ValueError, match="'muon' or 'adamw'"):
        train(torch.nn.Linear(1, 1), lambda g: {}, TrainConfig(steps=1, optimizer="sgd"))


# Checkpoint files ----------------------------------------------------------------------------------------------------
def test_a_checkpoint_keeps_tensors_and_config(tmp_path):
    tensors = {"a": torch.randn(3, 4), "b": torch.arange(3)}
    checkpoints.save(tmp_path / "x.safetensors", tensors, {"size": 4})
    loaded, config = checkpoints.load(tmp_path / "x.safetensors")
    assert config == {"size": 4} and all(torch.equal(loaded[k], tensors[k]) for k in tensors)
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")

    def fail(target):
        target.write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        checkpoints.save_atomically(path, fail)
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_is_an_error_of_the_system_s(tmp_path, monkeypatch):
    import safetensors.torch

    def full(*a, **k):
        raise safetensors.SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match="cannot be written.*No space left"):
        checkpoints.save(tmp_path / "a.safetensors", {"x": torch.zeros(1)}, {})
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_no_whole_training_is_refused(tmp_path):
    checkpoints.save(tmp_path / "state.safetensors", {"x": torch.zeros(1)}, {})
    with pytest.raises(ValueError, match="does not hold a whole training"):
        train(torch.nn.Linear(1, 1), lambda generator: {"loss": torch.zeros(())}, TrainConfig(steps=1), folder=tmp_path)


def test_files_that_are_no_checkpoint(tmp_path):
    from safetensors.torch import save_file

    good, bad = tmp_path / "good.safetensors", tmp_path / "bad.safetensors"
    checkpoints.save(good, {"a": torch.zeros(100)}, {})
    bad.write_bytes(good.read_bytes()[:-50])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        checkpoints.load(bad)
    save_file({"a": torch.zeros(1)}, bad)
    with pytest.raises(ValueError, match="not written by this course"):
        checkpoints.load(bad)
    with pytest.raises(ValueError, match="no checkpoint"):
        checkpoints.load(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="no checkpoint 'nowhere'"):
        checkpoints.find("nowhere")


def test_tensors_that_do_not_fit_their_module():
    module = torch.nn.Linear(2, 3)
    with pytest.raises(ValueError, match="do not belong together .*first of 1 that"):
        checkpoints.fill(module, {"weight": torch.zeros(3, 2)}, "weights")
    with pytest.raises(ValueError, match="'weight' is the first"):
        checkpoints.fill(module, {"weight": torch.zeros(2, 3), "bias": torch.zeros(3)}, "weights")


def test_matrices_in_eight_bits_come_back_nearly_as_they_were(tmp_path, generator):
    matrix = torch.randn(6, 50, generator=generator) * torch.tensor([0.01, 1, 100, 1, 1, 0])[:, None]  # the last row is 0
    other = torch.randn(3, generator=generator)
    checkpoints.save(tmp_path / "x.safetensors", {"b": other} | checkpoints.in_eight_bits({"a": matrix}), {})
    tensors, _ = checkpoints.load(tmp_path / "x.safetensors")
    assert tensors.keys() == {"a", "b"} and torch.equal(tensors["b"], other)
    assert ((tensors["a"] - matrix).abs() <= matrix.abs().amax(1, keepdim=True) / 253).all() and not tensors["a"][-1].any()
    checkpoints.save(tmp_path / "damaged.safetensors", {"a#int8": checkpoints.in_eight_bits({"a": matrix})["a#int8"]}, {})
    with pytest.raises(ValueError, match="do not belong together"):
        checkpoints.fill(torch.nn.ParameterDict({"a": matrix}), checkpoints.load(tmp_path / "damaged.safetensors")[0], "weights")
    again = checkpoints.in_eight_bits({"a": tensors["a"]})
    assert torch.equal(again["a#int8"], checkpoints.in_eight_bits({"a": matrix})["a#int8"])  # a second rounding changes nothing


def test_losses_are_taken_down_for_every_step_though_looked_at_seldom(tmp_path):
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1)
    seen = []

    def loss(generator):
        value = model(torch.randn(4, 2, generator=generator)).pow(2).mean()
        seen.append(float(value.detach()))
        return {"loss": value}

    history = train(model, loss, TrainConfig(steps=17, warmup=2, save_every=8), folder=tmp_path)
    assert [row["step"] for row in history] == list(range(1, 18))
    assert [row["loss"] for row in history] == pytest.approx(seen)
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == history
