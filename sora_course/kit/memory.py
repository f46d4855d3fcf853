"""How much memory a computation needs at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import contextmanager


@contextmanager
def _quiet():
    """Sends what libraries write straight to the process's error stream nowhere."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def peak_memory(work: Callable[[], object]) -> int:
    """The most bytes that torch held at once, on the CPU, for tensors that were made while `work` ran."""
    from torch.profiler import ProfilerActivity, profile

    with _quiet(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak
