"""Counts as people read them."""


def pluralize(count: int, noun: str) -> str:
    """1 clip, 2 clips."""
    return f"{count:,} {noun}{'s' * (count != 1)}"
