from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from light_tts.llm.engine import Engine, FinishedEvent, TokenEvent
from light_tts.llm.request import SequenceRequest
from light_tts.llm.sequence import Constraint, FinishReason
from light_tts.models.config import Qwen2Config, SamplingConfig, SpeechLMConfig
from light_tts.models.kv_cache import ForwardBatch
from light_tts.models.speech_lm import SpeechLM
from recipes.mini.errors import RecipeError
from recipes.mini.jobs_table import Jobs
from recipes.mini.settings import Settings
from recipes.mini.train.checkpoint import load_latest
from recipes.mini.train.lm import BEST, STAGE, new_model, plan, released_weights, train_on
from recipes.mini.train.lm_model import TrainableLM, next_token_loss
from recipes.mini.train.loop import TimeBudget, read_log
from recipes.mini.train.packing import IGNORED, Examples, Packer, Packs, place
from recipes.mini.train.utterances import Utterances, read_utterances
from test.recipes.interrupted import Interrupted
from test.recipes.tiny_codes import write_tiny_work

CPU = torch.device("cpu")
VOCABULARY = [
    ", . z_ma1 z_ma2 z_shi4 z_yu2 e_HH_AH0 e_L_OW1 c_L_D l_a".split(),
    [f"l_{c}" for c in "bcdefgh"],
]
CFG = SpeechLMConfig(2, Qwen2Config(40, 32, 48, 2, 4, 2), 61, SamplingConfig())


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    write_tiny_work(folder, 24)
    return folder


def tables(work: Path) -> tuple[Jobs, Utterances]:
    jobs = Jobs(work / "text")
    return jobs, read_utterances(work, jobs, 729)


def small_model(dropout: float = 0.0) -> TrainableLM:
    torch.manual_seed(0)
    return TrainableLM(CFG, [symbol for part in VOCABULARY for symbol in part], dropout)


def random_packs(num: int, row_tokens: int = 128) -> tuple[Packs, Sequence[int], list[tuple[int, int]]]:
    """Rows of sequences of several lengths, those lengths, and where each one stands."""
    rng = np.random.default_rng(3)
    text_len = rng.integers(1, 10, (num, 2))
    speech_len = 3 * text_len + 1
    examples = Examples(
        rng.integers(0, 50, (num, 2)),
        text_len,
        rng.integers(0, 50, (num, 2)),
        speech_len,
        np.arange(num) % 2 > 0,
    )
    text, speech = torch.randint(0, 17, (100,)), torch.randint(0, 61, (100,))
    placement = place(examples.lens, row_tokens, rng)
    packs = Packer(CFG, text, speech).pack(examples, placement, row_tokens)
    spots = list(zip(placement.row.tolist(), placement.start.tolist(), strict=True))
    return packs, examples.lens[placement.example].tolist(), spots


def test_packed_rows_compute_what_the_served_model_does() -> None:
    model = small_model().eval()
    packs, lens, spots = random_packs(9)
    hidden = model(packs)
    served = SpeechLM(CFG)
    served.load_state_dict(model.released())
    inputs = [packs.ids[row, start : start + n] for (row, start), n in zip(spots, lens, strict=True)]
    embeds = model.embedding_table()[torch.cat(inputs)]
    expected = served(embeds, ForwardBatch.whole(lens))
    got = torch.cat([hidden[row, start : start + n] for (row, start), n in zip(spots, lens, strict=True)])
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(model.logits(got), served.logits(expected), atol=2e-5, rtol=1e-4)


def test_the_joint_table_holds_the_served_models_embeddings() -> None:
    model = small_model().eval()
    served = SpeechLM(CFG)
    served.load_state_dict(model.released())
    table = model.embedding_table()
    text, speech = torch.arange(CFG.qwen.vocab_size), torch.arange(CFG.speech_token_size)
    torch.testing.assert_close(table[text], served.embed_text(text))
    torch.testing.assert_close(table[CFG.qwen.vocab_size + speech], served.embed_speech(speech))
    torch.testing.assert_close(
        table[-2:], torch.cat([served.embed_special("sos"), served.embed_special("task_id")])
    )


def test_symbols_that_share_parts_begin_alike() -> None:
    table = small_model().text_table().detach()
    vocabulary = [symbol for part in VOCABULARY for symbol in part]

    def similarity(a: str, b: str) -> float:
        one, other = (table[vocabulary.index(symbol)] for symbol in (a, b))
        return float(torch.cosine_similarity(one, other, dim=0))

    assert similarity("z_ma1", "z_ma2") > 0.3 > similarity("z_ma1", "z_shi4")


def test_gradients_reach_every_weight_that_is_used_and_no_unused_feature() -> None:
    model = small_model()
    packs, _, _ = random_packs(9)
    loss, _ = next_token_loss(model.logits(model(packs)), packs.targets)
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.any()), name
    assert model.features.weight.grad is not None
    assert not bool(model.features.weight.grad[0].any())


def test_dropout_acts_in_training_only() -> None:
    packs, _, _ = random_packs(3)
    model = small_model(dropout=0.3)
    assert not torch.equal(model(packs), model(packs))
    model.eval()
    assert torch.equal(model(packs), model(packs))


def run(settings: Settings, work: Path, folder: Path, steps: int) -> list[dict[str, float]]:
    jobs, utterances = tables(work)
    course = replace(plan(settings), max_steps=steps, log_every=10, compact=False)
    train_on(settings, jobs, utterances, folder / STAGE, CPU, TimeBudget(math.inf), course)
    return read_log(folder / STAGE / "losses.jsonl")


def test_loss_falls_and_the_best_average_is_kept(work: Path, tmp_path: Path) -> None:
    settings = Settings.tiny()
    settings = replace(settings, lm=replace(settings.lm, warmup_steps=5, validate_every=20, validation=0.2))
    lines = run(settings, work, tmp_path, 60)
    assert lines[-1]["loss"] < 0.75 * lines[0]["loss"]
    assert lines[-1]["accuracy"] > lines[0]["accuracy"] + 0.05
    validated = [line["valid_loss"] for line in lines if "valid_loss" in line]
    assert validated[-1] < validated[0]
    assert all("valid_blocks_accuracy" in line for line in lines if "valid_loss" in line)
    best = load_latest(tmp_path / STAGE / BEST)
    assert best is not None
    assert (
        float(str(best.facts["loss"]))
        <= min((line["valid_loss"] + line["valid_blocks_loss"]) / 2 for line in lines if "valid_loss" in line)
        + 1e-3
    )
    jobs, _ = tables(work)
    served = SpeechLM(settings.model_config().llm)
    served.load_state_dict(released_weights(settings, jobs.vocabulary, tmp_path))


def test_a_resumed_run_ends_where_an_unbroken_one_does(work: Path, tmp_path: Path) -> None:
    settings = Settings.tiny()
    settings = replace(settings, lm=replace(settings.lm, validate_every=4))
    jobs, utterances = tables(work)
    course = replace(plan(settings), max_steps=12, compact=False)

    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    assert train_on(settings, jobs, utterances, whole, CPU, TimeBudget(math.inf), course) == 12
    assert train_on(settings, jobs, utterances, pieces, CPU, Interrupted(7), course) == 7
    assert train_on(settings, jobs, utterances, pieces, CPU, TimeBudget(math.inf), course) == 12
    ends = [load_latest(folder) for folder in (whole, pieces)]
    assert ends[0] is not None
    assert ends[1] is not None
    for name, value in ends[0].tensors.items():
        assert torch.equal(value, ends[1].tensors[name]), name


class Greedy:
    """The likeliest token that is allowed."""

    def pick(self, scores: Tensor, history: Sequence[int], constraint: Constraint) -> int:
        for ids in constraint.banned:
            scores[ids] = -torch.inf
        return int(scores.argmax())


def generate(model: SpeechLM, request: SequenceRequest) -> list[int]:
    engine = Engine(model, pool_size_tokens=2048, max_running=1)
    sequence = engine.add(request, Greedy())
    if request.max_text_tokens is not None:
        engine.end_text(sequence)
    tokens: list[int] = []
    while True:
        for event in engine.step():
            match event:
                case TokenEvent(token=token):
                    tokens.append(token)
                case FinishedEvent(reason=reason):
                    assert reason is FinishReason.STOP
                    return tokens
                case _:
                    raise AssertionError(event)


def test_four_utterances_are_learnt_by_heart_and_served_in_every_way(tmp_path: Path) -> None:
    write_tiny_work(tmp_path, 5)
    settings = Settings.tiny()
    lm = replace(
        settings.lm, rows=1, row_tokens=288, dropout=0.0, history_noise=0.0, variants=(1.0, 0.0, 0.0), lr=4e-3,
        warmup_steps=10, weight_decay=0.0, ema_decay=0.9, validate_every=10_000, bistream=0.5,
    )  # fmt: skip
    settings = replace(settings, lm=lm)
    lines = run(settings, tmp_path, tmp_path, 160)
    assert lines[-1]["loss"] < 0.1
    jobs, utterances = tables(tmp_path)
    model = SpeechLM(settings.model_config().llm)
    model.load_state_dict(released_weights(settings, jobs.vocabulary, tmp_path))
    model = model.eval().requires_grad_(False).prepare()
    learnt = np.flatnonzero(~utterances.held_out(lm.validation))
    assert len(learnt) == 4
    in_blocks = 0
    for index in learnt:
        text = tuple(jobs.ids(int(utterances.job[index])).tolist())
        start = utterances.start[index]
        codes = utterances.codes[start : start + utterances.num[index]].tolist()
        assert generate(model, SequenceRequest(text)) == codes
        if len(codes) > 3 * len(text):
            assert generate(model, SequenceRequest(text, max_text_tokens=len(text))) == codes
            in_blocks += 1
    assert in_blocks > 0


def test_a_model_without_rows_for_all_symbols_is_refused() -> None:
    settings = Settings.tiny()
    with pytest.raises(RecipeError, match="2753 text symbols"):
        new_model(settings, [f"l_{k}" for k in range(2753)])


def test_no_checkpoint_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="train lm makes it"):
        released_weights(Settings.tiny(), ["z_ma1"], tmp_path)


def test_ignored_positions_do_not_count() -> None:
    logits = torch.tensor([[[4.0, 0.0], [0.0, 4.0], [9.0, 0.0]]])
    targets = torch.tensor([[0, 0, IGNORED]])
    loss, accuracy = next_token_loss(logits, targets)
    assert float(accuracy) == 0.5
    expected = torch.nn.functional.cross_entropy(logits[0, :2], targets[0, :2])
    torch.testing.assert_close(loss, expected)
