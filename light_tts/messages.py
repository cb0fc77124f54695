"""Every type that crosses a process boundary. Arrays travel as bytes, with dtype and shape in the docstring."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from light_tts.voice_info import VoiceInfo


class Stage(StrEnum):
    """The kinds of processes below the supervisor."""

    HTTP = "http"
    ENCODE = "encode"
    LLM = "llm"
    DECODE = "decode"


class Mode(StrEnum):
    """What the language model is to get from the voice; see `light_tts.encode.planner`."""

    AUTO = "auto"  # as the fields given imply: transcript: zero-shot, instruction: instruct, neither: cross-lingual
    ZERO_SHOT = "zero_shot"
    CROSS_LINGUAL = "cross_lingual"
    INSTRUCT = "instruct"
    SFT = "sft"


class Message(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Base of all messages: encoded as [tag, field, ...]."""


class Sampling(Message, frozen=True):
    """None takes the model's own value, seed None draws one."""

    seed: int | None = None
    temperature: float = 1.0
    top_p: float | None = None
    top_k: int | None = None
    win_size: int | None = None
    tau_r: float | None = None
    min_token_text_ratio: float | None = None
    max_token_text_ratio: float | None = None


# --- HTTP worker -> encode process


class Synthesize(Message, frozen=True):
    """A request, checked as far as that needs no model.

    reply_to: address of the HTTP worker's socket; deadline_s: `time.time()` after which nobody waits for it
    prompt_wav: the uploaded file as it came; text_open: more text follows in TextAppend (bistream)
    stream: chunks as soon as they are made; otherwise one chunk per segment
    """

    request_id: str
    reply_to: str
    deadline_s: float
    text: str
    mode: Mode = Mode.AUTO
    voice: str | None = None
    prompt_wav: bytes | None = None
    prompt_text: str | None = None
    instruct_text: str | None = None
    stream: bool = False
    text_open: bool = False
    speed: float = 1.0
    normalise: bool = True
    allow_tags: bool = False
    sampling: Sampling = Sampling()


class TextAppend(Message, frozen=True):
    """Text of an open request; `end`: the last of it."""

    request_id: str
    text: str
    end: bool = False


class Abort(Message, frozen=True):
    """Nobody wants the answer any more. Takes the same road as the request, and is passed on by every stage,
    also by one that does not know the request (it may have been restarted).
    """

    request_id: str


class StoreVoices(Message, frozen=True):
    """Voices to be registered: exactly one of `recording`, `blend` and `archive`. Answered by VoicesStored or
    RequestFailed.

    info: what is known of the voice; of an archive its voices have names of their own
    recording: the uploaded file as it came
    blend: names of voices with their weights; prompt_of: whose recording the blend speaks on from, None: nobody's
    archive: CosyVoice's spk2info.pt; labels: those to import of it, each with its name here; empty: all
    """

    request_id: str
    reply_to: str
    deadline_s: float
    info: VoiceInfo
    recording: bytes | None = None
    blend: tuple[tuple[str, float], ...] = ()
    prompt_of: str | None = None
    archive: bytes | None = None
    labels: tuple[tuple[str, str], ...] = ()
    replace: bool = False


# --- HTTP worker -> LLM process


class Pace(Message, frozen=True):
    """From the HTTP worker to the LLM process: whether the client of a streamed request is behind with what it has.

    behind: begin no more segments of it, until told otherwise; what has begun goes on
    deadline_s: in place of the request's; the time that it is behind does not count
    """

    request_id: str
    behind: bool
    deadline_s: float


# --- encode process -> LLM process


class VoiceFeatures(Message, frozen=True):
    """A voice as the flow takes it.

    key: of the recording's content; equal keys are equal voices
    speech_token: (n,) int32; prompt_mel: (2n, 80) float32; speaker_embedding: (192,) float32
    """

    key: str
    speech_token: bytes
    prompt_mel: bytes
    speaker_embedding: bytes


class LlmTask(Message, frozen=True):
    """One segment. The request's segments are numbered from 0.

    text, prompt_text, prompt_speech: token ids; seed: of this segment (also of the vocoder's noise)
    max_text_tokens: None where `text` is complete; else TextIds bring more, up to so many in all
    end_of_prompt_id: id of `<|endofprompt|>`, where the text tokenizer has it; of use where text is incomplete
    """

    request_id: str
    reply_to: str
    deadline_s: float
    segment: int
    text: tuple[int, ...]
    prompt_text: tuple[int, ...]
    prompt_speech: tuple[int, ...]
    seed: int
    sampling: Sampling
    voice: VoiceFeatures
    stream: bool
    speed: float
    max_text_tokens: int | None = None
    end_of_prompt_id: int | None = None


class TextIds(Message, frozen=True):
    """More text of an open segment; `end`: the last of it."""

    request_id: str
    segment: int
    ids: tuple[int, ...]
    end: bool = False


# --- LLM process -> decode process


class DecodeOpen(Message, frozen=True):
    """A segment whose speech tokens follow."""

    request_id: str
    reply_to: str
    deadline_s: float
    segment: int
    voice: VoiceFeatures
    seed: int
    stream: bool
    speed: float


class SpeechTokens(Message, frozen=True):
    """New speech tokens of an open segment, in order; `end`: the last of it."""

    request_id: str
    segment: int
    tokens: tuple[int, ...]
    end: bool = False


# --- decode process -> LLM process: the one message that goes upstream, so that the router knows the load


class SegmentClosed(Message, frozen=True):
    """The decode process holds nothing of this segment any more, for whatever reason."""

    decode: int
    request_id: str
    segment: int


# --- to the HTTP worker, from any stage


class Planned(Message, frozen=True):
    """From the encode process, once the number of segments is known (of an open text: at its end).

    num_text_tokens: of the text alone; cache_hit: the voice was there already (None: it is a named voice)
    texts: what each segment says
    """

    request_id: str
    num_segments: int
    num_text_tokens: int
    cache_hit: bool | None
    texts: tuple[str, ...] = ()


class Routed(Message, frozen=True):
    """From the LLM process: which decode process has the segment. It precedes the segment's audio."""

    request_id: str
    segment: int
    decode: int


class AudioChunk(Message, frozen=True):
    """Samples of a segment, chunks numbered from 0; `last` ends the segment.

    samples: (n,) int16, 24 kHz mono, n may be 0; num_tokens: speech tokens of the segment, where `last`
    """

    request_id: str
    segment: int
    index: int
    samples: bytes
    last: bool = False
    num_tokens: int = 0


class VoicesStored(Message, frozen=True):
    """From the encode process: these are on disk, and every process finds them."""

    request_id: str
    voices: tuple[VoiceInfo, ...]


class RequestFailed(Message, frozen=True):
    """The request's final message. code: of `light_tts.errors`; the stages behind have been told to abort it."""

    request_id: str
    code: str
    message: str


# --- children <-> supervisor


class Ready(Message, frozen=True):
    """A child listens and its model is loaded. info: what `/metrics` and the start-up table tell of it."""

    stage: Stage
    index: int
    pid: int
    info: dict[str, str]


class Heartbeat(Message, frozen=True):
    """A child's main loop turns. The gauges are what admission at the door looks at.

    queued: waiting in this process; oldest_s: how long the oldest of them has waited; running: being worked on
    """

    stage: Stage
    index: int
    pid: int
    time_s: float
    queued: int
    oldest_s: float
    running: int


class StartFailed(Message, frozen=True):
    """A child cannot start: told before it exits. code, message: for the user"""

    stage: Stage
    index: int
    pid: int
    code: str
    message: str


class PeerLost(Message, frozen=True):
    """From the supervisor to HTTP workers and to the LLM process; where it is an HTTP worker, to the encode processes
    too: a process died or hangs, what it held is gone. The LLM process passes that of a decode process on to HTTP
    workers, behind what it routed there in ignorance.

    index: of an HTTP worker its pid; pid: of the process that is gone, 0 where it was another supervisor's
    """

    stage: Stage
    index: int
    pid: int = 0


class PeerReady(Message, frozen=True):
    """From the supervisor to the LLM process: a decode process is (again) there."""

    stage: Stage
    index: int


class Drain(Message, frozen=True):
    """From the supervisor to HTTP workers: finish what is accepted, refuse the rest."""


ToEncode = Synthesize | TextAppend | Abort | StoreVoices | PeerLost
ToLlm = LlmTask | TextIds | Abort | Pace | SegmentClosed | PeerLost | PeerReady
ToDecode = DecodeOpen | SpeechTokens | Abort
ToHttp = Planned | Routed | AudioChunk | VoicesStored | RequestFailed | PeerLost | Drain
ToSupervisor = Ready | Heartbeat | StartFailed
