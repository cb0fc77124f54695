"""Tensors out of a `torch.save` file, mapped from disk; a file that wants anything but tensors is refused."""

from __future__ import annotations

import os
import pickle
import pickletools
import re
import struct
import zipfile
from pathlib import Path

import torch

from light_tts.errors import CorruptFile, UnsafeFile

MAX_PICKLE_BYTES = 32_000_000  # names and shapes only; a released one has 0.2 MB
MAX_ENTRIES = 100_000
LOCAL_HEADER = struct.Struct("<26xHH")  # lengths of name and extra field end a zip entry's fixed header
LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

# All that a file of tensors refers to. `torch.load` has a list of its own, which is longer.
TENSOR_GLOBAL = re.compile(
    r"collections OrderedDict"
    r"|torch\._utils _rebuild_(tensor|tensor_v2|parameter)"
    r"|torch (\w+Storage|Size|device|float\d+|bfloat16|double|half|u?int\d+|bool)"
    r"|torch\.storage (Untyped|Typed)Storage"
    r"|torch\.serialization _get_layout"
)
NAMING_OPCODES = {"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"}


def load_torch_archive(path: Path) -> object:
    """What `torch.save` stored, with tensors on the CPU and mapped from the file, not read.

    Raises UnsafeFile if the pickle refers to anything but tensors, CorruptFile for every other defect.
    """
    try:
        _check_pickle(path, _read_pickle(path))
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (UnsafeFile, CorruptFile):
        raise
    except pickle.UnpicklingError as error:
        raise UnsafeFile(f"{path} asks for more than tensors: {_first_line(error)}") from error
    except Exception as error:  # a damaged file makes the unpickler fail in any way
        raise CorruptFile(f"{path} is damaged: {type(error).__name__}: {_first_line(error)}") from error


def _read_pickle(path: Path) -> bytes:
    """The archive's `data.pkl`, after a check that the archive is what `torch.save` writes."""
    size = path.stat().st_size
    if size == 0:
        raise CorruptFile(f"{path} is empty")
    with path.open("rb") as file:
        start = file.read(len(LEGACY_MAGIC))
    if start == LEGACY_MAGIC:
        raise CorruptFile(
            f"{path} is in the format of torch < 1.6: load and save it again with a current torch"
        )
    if not start.startswith(b"PK\x03\x04"):
        raise CorruptFile(f"{path} is not a torch checkpoint (it starts with {start[:8]!r})")
    try:
        with zipfile.ZipFile(path) as archive:
            entry = _find_pickle(path, archive.infolist(), size)
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise CorruptFile(f"{path} is truncated or damaged: {_first_line(error)}") from error
    # Not through `archive.read`: torch can write without checksums, which zipfile would then miss.
    with path.open("rb") as file:
        file.seek(entry.header_offset)
        header = file.read(LOCAL_HEADER.size)
        if len(header) < LOCAL_HEADER.size:
            raise CorruptFile(f"{path} is truncated")
        name_length, extra_length = LOCAL_HEADER.unpack(header)
        file.seek(name_length + extra_length, os.SEEK_CUR)
        return file.read(entry.file_size)


def _find_pickle(path: Path, entries: list[zipfile.ZipInfo], size: int) -> zipfile.ZipInfo:
    if len(entries) > MAX_ENTRIES:
        raise CorruptFile(f"{path} has {len(entries)} entries, limit {MAX_ENTRIES}")
    if any(entry.filename.endswith("/constants.pkl") or "/code/" in entry.filename for entry in entries):
        raise UnsafeFile(f"{path} is a TorchScript program, not a file of tensors")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise CorruptFile(f"{path} holds compressed entries, which torch never writes")
    if sum(entry.file_size for entry in entries) > size:
        raise CorruptFile(f"{path} holds overlapping entries, which torch never writes")
    pickles = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise CorruptFile(f"{path} is a zip file with {len(pickles)} data.pkl, a torch checkpoint has 1")
    if pickles[0].file_size > MAX_PICKLE_BYTES:
        raise CorruptFile(f"{path}: data.pkl has {pickles[0].file_size} bytes, limit {MAX_PICKLE_BYTES}")
    return pickles[0]


def _check_pickle(path: Path, data: bytes) -> None:
    """Read the pickle's instructions without following them."""
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name in NAMING_OPCODES:
                raise UnsafeFile(f"{path} asks to construct objects ({opcode.name})")
            if opcode.name == "GLOBAL" and not TENSOR_GLOBAL.fullmatch(str(argument)):
                name = str(argument).replace(" ", ".")[:100]
                raise UnsafeFile(f"{path} asks for {name}, which is no tensor; refused, nothing was run")
    except (ValueError, IndexError) as error:
        raise CorruptFile(f"{path} is damaged: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
