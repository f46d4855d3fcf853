"""Peak memory is what is held at once, not what is allocated in all."""

import torch

from sora_course.kit.memory import peak_memory

MB = 2**20


def one_after_the_other():
    for _ in range(5):
        torch.zeros(MB // 4).add_(1)


def all_at_once():
    return [torch.zeros(MB // 4) for _ in range(5)]


def test_what_is_freed_counts_once(capfd):
    assert 0 <= peak_memory(one_after_the_other) - MB < 1000
    assert 0 <= peak_memory(all_at_once) - 5 * MB < 1000
    assert capfd.readouterr().err == ""
