"""What this machine offers: interpreter, processor, memory, GPUs, optional libraries."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
from importlib.util import find_spec
from pathlib import Path

import psutil
import torch

from light_tts.doctor.findings import Diagnosis

GB = 1e9
LITTLE_DISK_GB = 1.0
LITTLE_MEMORY_GB = 1.0


def check_machine(diagnosis: Diagnosis, folder: Path) -> None:
    """Findings on everything but the model; `folder`: whose disk counts."""
    diagnosis.ok("machine", f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    _check_processor(diagnosis)
    _check_memory(diagnosis, folder)
    _check_gpus(diagnosis)
    _check_libraries(diagnosis)


def _check_processor(diagnosis: Diagnosis) -> None:
    usable = (
        len(psutil.Process().cpu_affinity())
        if hasattr(psutil.Process, "cpu_affinity")
        else psutil.cpu_count()
    )
    quota = _cgroup_cores()
    limit = f", limited to {quota:g} by its container" if quota is not None and quota < (usable or 1) else ""
    instructions = torch.backends.cpu.get_cpu_capability()
    diagnosis.ok(
        "machine",
        f"{usable} CPU cores{limit}, instructions {instructions}, {torch.get_num_threads()} threads",
    )


def _cgroup_cores() -> float | None:
    """Cores that a container may use, None if it may use all."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _check_memory(diagnosis: Diagnosis, folder: Path) -> None:
    memory = psutil.virtual_memory()
    text = f"{memory.available / GB:.1f} of {memory.total / GB:.1f} GB memory available"
    (diagnosis.ok if memory.available > LITTLE_MEMORY_GB * GB else diagnosis.warn)("machine", text)
    free = shutil.disk_usage(folder).free
    text = f"{free / GB:.1f} GB disk free at {folder}"
    (diagnosis.ok if free > LITTLE_DISK_GB * GB else diagnosis.warn)("machine", text)


def _check_gpus(diagnosis: Diagnosis) -> None:
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    diagnosis.ok("machine", f"torch {torch.__version__} built with {build}")
    if not torch.version.cuda:
        diagnosis.ok("gpu", "none: this torch runs on the CPU")
        return
    if not torch.cuda.is_available():
        diagnosis.warn("gpu", "torch is built for CUDA but finds no usable GPU (driver missing or too old?)")
        return
    architectures = torch.cuda.get_arch_list()
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        text = f"cuda:{index} {gpu.name}, {gpu.total_memory / GB:.0f} GB, capability {gpu.major}.{gpu.minor}"
        # Binaries run on later minor versions of their major one.
        if any(name.startswith(f"sm_{gpu.major}") for name in architectures):
            diagnosis.ok("gpu", text)
        else:
            diagnosis.warn("gpu", f"{text}; this torch has no code for it ({', '.join(architectures)})")


def _check_libraries(diagnosis: Diagnosis) -> None:
    for name, purpose in (("triton", "fused kernels"), ("tensorrt", "the flow estimator as an engine")):
        found = _version(name) if find_spec(name) else None
        diagnosis.ok(
            "libraries", f"{name} {found}" if found else f"{name} is not installed (optional: {purpose})"
        )
    _check_onnxruntime(diagnosis)
    _check_ffmpeg(diagnosis)
    if find_spec("wetext"):
        diagnosis.ok("libraries", f"wetext {_version('wetext')}: numbers and dates are spelled out")
    else:
        diagnosis.error("libraries", "wetext is not installed: text cannot be normalised")


def _check_onnxruntime(diagnosis: Diagnosis) -> None:
    from light_tts.models.onnx_session import import_onnxruntime

    onnxruntime = import_onnxruntime()
    providers = ", ".join(
        name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()
    )
    diagnosis.ok("libraries", f"onnxruntime {onnxruntime.__version__} for {providers}")


def _check_ffmpeg(diagnosis: Diagnosis) -> None:
    try:
        import av
    except ImportError as error:
        diagnosis.error("libraries", f"av (FFmpeg) cannot be imported, so no recording can be read: {error}")
        return
    versions = ", ".join(f"{name} {'.'.join(map(str, v))}" for name, v in sorted(av.library_versions.items()))
    diagnosis.ok("libraries", f"av {av.__version__} with FFmpeg's {versions}")


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "(unknown version)"
