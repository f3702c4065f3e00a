"""Assign clips to the train or the test split: film by film, or by time if there are too few films."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from secondeye.dataset.schema import Clip, Film
from secondeye.system.errors import UserError

MIN_FILMS = 3  # with fewer, whole films cannot be held out


def deciding_films(
    films: Mapping[str, Film], pairs: Sequence[tuple[Clip, Clip]]
) -> dict[str, Film]:  # by film id: the group's smallest id, with the group's split
    """Group films that share images, so that each group lies in one split.

    Raises UserError if sources.csv assigns films of one group to different splits.
    """
    groups = {film: {film} for film in films}
    for first, second in pairs:
        if groups[first.film] is groups[second.film]:
            continue
        joined = groups[first.film] | groups[second.film]
        groups |= dict.fromkeys(joined, joined)
    deciding = {}
    for film, group in groups.items():
        named = {films[one].split: films[one].name for one in sorted(group) if films[one].split}
        if len(named) > 1:
            raise UserError(
                f"sources.csv: {named['train']} is in train and {named['test']} in test, but both show the "
                "same images; give them one split or remove one"
            )
        deciding[film] = replace(films[min(group)], split="".join(named))
    return deciding


def is_split_by_time(film: Film, films: int) -> bool:
    """Return whether a film is in both splits: sources.csv names no split and there are too few films."""
    return not film.split and films < MIN_FILMS


def choose_split(clip: Clip, film: Film, films: int, test_share: float) -> str:
    """Return "train" or "test": as sources.csv says, else by a hash of the film, or by time with few films.

    `film` is the one that decides for the clip's film (`deciding_films`).
    """
    if film.split:
        return film.split
    if is_split_by_time(film, films):
        return "test" if clip.start_share >= 1 - test_share else "train"
    position = int(hashlib.sha256(film.id.encode()).hexdigest()[:8], 16) / 0xFFFFFFFF
    return "test" if position < test_share else "train"
