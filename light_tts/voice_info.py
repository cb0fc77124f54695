"""What is known about a voice besides its numbers, and what a voice may be called."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from light_tts.errors import InvalidInput

NAME = re.compile(r"[A-Za-z0-9_\-]{1,128}")
NAME_RULE = "1 to 128 letters (a-z, A-Z), digits, '_' or '-'"
MAX_VOICES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceInfo:
    """What a voice's file tells in words. All of it is text; "" where it is unknown.

    prompt_text: transcript of the recording; cross-lingual mode needs none
    created_at: ISO 8601, UTC
    source: where the voice came from, in words
    consent: what the registering side said of the speaker's consent
    owner: reserved for the key that registered it; "" belongs to everybody
    encoder: of which models' encoders the numbers are, see `encoder_id`; "" is not checked
    mime_type: of the recording
    """

    name: str
    prompt_text: str = ""
    language: str = ""
    description: str = ""
    created_at: str = ""
    source: str = ""
    consent: str = ""
    owner: str = ""
    encoder: str = ""
    mime_type: str = ""


@dataclass(frozen=True, slots=True)
class ListedVoice:
    """A line of the list of voices. kind: "registered", "built-in" or "spk2info"."""

    name: str
    kind: str
    language: str
    description: str


def check_name(name: str) -> str:
    """`name`. Raises InvalidInput for one that could be anything but a plain file name."""
    if not NAME.fullmatch(name):
        raise InvalidInput(f"voice name {name[:140]!r} must be {NAME_RULE}")
    return name


def default_voices_dir() -> Path | None:
    """`light-tts/voices` in the user's data directory; None for a user who has no home."""
    named = os.environ.get("XDG_DATA_HOME", "")
    if os.path.isabs(named):  # the specification: anything else is to be ignored
        return Path(named) / "light-tts" / "voices"
    try:
        return Path.home() / ".local" / "share" / "light-tts" / "voices"
    except RuntimeError:
        return None
