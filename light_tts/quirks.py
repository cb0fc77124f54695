"""Behaviour of the reference implementation that is plainly a bug, each as one named switch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReferenceQuirks:
    """Which reference bugs to reproduce. The default reproduces none; `reference()` reproduces all.

    Recorded reference numbers pass only with `reference()`; the product runs with the default.
    """

    last_chunk_full_attention: bool = False
    """The last streamed chunk is computed with whole-utterance masks, so it does not fit the earlier ones."""

    overlap_add_vocoder: bool = False
    """Streamed CosyVoice2 audio restarts the vocoder on 8 cached mel frames and joins with a window that sums to
    1.08, instead of continuing exactly."""

    hop_never_reset: bool = False
    """The hop grown by one streamed request is where the next request starts."""

    bistream_feeds_last_token_twice: bool = False
    """When text input ends after a fill token, the last speech token enters the KV cache a second time."""

    bistream_drops_prompt_speech: bool = False
    """Prompt speech that is still queued when text input ends is dropped."""

    bistream_starts_before_text: bool = False
    """CosyVoice3 starts to speak before any text has arrived if there is no prompt speech."""

    bistream_one_block_per_piece: bool = False
    """Each piece of text that arrives starts one block of speech at most, however much text it brings."""

    v3_min_len_ignored: bool = False
    """The minimum length masks id V only: that is not CosyVoice3's eos, so it is not enforced there, and
    CosyVoice2's other two stop ids still end a sequence."""

    control_tokens_in_text: bool = False
    """`<|...|>` in user text is read as control tokens and switches normalisation off."""

    split_inside_numbers: bool = False
    """The full stop in a decimal number ends a sentence, and the second of two adjacent marks is lost."""

    @classmethod
    def reference(cls) -> ReferenceQuirks:
        """All quirks on: what the recorded numbers were made with."""
        return cls(**{name: True for name in cls.__dataclass_fields__})
