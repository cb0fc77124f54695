"""A folder of voice files that several processes read and change at once."""

from __future__ import annotations

import fcntl
import os
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from light_tts.encode.voice_header import read_info
from light_tts.errors import TooManyVoices, Unavailable, VoiceExists, VoiceNotFound
from light_tts.voice_info import MAX_VOICES, NAME, VoiceInfo, check_name

SUFFIX = ".safetensors"
_PART = re.compile(rf"\.{NAME.pattern}\.[0-9a-f]{{32}}\.part")
_LOCK_S = 10.0
_LOCK_POLL_S = 0.01


class VoiceFolder:
    """One file per voice, `NAME.safetensors`. No inference library is needed, so HTTP workers have it too.

    Readers take no lock: a file appears, changes and goes in one step. Writers lock the folder itself, which the
    kernel ends when a process dies; what such a process left half-written has a name that is no voice's, and the next
    writer removes it.

    max_voices: more are not taken in; those that are there already stay
    """

    def __init__(self, path: Path, max_voices: int = MAX_VOICES) -> None:
        self.path = path
        self._max_voices = max_voices

    def names(self) -> list[str]:
        """Sorted names of the voices, damaged ones included."""
        try:
            files = [entry.name for entry in os.scandir(self.path)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        stems = (name.removesuffix(SUFFIX) for name in files if name.endswith(SUFFIX))
        return sorted(stem for stem in stems if NAME.fullmatch(stem))

    def stamp(self, name: str) -> str | None:
        """What changes whenever the voice's file does; None if there is no such voice."""
        return _stamp(self._file(name)) if NAME.fullmatch(name) else None

    def folder_stamp(self) -> str | None:
        """What changes whenever a voice is added, replaced, renamed or removed."""
        return _stamp(self.path)

    def existing(self, name: str) -> Path:
        """The voice's file. Raises VoiceNotFound."""
        # No name outside the pattern exists: it could lead out of the folder.
        if not NAME.fullmatch(name) or not self._file(name).is_file():
            raise VoiceNotFound(f"there is no voice {name[:140]!r}")
        return self._file(name)

    def info(self, name: str) -> VoiceInfo:
        """Raises VoiceNotFound or CorruptFile."""
        with _found(name):
            return read_info(self.existing(name))

    def num_bytes(self, name: str) -> int:
        """Size of the voice's file. Raises VoiceNotFound."""
        with _found(name):
            return self.existing(name).stat().st_size

    def check_room(self, names: list[str], *, replace: bool) -> None:
        """Whether `put` would take these now. Raises InvalidInput, VoiceExists or TooManyVoices."""
        here = set(self.names())
        for name in names:
            check_name(name)
            if name in here and not replace:
                raise _exists(name)
        num_voices = len(here.union(names))
        if num_voices > max(self._max_voices, len(here)):
            raise TooManyVoices(
                f"there would be {num_voices} voices, limit {self._max_voices} (--max_voices)"
            )

    def put(self, files: Mapping[str, bytes], *, replace: bool) -> None:
        """Store files by name; a reader sees the old voice or the new one, never a part, also after a crash.

        Raises InvalidInput, VoiceExists, TooManyVoices or Unavailable, and OSError where the disk refuses.
        """
        for name in files:
            check_name(name)
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked():
            self._remove_parts()
            self.check_room([*files], replace=replace)
            parts = {name: self.path / f".{name}.{uuid.uuid4().hex}.part" for name in files}
            try:
                for name, part in parts.items():
                    _write(part, files[name])
                for name, part in parts.items():
                    part.replace(self._file(name))
            finally:
                for part in parts.values():
                    part.unlink(missing_ok=True)

    def rename(self, old: str, new: str) -> None:
        """In one step. Raises InvalidInput, VoiceNotFound, VoiceExists, Unavailable; OSError."""
        check_name(new)
        self.existing(old)
        with self._locked():
            file = self.existing(old)
            if old != new:
                if self.stamp(new) is not None:
                    raise _exists(new)
                file.rename(self._file(new))

    def delete(self, name: str) -> None:
        """Who speaks with the voice already goes on doing so. Raises VoiceNotFound, Unavailable; OSError."""
        self.existing(name)
        with self._locked(), _found(name):
            self._file(name).unlink()

    def _file(self, name: str) -> Path:
        return self.path / f"{name}{SUFFIX}"

    def _remove_parts(self) -> None:
        """What writers left that were killed: needs the lock, under which no other writer has any."""
        for entry in os.scandir(self.path):
            if _PART.fullmatch(entry.name):
                Path(entry.path).unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time, of all processes. What was changed within is on disk afterwards."""
        with _found(""):
            number = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _lock(number, self.path)
            yield
            os.fsync(number)
            with suppress(OSError):  # the kernel's own stamps are too coarse to tell two changes apart
                os.utime(self.path, ns=(time.time_ns(), time.time_ns()))
        finally:
            os.close(number)


def _lock(number: int, path: Path) -> None:
    """Raises Unavailable: a process that was stopped within must not stop others for ever."""
    deadline_s = time.monotonic() + _LOCK_S
    while True:
        try:
            return fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline_s:
                raise Unavailable(f"the voices in {path} are locked by another process") from error
        time.sleep(_LOCK_POLL_S)


def _write(part: Path, data: bytes) -> None:
    with part.open("xb") as file:
        file.write(data)
        file.flush()
        now = time.time_ns()
        os.utime(file.fileno(), ns=(now, now))
        os.fsync(file.fileno())


def _exists(name: str) -> VoiceExists:
    return VoiceExists(f"there is a voice {name!r} already")


@contextmanager
def _found(name: str) -> Iterator[None]:
    """A file that goes meanwhile was none."""
    try:
        yield
    except FileNotFoundError as error:
        raise VoiceNotFound(f"there is no voice {name!r}") from error


def _stamp(path: Path) -> str | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return f"{stat.st_mtime_ns}-{stat.st_size}-{stat.st_ino}"
