"""RUN_DIR/voices.json: the voices of the model, for HTTP workers, which cannot read all of its files."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from light_tts.voice_info import ListedVoice

FILE_NAME = "voices.json"


def write_own_voices(run_dir: Path, voices: tuple[ListedVoice, ...]) -> None:
    """Atomic; every encode process writes the same."""
    temporary = run_dir / f".{FILE_NAME}.{os.getpid()}"
    temporary.write_bytes(msgspec.json.encode(voices))
    os.replace(temporary, run_dir / FILE_NAME)


def read_own_voices(run_dir: Path) -> tuple[ListedVoice, ...]:
    """Empty if no encode process has been ready yet."""
    try:
        return msgspec.json.decode((run_dir / FILE_NAME).read_bytes(), type=tuple[ListedVoice, ...])
    except (OSError, msgspec.DecodeError):
        return ()
