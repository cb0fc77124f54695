"""What others have published of the same kind of work, to stand beside our figures. None of it was measured by us."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Peer:
    """part: of our stages, or "stream" and "buffered" for whole requests; callers: or size of the batch
    metric: as the report names ours; note: where its workload differs from ours
    """

    version: int
    part: str
    callers: int
    metric: str
    value: float
    machine: str
    source: str
    note: str = ""


REFERENCE = "CosyVoice's own code, measured with 75 prompt and 250 speech tokens"
UPSTREAM = "LightTTS upstream, measured with 75 prompt and 250 speech tokens"
TRITON = "CosyVoice runtime/triton_trtllm, README.Cosyvoice2.Unet.md"
VLLM = "vllm-omni pull request 4168"
SGLANG = "sglang-omni cookbook"
OWN_TEXTS = "natural lengths"

PEERS = (
    Peer(2, "llm", 1, "tokens/s", 55, "H100", REFERENCE),
    Peer(2, "llm", 1, "tokens/s", 286, "H100", UPSTREAM),
    Peer(2, "llm", 64, "tokens/s", 5690, "H100", UPSTREAM),
    Peer(2, "flow", 1, "ms each", 418, "H100", REFERENCE),
    Peer(2, "vocoder", 1, "ms each", 27.5, "H100", REFERENCE),
    Peer(2, "buffered", 1, "RTF", 0.435, "H100", REFERENCE),
    Peer(2, "stream", 1, "first audio, ms", 1410, "H100", REFERENCE),
    Peer(2, "stream", 1, "first audio, ms", 190, "L20", TRITON, f"average, {OWN_TEXTS}, voice cached"),
    Peer(2, "stream", 2, "first audio, ms", 323, "L20", TRITON, f"average, {OWN_TEXTS}, voice cached"),
    Peer(2, "stream", 4, "first audio, ms", 978, "L20", TRITON, f"average, {OWN_TEXTS}, voice cached"),
    Peer(2, "buffered", 4, "audio-s/s", 1 / 0.061, "L20", TRITON, OWN_TEXTS),
    Peer(3, "stream", 1, "first audio, ms", 209, "H100", VLLM, OWN_TEXTS),
    Peer(3, "stream", 2, "first audio, ms", 334, "H100", VLLM, OWN_TEXTS),
    Peer(3, "stream", 4, "first audio, ms", 551, "H100", VLLM, OWN_TEXTS),
    Peer(3, "stream", 4, "audio-s/s", 12.1, "H100", VLLM, OWN_TEXTS),
    Peer(3, "buffered", 16, "audio-s/s", 31, "H200", SGLANG, f"{OWN_TEXTS}; 6.24 requests/s of about 5 s"),
)


def beside(ours: Mapping[tuple[str, int, str], float], version: int) -> list[tuple[Peer, float]]:
    """Each peer's figure of this version with ours of the same part, callers and metric, where there is one."""
    found = []
    for peer in PEERS:
        mine = ours.get((peer.part, peer.callers, peer.metric))
        if peer.version == version and mine is not None:
            found.append((peer, mine))
    return found
