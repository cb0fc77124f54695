"""ONNX models that take part in encoding a reference recording."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from light_tts.errors import CorruptFile, ModelNotFound, UnsafeFile

if TYPE_CHECKING:
    import onnxruntime

logger = logging.getLogger(__name__)

_FATAL = 4  # onnxruntime's severity: everything below reaches the caller as an exception anyway
_OUTSIDE = ("escapes", "absolute path not allowed")  # onnxruntime on weights in a file elsewhere


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """A loaded model. May be run from several threads at once."""

    path: Path
    session: onnxruntime.InferenceSession
    input_names: tuple[str, ...]

    def run(self, *inputs: NDArray[np.generic]) -> NDArray[np.generic]:
        """Output 0 for the inputs in the file's order; names are the file's own affair.

        Raises CorruptFile if the model cannot compute it.
        """
        try:
            outputs = self.session.run(None, dict(zip(self.input_names, inputs, strict=True)))
        except Exception as error:  # onnxruntime's errors have no base class of their own
            raise CorruptFile(f"{self.path} cannot be run: {_first_line(error)}") from error
        result: NDArray[np.generic] = outputs[0]
        return result


def import_onnxruntime() -> ModuleType:
    """The library with its telemetry off: else it leaves `.ses` in the folder for temporary files, and reports to its
    makers over the network.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


def load_onnx(path: Path, num_inputs: int, device: str = "cpu", intra_op_threads: int = 1) -> OnnxModel:
    """Open an ONNX file on `device` ("cpu", "cuda", "cuda:1"); the CPU serves where CUDA is not available.

    Raises ModelNotFound, CorruptFile, or UnsafeFile if the file refers to files outside its directory.
    """
    if not path.is_file():
        raise ModelNotFound(f"{path} does not exist")
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = intra_op_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    try:
        session = onnxruntime.InferenceSession(
            str(path),
            options,
            providers=_providers(device),
            enable_fallback=0,  # it would print
        )
    except Exception as error:  # onnxruntime's errors have no base class of their own
        reason = _first_line(error)
        if any(word in reason.lower() for word in _OUTSIDE):
            raise UnsafeFile(f"{path} refers to a file outside its directory: {reason}") from error
        raise CorruptFile(f"{path} is no usable ONNX model: {reason}") from error
    names = tuple(str(value.name) for value in session.get_inputs())
    if len(names) != num_inputs:
        raise CorruptFile(f"{path} has inputs {', '.join(names) or '(none)'}, must have {num_inputs}")
    return OnnxModel(path, session, names)


def _providers(device: str) -> list[str | tuple[str, dict[str, str]]]:
    kind, _, index = device.partition(":")
    if kind == "cuda":
        if "CUDAExecutionProvider" in import_onnxruntime().get_available_providers():
            return [("CUDAExecutionProvider", {"device_id": index or "0"}), "CPUExecutionProvider"]
        logger.warning("onnxruntime has no CUDA support here: the CPU encodes reference recordings")
    return ["CPUExecutionProvider"]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
