"""Speech tokens to waveform, whole or chunk by chunk, for several segments at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from light_tts.decode.segment import SegmentStream, SpokenTokens
from light_tts.decode.stream import Chunk, HopPlan, HopSchedule
from light_tts.errors import GenerationFailed
from light_tts.models.flow.flow_runner import FlowRunner
from light_tts.models.flow.flow_state import FlowInput, FlowPrompt, FlowState
from light_tts.models.vocoder.mel_stretch import MelStretcher, stretch_mel
from light_tts.models.vocoder.overlap_add import (
    OverlapState,
    RevocodeState,
    overlap_add_stream,
    revocode_stream,
)
from light_tts.models.vocoder.source_noise import SourceNoise
from light_tts.models.vocoder.streaming import StreamInput, VocoderRunner, stream_batch
from light_tts.quirks import ReferenceQuirks
from light_tts.timing import StageTimes


class SpeechDecoder:
    """Flow matching and vocoder. Holds no state of any segment, so any number may be open.

    plan: chunk sizes of streams; None takes the product's
    """

    def __init__(
        self,
        flow: FlowRunner,
        vocoder: VocoderRunner,
        quirks: ReferenceQuirks | None = None,
        plan: HopPlan | None = None,
        times: StageTimes | None = None,
    ) -> None:
        self._flow = flow
        self._vocoder = vocoder
        self._quirks = quirks or ReferenceQuirks()
        self._plan = plan or HopPlan(chunk=flow.chunk_size, lookahead=flow.cfg.pre_lookahead_len)
        self._times = times or StageTimes()

    @property
    def sample_rate_hz(self) -> int:
        return self._vocoder.cfg.sampling_rate

    @property
    def speaker_size(self) -> int:
        """Length of a speaker embedding."""
        return self._flow.cfg.spk_embed_dim

    @property
    def max_batch_frames(self) -> int:
        """Mel frames of one whole-utterance batch, padding and prompts included."""
        return self._flow.max_batch_frames

    @property
    def state_bytes_per_frame(self) -> int | None:
        """What a stream's flow takes per mel frame, where that is known without trying."""
        return self._flow.state_bytes_per_frame

    @torch.inference_mode()
    def prefill(self, prompt: FlowPrompt) -> FlowState:
        """The part of a voice's work that all its streams share; pass it to `open`."""
        with self._times.measure("flow"):
            return self._flow.prefill_prompt(prompt)

    def record(self, batch: int, tokens: int, streamed: bool) -> None:
        """Prepare for batches of this shape: rows and new tokens of each, chunks of streams or whole segments."""
        self._flow.warm([(batch, tokens, streamed)])
        if not streamed:
            self._vocoder.warm([(batch, tokens * self._flow.cfg.token_mel_ratio)])

    @torch.inference_mode()
    def begin(self, prompt: FlowPrompt) -> FlowState:
        """In place of `prefill` where its memory cannot be had: nothing is computed ahead."""
        return self._flow.start(prompt)

    @torch.inference_mode()
    def whole(self, segments: Sequence[SpokenTokens]) -> list[Tensor]:
        """Complete segments to (samples,) float32 on the CPU, in batches of similar length."""
        results: dict[int, Tensor] = {}
        for group in self._batches(segments):
            for index, wav in zip(group, self._whole_batch([segments[i] for i in group]), strict=True):
                results[index] = wav
        return [results[index] for index in range(len(segments))]

    def _batches(self, segments: Sequence[SpokenTokens]) -> Iterator[list[int]]:
        ratio = self._flow.cfg.token_mel_ratio
        frames = [(len(s.tokens) + len(s.prompt.tokens)) * ratio for s in segments]
        group: list[int] = []
        for index in sorted(range(len(segments)), key=lambda i: frames[i]):
            if group and frames[index] * (len(group) + 1) > self._flow.max_batch_frames:
                yield group
                group = []
            group.append(index)
        if group:
            yield group

    def _whole_batch(self, segments: Sequence[SpokenTokens]) -> list[Tensor]:
        with self._times.measure("flow"):
            mels = self._flow([FlowInput(s.tokens, s.prompt) for s in segments])
        mels = [stretch_mel(mel[None], s.speed)[0] for mel, s in zip(mels, segments, strict=True)]
        lens = torch.tensor([mel.shape[1] for mel in mels])
        padded = pad_sequence([mel.T for mel in mels], batch_first=True).transpose(1, 2)
        with self._times.measure("vocoder"):
            wavs = self._vocoder.synthesize(padded, lens, [s.noise for s in segments]).cpu()
        samples = self._vocoder.cfg.samples_per_frame
        return [_checked(wav[: int(n) * samples]) for wav, n in zip(wavs, lens, strict=True)]

    @torch.inference_mode()
    def open(
        self,
        prompt: FlowPrompt,
        noise: SourceNoise,
        speed: float = 1.0,
        prefilled: FlowState | None = None,
        hop: int | None = None,
    ) -> SegmentStream:
        """A new stream. prefilled: from `prefill` of the same prompt; hop: see `HopSchedule`."""
        return SegmentStream(
            prompt=prompt,
            noise=noise,
            schedule=HopSchedule(self._plan, len(prompt.tokens), hop),
            flow_state=prefilled or self._flow.start(prompt),
            stretcher=None if speed == 1.0 else MelStretcher(speed),
        )

    @torch.inference_mode()
    def advance(self, streams: Sequence[SegmentStream]) -> list[Tensor | None]:
        """Decode one ready chunk of each stream; None where none is ready. (samples,) float32 on the CPU.

        The concatenated chunks of a stream do not depend on when `advance` was called, nor with which others.
        """
        ready: list[tuple[int, Chunk]] = []
        for index, stream in enumerate(streams):
            chunk = stream.next_chunk()
            if chunk is not None:
                ready.append((index, chunk))
        wavs: list[Tensor | None] = [None] * len(streams)
        if not ready:
            return wavs
        members = [streams[index] for index, _ in ready]
        chunks = [chunk for _, chunk in ready]
        mels = self._mels(members, chunks)
        for (index, _), wav in zip(ready, self._wavs(members, chunks, mels), strict=True):
            wavs[index] = _checked(wav)
        return wavs

    def _mels(self, streams: Sequence[SegmentStream], chunks: Sequence[Chunk]) -> list[Tensor]:
        """The new (80, frames) of each stream."""
        with self._times.measure("flow"):
            feeds = [s.feed(c, self._plan.lookahead) for s, c in zip(streams, chunks, strict=True)]
            redone = [self._quirks.last_chunk_full_attention and chunk.finalize for chunk in chunks]
            going = [index for index, again in enumerate(redone) if not again]
            mels: dict[int, Tensor] = {
                index: self._last_chunk_anew(streams[index], chunks[index])
                for index, again in enumerate(redone)
                if again
            }
            if going:
                new, states = self._flow.stream(
                    [feeds[i] for i in going], [streams[i].flow_state for i in going]
                )
                for index, mel, state in zip(going, new, states, strict=True):
                    mels[index] = mel
                    if state is not None:
                        streams[index].flow_state = state
            return [mels[index] for index in range(len(streams))]

    def _last_chunk_anew(self, stream: SegmentStream, chunk: Chunk) -> Tensor:
        """As the reference does: everything once more under whole-utterance masks, and the end of that."""
        tokens = torch.tensor(stream.tokens, dtype=torch.int64)
        mel: Tensor = self._flow([FlowInput(tokens, stream.prompt)])[0]
        return mel[:, chunk.start * self._flow.cfg.token_mel_ratio :]

    def _wavs(
        self, streams: Sequence[SegmentStream], chunks: Sequence[Chunk], mels: Sequence[Tensor]
    ) -> list[Tensor]:
        """The new samples of each stream."""
        inputs = []
        for stream, chunk, mel in zip(streams, chunks, mels, strict=True):
            frames = mel[None]
            if stream.stretcher is not None:
                frames, stream.stretcher = stream.stretcher.push(frames, finalize=chunk.finalize)
            inputs.append(StreamInput(frames, stream.vocoder_state, stream.noise, chunk.finalize))
        with self._times.measure("vocoder"):
            if self._quirks.overlap_add_vocoder:
                return [
                    self._overlapped(s, item.mel, item.finalize)
                    for s, item in zip(streams, inputs, strict=True)
                ]
            results = stream_batch(self._vocoder, inputs)
        for stream, (_, state) in zip(streams, results, strict=True):
            stream.vocoder_state = state
        return [wav[0].cpu() for wav, _ in results]

    def _overlapped(self, stream: SegmentStream, mel: Tensor, finalize: bool) -> Tensor:
        noise, state = stream.next_call_noise(), stream.overlap_state
        vocoder = self._vocoder.oracle
        if vocoder.causal:
            assert not isinstance(state, OverlapState)
            wav, stream.overlap_state = revocode_stream(vocoder, mel, state, noise, finalize=finalize)
        else:
            assert not isinstance(state, RevocodeState)
            wav, stream.overlap_state = overlap_add_stream(vocoder, mel, state, noise, finalize=finalize)
        return wav[0].cpu()


def _checked(wav: Tensor) -> Tensor:
    """`wav`, or GenerationFailed if it holds NaN or infinity: an error is better than noise or silence."""
    if not bool(torch.isfinite(wav).all()):
        raise GenerationFailed("the synthesised audio is not finite")
    return wav
