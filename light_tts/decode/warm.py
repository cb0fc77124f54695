"""What a decode process does before it says that it is ready."""

from __future__ import annotations

import logging
import time

import torch

from light_tts.decode.memory import state_bytes
from light_tts.decode.segment import SpokenTokens
from light_tts.decode.speech_decoder import SpeechDecoder
from light_tts.models.flow.flow_state import FlowPrompt
from light_tts.models.vocoder.source_noise import SourceNoise

logger = logging.getLogger(__name__)

WARM_UP_TOKENS = 53  # two streamed chunks
RECORDING_S = 40.0  # what is not recorded by then is recorded when it is first needed
STREAMED_TOKENS = (50, 25, 100, 75, 125)  # new tokens of a chunk, the most frequent first
WHOLE_TOKENS = (150, 250, 350, 100, 200, 300)  # prompt and speech


def record_graphs(decoder: SpeechDecoder, max_batch: int) -> None:
    """Record the graphs that requests will want first, the prompt's part of voices included."""
    sizes = [1 << n for n in range(max_batch.bit_length()) if 1 << n <= max_batch]
    wanted = [(size, tokens, True) for size in sizes for tokens in STREAMED_TOKENS]
    wanted += [(size, tokens, False) for tokens in WHOLE_TOKENS for size in sizes]
    start, done = time.monotonic(), 0
    for shape in wanted:
        if time.monotonic() - start > RECORDING_S:
            break
        try:
            decoder.record(*shape)
        except torch.OutOfMemoryError:
            logger.warning("no memory to record graphs of %d rows of %d tokens", *shape[:2])
            torch.cuda.empty_cache()
        done += 1
        if done % 10 == 0:
            logger.info("recorded %d of %d graphs, %.0f s", done, len(wanted), time.monotonic() - start)
    logger.info("recorded %d of %d graphs in %.1f s", done, len(wanted), time.monotonic() - start)


def warm_up(decoder: SpeechDecoder) -> int:
    """Decode once each way, so that the first client waits for no one-time work. Returns the bytes of streaming
    state per mel frame. Raises GenerationFailed if the model gives no numbers.
    """
    prompt = FlowPrompt.without_recording(torch.ones(decoder.speaker_size))
    noise = SourceNoise.seeded(0)
    decoder.whole([SpokenTokens(torch.arange(WARM_UP_TOKENS), prompt, noise)])
    stream = decoder.open(prompt, noise)
    for token in range(WARM_UP_TOKENS):
        stream.add(token)
    decoder.advance([stream])
    measured = state_bytes(stream.flow_state) // (stream.flow_state.num_tokens * 2)
    stream.end()
    while not stream.finished:
        decoder.advance([stream])
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return decoder.state_bytes_per_frame or measured
