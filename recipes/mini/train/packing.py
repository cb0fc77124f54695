"""Training sequences of the language model, laid out on the training device in rows of a fixed length.

A sequence is what inference would feed for a text and its speech, plus the eos that ends it:

    sos text task_id speech                                 the whole text is known (`llm.sequence`)
    sos t5 s15 t5 s15 ... t<5 task_id speech                text arrives during speech (`llm.bistream`)

Text and speech may each be two pieces, a prompt's and the target's. Nothing is padded but the end of a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from light_tts.models.config import SpeechLMConfig

IGNORED = -100
_NUM_SPECIAL = 2  # sos, task_id


@dataclass(frozen=True, slots=True)
class Examples:
    """Sequences as pieces of two long arrays, of text ids and of speech tokens.

    text_start, text_len, speech_start, speech_len: (E, 2) int64, the prompt's piece (perhaps empty) and the target's
    interleaved: (E,) bool, text and speech in blocks of cfg.mix_ratio
    """

    text_start: NDArray[np.int64]
    text_len: NDArray[np.int64]
    speech_start: NDArray[np.int64]
    speech_len: NDArray[np.int64]
    interleaved: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.interleaved)

    @property
    def lens(self) -> NDArray[np.int64]:
        """(E,) input positions of each sequence."""
        lens: NDArray[np.int64] = _NUM_SPECIAL + self.text_len.sum(axis=1) + self.speech_len.sum(axis=1)
        return lens

    def take(self, index: NDArray[np.int64]) -> Examples:
        return Examples(
            self.text_start[index],
            self.text_len[index],
            self.speech_start[index],
            self.speech_len[index],
            self.interleaved[index],
        )


@dataclass(frozen=True, slots=True)
class Placement:
    """Which sequences stand in which row, one after the other; sorted by row.

    example, row, start: (E,) int64
    """

    example: NDArray[np.int64]
    row: NDArray[np.int64]
    start: NDArray[np.int64]
    num_rows: int

    def rows(self, wanted: NDArray[np.int64]) -> Placement:
        """Some rows, in the order given; a row may be wanted more than once."""
        first = np.searchsorted(self.row, wanted)
        counts = np.searchsorted(self.row, wanted, side="right") - first
        row = np.repeat(np.arange(len(wanted)), counts)
        index = np.repeat(first - (np.cumsum(counts) - counts), counts) + np.arange(len(row))
        return Placement(self.example[index], row, self.start[index], len(wanted))


def place(lens: NDArray[np.int64], row_tokens: int, rng: np.random.Generator) -> Placement:
    """Fill rows: the longest sequence that is left goes where it leaves the least room; then rows are shuffled.

    lens: (E,), those above row_tokens are left out
    """
    order = rng.permutation(len(lens))
    order = order[np.argsort(-lens[order], kind="stable")]
    order = order[lens[order] <= row_tokens]
    rows = np.zeros(len(order), np.int64)
    starts = np.zeros(len(order), np.int64)
    rows_by_room: list[list[int]] = [[] for _ in range(row_tokens + 1)]
    rooms, num_rows = 0, 0  # rooms: bit n is set where a row has room for n
    for index, length in enumerate(lens[order].tolist()):
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = rows_by_room[room].pop()
            if not rows_by_room[room]:
                rooms ^= 1 << room
        else:
            room, row, num_rows = row_tokens, num_rows, num_rows + 1
        rows[index], starts[index] = row, row_tokens - room
        rows_by_room[room - length].append(row)
        rooms |= 1 << (room - length)
    rows = rng.permutation(num_rows)[rows] if num_rows else rows
    by_row = np.lexsort((starts, rows))
    return Placement(order[by_row], rows[by_row], starts[by_row], num_rows)


@dataclass(frozen=True, slots=True)
class Packs:
    """A batch of rows, all (R, T) int64 on the training device.

    ids: rows of the joint embedding table: text ids, then speech ids, then sos and task_id
    targets: the speech token, fill or eos that follows; IGNORED where text follows or nothing does
    segments: which sequence a position belongs to; -1 at the end of a row, where nothing is
    positions: within the sequence
    """

    ids: Tensor
    targets: Tensor
    segments: Tensor
    positions: Tensor


class Packer:
    """Lays sequences out by index arithmetic on the device: no loop over tokens, no wait for the device."""

    def __init__(self, cfg: SpeechLMConfig, text: Tensor, speech: Tensor) -> None:
        """text, speech: (N,) int64, the arrays that the examples' pieces lie in. Raises ValueError for a bad id."""
        for name, ids, size in (
            ("text", text, cfg.qwen.vocab_size),
            ("speech", speech, cfg.speech_token_size),
        ):
            if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < size:
                raise ValueError(
                    f"{name} holds ids {int(ids.min())} to {int(ids.max())}, must be below {size}"
                )
        self.cfg = cfg
        self._text, self._speech = text, speech

    @property
    def device(self) -> torch.device:
        return self._text.device

    def pack(self, examples: Examples, placement: Placement, row_tokens: int) -> Packs:
        """The rows of `placement`, each filled up to row_tokens."""
        chosen = examples.take(placement.example)
        self._check(chosen)
        spans = _Spans.of(chosen, placement, row_tokens, self.cfg.mix_ratio).to(self.device)
        slots = torch.arange(placement.num_rows * row_tokens, device=self.device)
        owner = torch.searchsorted(spans.first_slot, slots, right=True) - 1
        position = slots - spans.first_slot[owner]
        length, num_text = spans.length[owner], spans.text_len[owner].sum(1)

        place = _locate(position, num_text, spans.num_blocks[owner], self.cfg.mix_ratio)
        following = _locate(position + 1, num_text, spans.num_blocks[owner], self.cfg.mix_ratio)
        text = self._read(self._text, spans.text_start, spans.text_len, owner, place.text)
        speech = self._read(self._speech, spans.speech_start, spans.speech_len, owner, place.speech)
        next_speech = self._read(self._speech, spans.speech_start, spans.speech_len, owner, following.speech)

        first_speech = self.cfg.qwen.vocab_size
        first_special = first_speech + self.cfg.speech_token_size + self.cfg.num_extra_ids
        ids = torch.where(place.speech >= 0, first_speech + speech, text)
        ids = torch.where(position == 0, first_special, ids)
        ids = torch.where(place.task_id, first_special + 1, ids)
        targets = torch.where(following.speech >= 0, next_speech, IGNORED)
        targets = torch.where(place.ends_block, self.cfg.fill_id, targets)
        targets = torch.where(position == length - 1, self.cfg.eos_id, targets)
        # a row's rest is a sequence of length 0
        used = position < length
        shape = (placement.num_rows, row_tokens)
        return Packs(
            torch.where(used, ids, 0).view(shape),
            torch.where(used, targets, IGNORED).view(shape),
            torch.where(used, owner, -1).view(shape),
            torch.where(used, position, 0).view(shape),
        )

    def _check(self, examples: Examples) -> None:
        """On the CPU: an index beyond the end is fatal on the device."""
        needed = examples.text_len.sum(axis=1) // self.cfg.mix_ratio[0] * self.cfg.mix_ratio[1]
        if bool((examples.interleaved & (examples.speech_len.sum(axis=1) < needed)).any()):
            raise ValueError("an interleaved sequence has less speech than its blocks of text want")
        for name, starts, lens, ids in (
            ("text", examples.text_start, examples.text_len, self._text),
            ("speech", examples.speech_start, examples.speech_len, self._speech),
        ):
            if len(examples) and (starts.min() < 0 or lens.min() < 0 or (starts + lens).max() > len(ids)):
                raise ValueError(f"a piece of {name} lies outside the {len(ids)} ids")

    @staticmethod
    def _read(ids: Tensor, starts: Tensor, lens: Tensor, owner: Tensor, index: Tensor) -> Tensor:
        """Entry `index` of the two joined pieces of each owner; anything where index is negative."""
        split = lens[owner, 0]
        source = torch.where(index < split, starts[owner, 0] + index, starts[owner, 1] + index - split)
        return ids[torch.where(index >= 0, source, 0).clamp(max=len(ids) - 1)]


@dataclass(frozen=True, slots=True)
class _Spans:
    """Sequences in the order of their slots (row * row_tokens + start), each row's rest being one of length 0."""

    first_slot: Tensor
    length: Tensor
    num_blocks: Tensor
    text_start: Tensor
    text_len: Tensor
    speech_start: Tensor
    speech_len: Tensor

    @classmethod
    def of(
        cls, examples: Examples, placement: Placement, row_tokens: int, mix_ratio: tuple[int, int]
    ) -> _Spans:
        used = np.zeros(placement.num_rows, np.int64)
        np.add.at(used, placement.row, examples.lens)
        rests = np.arange(placement.num_rows) * row_tokens + used
        slots = np.concatenate([placement.row * row_tokens + placement.start, rests])
        # A full row's rest begins where the next row does: stable order and "right" then skip it.
        rank = np.concatenate([np.ones(len(examples), np.int64), np.zeros(len(rests), np.int64)])
        order = np.lexsort((rank, slots))
        blocks = examples.text_len.sum(axis=1) // mix_ratio[0] * examples.interleaved
        columns = [slots, _extended(examples.lens, rests), _extended(blocks, rests)]
        pieces = (examples.text_start, examples.text_len, examples.speech_start, examples.speech_len)
        return cls(
            *(torch.from_numpy(column[order]) for column in columns),
            *(torch.from_numpy(_extended(piece, rests)[order]) for piece in pieces),
        )

    def to(self, device: torch.device) -> _Spans:
        """One copy for all of them."""
        parts = [self.first_slot, self.length, self.num_blocks]
        pairs = [self.text_start, self.text_len, self.speech_start, self.speech_len]
        table = torch.cat([torch.stack(parts, dim=1), *pairs], dim=1)
        if device.type == "cuda":
            table = table.pin_memory()
        table = table.to(device, non_blocking=True)
        first, length, blocks = table[:, :3].unbind(1)
        pairs = [table[:, column : column + 2] for column in (3, 5, 7, 9)]
        return _Spans(first.contiguous(), length, blocks, *pairs)


def _extended(values: NDArray[np.int64], rests: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([values, np.zeros((len(rests), *values.shape[1:]), np.int64)])


@dataclass(frozen=True, slots=True)
class _Places:
    """What stands at each position: an index into the sequence's text or speech, -1 where it is not that."""

    text: Tensor
    speech: Tensor
    task_id: Tensor  # bool
    ends_block: Tensor  # bool


def _locate(position: Tensor, num_text: Tensor, num_blocks: Tensor, mix_ratio: tuple[int, int]) -> _Places:
    block_text, block_speech = mix_ratio
    block = block_text + block_speech
    index = position - 1  # after sos
    in_blocks = (index >= 0) & (index < num_blocks * block)
    number, within = index // block, index % block
    text_in_block = in_blocks & (within < block_text)
    speech_in_block = in_blocks & (within >= block_text)

    rest = index - num_blocks * block
    rest_text = num_text - num_blocks * block_text
    text_in_rest = (rest >= 0) & (rest < rest_text)
    speech_in_rest = (rest >= 0) & (rest > rest_text)
    text = torch.where(text_in_block, number * block_text + within, -1)
    text = torch.where(text_in_rest, num_blocks * block_text + rest, text)
    speech = torch.where(speech_in_block, number * block_speech + within - block_text, -1)
    speech = torch.where(speech_in_rest, num_blocks * block_speech + rest - rest_text - 1, speech)
    return _Places(text, speech, (rest >= 0) & (rest == rest_text), in_blocks & (within == block - 1))
