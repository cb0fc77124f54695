"""The folder that the processes of one server share: sockets, config.json, state.json, metrics."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from light_tts.config import ServerConfig
from light_tts.errors import InvalidInput
from light_tts.messages import Stage
from light_tts.observe.metrics import METRICS_FOLDER
from light_tts.transport import address, supervisor_address

PREFIX = "light-tts-"
_PID_FILE = "supervisor.pid"
_LONGEST_PID = 2**22  # the kernel's highest
_STARTED = 19  # in `_status`: ticks from the machine's start to that of the process


def make_run_dir(wanted: Path | None) -> Path:
    """A private, empty folder for this server; it is removed when the server ends. None: a fresh one.

    Raises InvalidInput where it cannot be made, the path is too long for sockets, holds anything but a dead server's
    files, belongs to somebody else or is in use.
    """
    try:
        run_dir = _make(wanted)
    except OSError as error:
        where = tempfile.gettempdir() if wanted is None else wanted
        raise InvalidInput(f"run_dir {where} cannot be made: {error.strerror} (--run_dir)") from error
    try:
        _check(run_dir)
        _take(run_dir)
    except InvalidInput:
        if wanted is None:
            run_dir.rmdir()
        raise
    return run_dir


def _make(wanted: Path | None) -> Path:
    if wanted is None:
        remove_stale_run_dirs(Path(tempfile.gettempdir()))
        return Path(tempfile.mkdtemp(prefix=PREFIX))
    run_dir = wanted.absolute()
    run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    return run_dir


def write_config(run_dir: Path, config: ServerConfig) -> None:
    """For the children: written whole or not at all."""
    temporary = run_dir / ".config.json.tmp"
    temporary.write_text(config.to_json(), "utf-8")
    os.replace(temporary, run_dir / "config.json")


def own_run_dir(run_dir: Path) -> None:
    """Note that this process supervises in `run_dir`."""
    pid = os.getpid()
    (run_dir / _PID_FILE).write_text(f"{pid} {_status(pid)[_STARTED]}", "ascii")


def owner_of(run_dir: Path) -> int | None:
    """Pid of the living supervisor of `run_dir`."""
    try:
        number, _, started = (run_dir / _PID_FILE).read_text("ascii").partition(" ")
        pid = int(number)
        same = started in ("", _status(pid)[_STARTED])  # else the number is another's by now
    except (OSError, ValueError):
        return None
    return pid if same and is_alive(pid) else None


def remove_run_dir(run_dir: Path) -> None:
    shutil.rmtree(run_dir, ignore_errors=True)


def remove_stale_run_dirs(parent: Path) -> None:
    """What servers left behind that were killed with all their processes at once."""
    for folder in parent.glob(f"{PREFIX}*"):
        try:
            mine = folder.stat().st_uid == os.getuid()
        except OSError:
            continue
        if mine and (folder / _PID_FILE).exists() and owner_of(folder) is None:
            remove_run_dir(folder)


def http_workers(run_dir: Path) -> dict[int, Path]:
    """Socket files of the HTTP workers, by pid."""
    found = {}
    for path in run_dir.glob(f"{Stage.HTTP.value}-*"):
        pid = path.name.partition("-")[2]
        if pid.isdecimal():
            found[int(pid)] = path
    return found


def is_alive(pid: int) -> bool:
    """A process that ended and waits to be collected is none."""
    try:
        return _status(pid)[0] not in ("Z", "X")
    except OSError:
        return False


def _status(pid: int) -> list[str]:
    """What the kernel tells of a process, from its state on. Raises OSError."""
    return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()


def _check(run_dir: Path) -> None:
    try:
        supervisor_address(run_dir)
        address(run_dir, Stage.HTTP, _LONGEST_PID)
    except ValueError as error:
        raise InvalidInput(f"run_dir: {error}") from error
    status = run_dir.stat()
    if not run_dir.is_dir() or status.st_uid != os.getuid():
        raise InvalidInput(f"run_dir {run_dir} is no folder of this user")
    if any(run_dir.iterdir()) and not (run_dir / _PID_FILE).exists():
        raise InvalidInput(f"run_dir {run_dir} holds files of others, and it would be removed in the end")
    owner = owner_of(run_dir)
    if owner is not None and owner != os.getpid():
        raise InvalidInput(f"run_dir {run_dir} is in use by process {owner}: another server runs there")


def _take(run_dir: Path) -> None:
    own_run_dir(run_dir)
    run_dir.chmod(0o700)
    for left in run_dir.iterdir():
        if left.is_dir():
            shutil.rmtree(left)
        elif left.name != _PID_FILE:
            left.unlink()
    (run_dir / METRICS_FOLDER).mkdir(mode=0o700)
