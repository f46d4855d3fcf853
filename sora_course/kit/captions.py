"""Captions of scenes in English and Chinese, and the way back from a sentence to a scene.

Size large, speed slow, background paper and a still camera go mostly without saying, so a short sentence means
just that; standing still may also go unsaid. Every caption that `caption` writes is read back by `parse` as the scene
that it came from.
"""

from __future__ import annotations

import re

import torch

from .scenes import BACKGROUNDS, CAMERAS, COLOURS, DIGITS, MOTIONS, SHAPES, SIZES, SPEEDS, SYMBOLS, Scene, Thing

LANGUAGES = ("en", "zh")

# What each word of the world is called, first the usual way. These lists write captions and, turned round, read them.
NAMES: dict[str, dict[str, dict[str, tuple[str, ...]]]] = {
    "en": {
        "colour": {c: (c,) for c in COLOURS},
        "shape": {**{s: (s,) for s in SYMBOLS}, **{d: (f"digit {d}", f"number {d}") for d in DIGITS}},
        "motion": {
            "left": ("moves left", "slides to the left", "drifts left"),
            "right": ("moves right", "slides to the right", "drifts right"),
            "up": ("moves up", "rises", "floats upwards"),
            "down": ("moves down", "sinks", "glides downwards"),
            "up-left": ("moves up and left", "drifts to the upper left"),
            "up-right": ("moves up and right", "drifts to the upper right"),
            "down-left": ("moves down and left", "drifts to the lower left"),
            "down-right": ("moves down and right", "drifts to the lower right"),
            "clockwise": ("moves in a circle clockwise", "circles clockwise"),
            "anticlockwise": ("moves in a circle anticlockwise", "circles anticlockwise"),
            "bouncing": ("bounces", "bounces up and down"),
            "growing": ("grows", "gets bigger"),
            "shrinking": ("shrinks", "gets smaller"),
            "spinning": ("spins", "turns around itself"),
            "still": ("stands still", "does not move"),
            "ink": ("spreads like ink", "spreads like ink in water"),
        },
        "size": {"large": ("large", "big"), "small": ("small", "little")},
        "speed": {"slow": ("slowly",), "fast": ("quickly", "fast")},
        "background": {"paper": ("on paper",), "night": ("at night", "in the night")},
        "camera": {
            "still": ("the camera is still", "the camera stands still"),
            "pan left": ("the camera pans left", "the camera moves left"),
            "pan right": ("the camera pans right", "the camera moves right"),
            "zoom in": ("the camera zooms in", "the camera moves closer"),
            "zoom out": ("the camera zooms out", "the camera moves away"),
        },
    },
    "zh": {
        "colour": {
            "red": ("红色",), "orange": ("橙色",), "yellow": ("黄色",), "green": ("绿色",),
            "cyan": ("青色",), "blue": ("蓝色",), "purple": ("紫色",), "pink": ("粉色",),
        },
        "shape": {
            "circle": ("圆形",), "square": ("方形", "正方形"), "triangle": ("三角形",), "star": ("星形", "五角星"),
            "heart": ("心形",), "ring": ("圆环",), "cross": ("十字",), **{d: (f"数字{d}",) for d in DIGITS},
        },
        "motion": {
            "left": ("向左移动", "往左走"), "right": ("向右移动", "往右走"),
            "up": ("向上移动", "上升"), "down": ("向下移动", "下沉"),
            "up-left": ("向左上方移动", "往左上走"), "up-right": ("向右上方移动", "往右上走"),
            "down-left": ("向左下方移动", "往左下走"), "down-right": ("向右下方移动", "往右下走"),
            "clockwise": ("顺时针绕圈", "顺时针转圈"), "anticlockwise": ("逆时针绕圈", "逆时针转圈"),
            "bouncing": ("弹跳", "上下弹跳"), "growing": ("变大", "长大"), "shrinking": ("变小", "缩小"),
            "spinning": ("原地旋转", "自转"), "still": ("静止不动", "不动"),
            "ink": ("像墨水一样扩散", "像水中的墨一样散开"),
        },
        "size": {"large": ("大",), "small": ("小",)},
        "speed": {"slow": ("慢慢", "缓慢"), "fast": ("快速", "飞快")},
        "background": {"paper": ("在纸上",), "night": ("在夜里", "夜空下")},
        "camera": {
            "still": ("镜头不动",), "pan left": ("镜头左移", "镜头向左移动"), "pan right": ("镜头右移", "镜头向右移动"),
            "zoom in": ("镜头推近", "镜头拉近"), "zoom out": ("镜头拉远", "镜头推远"),
        },
    },
}  # fmt: skip

# Further ways to say the same, which captions don't use but prompts may.
SYNONYMS: dict[str, dict[str, dict[str, tuple[str, ...]]]] = {
    "en": {
        "colour": {"cyan": ("turquoise",), "purple": ("violet",)},
        "shape": {
            "circle": ("disc", "disk", "ball", "dot"), "square": ("box",), "cross": ("plus",),
            **{d: (d, f"digit {w}", f"number {w}", w) for d, w in zip(DIGITS, "zero one two three four five six seven eight nine".split())},
        },
        "motion": {
            **{d: tuple(
                f"{verb} {way}".strip() for verb in ("", "move", "moves", "moving", "slides", "sliding", "goes", "going", "drifts",
                                             "drifting", "floats", "floating", "flies", "flying", "glides", "gliding",
                                             "runs", "running", "rolls", "rolling", "travels", "circles", "turns") for way in ways)
               for d, ways in {
                   "left": ("left", "to left", "to the left", "leftwards", "leftward", "towards the left"),
                   "right": ("right", "to right", "to the right", "rightwards", "rightward", "towards the right"),
                   "up": ("up", "upwards", "upward", "to the top", "rising"), "down": ("down", "downwards", "downward", "to the bottom", "sinking", "falls", "falling"),
                   "up-left": ("up and left", "up left", "up-left", "to the upper left"),
                   "up-right": ("up and right", "up right", "up-right", "to the upper right"),
                   "down-left": ("down and left", "down left", "down-left", "to the lower left"),
                   "down-right": ("down and right", "down right", "down-right", "to the lower right"),
                   "clockwise": ("clockwise", "in a circle", "in a circle clockwise"),
                   "anticlockwise": ("anticlockwise", "counterclockwise", "counter-clockwise", "anti-clockwise"),
               }.items()},
            "bouncing": ("bouncing", "jumps"), "growing": ("growing", "expands", "gets larger", "grows bigger"),
            "shrinking": ("shrinking",), "spinning": ("spinning", "rotates", "rotating", "spins around", "turns"),
            "still": ("stays still", "standing still", "still", "doesn't move"),
            "ink": ("spreading like ink", "spreads", "spreading", "spreads like ink in the water", "spreading like ink in water"),
        },
        "speed": {"slow": ("slow",), "fast": ("rapidly",)},
        "background": {"night": ("by night", "night sky")},
    },
    "zh": {
        "colour": {
            "red": ("红",), "orange": ("橙", "橘色"), "yellow": ("黄",), "green": ("绿",), "cyan": ("青",), "blue": ("蓝",),
            "purple": ("紫",), "pink": ("粉红色", "粉红", "粉"),
        },
        "shape": {
            "circle": ("圆", "圆球", "球"), "square": ("方块",), "triangle": ("三角",), "star": ("星星",), "heart": ("爱心", "心"),
            "ring": ("圆圈", "环"), "cross": ("十字形",),
            **{d: (d, f"数字{w}") for d, w in zip(DIGITS, "零一二三四五六七八九")},
        },
        "motion": {
            **{d: tuple(f"{to}{way}{side}" for to in "向往朝" for side in ("", "边", "侧", "方")) for d, way in {
                "left": "左", "right": "右", "up": "上", "down": "下",
                "up-left": "左上", "up-right": "右上", "down-left": "左下", "down-right": "右下"}.items()},
            "clockwise": ("顺时针", "顺时针旋转", "顺时针转动", "绕圈", "转圈"),
            "anticlockwise": ("逆时针", "逆时针旋转", "逆时针转动"),
            "growing": ("变大了",), "spinning": ("旋转",), "still": ("静止",),
            "ink": ("扩散", "散开", "像墨水一样散开", "像墨一样散开"),
        },
        "size": {"large": ("大的",), "small": ("小的",)},
        "speed": {"slow": ("慢", "缓缓", "慢慢地"), "fast": ("快", "迅速")},
        "background": {"night": ("夜晚", "晚上", "黑夜")},
    },
}  # fmt: skip

# Words that carry no attribute.
FILLERS = {
    "en": "a an the of and while that which is are it video film picture movie showing show shows watch make create please "
    "colored coloured there".split(),
    "zh": "一 两 个 只 颗 张 块 条 幅 的 地 着 在 和 与 同时 有 画面 中 视频 影片 显示 生成 请 画 移动 飘 滚动 走".split(),
}
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
    speed = "" if thing.motion == "still" else word("speed", thing.speed, "slow")
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
    """Read a sentence in English or Chinese as a scene; what it leaves unsaid is large, slow, on paper, camera still.

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
        things = [{"size": "small", **words} for words in things]
    return Scene(tuple(Thing(**words) for words in things), **setting)
