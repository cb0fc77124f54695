"""The model directory's configuration: `cosyvoice2.yaml` or `cosyvoice3.yaml`, and Qwen2's `config.json`.

Only what inference needs is read; what belongs to training is ignored, but may not be unsafe (safe_yaml).
Values that the reference fixes in code are checked where a yaml could contradict them.
"""

from __future__ import annotations

from pathlib import Path

from light_tts.errors import InvalidModelConfig, ModelNotFound
from light_tts.models.config import (
    ModelConfig,
    Qwen2Config,
    SamplingConfig,
    SpeechLMConfig,
)
from light_tts.models.fields import Section
from light_tts.models.yaml_flow import FLOW_CLASS, read_flow
from light_tts.models.yaml_vocoder import HIFT_CLASS, MEL_CLASS, read_hift, read_mel

YAML_NAMES = {2: "cosyvoice2.yaml", 3: "cosyvoice3.yaml"}
QWEN_DIR = "CosyVoice-BlankEN"
SAMPLE_RATE = 24_000
TOKEN_RATE = 25

LLM_CLASS = {2: "new:cosyvoice.llm.llm.Qwen2LM", 3: "new:cosyvoice.llm.llm.CosyVoice3LM"}
SAMPLING_CLASS = "name:cosyvoice.utils.common.ras_sampling"
QWEN_CLASS = "new:cosyvoice.llm.llm.Qwen2Encoder"


def find_model_yaml(model_dir: Path) -> tuple[int, Path]:
    """The model's version and its yaml. The file's name decides, as in the reference.

    Raises ModelNotFound; InvalidModelConfig for CosyVoice 1 and for a directory with both versions.
    """
    if not model_dir.is_dir():
        raise ModelNotFound(f"model directory {model_dir} does not exist")
    found = [
        (version, model_dir / name) for version, name in YAML_NAMES.items() if (model_dir / name).is_file()
    ]
    if len(found) == 1:
        return found[0]
    names = " or ".join(YAML_NAMES.values())
    if found:
        raise InvalidModelConfig(f"{model_dir} holds both {names}: keep the one that belongs to the weights")
    if (model_dir / "cosyvoice.yaml").is_file():
        raise InvalidModelConfig(
            f"{model_dir}/cosyvoice.yaml: CosyVoice 1 models are unsupported; needed is {names}"
        )
    raise ModelNotFound(f"{model_dir} holds no {names}")


def read_model_config(model_dir: Path) -> ModelConfig:
    """Read and check the configuration of a model directory; no code in it is run.

    Raises ModelNotFound, UnsafeFile, CorruptFile, or InvalidModelConfig with file, field, value and limit.
    """
    version, path = find_model_yaml(model_dir)
    top = Section.from_yaml(path)
    top.integer("sample_rate", SAMPLE_RATE, SAMPLE_RATE)
    top.expect("token_frame_rate", TOKEN_RATE)
    chunk_size = top.integer("chunk_size", 1, 1000, default=25)
    spk_embed_dim = top.integer("spk_embed_dim", 1, 4096)
    llm = _speech_lm(top.section("llm", LLM_CLASS[version]), version, read_qwen_config(model_dir))
    flow = read_flow(top.section("flow", FLOW_CLASS[version]), version, chunk_size, TOKEN_RATE)
    hift = read_hift(top.section("hift", HIFT_CLASS[version]), version, flow.output_size, SAMPLE_RATE)
    mel = read_mel(
        top.section("feat_extractor", MEL_CLASS), flow.output_size, hift.samples_per_frame, SAMPLE_RATE
    )
    if "get_tokenizer" in top.entries:
        top.section("get_tokenizer").expect("version", f"cosyvoice{version}", "the file's name says so")
    if flow.vocab_size != llm.speech_token_size:
        top.fail(
            "flow", f"vocab_size is {flow.vocab_size}, but llm.speech_token_size is {llm.speech_token_size}"
        )
    if flow.spk_embed_dim != spk_embed_dim:
        top.fail("flow", f"spk_embed_dim is {flow.spk_embed_dim}, but spk_embed_dim is {spk_embed_dim}")
    if mel.hop_size * flow.token_mel_ratio * TOKEN_RATE != SAMPLE_RATE:
        top.fail("feat_extractor", f"hop_size is {mel.hop_size}: {TOKEN_RATE} tokens a second do not fit")
    return ModelConfig(version, SAMPLE_RATE, chunk_size, spk_embed_dim, llm, flow, hift, mel)


def read_qwen_config(model_dir: Path) -> Qwen2Config:
    """The language model's dimensions from `CosyVoice-BlankEN/config.json`."""
    path = model_dir / QWEN_DIR / "config.json"
    if not path.is_file():
        raise ModelNotFound(f"{path} does not exist")
    top = Section.from_json(path)
    top.expect("model_type", "qwen2")
    top.expect("hidden_act", "silu")
    top.expect("use_sliding_window", False)
    hidden_size = top.integer("hidden_size", 8, 16_384)
    heads = top.integer("num_attention_heads", 1, 256)
    kv_heads = top.integer("num_key_value_heads", 1, 256, default=heads)
    if hidden_size % (2 * heads):
        top.fail("hidden_size", f"is {hidden_size}, must be an even multiple of num_attention_heads {heads}")
    if heads % kv_heads:
        top.fail("num_attention_heads", f"is {heads}, must be a multiple of num_key_value_heads {kv_heads}")
    if top.has("head_dim"):
        top.expect("head_dim", hidden_size // heads, "hidden_size / num_attention_heads")
    return Qwen2Config(
        vocab_size=top.integer("vocab_size", 1, 2_000_000),
        hidden_size=hidden_size,
        intermediate_size=top.integer("intermediate_size", 1, 131_072),
        num_hidden_layers=top.integer("num_hidden_layers", 1, 256),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        rms_norm_eps=top.number("rms_norm_eps", 1e-12, 1e-2, default=1e-6),
        rope_theta=_rope_theta(top),
    )


def _rope_theta(top: Section) -> float:
    """Older files hold it at the top level, newer ones in `rope_parameters` (or `rope_scaling`)."""
    theta = top.number("rope_theta", 1.0, 1e12, default=1e6)
    for name in ("rope_parameters", "rope_scaling"):
        if top.has(name):
            rope = top.section(name)
            rope.expect("rope_type", "default")
            rope.expect("type", "default")
            theta = rope.number("rope_theta", 1.0, 1e12, default=theta)
    return theta


def _speech_lm(llm: Section, version: int, qwen: Qwen2Config) -> SpeechLMConfig:
    llm.section("llm", QWEN_CLASS)
    for name in ("llm_input_size", "llm_output_size"):
        llm.integer(name, 1, 1 << 20)
        llm.expect(name, qwen.hidden_size, f"hidden_size of {QWEN_DIR}/config.json")
    sampling = llm.section("sampling", SAMPLING_CLASS)
    mix_ratio = llm.integers("mix_ratio", 1, 1000) if llm.has("mix_ratio") else (5, 15)
    if len(mix_ratio) != 2:
        llm.fail("mix_ratio", f"has {len(mix_ratio)} values, must have 2 (text, speech)")
    default = SamplingConfig()
    return SpeechLMConfig(
        version=version,
        qwen=qwen,
        speech_token_size=llm.integer("speech_token_size", 1, 1_000_000),
        sampling=SamplingConfig(
            top_p=sampling.number("top_p", 1e-6, 1.0, default=default.top_p),
            top_k=sampling.integer("top_k", 1, 1_000_000, default=default.top_k),
            win_size=sampling.integer("win_size", 1, 10_000, default=default.win_size),
            tau_r=sampling.number("tau_r", 0.0, 1.0, default=default.tau_r),
        ),
        mix_ratio=(mix_ratio[0], mix_ratio[1]),
    )
