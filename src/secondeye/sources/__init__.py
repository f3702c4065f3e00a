"""The stereo films in data/raw, however they are packed, and sources.csv, which describes them."""

from secondeye.sources.listing import list_mono_films, list_sources
from secondeye.sources.source import (
    FILM_SUFFIXES,
    STILL_SUFFIXES,
    MonoFilm,
    Source,
    hash_source,
    size_bytes,
    strip_paths,
)

__all__ = [
    "FILM_SUFFIXES",
    "STILL_SUFFIXES",
    "MonoFilm",
    "Source",
    "hash_source",
    "list_mono_films",
    "list_sources",
    "size_bytes",
    "strip_paths",
]
