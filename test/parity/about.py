"""What a directory says about itself: `index` (sizes of the models) and `tolerance` (noise of the reference).

`tolerance` compares the reference in float32 with itself in float64: our tolerances must lie above that noise, or
passing would be luck; and its statistics must be those of the recorded waveforms.
"""

from __future__ import annotations

from pathlib import Path

import torch

from light_tts.encode.tokenizer import TextTokenizer
from light_tts.models.config import ConformerConfig, DiTConfig, HiFTConfig, ModelConfig, UNetConfig
from light_tts.models.loader import load_vocoder
from light_tts.models.model_yaml import read_model_config
from test.parity.recording import Recording
from test.parity.report import DECODE, F0_HZ, LOGITS, LONG_WAVE, MEL, SHORT_WAVE, SOURCE, Report

STATISTIC = 1e-6
# Longest prefix wins.
LIMITS = {
    "llm.": LOGITS,
    "flow.": MEL,
    "hift.f0": F0_HZ,
    "hift.wav": SHORT_WAVE,
    "hift.source": SOURCE,
    "hift.decode": DECODE,
    "hift.long": LONG_WAVE,
}


def check(folder: Path, report: Report) -> list[Recording]:
    recordings = []
    for name, look in (("index", _index), ("tolerance", _tolerance)):
        if (folder / "fixtures" / f"{name}.json").exists():
            recording = Recording(folder / "fixtures", name)
            look(folder, recording, report)
            recordings.append(recording)
    return recordings


def _index(folder: Path, recording: Recording, report: Report) -> None:
    recorded = recording.meta("preset")
    for version in (2, 3):
        model_dir = folder / f"cosyvoice{version}"
        if not model_dir.is_dir():
            continue
        config = read_model_config(model_dir)
        tokenizer = TextTokenizer.from_model_dir(model_dir / "CosyVoice-BlankEN", version)
        for key, value in _sizes(config, tokenizer).items():
            report.equal("index", f"cosyvoice{version} {key}", value, recorded[key])
        report.equal(
            "index", f"cosyvoice{version} eop_id", tokenizer.end_of_prompt_id, recording.meta("eop_id")
        )
    report.equal("index", "speech_vocab = 3 ** fsq_dims", recorded["speech_vocab"], 3 ** recorded["fsq_dims"])
    if not isinstance(recording.meta("seed"), int):
        report.fail("index", "seed", "not an integer")


def _sizes(config: ModelConfig, tokenizer: TextTokenizer) -> dict[str, object]:
    """The model's sizes in the form of `index.json`."""
    qwen = config.llm.qwen
    sizes: dict[str, object] = {
        "speech_vocab": config.flow.vocab_size,
        "llm": {
            "hidden": qwen.hidden_size,
            "inter": qwen.intermediate_size,
            "layers": qwen.num_hidden_layers,
            "heads": qwen.num_attention_heads,
            "kv": qwen.num_key_value_heads,
            "base_vocab": min(tokenizer.special_ids.values()),
        },
        "hift": _vocoder_sizes(config.hift),
    }
    if config.flow.encoder is not None:
        sizes["enc"] = _encoder_sizes(config.flow.encoder)
    sizes |= _estimator_sizes(config.flow.estimator, config.flow.pre_lookahead_channels)
    return sizes


def _encoder_sizes(cfg: ConformerConfig) -> dict[str, int]:
    return {
        "dim": cfg.output_size,
        "heads": cfg.attention_heads,
        "units": cfg.linear_units,
        "blocks": cfg.num_blocks,
    }


def _estimator_sizes(cfg: UNetConfig | DiTConfig, pre_channels: int | None) -> dict[str, object]:
    if isinstance(cfg, UNetConfig):
        return {
            "est": {
                "channels": cfg.channels,
                "head_dim": cfg.attention_head_dim,
                "heads": cfg.num_heads,
                "n_blocks": cfg.n_blocks,
                "mid": cfg.num_mid_blocks,
            }
        }
    return {
        "dit": {
            "dim": cfg.dim,
            "depth": cfg.depth,
            "heads": cfg.heads,
            "dim_head": cfg.dim_head,
            "ff_mult": cfg.ff_mult,
            "pre_channels": pre_channels,
        }
    }


def _vocoder_sizes(cfg: HiFTConfig) -> dict[str, object]:
    return {
        "base": cfg.base_channels,
        "rates": list(cfg.upsample_rates),
        "kernels": list(cfg.upsample_kernel_sizes),
        "rk": list(cfg.resblock_kernel_sizes),
        "rd": [list(dilations) for dilations in cfg.resblock_dilation_sizes],
        "srk": list(cfg.source_resblock_kernel_sizes),
        "f0": cfg.f0_cond_channels,
    }


def _tolerance(folder: Path, recording: Recording, report: Report) -> None:
    for version in (2, 3):
        model = f"cosyvoice{version}"
        if not recording.has_meta(model):
            continue
        noise: dict[str, float | bool] = dict(recording.meta(model))
        for key, value in _statistics(folder, version).items():
            expected = torch.tensor([float(noise.pop(key))], dtype=torch.float64)
            actual = torch.tensor([value], dtype=torch.float64)
            report.close("tolerance", f"{model} {key}", actual, expected, STATISTIC)
        distance = noise.pop("hift.min_abs_f0_minus_10", None)
        if distance is not None:
            vocoder = Recording(folder / "fixtures", f"cv{version}_hift")
            nearest = vocoder.meta("window", "min_abs_f0_minus_10")
            report.equal("tolerance", f"{model} hift.min_abs_f0_minus_10", nearest, distance)
        for key, value in noise.items():
            _below_limit(report, f"{model} {key}", key, value)


def _below_limit(report: Report, label: str, key: str, value: float | bool) -> None:
    if isinstance(value, bool):
        report.equal("tolerance", label, value, True)
        return
    prefixes = [prefix for prefix in LIMITS if key.startswith(prefix)]
    if not prefixes:
        report.fail("tolerance", label, "no tolerance of ours is known for this")
        return
    limit = LIMITS[max(prefixes, key=len)]
    report.close("tolerance", label, torch.tensor([value]), torch.zeros(1), limit)


def _statistics(folder: Path, version: int) -> dict[str, float]:
    """What `tolerance.json` says of the whole run `e2e.nonstream`, from its recorded waveform and mel."""
    run = Recording(folder / "fixtures", f"cv{version}_e2e")
    wav, mel = run.tensor("e2e.nonstream.wav").double(), run.tensor("e2e.nonstream.mel")
    model_dir = folder / f"cosyvoice{version}"
    config = read_model_config(model_dir).hift
    f0 = load_vocoder(model_dir, config, torch.device("cpu"), torch.float32).f0(mel)
    return {
        "wav_std": float(wav.std()),
        "wav_absmax": float(wav.abs().max()),
        "mel_std": float(mel.double().std()),
        "voiced_frac": float((f0 > config.nsf_voiced_threshold).double().mean()),
    }
