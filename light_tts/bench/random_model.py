"""Model directories in the released layout with random weights: of the released size, or the bundled voice's.

Numbers are drawn so that activations stay about as large as a trained model's: half precision holds them, the flow's
velocity is of size 1, and the vocoder's waveform has some tenths. What is spoken is noise; what it costs is not.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from light_tts.encode.features import PromptFeatures
from light_tts.encode.voice_file import Voice
from light_tts.encode.voices import VoiceStore
from light_tts.models.bundled import resolve_model_dir
from light_tts.models.config import FlowConfig, HiFTConfig, ModelConfig, SpeechLMConfig
from light_tts.models.flow.token_to_mel import Flow
from light_tts.models.layers.ragged import Frames
from light_tts.models.model_yaml import read_model_config
from light_tts.models.speech_lm import SpeechLM
from light_tts.models.vocoder.hift import HiFT
from light_tts.voice_info import VoiceInfo

VOICE = "bench"
PROMPT_TOKENS = 75  # 3 s, as in the figures that others publish
PROMPT_TEXT = "The quick brown fox jumps over the lazy dog."
QWEN_05B = {
    "vocab_size": 151936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
}


@dataclass(frozen=True, slots=True)
class Size:
    """version: of CosyVoice, 2 or 3; released: the yaml lies beside this module; else the bundled voice's is taken"""

    version: int
    released: bool


SIZES = {
    "cosyvoice2-0.5b": Size(2, True),
    "cosyvoice3-0.5b": Size(3, True),
    "mini": Size(2, False),
}


def write_random_model(folder: Path, name: str, device: torch.device, seed: int = 0) -> Path:
    """Write a model directory that the server loads, with the voice `VOICE`. name: of SIZES

    Weights are drawn on `device` and kept in 16 bits. Tokenizer, speech tokenizer and speaker encoder are the bundled
    voice's: a cloned recording costs less here than with the released ones. Raises ModelNotFound without that voice.
    """
    config = write_settings(folder, name)
    torch.manual_seed(seed)
    _save(folder, "llm", random_speech_lm(config.llm, device))
    _save(folder, "flow", random_flow(config.flow, device))
    _save(folder, "hift", random_vocoder(config.hift, device))
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, config.flow.vocab_size, (PROMPT_TOKENS,), generator=generator)
    mel = torch.randn(
        PROMPT_TOKENS * config.flow.token_mel_ratio, config.flow.output_size, generator=generator
    )
    embedding = torch.randn(config.spk_embed_dim, generator=generator)
    features = PromptFeatures(tokens, mel, embedding, VOICE, PROMPT_TOKENS / 25)
    info = VoiceInfo(name=VOICE, prompt_text=PROMPT_TEXT, language="en", source="random numbers")
    VoiceStore(folder / "voices", config.spk_embed_dim).save(Voice(info, features))
    return folder


def write_settings(folder: Path, name: str) -> ModelConfig:
    """All of the directory but weights and voice."""
    size, bundled = SIZES[name], resolve_model_dir(None)
    qwen = folder / "CosyVoice-BlankEN"
    qwen.mkdir(parents=True, exist_ok=True)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(bundled / "CosyVoice-BlankEN" / file, qwen / file)
    shutil.copyfile(bundled / "campplus.onnx", folder / "campplus.onnx")
    shutil.copyfile(bundled / "speech_tokenizer_v2.onnx", folder / f"speech_tokenizer_v{size.version}.onnx")
    yaml = folder / f"cosyvoice{size.version}.yaml"
    if size.released:
        (qwen / "config.json").write_text(json.dumps(QWEN_05B), "utf-8")
        shutil.copyfile(Path(__file__).with_name(f"{name}.yaml"), yaml)
    else:
        shutil.copyfile(bundled / "CosyVoice-BlankEN/config.json", qwen / "config.json")
        shutil.copyfile(bundled / "cosyvoice2.yaml", yaml)
    return read_model_config(folder)


def _save(folder: Path, part: str, module: nn.Module) -> None:
    weights = {name: value.half().cpu().contiguous() for name, value in module.state_dict().items()}
    save_file(weights, folder / f"{part}.safetensors")


@torch.no_grad()
def random_speech_lm(cfg: SpeechLMConfig, device: torch.device) -> SpeechLM:
    """Layers add about as much to the residual as the embedding brought."""
    with device:
        model = SpeechLM(cfg).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            parameter.normal_(1.0, 0.1)
        else:
            parameter.normal_(0.0, 0.5 if "embed" in name else parameter.shape[-1] ** -0.5)
    model.llm_decoder.weight.mul_(4.0)
    return model


@torch.inference_mode()
def random_flow(cfg: FlowConfig, device: torch.device) -> Flow:
    """Weights as torch draws them, and a velocity of size 1."""
    with device:
        flow = Flow(cfg).eval().requires_grad_(False)
        for name, parameter in flow.named_parameters():
            if "pos_bias" in name:
                nn.init.normal_(parameter, std=0.1)
        lens = torch.full((1,), 100)
        x, mu, cond = (torch.randn(1, cfg.output_size, 100) for _ in range(3))
        spks, t = torch.randn(1, cfg.output_size), torch.full((1,), 0.5)
        estimator = flow.decoder.estimator
        out, _ = estimator(x, mu, t, spks, cond, Frames.whole(lens.cpu(), 100))
        last: nn.Module = estimator.final_proj if cfg.version == 2 else estimator.proj_out  # type: ignore[assignment]
        last.weight.div_(out.std())  # type: ignore[operator]
        last.bias.zero_()  # type: ignore[operator]
    return flow


@torch.inference_mode()
def random_vocoder(cfg: HiFTConfig, device: torch.device) -> HiFT:
    """A pitch between 50 and 400 Hz, and a waveform of some tenths."""
    with device:
        model = HiFT(cfg).eval().requires_grad_(False)
        for module in model.modules():
            if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
                plain = isinstance(module, nn.Conv1d)
                fan = module.weight[0].numel() if plain else module.weight.shape[0] * 2
                nn.init.normal_(module.weight, std=0.6 * fan**-0.5)
        nn.init.normal_(model.f0_predictor.classifier.weight, std=20.0)
        nn.init.constant_(model.f0_predictor.classifier.bias, 150.0)
        nn.init.normal_(model.conv_post.weight, std=0.3 * (7 * model.conv_post.in_channels) ** -0.5)
        assert model.conv_post.bias is not None
        nn.init.constant_(model.conv_post.bias, -1.0)
    return model
