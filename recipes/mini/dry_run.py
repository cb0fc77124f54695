"""dry-run: the whole recipe on a CPU in a minute, with made-up speech, before GPU time is spent on a slip."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from light_tts.audio import Audio
from light_tts.synthesizer import LightTTS
from recipes.mini.collect import WEIGHTS
from recipes.mini.corpus import TOKEN, Corpus
from recipes.mini.errors import RecipeError
from recipes.mini.export import check_model, export_model
from recipes.mini.models.ge2e import FILE_NAME, GE2E
from recipes.mini.recordings import RECORDINGS, VoicePlan
from recipes.mini.run import run
from recipes.mini.settings import SAMPLE_RATE, Settings
from recipes.mini.testing import write_tiny_corpus
from recipes.mini.travel import Places, receive
from recipes.mini.voices import make_voices

logger = logging.getLogger(__name__)

_UTTERANCES = 48
_PROMPT_TOKENS = 34


def write_tiny_inputs(work: Path, seed: int, num_utterances: int = _UTTERANCES) -> None:
    """A WORK folder with made-up jobs and speech, and an untrained teacher of the speaker encoder."""
    write_tiny_corpus(work, seed, num_utterances)
    torch.manual_seed(seed)
    save_file({name: value.half() for name, value in GE2E().state_dict().items()}, work / FILE_NAME)


def dry_run(settings: Settings, root: Path, budget_s: float) -> Path:
    """Train all stages on made-up speech, carry the result through volumes, and export it; returns the directory.

    Raises RecipeError if a stage failed, or if the exported directory is not a model.
    """
    there = Places(root / "work", root / "checkpoints")
    here = Places(root / "home" / "work", root / "home" / "checkpoints")
    write_tiny_inputs(there.work, settings.seed)
    if run(settings, there, root / "out", budget_s):
        raise RecipeError(f"a stage failed: see {there.checkpoints / 'status.txt'} and the logs beside it")
    write_tiny_inputs(here.work, settings.seed)  # text does not come back: it was made here
    names = receive(root / "out", here)
    logger.info("%d files came back", len(names))
    model = export_model(settings, here.work, here.checkpoints / WEIGHTS, root / "model")
    check_model(model)
    return model


def speak(model_dir: Path, work: Path, text: str = "你好。") -> Audio:
    """Give an exported directory a voice from the made-up speech, and speak with it."""
    plan = VoicePlan("tiny", "zh", "made up", {}, {}, "你好。")
    corpus = Corpus(work / "corpus", torch.device("cpu"))
    corpus.refresh()
    wav, _ = corpus.whole(np.array([0]))
    samples = F.pad(wav[0], (0, _PROMPT_TOKENS * TOKEN))[: _PROMPT_TOKENS * TOKEN].numpy()
    (work / RECORDINGS).mkdir(exist_ok=True)
    Audio(samples, SAMPLE_RATE).save(work / RECORDINGS / f"{plan.name}.wav")
    make_voices(work, model_dir, [plan])
    check_model(model_dir)
    return LightTTS(model_dir, "cpu").synthesize(text, voice=plan.name, seed=0)
