"""Checks that configs and functions share."""

from __future__ import annotations


def whole(numbers: dict, *, least: int = 1, where: str = "") -> None:
    """Refuses what cannot be a size or a count.

    Args:
        numbers: values by the names under which the reader knows them.
        where: what a message begins with, such as "In config.json ".

    Raises:
        ValueError: a value is not a whole number, or under least.
    """
    for name, value in numbers.items():
        if type(value) is not int or value < least:
            raise ValueError(f"{where}{name} is {value!r}, and a whole number, {least} or more, is expected.")
