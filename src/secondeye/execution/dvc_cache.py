"""DVC's cache: it keeps what stages write, and whether that takes the room once more depends on the disk."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple


class Place(NamedTuple):
    """Where what a stage writes will lie."""

    folder: Path
    times: int  # how often: with a copy in DVC's cache, twice


def places_of(
    out: Path,  # a stage's folder
) -> list[Place]:
    """Every disk that what is written to `out` takes room of; run in the project's folder."""
    cache = _cache_of_copies(out)
    if cache is None:
        return [Place(out, 1)]
    return [Place(out, 2)] if _on_one_disk(out, cache) else [Place(out, 1), Place(cache, 1)]


def _cache_of_copies(out: Path) -> Path | None:
    """The cache's folder, or what is there of its path; None without DVC, and where it takes no copies."""
    project = Path(".dvc")
    if not project.is_dir():
        return None
    from dvc.config import Config

    told = Config(str(project.resolve()))["cache"]
    cache = Path(told.get("dir") or project / "cache").resolve()
    there = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    for link in told.get("type") or ("reflink", "copy"):
        if link == "copy":
            break
        if link == "symlink" or (_share_blocks if link == "reflink" else _on_one_disk)(out, there):
            return None
    return there


def _on_one_disk(one: Path, other: Path) -> bool:
    return one.stat().st_dev == other.stat().st_dev


def _share_blocks(one: Path, other: Path) -> bool:
    """Whether a copy takes no room, as on Btrfs, XFS and APFS: tried with the call that DVC makes."""
    from dvc_objects.fs.system import reflink

    name = ".tried.part"  # `secondeye gc` finds it where this is killed
    with (
        TemporaryDirectory(".part", ".", one.parent) as here,
        TemporaryDirectory(".part", ".", other) as there,
    ):
        Path(here, name).touch()
        try:
            reflink(f"{here}/{name}", f"{there}/{name}")
        except OSError:
            return False
    return True
