"""What lies in data/raw: stereo films however they are packed, and sources.csv that says more about them."""

from secondeye.sources.listing import list_mono, list_sources
from secondeye.sources.source import FILMS, STILLS, Mono, Source, digest_source, told_of

__all__ = ["FILMS", "STILLS", "Mono", "Source", "digest_source", "list_mono", "list_sources", "told_of"]
