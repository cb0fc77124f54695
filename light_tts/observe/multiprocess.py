"""The numbers of all processes as one page. Each process counts in files of its own in one folder; what those of ended
processes hold is added up in one file of each kind, so that restarts neither lose counts nor fill the folder.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from light_tts.observe.metrics import Metrics

logger = logging.getLogger(__name__)

MULTIPROC_DIR = "PROMETHEUS_MULTIPROC_DIR"
_OF_PROCESS = re.compile(r"(counter|histogram|gauge_[a-z]+)_([0-9]+)\.db")  # as prometheus_client names them
_BROKEN = (OSError, RuntimeError, ValueError, struct.error)  # killed before there was anything in it


def exposition(own: Metrics) -> tuple[bytes, str]:
    """Body and content type of `/metrics`: of all processes where they share a folder, else of this one alone."""
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest, multiprocess

    folder = os.environ.get(MULTIPROC_DIR)
    if not folder:
        return generate_latest(own.registry), CONTENT_TYPE_LATEST
    everything = CollectorRegistry()
    with _locked(Path(folder), fcntl.LOCK_SH):  # no file is added up while it is read: it would count twice
        multiprocess.MultiProcessCollector(everything, folder)  # type: ignore[no-untyped-call]
        return generate_latest(everything), CONTENT_TYPE_LATEST


def reap(folder: Path, is_alive: Callable[[int], bool]) -> None:
    """Forget the gauges of processes that have ended, and keep what they counted. Only the supervisor does this.

    Does nothing while the page is being read: the next call makes up for it. Raises OSError, for one on a full disk.
    """
    files = [match for match in map(_OF_PROCESS.fullmatch, os.listdir(folder)) if match is not None]
    dead = {pid for pid in {match[2] for match in files} if not is_alive(int(pid))}
    ended = [(match[1], folder / match[0]) for match in files if match[2] in dead]
    if not ended:
        return
    try:
        with _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
            for kind in {kind for kind, _ in ended}:
                _reap(kind, [path for its, path in ended if its == kind], folder / f"{kind}_ended.db")
    except BlockingIOError:
        return


def _reap(kind: str, ended: list[Path], total: Path) -> None:
    if not kind.startswith("gauge"):
        _add_up([total, *ended], total)
    for path in ended:
        path.unlink(missing_ok=True)


def _add_up(files: list[Path], total: Path) -> None:
    """Write the sums of all files to `total`, whole or not at all."""
    from prometheus_client.mmap_dict import MmapedDict

    sums: dict[str, float] = defaultdict(float)
    for path in files:
        try:
            # Counts of histograms are kept by bucket, not yet summed over them: they add up as they are.
            values = list(MmapedDict.read_all_values_from_file(path))  # type: ignore[no-untyped-call]
        except FileNotFoundError:
            continue
        except _BROKEN:
            logger.warning("%s cannot be read: what it counted is lost", path.name)
            continue
        for key, value, *_ in values:
            sums[key] += value
    temporary = total.with_suffix(".tmp")
    with temporary.open(
        "wb"
    ) as empty:  # a disk that is full says so here; of a mapped file it would be a SIGBUS
        os.posix_fallocate(empty.fileno(), 0, sum(path.stat().st_size for path in files if path.exists()))
    written = MmapedDict(str(temporary))  # type: ignore[no-untyped-call]
    for key, value in sums.items():
        written.write_value(key, value, 0.0)  # type: ignore[no-untyped-call]
    written.close()  # type: ignore[no-untyped-call]
    temporary.replace(total)


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    """Raises BlockingIOError where LOCK_NB is asked for and somebody else has it."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, how)
        yield
    finally:
        os.close(handle)
