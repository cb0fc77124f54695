"""Does the teacher in torch say what its ONNX original says? To be run once on a CPU, before GPU time is spent:

    python -m recipes.mini.prepare.teacher_check --work WORK

The original computes with dynamically quantised activations, so that the two agree as far as those allow: a few Hz of
pitch and about 1 dB of the spectrum. (Against the same graph in float32 the modules agree to 2e-4 Hz, and to 1e-5 of
full scale in the wave where both are given the same source spectrum.)
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import helper
from safetensors.numpy import load_file
from torch import Tensor

from recipes.mini.jobs_table import Jobs
from recipes.mini.prepare.kokoro import Kokoro, Spoken
from recipes.mini.prepare.speakers import style_vector
from recipes.mini.prepare.teacher_weights import dequantise, read_teacher

logger = logging.getLogger(__name__)

MAX_FRAMES_OFF = 1  # of 25 ms, in the duration of any phoneme
MAX_PITCH_OFF = 0.03  # median over voiced frames, as a share
MAX_SPECTRUM_OFF_DB = 1.5  # mean over frames and bands; only where all durations agree

_F0_NAME = "/decoder/decoder/Unsqueeze_output_0"
_ENDS_NAME = "/encoder/CumSum_output_0"
_NUM_BANDS = 64
_FLOOR = 1e-4  # of full scale: what is below is noise in both


@dataclass(frozen=True, slots=True)
class Agreement:
    """spectrum_db is None where the durations differ: the two are not in step then."""

    frames_off: int
    pitch_off: float
    spectrum_db: float | None

    @property
    def good(self) -> bool:
        spectrum = self.spectrum_db is None or self.spectrum_db <= MAX_SPECTRUM_OFF_DB
        return self.frames_off <= MAX_FRAMES_OFF and self.pitch_off <= MAX_PITCH_OFF and spectrum


class Original:
    """The teacher's ONNX file in onnxruntime, with its pitch and durations."""

    def __init__(self, model: bytes) -> None:
        graph = onnx.load_from_string(model)
        for name in (_F0_NAME, _ENDS_NAME):
            graph.graph.output.append(helper.make_empty_tensor_value_info(name))
        self._session = onnxruntime.InferenceSession(
            graph.SerializeToString(), providers=["CPUExecutionProvider"]
        )

    def __call__(self, phonemes: NDArray[np.int64], style: NDArray[np.float32], speed: float) -> Spoken:
        inputs = {
            "tokens": np.pad(phonemes, 1)[None],
            "style": style[None],
            "speed": np.array([speed], np.float32),
        }
        wav, f0, ends = (
            torch.from_numpy(value).flatten()
            for value in self._session.run(["audio", _F0_NAME, _ENDS_NAME], inputs)
        )
        return Spoken(wav, f0, ends)


def agreement(one: Spoken, other: Spoken) -> Agreement:
    """How far two renderings of the same phonemes lie apart."""
    frames_off = int((one.ends.diff() - other.ends.diff()).abs().max())
    in_step = bool(torch.equal(one.ends, other.ends))
    length = min(len(one.f0), len(other.f0))
    first, second = one.f0[:length], other.f0[:length]
    voiced = (first > 50) & (second > 50)
    pitch_off = float((first[voiced] / second[voiced] - 1).abs().median()) if voiced.any() else 0.0
    spectrum_db = float((_bands(one.wav) - _bands(other.wav)).abs().mean()) if in_step else None
    return Agreement(frames_off, pitch_off, spectrum_db)


def _bands(wav: Tensor) -> Tensor:
    """(bands, frames) levels in dB."""
    bins = torch.stft(wav, 1024, 256, window=torch.hann_window(1024), return_complex=True).abs()[:-1] / 256
    mean = bins.unflatten(0, (_NUM_BANDS, -1)).square().mean(1).sqrt()
    return mean.clamp(min=_FLOOR).log() * (20 / math.log(10))


def check_teacher(work: Path, num_jobs: int) -> list[Agreement]:
    """Compare on the shortest jobs of WORK/text of at least 20 phonemes, to be quick."""
    model = read_teacher(work / "teacher")
    original = Original(model)
    teacher = Kokoro.load(dequantise(model), torch.device("cpu"))
    jobs = Jobs(work / "text")
    voices = load_file(work / "text" / "voices.safetensors")["voices"]
    lengths = [len(jobs.teacher_ids(job)) for job in range(len(jobs))]
    chosen = sorted((length, job) for job, length in enumerate(lengths) if length >= 20)[:num_jobs]
    results = []
    for length, job in chosen:
        speaker = jobs.speakers[jobs.speaker[job]]
        style = style_vector(voices, speaker, int(jobs.language[job]), length)
        ids, speed = jobs.teacher_ids(job), float(jobs.speed[job])
        with torch.inference_mode():
            spoken = teacher(torch.from_numpy(ids), torch.from_numpy(style), speed)
        results.append(agreement(spoken, original(ids, style, speed)))
        logger.info("job %d, %d phonemes: %s", job, length, results[-1])
    return results


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Compare the teacher in torch with its ONNX original.")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=3)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    results = check_teacher(options.work, options.jobs)
    failed = sum(not result.good for result in results)
    logger.info("%d of %d agree", len(results) - failed, len(results))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
