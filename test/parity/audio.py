"""Parity of decoding, resampling, features, prompt encoding and the PyTorch speech tokenizer."""

from __future__ import annotations

import wave
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from light_tts.encode.audio import load_audio
from light_tts.encode.features import kaldi_fbank, prompt_mel, speaker_fbank, whisper_log_mel
from light_tts.encode.prompt_encoder import PromptEncoder
from light_tts.encode.resample import resample
from light_tts.encode.tokenizer import TextTokenizer
from light_tts.models.config import MelConfig
from light_tts.models.model_yaml import QWEN_DIR, read_model_config
from light_tts.models.s3_tokenizer import S3Tokenizer, S3TokenizerConfig
from test.parity.recording import Recording
from test.parity.report import FEATURES, Report


def check(folder: Path, report: Report) -> list[Recording]:
    """Run every case of the recordings `audio` and `s3tokenizer_v2`."""
    fixtures = folder / "fixtures"
    audio = Recording(fixtures, "audio")
    used = [audio]
    _check_waves(fixtures, audio, report)
    _check_features(audio, report)
    for version in (2, 3):
        if f"v{version}.speech_token" in audio:
            used += _check_prompt(folder, version, audio, report)
    if (fixtures / "s3tokenizer_v2.json").exists():
        used.append(_check_s3_tokenizer(fixtures, report))
    return used


def _check_waves(fixtures: Path, audio: Recording, report: Report) -> None:
    """The recorded WAV through the decoder for uploads."""
    path = fixtures / "prompt_24k.wav"
    loaded = load_audio(path)
    with wave.open(str(path)) as file:
        report.equal("audio", "sample rate", loaded.sample_rate_hz, file.getframerate())
        report.equal("audio", "pcm16", loaded.pcm16(), file.readframes(file.getnframes()))
    report.close("audio", "wave24", torch.from_numpy(loaded.samples)[None], audio.tensor("wave24"), 0.0)
    at_16k = resample(torch.from_numpy(loaded.samples), loaded.sample_rate_hz, 16_000)
    report.close("audio", "wave16", at_16k[None], audio.tensor("wave16"), FEATURES)


def _check_features(audio: Recording, report: Report) -> None:
    wave24, wave16 = audio.tensor("wave24")[0], audio.tensor("wave16")[0]
    for name, fmax in (("mel24_fmax8000", 8000.0), ("mel24_fmaxnull", None)):
        config = MelConfig(
            n_fft=audio.meta("n_fft"),
            hop_size=audio.meta("hop"),
            win_size=audio.meta("win"),
            fmin=audio.meta("mel_fmin"),
            fmax=fmax,
        )
        report.close("audio", name, prompt_mel(wave24, config).T[None], audio.tensor(name), FEATURES)
    report.close("audio", "whisper128", whisper_log_mel(wave16)[None], audio.tensor("whisper128"), FEATURES)
    report.close("audio", "fbank80_raw", kaldi_fbank(wave16), audio.tensor("fbank80_raw"), FEATURES)
    report.close("audio", "fbank80", speaker_fbank(wave16), audio.tensor("fbank80"), FEATURES)


def _check_prompt(folder: Path, version: int, audio: Recording, report: Report) -> list[Recording]:
    """From the WAV file and the texts of the recorded API call to all that the models get."""
    model_dir = folder / f"cosyvoice{version}"
    config = read_model_config(model_dir)
    case = f"audio v{version}"
    for name in ("n_fft", "hop", "win", "mel_fmin"):
        field = {"hop": "hop_size", "win": "win_size", "mel_fmin": "fmin"}.get(name, name)
        report.equal(case, f"yaml {field}", getattr(config.mel, field), audio.meta(name))
    loaded = load_audio(folder / "fixtures" / "prompt_24k.wav")
    encoder = PromptEncoder(model_dir, config)
    whole, prompt = encoder.encode(loaded, trim=False), encoder.encode(loaded)
    expected = {
        "speech_token": whole.speech_token,
        "spk_embedding": whole.speaker_embedding,
        "zero_shot.llm_prompt_speech_token": prompt.speech_token,
        "zero_shot.flow_prompt_speech_token": prompt.speech_token,
        "zero_shot.prompt_speech_feat": prompt.prompt_mel,
        "zero_shot.llm_embedding": prompt.speaker_embedding,
        "zero_shot.flow_embedding": prompt.speaker_embedding,
    }
    report.equal(case, "tokenize_source", encoder.tokenize_source(loaded), whole.speech_token)
    api = Recording(folder / "fixtures", f"cv{version}_e2e")
    tokenizer = TextTokenizer.from_model_dir(model_dir / QWEN_DIR, version)
    for name, text in (
        ("prompt_text", api.meta("api.zero_shot", "prompt_text")),
        ("text", _spoken_text(folder, audio)),
    ):
        expected[f"zero_shot.{name}"] = torch.tensor(tokenizer.encode(text, allow_control=True))
    for name, actual in expected.items():
        _compare(case, f"v{version}.{name}", actual, audio, report)
    return [api]


def _spoken_text(folder: Path, audio: Recording) -> str:
    """The text of the recorded prompts: the recording has its ids only, in each version's vocabulary, and any version's
    ids must come out of the text that the first version's stand for.
    """
    version = 2 if "v2.zero_shot.text" in audio else 3
    decoder = Tokenizer.from_file(str(folder / f"cosyvoice{version}" / QWEN_DIR / "tokenizer.json"))
    return decoder.decode(audio.tensor(f"v{version}.zero_shot.text")[0].tolist(), skip_special_tokens=False)


def _compare(case: str, name: str, actual: Tensor, audio: Recording, report: Report) -> None:
    """Ids exactly, numbers within FEATURES, and the length that was recorded beside them."""
    batch = actual[None]
    if actual.is_floating_point():
        report.close(case, name, batch, audio.tensor(name), FEATURES)
    else:
        report.equal(case, name, batch, audio.tensor(name))
    if f"{name}_len" in audio:
        report.equal(case, f"{name}_len", torch.tensor([len(actual)]), audio.tensor(f"{name}_len"))


def _check_s3_tokenizer(fixtures: Path, report: Report) -> Recording:
    recording = Recording(fixtures, "s3tokenizer_v2")
    case = recording.name
    known = recording.meta("config")
    config = S3TokenizerConfig(
        **{name: known[name] for name in S3TokenizerConfig.__dataclass_fields__ if name in known}
    )
    report.equal(case, "config", _as_recorded(config), known)
    weights = torch.load(fixtures / "s3tokenizer_v2.pt", weights_only=True)
    with torch.device("meta"):
        model = S3Tokenizer(config)
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    report.equal(case, "state_dict", sorted(shapes.items()), sorted(recording.meta("state_dict").items()))
    model.load_state_dict(weights, assign=True, strict=True)
    _check_codes(model.eval(), recording, report)
    return recording


def _as_recorded(config: S3TokenizerConfig) -> dict[str, object]:
    """The configuration that the module was built with, in the recording's terms.

    The context is the serving limit of 30 s; the reference computed attention step by step.
    """
    mine: dict[str, object] = {name: getattr(config, name) for name in config.__dataclass_fields__}
    return mine | {"n_codebook_size": 3**config.num_dims, "n_audio_ctx": 30 * 100 // 2, "use_sdpa": False}


def _check_codes(model: S3Tokenizer, recording: Recording, report: Report) -> None:
    case, log_mel = recording.name, recording.tensor("mel")
    hidden, lengths = model.encoder(log_mel, torch.tensor([log_mel.shape[-1]]))
    report.close(case, "hidden", hidden, recording.tensor("hidden"), FEATURES)
    numbers = model.quantizer.before_rounding(hidden)
    report.close(case, "fsq_pre_round", numbers, recording.tensor("fsq_pre_round"), FEATURES)
    codes = model.quantizer(hidden)
    report.equal(case, "code", codes, recording.tensor("code"))
    report.equal(case, "n_tokens", lengths, [recording.meta("n_tokens")])
    report.equal(case, "distinct_codes", len(codes.unique()), recording.meta("distinct_codes"))
    margin = (numbers.abs() - 0.5).abs().min()
    recorded = torch.tensor(recording.meta("min_distance_to_rounding_boundary"))
    report.close(case, "min_distance_to_rounding_boundary", margin, recorded, FEATURES)
    batch, frames = recording.tensor("batch_mel"), recording.tensor("batch_len")
    heard = torch.arange(log_mel.shape[-1]) < frames[:, None, None]
    report.close(case, "batch_mel", batch, log_mel * heard, 0.0)  # beginnings of `mel`, padded with zeros
    batch_codes, batch_lengths = model(batch, frames)
    report.equal(case, "batch_code", batch_codes, recording.tensor("batch_code"))
    report.equal(case, "batch_code_len", batch_lengths, recording.tensor("batch_code_len"))
