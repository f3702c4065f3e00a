"""Format text for people."""


def pluralize(count: int, noun: str, plural: str | None = None) -> str:
    """Return the count and the noun, in the plural unless the count is 1: "1 clip", "2 clips"."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"
