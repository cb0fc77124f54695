from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from recipes.mini.jobs_table import Jobs
from recipes.mini.settings import Settings
from recipes.mini.train.lm import Batches
from recipes.mini.train.lm_data import Curriculum, TextTable, noisy
from recipes.mini.train.packing import Packer
from recipes.mini.train.utterances import Utterances, read_utterances
from test.recipes.tiny_codes import write_tiny_work


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    write_tiny_work(folder, 24)
    return folder


def tables(work: Path) -> tuple[Jobs, Utterances]:
    jobs = Jobs(work / "text")
    return jobs, read_utterances(work, jobs, 729)


def test_noise_hits_the_wanted_share_of_speech_and_nothing_else() -> None:
    ids = torch.randint(0, 103, (200, 200))
    changed = noisy(ids, 40, 61, 0.04)
    speech = (ids >= 40) & (ids < 101)
    assert torch.equal(changed[~speech], ids[~speech])
    hit = (changed != ids)[speech].float().mean()
    assert 0.03 < float(hit) < 0.05
    assert bool(((changed[speech] >= 40) & (changed[speech] < 101)).all())


def test_an_epoch_reads_every_utterance_once_and_prompts_are_of_the_same_speaker(work: Path) -> None:
    settings = replace(Settings.tiny().lm, row_tokens=512, bistream=1.0)
    jobs, utterances = tables(work)
    chosen = ~utterances.held_out(0.1)
    curriculum = Curriculum(settings, utterances, TextTable.read(jobs, utterances), chosen, (5, 15))
    examples = curriculum.draw(np.random.default_rng(0))
    by_start = {int(start): index for index, start in enumerate(utterances.start)}
    targets = [by_start[int(start)] for start in examples.speech_start[:, 1]]
    assert sorted(targets) == np.flatnonzero(chosen).tolist()
    paired = examples.speech_len[:, 0] > 0
    assert 0.2 < paired.mean() < 0.8
    for target, start, has_prompt in zip(targets, examples.speech_start[:, 0], paired, strict=True):
        prompt = by_start[int(start)]
        if has_prompt:
            assert prompt != target
            assert chosen[prompt]
            assert utterances.speaker[prompt] == utterances.speaker[target]
    text, speech = examples.text_len.sum(1), examples.speech_len.sum(1)
    assert (examples.interleaved == ((speech > 3 * text) & (text >= 5))).all()


def test_pairs_that_are_too_long_lose_their_prompt(work: Path) -> None:
    settings = replace(Settings.tiny().lm, row_tokens=100, paired=1.0)
    jobs, utterances = tables(work)
    everything = np.ones(len(utterances), np.bool_)
    examples = Curriculum(settings, utterances, TextTable.read(jobs, utterances), everything, (5, 15)).draw(
        np.random.default_rng(0)
    )
    assert examples.lens.max() <= 100
    assert len(examples) == len(utterances)


def test_batches_are_a_function_of_the_step(work: Path) -> None:
    settings = replace(Settings.tiny().lm, history_noise=0.0)
    jobs, utterances = tables(work)
    text = TextTable.read(jobs, utterances)
    packer = Packer(Settings.tiny().model_config().llm, torch.from_numpy(text.ids), utterances.codes)
    curriculum = Curriculum(settings, utterances, text, np.ones(len(utterances), np.bool_), (5, 15))
    first, second = (Batches(settings, curriculum, packer, 7) for _ in range(2))
    drawn = [first.draw(step) for step in range(2 * first.steps_per_epoch)]
    for step in (len(drawn) - 1, 0, len(drawn) // 2):
        assert torch.equal(second.draw(step).ids, drawn[step].ids)
    assert not torch.equal(drawn[0].ids, drawn[first.steps_per_epoch].ids)
