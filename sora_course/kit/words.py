"""What the words of the world are called in English and Chinese: three tables, which `captions.py` writes from and reads by."""

from __future__ import annotations

from .scenes import COLOURS, DIGITS, SYMBOLS

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
