from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from light_tts.encode.features import prompt_mel
from light_tts.models.config import MelConfig
from recipes.mini.corpus import Corpus
from recipes.mini.errors import RecipeError
from recipes.mini.jobs_table import Jobs
from recipes.mini.settings import Settings
from recipes.mini.train.flow import read_tape
from recipes.mini.train.flow_data import MelTape, Rows
from recipes.mini.train.utterances import Utterances, read_utterances
from test.recipes.tiny_codes import write_tiny_work

CPU = torch.device("cpu")
SETTINGS = Settings.tiny()
NUM = np.array([7, 20, 11, 30, 9, 16])
SPEAKER = np.array([0, 1, 0, 1, 0, 2])


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    write_tiny_work(folder, 12)
    return folder


@pytest.fixture(scope="module")
def tape(work: Path) -> MelTape:
    return read_tape(SETTINGS, work, CPU)[0]


@pytest.fixture(scope="module")
def utterances(work: Path) -> Utterances:
    return read_utterances(work, Jobs(work / "text"), 729)


def test_mels_of_the_tape_are_those_of_a_prompt_in_service(
    work: Path, tape: MelTape, utterances: Utterances
) -> None:
    corpus = Corpus(work / "corpus", CPU)
    corpus.refresh()
    for index in (0, 5, 11):
        wav, _ = corpus.whole(np.array([index]))
        assert corpus.job[index] == utterances.job[index]
        expected = prompt_mel(wav[0], MelConfig())
        # half precision keeps 10 bits of numbers up to 16
        torch.testing.assert_close(tape.mels(index), expected, atol=0.005, rtol=0.0)


def test_codes_of_unknown_or_longer_speech_are_refused(work: Path, utterances: Utterances) -> None:
    corpus = Corpus(work / "corpus", CPU)
    corpus.refresh()
    longer = replace(utterances, num=utterances.num + 1)
    with pytest.raises(RecipeError, match="codes for"):
        MelTape.of(corpus, longer, MelConfig())
    unknown = replace(utterances, job=utterances.job + 100)
    with pytest.raises(RecipeError, match="12 utterances with codes are not in"):
        MelTape.of(corpus, unknown, MelConfig())


def counting_tape() -> MelTape:
    """Whose codes are their own places, and whose mels are their frames' places: a row tells where it is from."""
    codes = torch.arange(NUM.sum())
    mel = torch.arange(2 * NUM.sum()).half()[:, None].expand(-1, 80).contiguous()
    return MelTape(codes, mel, torch.arange(6.0)[:, None].expand(-1, 192), np.cumsum(NUM) - NUM, NUM)


@pytest.mark.parametrize("final", [0.0, 1.0])
def test_a_row_is_neighbouring_utterances_of_one_speaker(final: float) -> None:
    settings = replace(SETTINGS.flow, final=final, row_tokens=(40,), batch_tokens=400)
    tape, chosen = counting_tape(), np.array([True, True, True, True, False, True])
    rows = Rows(settings, tape, SPEAKER, chosen)
    owner = np.repeat(np.arange(6), NUM)
    begins = set(tape.start.tolist())
    ends = set((tape.start + tape.num - 1).tolist())
    for step in range(4):
        _, batch = rows.draw(step, seed=5)
        assert batch.final.tolist() == [bool(final)] * 10
        for row in range(10):
            places = torch.cat([batch.tokens[row], batch.context[row]]).tolist()
            if final:
                assert places[39] in ends
            else:
                assert places[0] in begins
            for one, following in pairwise(places):
                assert following == one + 1 or (one in ends and following in begins)
            spoken = owner[places]
            assert chosen[spoken].all()
            assert len(set(SPEAKER[spoken].tolist())) == 1
            assert float(batch.speaker[row, 0]) == spoken[0]


def test_mels_of_a_row_belong_to_its_tokens() -> None:
    settings = replace(SETTINGS.flow, row_tokens=(40,), batch_tokens=400)
    _, batch = Rows(settings, counting_tape(), SPEAKER, np.ones(6, np.bool_)).draw(0, seed=1)
    expected = torch.stack([2 * batch.tokens, 2 * batch.tokens + 1], dim=2).flatten(1)
    assert torch.equal(batch.mel[:, :, 0].long(), expected)


def test_batches_are_a_function_of_seed_and_step(tape: MelTape, utterances: Utterances) -> None:
    everything = np.ones(len(utterances), np.bool_)
    first, second = (Rows(SETTINGS.flow, tape, utterances.speaker, everything) for _ in range(2))
    drawn = [first.draw(step, seed=3) for step in range(12)]
    for step in (11, 2, 7):
        kind, batch = second.draw(step, seed=3)
        assert kind == drawn[step][0]
        for ours, theirs in zip(batch.tensors(), drawn[step][1].tensors(), strict=True):
            assert torch.equal(ours, theirs)
    assert {kind.num_tokens for kind, _ in drawn} == {25, 50}
    assert {kind.streaming for kind, _ in drawn} == {False, True}
    assert len(first.draw(0, seed=3)[1].tokens) == 200 // drawn[0][0].num_tokens


def test_shares_of_prompts_and_dropped_conditions_are_as_set(tape: MelTape, utterances: Utterances) -> None:
    settings = replace(SETTINGS.flow, row_tokens=(50,), batch_tokens=50 * 2000)
    _, batch = Rows(settings, tape, utterances.speaker, np.ones(len(utterances), np.bool_)).draw(0, 0)
    assert 0.55 < float((batch.prompt_frames > 0).float().mean()) < 0.63
    assert 0.9 * 60 < int(batch.prompt_frames.max()) <= 60
    assert 0.17 < float(batch.dropped.float().mean()) < 0.23
    assert bool((batch.time.diff() > 0).all())
    assert 0 <= float(batch.time[0]) < float(batch.time[-1]) < 1
