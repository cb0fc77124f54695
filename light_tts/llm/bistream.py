"""Text that arrives while speech is already being generated.

The model was trained on blocks of 5 text and 15 speech tokens (`mix_ratio`), at whose end it predicts a fill
token that is itself never read; then come the text that is left (less than a block), task_id and all the
speech that is left, up to eos:

    sos  t5 s15  t5 s15  ...  t<5 task_id s...

A prompt's text and speech are the beginning of that sequence. Where its speech outlasts the blocks of text,
this format puts the rest behind task_id, and so do we. The rest has no minimum length, as in the reference.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto

from light_tts.errors import GenerationFailed, InvalidInput, TextTooLong
from light_tts.llm.request import SequenceRequest, check_ids
from light_tts.llm.sequence import (
    SOS,
    TASK_ID,
    Constraint,
    FinishReason,
    SpeechSequence,
    Symbol,
    SymbolKind,
    speech_symbols,
    text_symbols,
)
from light_tts.models.config import SpeechLMConfig
from light_tts.quirks import ReferenceQuirks


class _Phase(Enum):
    TEXT = auto()  # the next block of text is due
    BLOCK = auto()  # speech of a block is being generated
    REST = auto()  # text has ended, and so will the speech


class BistreamSequence(SpeechSequence):
    """Blocks as soon as their text is there, so the tokens do not depend on how text was cut or when it came.

    request.text: the text that is there from the start, possibly none
    end_of_prompt_id: version 3 reads prompt text up to this token right after sos, outside the blocks
    """

    def __init__(
        self,
        cfg: SpeechLMConfig,
        request: SequenceRequest,
        quirks: ReferenceQuirks,
        end_of_prompt_id: int | None = None,
    ) -> None:
        super().__init__()
        if request.max_text_tokens is None:
            raise InvalidInput("max_text_tokens is missing: how long may the text become?")
        self._cfg, self._quirks, self._limits = cfg, quirks, request.limits
        self._max_text_tokens = request.max_text_tokens
        prefix = _instruction(request.prompt_text, end_of_prompt_id) if cfg.version == 3 else ()
        self._pending = [SOS, *text_symbols(prefix)]  # opens the next feed
        self._text = deque(request.prompt_text[len(prefix) :])
        self._pieces: deque[tuple[int, ...]] = deque()
        self._num_text_tokens = 0
        self._text_ended = False
        self._prompt_speech = deque(request.prompt_speech)
        block = cfg.mix_ratio[1]
        self._next_fill = (
            block - len(request.prompt_speech) % block
        )  # index into history, which holds fills too
        self._phase = _Phase.TEXT
        self._feed: list[Symbol] | None = None
        self._in_block = Constraint(ignore_eos=True, banned=_all_stop_ids_but(cfg, cfg.fill_id))
        self._in_rest = Constraint(banned=_all_stop_ids_but(cfg, cfg.eos_id))
        self._num_prompt_text, self._num_prompt_speech = len(request.prompt_text), len(request.prompt_speech)
        if request.text:
            self.append_text(request.text)

    def append_text(self, ids: tuple[int, ...]) -> None:
        """More text. Raises TextTooLong, InvalidInput; the sequence goes on without the piece then."""
        if self._text_ended:
            raise InvalidInput("text was appended after its end")
        check_ids("text", ids, self._cfg.qwen.vocab_size)
        total = self._num_text_tokens + len(ids)
        if total > self._max_text_tokens:
            raise TextTooLong(
                f"text has {total} tokens so far, limit {self._max_text_tokens} (max_text_tokens)"
            )
        self._num_text_tokens = total
        self._pieces.append(ids)

    def end_text(self) -> None:
        self._text_ended = True

    @property
    def max_kv_len(self) -> int:
        """Speech is limited by the text's length once text has ended, and by its blocks until then."""
        blocks = self._kv_len(self._num_text_tokens, 0)
        return self.longest() if self._text_ended else blocks

    def longest(self, more_text: int = 0) -> int:
        text = self._num_text_tokens + more_text
        return self._kv_len(text, self._limits.max_len(text))

    def next_feed(self) -> list[Symbol] | None:
        if self._feed is None and self.finish_reason is None:
            self._take_text()
        return self._feed

    def constraint(self) -> Constraint:
        if self._phase is _Phase.REST:
            return self._in_rest
        if len(self.history) == self._next_fill:
            return Constraint(forced=self._cfg.fill_id, ignore_eos=True)
        return self._in_block

    def accept(self, token: int) -> int | None:
        in_rest = self._phase is _Phase.REST
        if token == self._cfg.eos_id and in_rest:
            self._finish(FinishReason.STOP)
            return None
        if token == self._cfg.fill_id and not in_rest:
            self._end_block()
            return None
        if token >= self._cfg.speech_token_size:
            raise GenerationFailed(f"token id {token} has no meaning here ({self._phase.name.lower()} phase)")
        self.history.append(token)
        self.emitted.append(token)
        self._feed = speech_symbols([token])
        if in_rest and len(self.emitted) >= self._limits.max_len(self._num_text_tokens):
            self._finish(FinishReason.LENGTH)
        return token

    def _take_text(self) -> None:
        """Start the next block if its text is there, or the rest if there will be no more text."""
        if self._quirks.bistream_one_block_per_piece:
            while self._feed is None and self._pieces:
                self._text.extend(self._pieces.popleft())
                self._start_block()
        else:
            while self._pieces:
                self._text.extend(self._pieces.popleft())
            if self._num_text_tokens:  # else there is only prompt text, which nobody asked to hear
                self._start_block()
        if self._feed is None and self._text_ended:
            self._start_rest()

    def _start_block(self) -> None:
        num_text, num_speech = self._cfg.mix_ratio
        while self._prompt_speech and len(self._text) >= num_text:
            self._pending += text_symbols(_take(self._text, num_text))
            self._pending += speech_symbols(_take(self._prompt_speech, num_speech))
        if self._prompt_speech:
            return
        if self._needs_text():
            if len(self._text) < num_text:
                return
            opening = self._pending if not self.history else []
            self._pending = opening + text_symbols(_take(self._text, num_text))
        self._phase = _Phase.BLOCK
        self._feed, self._pending = self._pending, []

    def _needs_text(self) -> bool:
        """False only where a block of the prompt waits for the rest of its speech."""
        if self.history:
            return True
        if self._quirks.bistream_starts_before_text:
            return self._pending == [SOS]
        return self._pending[-1].kind is not SymbolKind.SPEECH

    def _end_block(self) -> None:
        self._next_fill = len(self.history) + self._cfg.mix_ratio[1] + 1  # +1: the fill itself
        self.history.append(self._cfg.fill_id)
        self._phase = _Phase.TEXT
        if self._quirks.bistream_feeds_last_token_twice and self._feed is not None:
            self._pending = self._feed
        self._feed = None

    def _start_rest(self) -> None:
        self._phase = _Phase.REST
        limit = self._limits.max_len(self._num_text_tokens)
        if len(self.emitted) >= limit:  # also where no text came at all
            self._finish(FinishReason.LENGTH if self.emitted else FinishReason.STOP)
            return
        self._feed = [*self._pending, *text_symbols(_take(self._text, len(self._text))), TASK_ID]
        if not self._quirks.bistream_drops_prompt_speech:
            self._feed += speech_symbols(_take(self._prompt_speech, len(self._prompt_speech)))

    def _finish(self, reason: FinishReason) -> None:
        self.finish_reason = reason
        self._feed = None

    def _kv_len(self, num_text_tokens: int, num_speech_tokens: int) -> int:
        """KV slots for the prompt, so much text, and the speech of its blocks or so much, whichever is more."""
        num_text, num_speech = self._cfg.mix_ratio
        text = self._num_prompt_text + num_text_tokens
        speech = max(num_speech_tokens, num_speech * (1 + text // num_text))
        prompt = self._num_prompt_text + self._num_prompt_speech
        # A fill right after the first feed leaves all of it to be fed again.
        fed_twice = 1 + prompt + num_text if self._quirks.bistream_feeds_last_token_twice else 0
        return 2 + text + self._num_prompt_speech + speech + fed_twice


def _take(queue: deque[int], count: int) -> list[int]:
    return [queue.popleft() for _ in range(min(count, len(queue)))]


def _all_stop_ids_but(cfg: SpeechLMConfig, allowed: int) -> tuple[slice, ...]:
    return slice(cfg.stop_ids.start, allowed), slice(allowed + 1, cfg.stop_ids.stop)


def _instruction(prompt_text: tuple[int, ...], end_of_prompt_id: int | None) -> tuple[int, ...]:
    """The prompt text up to and including the end-of-prompt token; empty where it has none."""
    if end_of_prompt_id is None or end_of_prompt_id not in prompt_text:
        return ()
    return prompt_text[: prompt_text.index(end_of_prompt_id) + 1]
