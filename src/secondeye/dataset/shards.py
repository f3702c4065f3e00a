"""The dataset's arrays in WebDataset shards: tar files with a few clips each, in a folder or at a URL.

A record of a shard has the files of one clip or synthetic shot as the stages wrote them, and `json`, which
describes them. Tables are read from the data root, so samples from shards and from files are the same.
"""

import hashlib
import io
import json
import os
import tarfile
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from secondeye.dataset.clip_paths import clip_file
from secondeye.dataset.reader import Dataset
from secondeye.system.errors import UserError
from secondeye.system.process import hold_lock

INDEX = "index.json"
CACHE_GIGABYTES = 200.0  # of shards downloaded from a URL; SECONDEYE_SHARD_CACHE_GB changes it
_REMEMBERED_SHARDS = 1000  # whose files a process has listed
_REMEMBERED_FILES = 10_000  # that a process has verified
_ATTEMPTS = 3  # to read a file of a shard


def open_dataset(root: Path) -> Dataset:
    """Open a dataset; its arrays come from SECONDEYE_SHARDS, a folder or URL with shards, if that is set.

    Raises UserError if these shards cannot be read or are of another dataset.
    """
    location = os.environ.get("SECONDEYE_SHARDS", "")
    if not location:
        return Dataset(root)
    dataset = ShardedDataset(root, location)
    if dataset.index["dataset"] != dataset.validated_hash:
        raise UserError(f"{location}: shards of another dataset than {root}; export this one again")
    return dataset


@dataclass(frozen=True)
class ShardedDataset(Dataset):
    """A dataset whose arrays are read from shards."""

    location: str  # folder or URL

    def __reduce__(self) -> tuple[type["ShardedDataset"], tuple[Path, str]]:  # type: ignore[override]
        return ShardedDataset, (self.root, self.location)

    @cached_property
    def index(self) -> dict[str, Any]:
        """The content of index.json."""
        try:
            content: dict[str, Any] = json.loads(_read_index(self.location))
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.location}: {INDEX} cannot be read ({error}); SECONDEYE_SHARDS must name the folder "
                "or URL of a finished export"
            ) from error
        if not content.get("finished"):
            raise UserError(f"{self.location}: the export is not finished; run it again")
        return content

    @cached_property
    def _shards(self) -> dict[str, str]:
        return {clip: name for name, shard in self.index["shards"].items() for clip in shard["ids"]}

    def source(self, stage: str, clip_id: str, kind: str) -> Path | BinaryIO:
        """Read a file from its shard and verify its checksum. Raises UserError if it is damaged."""
        name = self._shards.get(clip_id)
        if name is None:
            raise UserError(f"{self.location}: no shard has {clip_id}; export the dataset again")
        file = clip_file(Path(), clip_id, kind).name
        for _ in range(_ATTEMPTS):
            path = _fetch(self.location, name)
            try:
                if _is_intact(path, clip_id, file):
                    return io.BytesIO(_read_member(path, file))
            except FileNotFoundError:  # another process has just removed it from the cache
                continue
        raise UserError(f"{path}: {file} is missing or damaged; export or download the shard again")


def _read_index(location: str) -> str:
    if "://" not in location:
        return Path(location, INDEX).read_text()
    folder = cache_folder(location)
    folder.mkdir(parents=True, exist_ok=True)
    with hold_lock(folder / ".index.lock"):  # all workers of a machine start at once
        (folder / INDEX).unlink(missing_ok=True)  # it may be of an earlier export
        return _fetch(location, INDEX).read_text()


@lru_cache(_REMEMBERED_SHARDS)
def _list_members(path: Path) -> dict[str, tuple[int, int]]:  # name: offset, bytes
    with tarfile.open(path) as tar:
        return {member.name: (member.offset_data, member.size) for member in tar}


def _read_member(path: Path, name: str) -> bytes:
    offset, size = _list_members(path)[name]
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


@lru_cache(_REMEMBERED_FILES)
def _is_intact(path: Path, clip_id: str, name: str) -> bool:
    """Return whether a file of a shard has the checksum in its record; hashed once in a process."""
    try:
        recorded: dict[str, str] = json.loads(_read_member(path, f"{clip_id}.json"))["files"]
        return hashlib.sha256(_read_member(path, name)).hexdigest() == recorded[name]
    except (KeyError, ValueError, tarfile.TarError):
        return False


def _fetch(location: str, name: str) -> Path:
    """Return the path of a file. From a URL the first process that needs it downloads it to a cache."""
    if "://" not in location:
        return Path(location, name)
    from webdataset.cache import FileCache

    folder = cache_folder(location)
    folder.mkdir(parents=True, exist_ok=True)
    files = FileCache(
        str(folder),
        url_to_name=lambda url: url.rpartition("/")[2],
        validator=None,  # every file has a checksum
        cache_size=int(_cache_bytes()),
        cache_cleanup_interval=0,
    )
    try:
        with hold_lock(folder / f".{name}.lock"):  # one process downloads, the others wait for it
            return Path(files.get_file(f"{location.rstrip('/')}/{name}"))
    except (OSError, ValueError) as error:
        raise UserError(f"{location}/{name}: cannot be downloaded ({error}); start again") from error


def cache_folder(location: str) -> Path:
    """Return the folder that shards of a URL are downloaded to."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "secondeye" / "shards" / hashlib.sha256(location.encode()).hexdigest()[:16]


def _cache_bytes() -> float:
    value = os.environ.get("SECONDEYE_SHARD_CACHE_GB") or str(CACHE_GIGABYTES)
    try:
        return float(value) * 1e9
    except ValueError as error:
        raise UserError(f"SECONDEYE_SHARD_CACHE_GB must be a number, got {value!r}") from error
