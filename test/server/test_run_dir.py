from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from light_tts.errors import InvalidInput
from light_tts.server.run_dir import (
    PREFIX,
    http_workers,
    is_alive,
    make_run_dir,
    owner_of,
    remove_run_dir,
    remove_stale_run_dirs,
)


@pytest.fixture
def parent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short folder for temporary files."""
    with tempfile.TemporaryDirectory(prefix="light-tts-test-") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        return process.pid


def test_a_fresh_folder_is_private_and_ours(parent: Path) -> None:
    run_dir = make_run_dir(None)
    assert run_dir.parent == parent
    assert stat.S_IMODE(run_dir.stat().st_mode) == 0o700
    assert list((run_dir / "metrics").iterdir()) == []
    assert owner_of(run_dir) == os.getpid()
    remove_run_dir(run_dir)
    assert not run_dir.exists()


def test_a_wanted_folder_is_made_and_what_a_dead_server_left_in_it_goes(parent: Path) -> None:
    run_dir = make_run_dir(parent / "a" / "b")
    (run_dir / "supervisor.pid").write_text(str(dead_pid()), "ascii")
    (run_dir / "state.json").write_text("{}", "ascii")
    (run_dir / "http-1").touch()
    (run_dir / "metrics" / "counter_1.db").touch()
    assert make_run_dir(run_dir) == run_dir
    assert sorted(path.name for path in run_dir.iterdir()) == ["metrics", "supervisor.pid"]
    assert list((run_dir / "metrics").iterdir()) == []


def test_a_folder_with_files_of_others_is_left_alone(parent: Path) -> None:
    (parent / "thesis.tex").touch()
    with pytest.raises(InvalidInput, match="holds files of others"):
        make_run_dir(parent)
    assert (parent / "thesis.tex").exists()


def test_two_servers_cannot_share_a_folder(parent: Path) -> None:
    run_dir = make_run_dir(parent / "x")
    (run_dir / "supervisor.pid").write_text(str(os.getppid()), "ascii")
    with pytest.raises(InvalidInput, match=rf"in use by process {os.getppid()}"):
        make_run_dir(run_dir)


def test_a_dead_server_whose_number_another_process_got_is_dead(parent: Path) -> None:
    run_dir = parent / "wanted"
    make_run_dir(run_dir)
    file = run_dir / "supervisor.pid"
    _, started = file.read_text("ascii").split()
    file.write_text(f"{os.getppid()} {int(started) - 10**6}", "ascii")
    assert owner_of(run_dir) is None
    assert make_run_dir(run_dir) == run_dir


def test_a_folder_that_cannot_be_made_is_told(parent: Path) -> None:
    (parent / "file").touch()
    with pytest.raises(InvalidInput, match=r"file/below cannot be made: Not a directory \(--run_dir\)"):
        make_run_dir(parent / "file" / "below")


def test_a_folder_too_long_for_sockets_is_refused(parent: Path) -> None:
    with pytest.raises(InvalidInput, match="choose a shorter --run_dir"):
        make_run_dir(parent / ("x" * 90))


def test_what_killed_servers_left_is_swept_and_nothing_else(parent: Path) -> None:
    stale, living, foreign = (parent / f"{PREFIX}{name}" for name in ("stale", "living", "foreign"))
    for folder in (stale, living, foreign):
        folder.mkdir()
    (stale / "supervisor.pid").write_text(str(dead_pid()), "ascii")
    (living / "supervisor.pid").write_text(str(os.getpid()), "ascii")
    remove_stale_run_dirs(parent)
    assert [folder.exists() for folder in (stale, living, foreign)] == [False, True, True]


def test_http_workers_are_found_by_their_sockets(parent: Path) -> None:
    for name in ("http-12", "http-345", "http-12.ready", "http-x", "llm-0"):
        (parent / name).touch()
    assert http_workers(parent) == {12: parent / "http-12", 345: parent / "http-345"}


def test_a_process_that_ended_is_not_alive_even_before_it_is_collected() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert is_alive(process.pid)
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(process.pid)
    process.wait()
    assert not is_alive(process.pid)
