"""Mels that the trained flow makes of the corpus's codes, for the vocoder to be finished on.

WORK/flow-mels/part-NNN.safetensors: job, frames int64 (u,); mel float16 (sum of frames, 80). The codes are the
teacher's, so a mel has the frames of its utterance's wave.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from light_tts.models.flow.flow_state import FlowInput
from light_tts.models.flow.token_to_mel import Flow
from recipes.mini.settings import SAMPLE_RATE, Settings
from recipes.mini.train.flow import prompt_for, read_tape, released_weights
from recipes.mini.train.flow_data import FRAMES_PER_TOKEN, MelTape
from recipes.mini.train.loop import fast_matmul, seed_stage
from recipes.mini.train.vocoder_data import FLOW_MELS

logger = logging.getLogger(__name__)

_BATCH_TOKENS = 8_000  # with their prompts and padding
_TOKENS_PER_S = SAMPLE_RATE // 960


def write_flow_mels(
    settings: Settings, work: Path, checkpoints: Path, device: torch.device, hours: float
) -> int:
    """Speak random utterances as in service: after a prompt, every second batch with streaming masks.

    Replaces what was there before. Returns the number of utterances. Raises RecipeError without a trained flow.
    """
    fast_matmul()
    flow = Flow(settings.model_config().flow)
    flow.load_state_dict(released_weights(settings, checkpoints))
    flow = flow.to(device).eval().requires_grad_(False)
    tape, utterances = read_tape(settings, work, device)
    order = seed_stage(settings.seed, FLOW_MELS).permutation(len(utterances))
    enough = int(np.searchsorted(tape.num[order].cumsum(), hours * 3600 * _TOKENS_PER_S)) + 1
    partial = work / f".{FLOW_MELS}.tmp"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for number, index in enumerate(_batches(tape.num, order[:enough])):
        mels = _speak(flow, tape, index, utterances.speaker, streaming=number % 2 > 0)
        part = {
            "job": torch.from_numpy(utterances.job[index]),
            "frames": torch.tensor([len(mel) for mel in mels]),
            "mel": torch.cat(mels).half(),
        }
        save_file(part, partial / f"part-{number:03d}.safetensors")
    shutil.rmtree(work / FLOW_MELS, ignore_errors=True)
    partial.replace(work / FLOW_MELS)
    logger.info("flow-mels: %d utterances", len(order[:enough]))
    return len(order[:enough])


@torch.inference_mode()
def _speak(
    flow: Flow, tape: MelTape, index: NDArray[np.int64], speaker: NDArray[np.int64], *, streaming: bool
) -> list[Tensor]:
    """(frames, 80) on the CPU for each utterance."""
    inputs = [FlowInput(tape.tokens(int(one)).cpu(), prompt_for(tape, int(one), speaker)) for one in index]
    mels = [mel.T.cpu() for mel in flow(inputs, streaming)]
    for one, mel in zip(index, mels, strict=True):
        assert len(mel) == tape.num[one] * FRAMES_PER_TOKEN
    return mels


def _batches(num: NDArray[np.int64], chosen: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Utterances of similar length together."""
    order = chosen[np.argsort(num[chosen], kind="stable")]
    batches, first = [], 0
    while first < len(order):
        # a prompt is about as long as an utterance
        count = max(1, _BATCH_TOKENS // (2 * int(num[order[first]])))
        batches.append(order[first : first + count])
        first += count
    return batches
