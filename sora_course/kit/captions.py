"""Captions of scenes in English and Chinese, and the way back from a sentence to a scene.

Size large, speed fast, background paper and a still camera go mostly without saying, so a short sentence means
just that; standing still may also go unsaid. Every caption that `caption` writes is read back by `parse` as the scene
that it came from.
"""

from __future__ import annotations

import re

import torch

from .scenes import BACKGROUNDS, CAMERAS, COLOURS, MOTIONS, SHAPES, SIZES, SPEEDS, Scene, Thing
from .words import FILLERS, LANGUAGES, NAMES, SYNONYMS

_SAY_DEFAULT = 0.15  # how often a caption says what goes without saying


def _draw(options, generator: torch.Generator | None):
    if generator is None:
        return options[0]
    return options[int(torch.randint(len(options), (), generator=generator))]


def _chance(probability: float, generator: torch.Generator | None) -> bool:
    return generator is not None and float(torch.rand((), generator=generator)) < probability


def _say_thing(thing: Thing, language: str, generator, *, alone: bool) -> str:
    """One clause: the thing and what it does. In a pair, size and speed are fixed and go unsaid."""
    names = NAMES[language]

    def word(kind, value, default=None):
        said = value != default or (alone and _chance(_SAY_DEFAULT, generator))
        return _draw(names[kind][value], generator) if said else ""

    size = word("size", thing.size, "large" if alone else thing.size)
    colour, shape = word("colour", thing.colour), word("shape", thing.shape)
    unsaid = thing.motion == "still" and _chance(0.5, generator)
    motion = "" if unsaid else word("motion", thing.motion)
    speed = "" if thing.motion == "still" else word("speed", thing.speed, "fast" if alone else thing.speed)
    if language == "zh":
        opening = _draw(("一个", "", "一个"), generator)
        joint = _draw(("的", ""), generator) if opening else ""
        return f"{opening}{size}{colour}{joint}{shape}{speed}{motion}"
    article = "an" if (size or colour)[0] in "aeiou" else "a"
    subject = " ".join(filter(None, (article, size, colour, shape)))
    if speed and _chance(0.5, generator) and speed != "fast":
        return " ".join(filter(None, (subject, speed, motion)))
    return " ".join(filter(None, (subject, motion, speed)))


def caption(scene: Scene, language: str = "en", *, generator: torch.Generator | None = None) -> str:
    """Write the scene as a sentence.

    Args:
        language: "en" or "zh".
        generator: draws one of several phrasings; without it the plainest one is written.

    Raises:
        ValueError: the language is not one of the two.
    """
    if language not in LANGUAGES:
        raise ValueError(f"{language!r} is not a language of the captions; use 'en' or 'zh'.")
    names, alone = NAMES[language], len(scene.things) == 1
    clauses = [_say_thing(thing, language, generator, alone=alone) for thing in scene.things]
    background = camera = ""
    if scene.background != "paper" or _chance(_SAY_DEFAULT, generator):
        background = _draw(names["background"][scene.background], generator)
    if scene.camera != "still" or (alone and _chance(_SAY_DEFAULT, generator)):
        camera = _draw(names["camera"][scene.camera], generator)
    if language == "zh":
        return "，".join(filter(None, (background, *clauses, camera)))
    sentence = " and ".join(clauses)
    if background and _chance(0.5, generator):
        sentence = f"{background}, {sentence}"
    else:
        sentence = " ".join(filter(None, (sentence, background)))
    return f"{sentence}, {camera}" if camera else sentence


# Reading -------------------------------------------------------------------------------------------------------------
def _lexicon(language: str) -> list[tuple[str, str | None, str | None]]:
    """(phrase, kind, value), the longest phrase first; fillers have kind None."""
    phrases: dict[str, tuple[str | None, str | None]] = {f: (None, None) for f in FILLERS[language]}
    for table in (SYNONYMS[language], NAMES[language]):
        for kind, values in table.items():
            for value, spellings in values.items():
                phrases.update({spelling: (kind, value) for spelling in spellings})
    return sorted(((p, k, v) for p, (k, v) in phrases.items()), key=lambda row: -len(row[0]))


_LEXICONS = {language: _lexicon(language) for language in LANGUAGES}


def language_of(prompt: str) -> str:
    """'zh' if the prompt holds a Chinese character, else 'en'."""
    return "zh" if re.search(r"[\u4e00-\u9fff]", prompt) else "en"


def _read(prompt: str) -> list[tuple[str, str]]:
    """The (kind, value) pairs that the prompt names, in order."""
    language = language_of(prompt)
    text = re.sub(r"[,.;:!?，。；：！？、\"“”()（）]", " ", prompt.lower())
    text = " ".join(text.split())
    text = re.sub(r"^(one|1) (?=\w)|\band (one|1) ", "", text) if language == "en" else text
    text = re.sub(r"\bfrom (left|right|top|bottom) (?=to (the )?(left|right|top|bottom))", "", text)
    # "moves slowly to the right" means "slowly moves to the right"
    text = re.sub(r"\b(\w+) (slowly|quickly|rapidly|fast) (?=(to|towards|up|down|left|right|in a|\w+wards?)\b)", r"\2 \1 ", text)
    found, rest = [], text
    while rest:
        for phrase, kind, value in _LEXICONS[language]:
            end = rest[len(phrase) : len(phrase) + 1]
            if rest.startswith(phrase) and (language == "zh" or end in ("", " ")):
                break
        else:
            word = rest.split()[0] if language == "en" else re.match(r"[a-z]+|.", rest).group()
            kinds = [kind for kind, _ in found]
            raise ValueError(_unknown(word, language, after_colour="shape" not in kinds and "colour" in kinds))
        if kind is not None:
            found.append((kind, value))
        rest = rest[len(phrase) :].lstrip()
    return found


def _unknown(word: str, language: str, *, after_colour: bool) -> str:
    """The sentence that names an unknown word and the known ones: after a colour the shapes, elsewhere all words."""
    names = NAMES[language]
    if any(phrase.startswith(word) for phrase, kind, _ in _LEXICONS[language] if kind):
        example = next(phrase for phrase, kind, _ in reversed(_LEXICONS[language]) if kind and phrase.startswith(word))
        return f"The words from {word!r} on cannot be read; say it more plainly, such as {example!r}."
    if after_colour:
        return f"{word!r} is not a shape this world has; it has {', '.join(names['shape'][s][0] for s in SHAPES)}."
    known = "; ".join(
        f"{plural}: {', '.join(names[kind][v][0] for v in values)}"
        for kind, plural, values in (
            ("colour", "colours", COLOURS), ("shape", "shapes", SHAPES), ("motion", "motions", MOTIONS),
            ("size", "sizes", SIZES), ("speed", "speeds", SPEEDS), ("background", "backgrounds", BACKGROUNDS),
            ("camera", "camera", CAMERAS),
        )
    )  # fmt: skip
    return f"This world does not know the word {word!r}. It knows {known}."


def parse(prompt: str) -> Scene:
    """Read a sentence in English or Chinese as a scene; what it leaves unsaid is large, fast, on paper, camera still.

    Raises:
        ValueError: the prompt is empty, a word is unknown (the message names it and the words that are known), colour or
            shape is missing, something is said twice, or the scene is impossible in this world.
    """
    if not prompt.strip():
        raise ValueError("The prompt is empty; say what the film should show, such as 'a red circle moves right'.")
    things: list[dict[str, str]] = [{}]
    setting: dict[str, str] = {}
    next_size: dict[str, str] = {}  # a size said after a whole thing belongs to the next one, if there is one
    last = None
    for kind, value in _read(prompt):
        if kind == "speed" and last == "camera":
            raise ValueError(f"The camera has only one speed; leave out {value!r}, or say it of the object.")
        last, whole = kind, {"colour", "shape"} <= set(things[-1])
        if kind in ("background", "camera"):
            target = setting
        elif kind == "size" and whole and "size" not in things[-1]:
            target = next_size
        else:
            if kind == "colour" and whole:
                things.append(next_size)
                next_size = {}
            target = things[-1]
        if target.get(kind, value) != value:
            raise ValueError(f"The prompt gives two words for {kind}, {target[kind]!r} and {value!r}; keep one.")
        target[kind] = value
    things[-1] = {**next_size, **things[-1]}
    for words in things:
        for kind, known in (("colour", COLOURS), ("shape", SHAPES)):
            if kind not in words:
                raise ValueError(f"The prompt names no {kind}; add one of {', '.join(known)}.")
    if len(things) > 1:
        for words in things:
            words.setdefault("size", "small")
            if words.get("motion", "still") != "still":
                words.setdefault("speed", "slow")
    return Scene(tuple(Thing(**words) for words in things), **setting)
