"""What the tests of the two encoders share: a work folder with a teacher, and settings for seconds of training."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from safetensors.torch import save_file

from recipes.mini.augment_settings import AugmentSettings
from recipes.mini.models import ge2e
from recipes.mini.settings import Settings
from recipes.mini.testing import write_tiny_corpus

CPU = torch.device("cpu")
UNCHANGED = AugmentSettings(
    warped=0.0, room=0.0, equaliser=0.0, band=0.0, noise=0.0, clipping=0.0, level=0.0, mu_law=0.0
)


def write_work(folder: Path, num_utterances: int) -> Path:
    """The tiny corpus and a teacher of voices with random weights."""
    write_tiny_corpus(folder, 0, num_utterances)
    torch.manual_seed(0)
    save_file(ge2e.GE2E().state_dict(), folder / ge2e.FILE_NAME)
    return folder


def settings_for(steps: int) -> Settings:
    """Both encoders trained for so many steps, however long they take."""
    tiny = Settings.tiny()
    return dataclasses.replace(
        tiny,
        tokenizer=dataclasses.replace(tiny.tokenizer, max_steps=steps, crop_s=0.96, lr=4e-3, dropout=0.0),
        speaker=dataclasses.replace(tiny.speaker, max_steps=steps),
        run=dataclasses.replace(tiny.run, tokenizer_s=1e9, checkpoint_every_s=1e9),
    )
