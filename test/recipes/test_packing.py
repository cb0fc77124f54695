from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from light_tts.llm.bistream import BistreamSequence
from light_tts.llm.request import LengthLimits, SequenceRequest
from light_tts.llm.sequence import SpeechSequence, Symbol, SymbolKind, UniSequence
from light_tts.models.config import Qwen2Config, SamplingConfig, SpeechLMConfig
from light_tts.quirks import ReferenceQuirks
from recipes.mini.train.packing import IGNORED, Examples, Packer, Packs, place

CFG = SpeechLMConfig(2, Qwen2Config(40, 8, 8, 1, 1, 1), 61, SamplingConfig())
UNLIMITED = LengthLimits(0.0, 1000.0)
ROW_TOKENS = 256


@dataclass(frozen=True)
class Pair:
    """A prompt (possibly empty) and a target."""

    prompt_text: Sequence[int]
    text: Sequence[int]
    prompt_speech: Sequence[int]
    speech: Sequence[int]
    interleaved: bool

    @property
    def request(self) -> SequenceRequest:
        return SequenceRequest(
            tuple(self.text),
            tuple(self.prompt_text),
            tuple(self.prompt_speech),
            limits=UNLIMITED,
            max_text_tokens=len(self.text) if self.interleaved else None,
        )


@st.composite
def pairs(draw: st.DrawFn, interleaved: bool | None = None) -> Pair:
    in_blocks = draw(st.booleans()) if interleaved is None else interleaved
    text_ids, codes = st.integers(0, CFG.qwen.vocab_size - 1), st.integers(0, CFG.speech_token_size - 1)
    prompt_text = draw(st.lists(text_ids, max_size=12))
    text = draw(st.lists(text_ids, min_size=1, max_size=14))
    prompt_speech = draw(st.lists(codes, max_size=60)) if prompt_text else []
    if in_blocks and len(prompt_speech) % 15 == 0:
        # After a prompt that ends with a block, inference (as the reference) goes on for another 15 tokens
        # without text, which no training sequence does.
        prompt_speech = prompt_speech[:-1]
    # speech ends after the last block of text, and is not empty
    least = (len(prompt_text) + len(text)) // 5 * 15 - len(prompt_speech) if in_blocks else 1
    speech = draw(st.lists(codes, min_size=max(1, least), max_size=max(1, least) + 40))
    return Pair(prompt_text, text, prompt_speech, speech, in_blocks)


def pack(
    items: Sequence[Pair], row_tokens: int = ROW_TOKENS
) -> tuple[Packs, np.ndarray, list[tuple[int, int]]]:
    """The rows, and where each item stands: (row, start)."""
    text = [piece for item in items for piece in (item.prompt_text, item.text)]
    speech = [piece for item in items for piece in (item.prompt_speech, item.speech)]

    def table(pieces: list[Sequence[int]]) -> tuple[np.ndarray, np.ndarray, torch.Tensor]:
        lens = np.array([len(piece) for piece in pieces])
        flat = torch.tensor([token for piece in pieces for token in piece], dtype=torch.int64)
        return (np.cumsum(lens) - lens).reshape(-1, 2), lens.reshape(-1, 2), flat

    text_start, text_len, text_ids = table(text)
    speech_start, speech_len, speech_ids = table(speech)
    examples = Examples(
        text_start, text_len, speech_start, speech_len, np.array([item.interleaved for item in items])
    )
    placement = place(examples.lens, row_tokens, np.random.default_rng(0))
    found = dict(
        zip(placement.example.tolist(), zip(placement.row, placement.start, strict=True), strict=True)
    )
    packs = Packer(CFG, text_ids, speech_ids).pack(examples, placement, row_tokens)
    return packs, examples.lens, [found[index] for index in range(len(items))]


def fed_by_inference(item: Pair) -> tuple[list[Symbol], dict[int, int]]:
    """All symbols that the model reads until eos, and the token that follows a position, where one is wanted."""
    quirks = ReferenceQuirks()
    sequence: SpeechSequence
    if item.interleaved:
        sequence = BistreamSequence(CFG, item.request, quirks)
        sequence.end_text()
    else:
        sequence = UniSequence(CFG, item.request, quirks)
    symbols: list[Symbol] = []
    wanted: dict[int, int] = {}
    answers = iter([*item.speech, CFG.eos_id])
    while (feed := sequence.next_feed()) is not None:
        symbols += feed
        forced = sequence.constraint().forced
        wanted[len(symbols) - 1] = next(answers) if forced is None else forced
        sequence.accept(wanted[len(symbols) - 1])
    assert next(answers, None) is None, "inference ended before the speech did"
    return symbols, wanted


def row_of(symbol: Symbol) -> int:
    first_special = CFG.qwen.vocab_size + CFG.speech_token_size + CFG.num_extra_ids
    match symbol.kind:
        case SymbolKind.TEXT:
            return symbol.id
        case SymbolKind.SPEECH:
            return CFG.qwen.vocab_size + symbol.id
        case SymbolKind.SOS:
            return first_special
        case SymbolKind.TASK_ID:
            return first_special + 1


@settings(deadline=None, max_examples=40)
@given(st.lists(pairs(), min_size=1, max_size=5))
def test_a_training_sequence_is_what_inference_feeds(items: list[Pair]) -> None:
    packs, lens, places = pack(items)
    for item, length, (row, start) in zip(items, lens, places, strict=True):
        symbols, wanted = fed_by_inference(item)
        own = slice(start, start + length)
        assert packs.ids[row, own].tolist() == [row_of(symbol) for symbol in symbols]
        assert packs.positions[row, own].tolist() == list(range(length))
        targets = packs.targets[row, own].tolist()
        assert {place: targets[place] for place in wanted} == wanted


@settings(deadline=None, max_examples=40)
@given(pairs())
def test_every_speech_token_fill_and_the_eos_is_a_target_once(item: Pair) -> None:
    packs, _, _ = pack([item])
    targets = packs.targets[packs.targets != IGNORED].tolist()
    assert [token for token in targets if token < CFG.speech_token_size] == [
        *item.prompt_speech,
        *item.speech,
    ]
    blocks = (len(item.prompt_text) + len(item.text)) // 5 if item.interleaved else 0
    assert targets.count(CFG.fill_id) == blocks
    assert targets[-1] == CFG.eos_id
    assert targets.count(CFG.eos_id) == 1


def test_nothing_stands_twice_and_unused_ends_ask_for_nothing() -> None:
    rng = np.random.default_rng(1)
    items = [
        Pair([], rng.integers(0, 40, n).tolist(), [], rng.integers(0, 61, 4 * n).tolist(), False)
        for n in range(1, 25)
    ]
    packs, lens, _ = pack(items, row_tokens=128)
    used = packs.segments >= 0
    assert int(used.sum()) == lens.sum()
    assert bool((packs.targets[~used] == IGNORED).all())
    assert bool((packs.ids[~used] == 0).all())
    for row in packs.segments:
        inside = row[row >= 0]
        assert inside.tolist() == sorted(inside.tolist())


def test_rows_are_nearly_full_and_long_sequences_left_out() -> None:
    rng = np.random.default_rng(0)
    lens = rng.integers(20, 500, 2000)
    lens[:10] = 600
    placement = place(lens, 512, rng)
    assert sorted(placement.example.tolist()) == list(range(10, 2000))
    used = np.bincount(placement.row, lens[placement.example], placement.num_rows)
    assert used.max() <= 512
    assert used.mean() > 0.97 * 512
    ends = placement.start + lens[placement.example]
    same_row = placement.row[1:] == placement.row[:-1]
    assert (placement.start[1:][same_row] == ends[:-1][same_row]).all()


def test_chosen_rows_keep_their_sequences() -> None:
    placement = place(np.array([5, 6, 7, 8, 3]), 12, np.random.default_rng(0))
    wanted = np.array([placement.num_rows - 1, 0, 0])
    chosen = placement.rows(wanted)
    assert chosen.num_rows == 3
    for position, row in enumerate(wanted):
        ours, theirs = chosen.row == position, placement.row == row
        assert chosen.example[ours].tolist() == placement.example[theirs].tolist()
        assert chosen.start[ours].tolist() == placement.start[theirs].tolist()


def test_bad_ids_and_pieces_are_refused_before_they_reach_the_device() -> None:
    good = torch.tensor([1, 2, 3])
    with pytest.raises(ValueError, match="speech holds ids"):
        Packer(CFG, good, torch.tensor([61]))
    with pytest.raises(ValueError, match="text holds ids"):
        Packer(CFG, torch.tensor([-1]), good)
    packer = Packer(CFG, good, good)

    def of_lens(text: int, speech: int, interleaved: bool) -> Examples:
        start = np.array([[0, 0]])
        return Examples(start, np.array([[0, text]]), start, np.array([[0, speech]]), np.array([interleaved]))

    beyond = of_lens(3, 4, interleaved=False)
    with pytest.raises(ValueError, match="lies outside"):
        packer.pack(beyond, place(beyond.lens, 20, np.random.default_rng(0)), 20)
    packer = Packer(CFG, torch.arange(10), good)
    hasty = of_lens(10, 3, interleaved=True)
    with pytest.raises(ValueError, match="less speech"):
        packer.pack(hasty, place(hasty.lens, 20, np.random.default_rng(0)), 20)
