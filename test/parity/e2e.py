"""Parity of whole runs, text to waveform: recordings `cv2_e2e` and `cv3_e2e`.

Fields of a run: `chunks` says for each vocoder call how many tokens there were, where it began, its masks and what it
gave; `noise_seed` S is the vocoder's randomness: CosyVoice2 draws anew in the k-th call from RandomState(S + k),
CosyVoice3 once from RandomState(S + 1); null is no noise. `token_hop_len_after` is where the hop has grown to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from light_tts.decode.segment import SegmentStream, SpokenTokens
from light_tts.decode.speech_decoder import SpeechDecoder
from light_tts.decode.stream import Chunk, HopPlan
from light_tts.encode.frontend import TextFrontend
from light_tts.encode.prompt_encoder import PromptEncoder
from light_tts.encode.tokenizer import TextTokenizer
from light_tts.encode.voice_catalog import VoiceCatalog
from light_tts.llm.engine import Engine, TokenEvent
from light_tts.llm.request import SequenceRequest
from light_tts.models.flow.flow_state import FlowInput, FlowPrompt
from light_tts.models.flow.token_to_mel import Flow
from light_tts.models.loader import load_models
from light_tts.models.vocoder.hift import HiFT
from light_tts.models.vocoder.source_noise import SourceNoise
from light_tts.quirks import ReferenceQuirks
from test.parity.llm_probes import Greedy
from test.parity.recording import Recording
from test.parity.report import LOGITS, LONG_WAVE, LONG_WAVE_RMS, MEL, Report

QUIRKS = ReferenceQuirks.reference()
CPU = torch.device("cpu")
MAX_SAMPLES = 30 * 24_000


def check(folder: Path, report: Report) -> list[Recording]:
    recordings = []
    for version in (2, 3):
        if (folder / "fixtures" / f"cv{version}_e2e.json").exists():
            recording = Recording(folder / "fixtures", f"cv{version}_e2e")
            _E2eCheck(folder, version, recording, report).run()
            recordings.append(recording)
    return recordings


@dataclass(slots=True)
class _Seen:
    """What passed through the decoder in one run."""

    chunks: list[dict[str, object]] = field(default_factory=list)
    mels: list[Tensor] = field(default_factory=list)

    @property
    def mel(self) -> Tensor:
        return torch.cat(self.mels, dim=-1)[None]


class _RecordingDecoder(SpeechDecoder):
    """The product's decoder, which also notes each stream's mel."""

    def __init__(self, flow: Flow, vocoder: HiFT) -> None:
        plan = HopPlan.reference(flow.chunk_size, flow.cfg.pre_lookahead_len)
        super().__init__(flow, vocoder, QUIRKS, plan)
        self.seen = _Seen()

    def _mels(self, streams: Sequence[SegmentStream], chunks: Sequence[Chunk]) -> list[Tensor]:
        mels = super()._mels(streams, chunks)
        self.seen.mels += mels
        return mels


class _E2eCheck:
    def __init__(self, folder: Path, version: int, recording: Recording, report: Report) -> None:
        self.version, self.recording, self.report = version, recording, report
        self.model_dir, self.fixtures = folder / f"cosyvoice{version}", folder / "fixtures"
        self.models = load_models(self.model_dir, CPU, torch.float32)
        self.lookahead = self.models.config.flow.pre_lookahead_len
        tokens = recording.tensor("prompt_speech")[0]
        self.embedding = recording.tensor("embedding")[0]
        self.prompt = FlowPrompt(tokens, recording.tensor("prompt_feat")[0], self.embedding)

    def run(self) -> None:
        recording, name = self.recording, self.recording.name
        text, prompt_text = (tuple(recording.tensor(key)[0].tolist()) for key in ("text", "prompt_text"))
        request = SequenceRequest(text, prompt_text, tuple(self.prompt.tokens.tolist()))
        tokens, margin = self._tokens(request)
        self.report.equal(name, "e2e.tokens", tokens, recording.tensor("e2e.tokens"))
        self._margin("e2e.min_top2_margin", margin)
        self._whole("e2e.nonstream", tokens, self.prompt)
        self._stream("e2e.stream", tokens)
        self._stream("vc.stream_noise", recording.tensor("vc_tokens")[0])
        short = recording.tensor("vc_tokens")[0, :30]
        self._whole("vc30.speed1.25", short, self.prompt, speed=1.25)
        self._whole("vc30.speed0.8", short, self.prompt, speed=0.8)
        self._whole("vc30.noprompt", short, FlowPrompt.without_recording(self.embedding))
        self._api()

    def _tokens(self, request: SequenceRequest) -> tuple[Tensor, float]:
        """Greedy speech tokens, and the least margin of a choice."""
        engine = Engine(self.models.speech_lm, 4096, 1, QUIRKS)
        picker = Greedy(self.models.config.llm)
        engine.add(request, picker)
        tokens = []
        while not engine.is_idle():
            tokens += [event.token for event in engine.step() if isinstance(event, TokenEvent)]
        return torch.tensor(tokens), min(picker.margins)

    def _margin(self, key: str, margin: float) -> None:
        recorded = torch.tensor([self.recording.meta(key)])
        self.report.close(self.recording.name, key, torch.tensor([margin]), recorded, LOGITS)

    def _noise(self, seed: int | None, call: int) -> SourceNoise:
        if seed is None:
            return SourceNoise.zeros()
        harmonics = self.models.config.hift.nb_harmonics + 1
        if self.version == 3:
            drawn = np.random.RandomState(seed + 1).random_sample((1, MAX_SAMPLES, harmonics))
        else:
            generator = np.random.RandomState(seed + call)
            generator.random_sample((1, harmonics))  # the start phases, which have no effect
            drawn = generator.standard_normal((1, MAX_SAMPLES, harmonics))
        return SourceNoise.recorded(torch.from_numpy(drawn).float())

    def _whole(self, case: str, tokens: Tensor, prompt: FlowPrompt, speed: float = 1.0) -> None:
        decoder = _RecordingDecoder(self.models.flow, self.models.vocoder)
        noise = self._noise(self.recording.meta(case, "noise_seed"), 1)
        (wav,) = decoder.whole([SpokenTokens(tokens, prompt, noise, speed)])
        (mel,) = self.models.flow([FlowInput(tokens, prompt)])
        shown: dict[str, object] = {
            "token_len": len(tokens),
            "token_offset": 0,
            "stream": False,
            "finalize": True,
        }
        shown |= {"samples": len(wav), "mel_frames": mel.shape[1]}
        if f"{case}.mel" in self.recording:
            self._compare_mel(case, mel[None])
        self._compare(case, wav, [shown], self.models.flow.chunk_size)

    def _stream(self, case: str, tokens: Tensor) -> None:
        """Feed the tokens one by one, as a stream gets them."""
        decoder = _RecordingDecoder(self.models.flow, self.models.vocoder)
        seed = self.recording.meta(case, "noise_seed")
        stream = decoder.open(self.prompt, self._noise(seed, 1), hop=self.models.flow.chunk_size)
        stream.noise_of_call = lambda call: self._noise(seed, call)
        wavs: list[Tensor] = []
        chunks: list[dict[str, object]] = []
        for token in [*tokens.tolist(), None]:
            stream.end() if token is None else stream.add(token)
            offset = stream.schedule.offset
            (wav,) = decoder.advance([stream])
            if wav is None:
                continue
            last = stream.finished
            count = len(tokens) if last else stream.schedule.offset + self.lookahead
            shown: dict[str, object] = {"token_len": count, "token_offset": offset}
            shown |= {"stream": not last, "finalize": last}
            chunks.append(shown | {"samples": len(wav), "mel_frames": decoder.seen.mels[-1].shape[1]})
            wavs.append(wav)
        self._compare_mel(case, decoder.seen.mel)
        self._compare(case, torch.cat(wavs), chunks, stream.schedule.hop)

    def _compare_mel(self, case: str, mel: Tensor) -> None:
        self.report.close(self.recording.name, f"{case}.mel", mel, self.recording.tensor(f"{case}.mel"), MEL)

    def _compare(self, case: str, wav: Tensor, chunks: list[dict[str, object]], hop: int) -> None:
        name, recording = self.recording.name, self.recording
        expected = recording.tensor(f"{case}.wav")
        self.report.close(name, f"{case}.wav", wav[None], expected, LONG_WAVE, LONG_WAVE_RMS)
        self.report.equal(name, f"{case}.chunks", chunks, recording.meta(case, "chunks"))
        self.report.equal(name, f"{case}.total", len(wav), recording.meta(case, "total"))
        self.report.equal(
            name, f"{case}.token_hop_len_after", hop, recording.meta(case, "token_hop_len_after")
        )

    def _api(self) -> None:
        """From text and a recording on disk, through the front end."""
        name, recording = self.recording.name, self.recording
        case = recording.meta("api.zero_shot")
        config = self.models.config
        tokenizer = TextTokenizer.from_model_dir(self.model_dir / "CosyVoice-BlankEN", config.version)
        frontend = TextFrontend(tokenizer, config.version, QUIRKS)
        encoder = PromptEncoder(self.model_dir, config)
        catalog = VoiceCatalog(self.model_dir, encoder, config.spk_embed_dim, None, 1)
        features = catalog.encode(self.fixtures / case["wav"])
        segments = frontend.segments(case["text"])
        self.report.equal(name, "api.zero_shot.utterances", len(segments), case["utterances"])
        prompt_text = tuple(frontend.prompt_ids(case["prompt_text"]))
        request = SequenceRequest(
            tuple(segments[0].token_ids), prompt_text, tuple(features.speech_token.tolist())
        )
        tokens, margin = self._tokens(request)
        self.report.equal(name, "api.zero_shot.tokens", tokens, recording.tensor("api.zero_shot.tokens"))
        self._margin("api.min_top2_margin", margin)
        prompt = FlowPrompt(features.speech_token, features.prompt_mel, features.speaker_embedding)
        decoder = SpeechDecoder(self.models.flow, self.models.vocoder, QUIRKS)
        noise = self._noise(case["noise_seed"], 1)
        (wav,) = decoder.whole([SpokenTokens(tokens, prompt, noise)])
        expected = recording.tensor("api.zero_shot.wav")
        self.report.close(name, "api.zero_shot.wav", wav[None], expected, LONG_WAVE, LONG_WAVE_RMS)
