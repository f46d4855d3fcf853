"""Checks for the learner's own answers: `check("latent_frames", latent_frames)` prints one line, and never stops a notebook.

What makes an answer right stands in `exercise_judges.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from .exercise_judges import JUDGES


def outcome(name: str, answer: Callable) -> tuple[bool, str]:
    """Whether the answer solves the exercise, and the sentence that says so or why not.

    Raises:
        ValueError: there is no exercise of that name.
    """
    if name not in JUDGES:
        raise ValueError(f"There is no exercise {name!r}; there are {', '.join(JUDGES)}.")
    try:
        JUDGES[name](answer)
    except NotImplementedError:
        return False, "not solved yet"
    except AssertionError as hint:
        return False, f"not yet: {hint}"
    except (Exception, SystemExit) as error:  # the learner's code may fail in any way, and should hear how
        return False, f"not yet: it stopped with {type(error).__name__}: {error}"
    return True, "solved"


def check(name: str, answer: Callable) -> None:
    """Print whether the answer solves the exercise."""
    solved, sentence = outcome(name, answer)
    print(f"{'[x]' if solved else '[ ]'} {name}: {sentence}")


def same(name: str, one, other, *, tolerance: float = 1e-5) -> None:
    """Print that two results, tensors or numbers, agree: what was built by hand and the module's, as a rule.

    Raises:
        AssertionError: they differ by more than the tolerance, relative to the largest value of the other.
    """
    import torch

    one, other = (torch.as_tensor(x).detach().double() for x in (one, other))
    assert one.shape == other.shape, f"{name}: the shapes differ, {tuple(one.shape)} and {tuple(other.shape)}"
    difference = float((one - other).abs().max() / other.abs().max().clamp(min=1e-12))
    assert difference <= tolerance, f"{name}: the two differ by {difference:.1e}"
    print(f"{name}: both ways the same (to {tolerance:g})")
