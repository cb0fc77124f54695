"""The dimensions of the bundled model, and what `light_tts.models` is built from."""

from __future__ import annotations

from dataclasses import dataclass

from light_tts.models.config import (
    ConformerConfig,
    FlowConfig,
    HiFTConfig,
    MelConfig,
    ModelConfig,
    Qwen2Config,
    SamplingConfig,
    SpeechLMConfig,
    UNetConfig,
)

SAMPLE_RATE = 24_000
SPEAKER_DIM = 192


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """The dimensions of the exported model."""

    speech_token_size: int = 729
    text_vocab_size: int = 2752  # rows of the embedding; the symbols in use are fewer

    lm_hidden: int = 320
    lm_inner: int = 576
    lm_layers: int = 6
    lm_heads: int = 5
    lm_kv_heads: int = 1

    # codes may repeat within the window that the released values (10, 0.1) forbid; see docs/model-card-mini.md
    sampling_top_p: float = 0.6
    sampling_top_k: int = 12
    sampling_win_size: int = 10
    sampling_tau_r: float = 0.1

    flow_width: int = 160
    flow_heads: int = 4
    flow_inner: int = 448
    flow_blocks: int = 2
    unet_channels: int = 128
    unet_heads: int = 4
    unet_head_dim: int = 32
    unet_blocks: int = 1
    unet_mid_blocks: int = 2
    flow_cfg_rate: float = 0.0  # 0: guidance is distilled into the weights, see docs/model-card-mini.md

    hift_channels: int = 192
    hift_f0_channels: int = 128


def model_config(m: ModelSettings) -> ModelConfig:
    """The same as reading the exported yaml."""
    lm = SpeechLMConfig(
        version=2,
        qwen=Qwen2Config(
            vocab_size=m.text_vocab_size,
            hidden_size=m.lm_hidden,
            intermediate_size=m.lm_inner,
            num_hidden_layers=m.lm_layers,
            num_attention_heads=m.lm_heads,
            num_key_value_heads=m.lm_kv_heads,
        ),
        speech_token_size=m.speech_token_size,
        sampling=SamplingConfig(m.sampling_top_p, m.sampling_top_k, m.sampling_win_size, m.sampling_tau_r),
    )
    return ModelConfig(
        version=2,
        sample_rate=SAMPLE_RATE,
        chunk_size=25,
        spk_embed_dim=SPEAKER_DIM,
        llm=lm,
        flow=_flow_config(m),
        hift=_hift_config(m),
        mel=MelConfig(),
    )


def _flow_config(m: ModelSettings) -> FlowConfig:
    return FlowConfig(
        version=2,
        vocab_size=m.speech_token_size,
        input_size=m.flow_width,
        output_size=80,
        spk_embed_dim=SPEAKER_DIM,
        pre_lookahead_len=3,
        token_mel_ratio=2,
        encoder=ConformerConfig(
            input_size=m.flow_width,
            output_size=m.flow_width,
            attention_heads=m.flow_heads,
            linear_units=m.flow_inner,
            num_blocks=m.flow_blocks,
        ),
        pre_lookahead_channels=None,
        estimator=UNetConfig(
            in_channels=320,
            out_channels=80,
            channels=m.unet_channels,
            attention_head_dim=m.unet_head_dim,
            n_blocks=m.unet_blocks,
            num_mid_blocks=m.unet_mid_blocks,
            num_heads=m.unet_heads,
        ),
        inference_cfg_rate=m.flow_cfg_rate,
    )


def _hift_config(m: ModelSettings) -> HiFTConfig:
    return HiFTConfig(
        version=2,
        in_channels=80,
        base_channels=m.hift_channels,
        nb_harmonics=8,
        sampling_rate=SAMPLE_RATE,
        nsf_alpha=0.1,
        nsf_sigma=0.003,
        nsf_voiced_threshold=10.0,
        upsample_rates=(8, 5, 3),
        upsample_kernel_sizes=(16, 11, 7),
        istft_n_fft=16,
        istft_hop_len=4,
        resblock_kernel_sizes=(3, 7, 11),
        resblock_dilation_sizes=((1, 3, 5),) * 3,
        source_resblock_kernel_sizes=(7, 7, 11),
        source_resblock_dilation_sizes=((1, 3, 5),) * 3,
        lrelu_slope=0.1,
        audio_limit=0.99,
        f0_cond_channels=m.hift_f0_channels,
    )
