"""The inbox of the conversion flow: choose the films to convert, name their outputs, set failed ones aside.

INBOX/.films.json      what is known of each film (inbox_record.py); written before and after each conversion
INBOX/failed/NAME      a film that failed too often, its reason in NAME.txt; moved back, it is tried again

A run that is killed at any point leaves a record from which the next one continues.
"""

import fcntl
import os
import shlex
import signal
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import chain, count
from pathlib import Path

from commands import CommandFailed
from inbox_record import (
    ASIDE,
    DONE,
    OPEN,
    Entry,
    describe,
    identity,
    read_record,
    source_of,
    write_record,
)

from secondeye.cli import EXIT_INTERRUPTED, EXIT_UNREACHABLE
from secondeye.conversion.destination import CONTAINERS, default_suffix
from secondeye.film.layouts import Layout
from secondeye.film.packing import packing_from_name
from secondeye.sources import FILM_SUFFIXES
from secondeye.system.disk import is_full_disk_message
from secondeye.system.errors import UserError
from secondeye.system.files import write_atomic
from secondeye.system.text import pluralize

FAILED = "failed"
STILL_S = 60  # a film that changed more recently may still be being copied
_EXIT_USAGE = 2
# A decoder may crash on a film, and the kernel kills what needs more memory than there is.
_CRASHES = (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)
# In errors about an option, the champion, or another process: any film would fail.
_NOT_OF_THE_FILM = (": secondeye: --", ": secondeye: models:/", "another process")

Log = Callable[[str], object]


@contextmanager
def open_inbox(inbox: Path, outbox: Path, log: Log, layout: Layout, codec: str) -> Iterator["Inbox"]:
    """Create, check and lock both folders and yield the inbox; wait while another run works in it.

    Raises UserError if a folder is a file, cannot be written to, or contains the other.
    """
    if (real := inbox.resolve()).is_relative_to(outbox.resolve()) or outbox.resolve().is_relative_to(real):
        raise UserError(f"{inbox} and {outbox}: one contains the other; give two separate folders")
    for folder in (inbox, outbox):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except FileExistsError as error:
            raise UserError(f"{folder}: is a file; give a folder") from error
        except OSError as error:
            raise UserError(f"{folder}: cannot be written to ({error.strerror})") from error
    handle = os.open(inbox, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log(f"{inbox}: another run is converting its films; waiting until it ends")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield Inbox(inbox, outbox, log, layout, codec)
    finally:
        os.close(handle)


class Inbox:
    """A locked inbox with its record."""

    def __init__(
        self,
        inbox: Path,
        outbox: Path,
        log: Log,
        layout: Layout,  # of outputs: one that makes one file
        codec: str,  # of outputs, which decides their suffix
    ) -> None:
        self.inbox, self.outbox, self.log = inbox, outbox, log
        self._layout, self._codec = layout, codec
        self.recovered: list[Path] = []  # outputs of a run that was killed before it could record them
        self._entries = read_record(inbox, log)

    def films(self) -> list[Path]:
        """Return the films to convert, by name; log why each other one is not, unless it is converted.

        A film is converted if it is new, was replaced, failed before, or if its output was deleted.
        """
        listed = list(self._list())
        self._forget_absent({film.name for film in listed})
        chosen = [film for film in listed if self._is_due(film)]
        write_record(self.inbox, self._entries)
        return chosen

    def begin(self, film: Path) -> tuple[Path, bool]:
        """Record that a conversion begins; return its output, and whether that exists and is replaced.

        Raises UserError if the film cannot be read.
        """
        entry = self._entries[film.name]
        try:
            size, mtime_ns, digest = describe(film)
        except OSError as error:
            raise UserError(f"{film}: {error.strerror}") from error
        if digest != entry.digest:
            entry.attempts, entry.reason = 0, ""
        entry.size, entry.mtime_ns, entry.digest = size, mtime_ns, digest
        others = [found for found in self._outputs(entry.stem) if found.name != entry.output]
        if not self._has_tag(entry.stem) or any(source_of(other) != film.name for other in others):
            entry.stem = self._choose_stem(film, adopt=False)
        entry.replaces = [identity(found) for found in self._outputs(entry.stem)]
        write_record(self.inbox, self._entries)
        output = self.outbox / f"{entry.stem}{default_suffix(film, self._codec)}"
        return output, output.exists()

    def finish(self, film: Path, output: Path, warning: str = "") -> None:
        """Record that a film was converted. Its former output is deleted if it has another name."""
        entry = self._entries[film.name]
        if entry.output not in ("", output.name):
            (self.outbox / entry.output).unlink(missing_ok=True)
            self.log(f"{film.name}: {output.name} has replaced {entry.output}")
        if warning:
            self.log(f"{film.name}: damaged, {output.name} has the part before: {warning}")
        if film.exists() and self._was_replaced(film, entry):
            self.log(
                f"{film.name}: was replaced while it was being converted; the next run converts it again"
            )
        entry.state, entry.output, entry.attempts, entry.reason = DONE, output.name, 0, warning
        write_record(self.inbox, self._entries)

    def fail(
        self,
        film: Path,
        failure: UserError,
        attempts: int,  # the last one sets the film aside
        control: Callable[[], str],  # says why another film fails, too; "" if it does not
        options: list[str],  # of the command in NAME.txt
    ) -> str:
        """Record a failure and return its message, "" if it is none; it counts if the film is the reason."""
        entry = self._entries[film.name]
        if not film.exists():
            self.log(f"{film.name}: was taken out of the inbox while it was being converted")
            return ""
        if self._recover(film, entry):
            return ""
        if not is_reason(failure) or self._was_replaced(film, entry):
            return f"{film.name}: {failure}"
        by_command = isinstance(failure, CommandFailed)  # and not found when the film was opened
        if by_command and entry.attempts + 1 >= attempts and (other := control()):
            return f"{film.name}: {failure}; not counted, as a control film fails, too: {other}"
        if self._was_replaced(film, entry):  # during the control
            return f"{film.name}: {failure}"
        entry.attempts, entry.reason = entry.attempts + 1, str(failure)
        counted = f"{film.name} (attempt {entry.attempts} of {attempts}"
        if entry.attempts < attempts:
            write_record(self.inbox, self._entries)
            return f"{counted}): {failure}"
        self._set_aside(film, entry, options)
        return f"{counted}, the last): {failure}"

    def _list(self) -> Iterator[Path]:
        for path in sorted(self.inbox.glob("[!.]*")):
            if not path.is_dir():
                if path.suffix.lower() in FILM_SUFFIXES:
                    yield path
            elif path.name != FAILED and any(
                inner.suffix.lower() in FILM_SUFFIXES for inner in path.glob("[!.]*")
            ):
                self.log(f"{path}: films in sub-folders are not converted; move them to {self.inbox}")

    def _is_due(self, film: Path) -> bool:
        """Return whether a film is to be converted, and log why not, unless it is converted."""
        try:
            status = film.stat()
        except OSError as error:
            self.log(f"{film.name}: not converted: {error.strerror}")
            return False
        if not stat.S_ISREG(status.st_mode):
            self.log(f"{film.name}: not converted: it is not a file")
            return False
        if abs(time.time() - status.st_mtime) < STILL_S:  # a time far in the future is a wrong clock
            self.log(
                f"{film.name}: changed less than {STILL_S} s ago and may still be being copied: next run"
            )
            return False
        entry = self._entries.get(film.name)
        if entry is None:
            return self._enter(film, status.st_mtime)
        if entry.state == OPEN and entry.aside:  # setting it aside was interrupted
            if not os.path.lexists(self.inbox / FAILED / entry.aside):
                self._move_aside(film, entry)
                return False
            entry.state = ASIDE
        if entry.state == ASIDE:
            self.log(f"{film.name}: is back from {FAILED} and tried again")
            entry.state, entry.digest, entry.attempts, entry.reason, entry.aside = OPEN, "", 0, "", ""
        if entry.state == OPEN:
            return not self._recover(film, entry)
        if self._was_replaced(film, entry):
            self.log(f"{film.name}: was replaced and is converted again, over {entry.output}")
        elif not (self.outbox / entry.output).exists():
            self.log(f"{film.name}: {entry.output} is no longer in the outbox; converting again")
        else:
            return False
        entry.state, entry.attempts = OPEN, 0
        return True

    def _enter(self, film: Path, changed: float) -> bool:
        """Make an entry for a film without one; return False if the outbox holds its output already."""
        entry = self._entries[film.name] = Entry(self._choose_stem(film, adopt=True))
        outputs = self._outputs(entry.stem)
        if not outputs:
            return True
        output = outputs[0]
        with suppress(OSError):
            entry.size, entry.mtime_ns, entry.digest = describe(film)
        entry.state, entry.output = DONE, output.name
        notes = "" if source_of(output) else "; it does not say what it was made from"
        if changed > output.stat().st_mtime:
            notes += "; the film is newer"
        self.log(
            f"{film.name}: taken as converted, {output.name} is there{notes}; delete it to convert again"
        )
        return False

    def _choose_stem(self, film: Path, *, adopt: bool) -> str:
        """Return an output name without suffix that no other film has: NAME_TAG, NAME.SUFFIX_TAG ...

        One whose output says that it was made from this film comes first. Outputs that say nothing are taken
        for this film's only with `adopt`. Outputs of earlier versions keep their names, NAME_sbs.
        """
        taken = {entry.stem.casefold() for name, entry in self._entries.items() if name != film.name}
        if self._layout == Layout():
            for stem in (f"{film.stem}_sbs", f"{film.name}_sbs"):
                made_from = {source_of(output) for output in self._outputs(stem)}
                if stem.casefold() not in taken and made_from & ({film.name, ""} if adopt else {film.name}):
                    return stem
        names = chain([film.stem, film.name], (f"{film.name}-{number}" for number in count(2)))
        tagged = (self._layout.names(name)[0] for name in names)
        stems = (stem for stem in tagged if stem.casefold() not in taken)
        first: str | None = None
        for tried, stem in enumerate(stems):
            sources = {source_of(output) for output in self._outputs(stem)}
            if film.name in sources:
                return stem
            if first is None and sources <= ({""} if adopt else set()):
                first = stem
            if first is not None and tried >= 1:
                return first
        raise AssertionError("there is always another number")

    def _has_tag(self, stem: str) -> bool:
        """Whether a name has the tag of the layout, which may have changed."""
        given = packing_from_name(stem)
        if self._layout.packing is None or given is None:
            return stem.endswith(self._layout.names("")[0])
        return given == self._layout.packing

    def _outputs(self, stem: str) -> list[Path]:
        found = (self.outbox / f"{stem}{suffix}" for suffix in CONTAINERS)
        return [path for path in found if path.exists()]

    def _was_replaced(self, film: Path, entry: Entry) -> bool:
        """Return whether the film is another than that of its entry; note the new time of an equal one."""
        try:
            status = film.stat()
            if (status.st_size, status.st_mtime_ns) == (entry.size, entry.mtime_ns):
                return False
            if describe(film)[2] != entry.digest:
                return True
        except OSError:  # `begin` says why it cannot be read
            return True
        entry.mtime_ns = status.st_mtime_ns
        return False

    def _recover(self, film: Path, entry: Entry) -> bool:
        """Return whether the last attempt made the output, but was killed before it was recorded."""
        if not entry.digest or self._was_replaced(film, entry):
            return False
        for output in self._outputs(entry.stem):
            if identity(output) not in entry.replaces and source_of(output) in ("", film.name):
                from secondeye.conversion.checkpoint import remove_if_published  # imports torch: seconds

                remove_if_published(output.resolve())
                self.log(f"{film.name}: {output.name} is whole, though the run that made it was stopped")
                self.finish(film, output)
                self.recovered.append(output)
                return True
        return False

    def _set_aside(self, film: Path, entry: Entry, options: list[str]) -> None:
        """Move a film to failed/, under a name that is free there, with its reason; delete its checkpoint."""
        from secondeye.conversion.checkpoint import remove_checkpoint  # imports torch: seconds

        folder = self.inbox / FAILED
        for suffix in CONTAINERS:
            with suppress(UserError):  # another process works in it
                remove_checkpoint(self.outbox.resolve() / f"{entry.stem}{suffix}")
        names = chain([film.name], (f"{film.stem}-{number}{film.suffix}" for number in count(2)))
        entry.aside = next(name for name in names if not os.path.lexists(folder / name))
        command = ["secondeye", "convert", str(folder / entry.aside), *options]
        text = (
            f"{film.name} failed in {pluralize(entry.attempts, 'attempt')}, the last one at "
            f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S %Z}:\n\n    {entry.reason}\n\n"
            f"By hand:\n\n    {shlex.join(command)}\n\nTo have it tried again, move it back to {self.inbox}\n"
        )
        note = folder / f"{entry.aside}.txt"
        try:
            folder.mkdir(exist_ok=True)
            write_atomic(note, text)
        except OSError as error:
            raise UserError(f"{note}: {error.strerror}") from error
        write_record(self.inbox, self._entries)
        self._move_aside(film, entry)

    def _move_aside(self, film: Path, entry: Entry) -> None:
        place = self.inbox / FAILED / entry.aside
        try:
            os.rename(film, place)
        except OSError as error:  # the next run tries to move it, and does not convert it
            self.log(f"{film.name}: failed too often, and cannot be moved to {place}: {error.strerror}")
            return
        entry.state = ASIDE
        write_record(self.inbox, self._entries)
        self.log(f"{film.name}: moved to {place}; {place.name}.txt says why")

    def _forget_absent(self, present: set[str]) -> None:
        """Drop the entries of films that are neither here nor in failed/, and have no output."""
        for name, entry in list(self._entries.items()):
            if name in present:
                continue
            in_failed = bool(entry.aside) and os.path.lexists(self.inbox / FAILED / entry.aside)
            if in_failed:
                entry.state = ASIDE
            elif entry.state != DONE or not (self.outbox / entry.output).exists():
                del self._entries[name]


def is_reason(failure: UserError) -> bool:
    """Return whether a film is the reason of a failure, and not MLflow, the disk, an option or a signal."""
    if isinstance(failure, CommandFailed):
        if failure.is_timeout:
            return True
        if failure.code in (_EXIT_USAGE, EXIT_UNREACHABLE, EXIT_INTERRUPTED):
            return False
        if failure.code < 0 and -failure.code not in _CRASHES:
            return False
    message = str(failure)
    return not is_full_disk_message(message) and not any(part in message for part in _NOT_OF_THE_FILM)
