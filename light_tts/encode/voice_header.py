"""The description in front of a voice file, read without the numbers and without an inference library."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

from light_tts.errors import CorruptFile
from light_tts.voice_info import VoiceInfo

METADATA_KEY = "light_tts_voice"
MAX_TEXT = 4096  # characters of each text field, and ids of a prompt text
_MAX_HEADER_BYTES = 1_000_000
_LENGTH_BYTES = 8  # little-endian, begins every safetensors file


def read_info(path: Path) -> VoiceInfo:
    """Raises CorruptFile; FileNotFoundError."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            if length > min(_MAX_HEADER_BYTES, size - _LENGTH_BYTES):
                raise ValueError(f"its header claims {length} bytes, the file has {size}")
            header = file.read(length)
        return _info_of_header(path, header, size - _LENGTH_BYTES - length)
    except FileNotFoundError:
        raise
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise CorruptFile(f"{path} is no voice file: {error}") from error


def info_of_bytes(path: Path, data: bytes) -> VoiceInfo:
    """As `read_info`, of a file that was read already. Raises CorruptFile."""
    try:
        length = int.from_bytes(data[:_LENGTH_BYTES], "little")
        if length > min(_MAX_HEADER_BYTES, len(data) - _LENGTH_BYTES):
            raise ValueError(f"its header claims {length} bytes, the file has {len(data)}")
        end = _LENGTH_BYTES + length
        return _info_of_header(path, data[_LENGTH_BYTES:end], len(data) - end)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CorruptFile(f"{path} is no voice file: {error}") from error


def check_info(info: VoiceInfo) -> None:
    """Raises ValueError."""
    for key, value in asdict(info).items():
        if not isinstance(value, str):
            raise ValueError(f"{key} is {value!r}, must be text")
        if len(value) > MAX_TEXT:
            raise ValueError(f"{key} has {len(value)} characters, limit {MAX_TEXT}")


def _info_of_header(path: Path, header: bytes, num_data_bytes: int) -> VoiceInfo:
    entries = json.loads(header)
    info = VoiceInfo(**json.loads(entries["__metadata__"][METADATA_KEY]))
    check_info(info)
    ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
    if max(ends, default=0) != num_data_bytes:
        raise ValueError(f"it has {num_data_bytes} bytes of numbers, its header says {max(ends, default=0)}")
    return replace(info, name=path.stem)  # the file's name is the voice's: renaming one is one step
