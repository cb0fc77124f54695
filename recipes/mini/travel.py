"""Carrying a run from machine to machine in files of a few megabytes: volumes, each a tar that stands alone.

`collect` fills volumes in order of importance, so that the first ones are the ones to keep when not all fit.
`receive` puts any set of volumes into place, in any order; `pack` cuts folders that must travel into pieces.
"""

from __future__ import annotations

import io
import logging
import re
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from recipes.mini.errors import RecipeError

logger = logging.getLogger(__name__)

VOLUME_BYTES = 15 * 2**20  # of a returned file, with its end
VOLUMES_A_CALL = 4  # 60 MiB together
PIECE_BYTES = 32 * 2**20  # travel together to the training machine, beside the repository

_CUT = 2**20  # so much below a volume's size files are cut
_END = 2**16  # more than what a tar has after its members
_BLOCK = 512  # a tar's member has a header of one block, and fills its last
_FRAGMENT = re.compile(r"(.+)\.cut-(\d{3})-of-(\d{3})")


@dataclass(frozen=True, slots=True)
class Places:
    """Where a run lives; the two may lie anywhere. Names in volumes begin with `work/` or `checkpoints/`."""

    work: Path
    checkpoints: Path

    def path(self, name: str) -> Path:
        """Where a name leads. Raises RecipeError if it leads elsewhere."""
        parts = PurePosixPath(name).parts
        roots = {"work": self.work, "checkpoints": self.checkpoints}
        if len(parts) < 2 or parts[0] not in roots or ".." in parts:
            raise RecipeError(f"the name {name!r} in a volume leads elsewhere")
        return roots[parts[0]].joinpath(*parts[1:])

    def name(self, path: Path) -> str:
        """The name of a file below one of the two."""
        for root, prefix in ((self.work, "work"), (self.checkpoints, "checkpoints")):
            if path.is_relative_to(root):
                return f"{prefix}/{path.relative_to(root).as_posix()}"
        raise RecipeError(f"{path} is neither below {self.work} nor below {self.checkpoints}")


@dataclass(frozen=True, slots=True)
class Item:
    """A file, or a piece of one."""

    name: str
    path: Path
    start: int
    size: int

    @property
    def packed_size(self) -> int:
        return _BLOCK + -(-self.size // _BLOCK) * _BLOCK


def items_of(places: Places, paths: Iterable[Path], max_bytes: int = VOLUME_BYTES) -> list[Item]:
    """The files at `paths`, and all below where one is a folder; hidden and absent ones are left out.

    max_bytes: of a volume, none of the items is larger
    """
    items: list[Item] = []
    for path in paths:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            hidden = any(part.startswith(".") for part in Path(places.name(file)).parts)
            if file.is_file() and not hidden:
                items += _pieces(file, places.name(file), max_bytes - _CUT)
    return items


def _pieces(path: Path, name: str, largest: int) -> Iterator[Item]:
    size = path.stat().st_size
    count = max(1, -(-size // largest))
    for number in range(count):
        start = number * largest
        suffix = f".cut-{number:03d}-of-{count:03d}" if count > 1 else ""
        yield Item(name + suffix, path, start, min(largest, size - start))


def fill(items: Iterable[Item], max_bytes: int = VOLUME_BYTES) -> list[list[Item]]:
    """Volumes in the order of the items; what is left of a volume is filled with later, smaller ones."""
    volumes: list[list[Item]] = []
    used: list[int] = []
    for item in items:
        if item.packed_size > max_bytes:
            raise RecipeError(f"{item.name} has {item.size} bytes, a volume {max_bytes}")
        place = next((k for k, size in enumerate(used) if size + item.packed_size <= max_bytes), len(used))
        if place == len(used):
            volumes.append([])
            used.append(0)
        volumes[place].append(item)
        used[place] += item.packed_size
    return volumes


def write_volumes(items: Sequence[Item], out: Path, batch: int = 0) -> tuple[int, int]:
    """Write the batch-th four volumes into `out`, in place of those there; returns how many, and of how many."""
    volumes = fill(items)
    first = batch * VOLUMES_A_CALL
    chosen = volumes[first : first + VOLUMES_A_CALL]
    out.mkdir(parents=True, exist_ok=True)
    names = {_volume_name(number) for number in range(first, first + len(chosen))}
    for number, content in enumerate(chosen, start=first):
        write_volume(out / _volume_name(number), content)
    for old in out.glob("volume-*.tar"):
        if old.name not in names:
            old.unlink()
    return len(chosen), len(volumes)


def write_volume(path: Path, items: Sequence[Item]) -> None:
    """Write a volume, complete or not at all. A file that vanished meanwhile is left out."""
    partial = path.with_name(f".{path.name}.tmp")
    with tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as tar:
        for item in items:
            try:
                with item.path.open("rb") as file:
                    file.seek(item.start)
                    content = file.read(item.size)
            except FileNotFoundError:
                logger.warning("%s is gone: its stage went on", item.path)
                continue
            header = tarfile.TarInfo(item.name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    partial.replace(path)


def pack(places: Places, paths: Iterable[Path], out: Path, piece_bytes: int = PIECE_BYTES) -> list[Path]:
    """Write all volumes as out/piece-0, out/piece-1, ..., none larger than piece_bytes, to travel in one call each."""
    volume_bytes = min(VOLUME_BYTES, piece_bytes - _END)
    if volume_bytes < 2 * _CUT:
        raise RecipeError(
            f"a piece of {piece_bytes} bytes is too small, at least {2 * _CUT + _END} are needed"
        )
    items = items_of(places, paths, volume_bytes)
    if not items:
        raise RecipeError("there is nothing to pack")
    shutil.rmtree(out, ignore_errors=True)
    pieces: list[Path] = []
    room = 0
    for number, content in enumerate(fill(items, volume_bytes)):
        size = sum(item.packed_size for item in content) + _END
        if size > room:
            pieces.append(out / f"piece-{len(pieces)}")
            pieces[-1].mkdir(parents=True)
            room = piece_bytes
        write_volume(pieces[-1] / _volume_name(number), content)
        room -= size
    return pieces


def receive(folder: Path, places: Places) -> list[str]:
    """Put what the volumes below `folder` hold into place; returns the names of the files that are complete.

    Pieces of a cut file may come in several calls: they wait beside their place. Raises RecipeError for a
    damaged volume, or for a name that leads elsewhere.
    """
    volumes = sorted(folder.rglob("volume-*.tar"))
    if not volumes:
        raise RecipeError(f"{folder} holds no volume-*.tar")
    names: list[str] = []
    for volume in volumes:
        try:
            with tarfile.open(volume) as tar:
                for member in tar:
                    content = tar.extractfile(member)
                    if content is None:
                        raise RecipeError(f"{volume}: {member.name!r} is no plain file")
                    names += _place(places, member.name, content.read())
        except tarfile.TarError as error:
            raise RecipeError(f"{volume} is damaged: {error}") from error
    return names


def _place(places: Places, name: str, content: bytes) -> list[str]:
    cut = _FRAGMENT.fullmatch(name)
    if cut is None:
        replace_file(places.path(name), content)
        return [name]
    target = places.path(cut[1])
    waiting = target.with_name(f".{target.name}.cut")
    replace_file(waiting / cut[2], content)
    parts = sorted(path for path in waiting.iterdir() if path.name.isdigit())
    if len(parts) < int(cut[3]):
        return []
    replace_file(target, b"".join(part.read_bytes() for part in parts))
    shutil.rmtree(waiting)
    return [cut[1]]


def replace_file(path: Path, content: bytes) -> None:
    """Write a file by renaming: a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.tmp")
    partial.write_bytes(content)
    partial.replace(path)


def _volume_name(number: int) -> str:
    return f"volume-{number:03d}.tar"
