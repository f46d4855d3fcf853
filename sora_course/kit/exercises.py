"""Checks for the learner's own answers: `check("latent_frames", latent_frames)` prints one line, and never stops a notebook.

An exercise's judge takes the learner's function, calls it, and raises AssertionError with a hint where an answer is wrong.
A stub that returns `...` is not solved yet.
"""

from __future__ import annotations

from collections.abc import Callable

_CHECKS: dict[str, Callable] = {}


def _exercise(judge: Callable) -> Callable:
    _CHECKS[judge.__name__] = judge
    return judge


def outcome(name: str, answer: Callable) -> tuple[bool, str]:
    """Whether the answer solves the exercise, and the sentence that says so or why not.

    Raises:
        ValueError: there is no exercise of that name.
    """
    if name not in _CHECKS:
        raise ValueError(f"There is no exercise {name!r}; there are {', '.join(_CHECKS)}.")
    try:
        _CHECKS[name](answer)
    except NotImplementedError:
        return False, "not solved yet"
    except AssertionError as hint:
        return False, f"not yet: {hint}"
    except Exception as error:  # the learner's code may fail in any way, and should hear how
        return False, f"not yet: it stopped with {type(error).__name__}: {error}"
    return True, "solved"


def check(name: str, answer: Callable) -> None:
    """Print whether the answer solves the exercise."""
    solved, sentence = outcome(name, answer)
    print(f"{'[x]' if solved else '[ ]'} {name}: {sentence}")


def _call(answer: Callable, *arguments):
    result = answer(*arguments)
    if result is ...:
        raise NotImplementedError
    return result


# 00_welcome ----------------------------------------------------------------------------------------------------------
@_exercise
def my_prompt(answer):
    """A sentence that means: a green heart spreads like ink."""
    from .captions import parse
    from .scenes import scene

    text = _call(answer)
    assert isinstance(text, str), "return a sentence in quotation marks"
    try:
        meant = parse(text)
    except ValueError as error:
        raise AssertionError(f"the world cannot read {text!r}: {error}") from error
    assert meant == scene("green", "heart", "ink"), f"{text!r} was read as {meant}"


@_exercise
def latent_frames(answer):
    """How many latent frames 4n + 1 film frames become."""
    for frames, wanted in ((17, 5), (1, 1), (5, 2), (121, 31)):
        got = _call(answer, frames)
        assert got == wanted, f"{frames} frames become {wanted} latent frames, and your function says {got}"


@_exercise
def compression(answer):
    """Numbers in a film over numbers in its latents."""
    for size, wanted in (((17, 64, 64), 40.8), ((1, 64, 64), 12.0), ((121, 256, 256), 46.8387)):
        got = _call(answer, *size)
        assert abs(got - wanted) < 0.01, f"for {size} the ratio is {wanted:.1f}, and your function says {got:.1f}"
