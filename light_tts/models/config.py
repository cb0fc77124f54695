"""Typed model configuration: what the model directory's yaml and json say, and nothing else.

All lengths are in the unit that the name says; the token rate is 25 Hz, the mel rate 50 Hz, audio 24 kHz.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Qwen2Config:
    """`CosyVoice-BlankEN/config.json`."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1_000_000.0

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads


@dataclass(frozen=True, slots=True)
class SamplingConfig:
    """Repetition-aware sampling: yaml `llm.sampling`."""

    top_p: float = 0.8
    top_k: int = 25
    win_size: int = 10
    tau_r: float = 0.1


@dataclass(frozen=True, slots=True)
class SpeechLMConfig:
    version: int  # 2 or 3
    qwen: Qwen2Config
    speech_token_size: int
    sampling: SamplingConfig
    mix_ratio: tuple[int, int] = (5, 15)  # text : speech tokens while text is still arriving

    @property
    def num_extra_ids(self) -> int:
        """Rows of the speech embedding beyond the speech tokens."""
        return 3 if self.version == 2 else 200

    @property
    def eos_id(self) -> int:
        return self.speech_token_size + (0 if self.version == 2 else 1)

    @property
    def fill_id(self) -> int:
        return self.speech_token_size + (2 if self.version == 2 else 3)

    @property
    def stop_ids(self) -> range:
        return range(self.speech_token_size, self.speech_token_size + self.num_extra_ids)


@dataclass(frozen=True, slots=True)
class ConformerConfig:
    """CosyVoice2's token encoder (yaml `flow.encoder`)."""

    input_size: int
    output_size: int
    attention_heads: int
    linear_units: int
    num_blocks: int
    num_up_blocks: int = 4
    pre_lookahead_len: int = 3
    upsample: int = 2  # token_mel_ratio
    chunk_size: int = 25  # streaming attention chunk, in tokens


@dataclass(frozen=True, slots=True)
class UNetConfig:
    """CosyVoice2's flow estimator (yaml `flow.decoder.estimator`)."""

    in_channels: int
    out_channels: int
    channels: int  # the single level of yaml `channels: [N]`
    attention_head_dim: int
    n_blocks: int
    num_mid_blocks: int
    num_heads: int
    chunk_size: int = 50  # streaming attention chunk, in mel frames


@dataclass(frozen=True, slots=True)
class DiTConfig:
    """CosyVoice3's flow estimator (yaml `flow.decoder.estimator`)."""

    dim: int
    depth: int
    heads: int
    dim_head: int
    ff_mult: int
    mel_dim: int = 80
    mu_dim: int = 80
    spk_dim: int = 80
    out_channels: int = 80
    chunk_size: int = 50  # streaming attention chunk, in mel frames


@dataclass(frozen=True, slots=True)
class FlowConfig:
    version: int  # 2: conformer encoder + UNet; 3: look-ahead layer + DiT
    vocab_size: int
    input_size: int
    output_size: int
    spk_embed_dim: int
    pre_lookahead_len: int
    token_mel_ratio: int
    encoder: ConformerConfig | None  # version 2
    pre_lookahead_channels: int | None  # version 3
    estimator: UNetConfig | DiTConfig
    inference_cfg_rate: float = 0.7
    num_steps: int = 10


@dataclass(frozen=True, slots=True)
class HiFTConfig:
    version: int  # 2: plain; 3: causal
    in_channels: int
    base_channels: int
    nb_harmonics: int
    sampling_rate: int
    nsf_alpha: float
    nsf_sigma: float
    nsf_voiced_threshold: float
    upsample_rates: tuple[int, ...]
    upsample_kernel_sizes: tuple[int, ...]
    istft_n_fft: int
    istft_hop_len: int
    resblock_kernel_sizes: tuple[int, ...]
    resblock_dilation_sizes: tuple[tuple[int, ...], ...]
    source_resblock_kernel_sizes: tuple[int, ...]
    source_resblock_dilation_sizes: tuple[tuple[int, ...], ...]
    lrelu_slope: float
    audio_limit: float
    f0_cond_channels: int
    conv_pre_look_right: int = 4  # version 3 only

    @property
    def samples_per_frame(self) -> int:
        """Audio samples per mel frame (480)."""
        product = self.istft_hop_len
        for rate in self.upsample_rates:
            product *= rate
        return product


@dataclass(frozen=True, slots=True)
class MelConfig:
    """The 24 kHz prompt mel (yaml `feat_extractor`)."""

    n_fft: int = 1920
    num_mels: int = 80
    sampling_rate: int = 24_000
    hop_size: int = 480
    win_size: int = 1920
    fmin: float = 0.0
    fmax: float | None = 8000.0


@dataclass(frozen=True, slots=True)
class ModelConfig:
    version: int  # 2: CosyVoice2, 3: CosyVoice3
    sample_rate: int
    chunk_size: int  # streaming chunk, in tokens
    spk_embed_dim: int
    llm: SpeechLMConfig
    flow: FlowConfig
    hift: HiFTConfig
    mel: MelConfig
