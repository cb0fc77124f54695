"""The texts of a model directory in the released layout: its yaml and the configuration of its tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping

from recipes.mini.model_settings import SAMPLE_RATE, SPEAKER_DIM, ModelSettings

YAML_NAME = "cosyvoice2.yaml"
QWEN_DIR = "CosyVoice-BlankEN"
END_OF_TEXT = "<|endoftext|>"
UNKNOWN = "<unk>"

# The tags name the reference's classes, so that the reference reads the directory too; nothing here runs them.
_YAML = """\
# light-tts-mini: CosyVoice2's structure with fewer and narrower layers
__set_seed1: !apply:random.seed [1986]
__set_seed2: !apply:numpy.random.seed [1986]
__set_seed3: !apply:torch.manual_seed [1986]
__set_seed4: !apply:torch.cuda.manual_seed_all [1986]

sample_rate: {sample_rate}
llm_input_size: {lm_hidden}
llm_output_size: {lm_hidden}
spk_embed_dim: {speaker_dim}
qwen_pretrain_path: ''
token_frame_rate: 25
token_mel_ratio: 2

chunk_size: 25 # streaming chunk, in tokens
num_decoding_left_chunks: -1

llm: !new:cosyvoice.llm.llm.Qwen2LM
    llm_input_size: !ref <llm_input_size>
    llm_output_size: !ref <llm_output_size>
    speech_token_size: {speech_token_size}
    length_normalized_loss: True
    lsm_weight: 0
    mix_ratio: [5, 15]
    llm: !new:cosyvoice.llm.llm.Qwen2Encoder
        pretrain_path: !ref <qwen_pretrain_path>
    sampling: !name:cosyvoice.utils.common.ras_sampling
        top_p: {sampling_top_p}
        top_k: {sampling_top_k}
        win_size: {sampling_win_size}
        tau_r: {sampling_tau_r}

flow: !new:cosyvoice.flow.flow.CausalMaskedDiffWithXvec
    input_size: {flow_width}
    output_size: 80
    spk_embed_dim: !ref <spk_embed_dim>
    output_type: 'mel'
    vocab_size: {speech_token_size}
    input_frame_rate: !ref <token_frame_rate>
    only_mask_loss: True
    token_mel_ratio: !ref <token_mel_ratio>
    pre_lookahead_len: 3
    encoder: !new:cosyvoice.transformer.upsample_encoder.UpsampleConformerEncoder
        output_size: {flow_width}
        attention_heads: {flow_heads}
        linear_units: {flow_inner}
        num_blocks: {flow_blocks}
        dropout_rate: 0.1
        positional_dropout_rate: 0.1
        attention_dropout_rate: 0.1
        normalize_before: True
        input_layer: 'linear'
        pos_enc_layer_type: 'rel_pos_espnet'
        selfattention_layer_type: 'rel_selfattn'
        input_size: {flow_width}
        use_cnn_module: False
        macaron_style: False
        static_chunk_size: !ref <chunk_size>
    decoder: !new:cosyvoice.flow.flow_matching.CausalConditionalCFM
        in_channels: 240
        n_spks: 1
        spk_emb_dim: 80
        cfm_params: !new:omegaconf.DictConfig
            content:
                sigma_min: 1e-06
                solver: 'euler'
                t_scheduler: 'cosine'
                training_cfg_rate: 0.2
                inference_cfg_rate: {flow_cfg_rate}
                reg_loss_type: 'l1'
        estimator: !new:cosyvoice.flow.decoder.CausalConditionalDecoder
            in_channels: 320
            out_channels: 80
            channels: [{unet_channels}]
            dropout: 0.0
            attention_head_dim: {unet_head_dim}
            n_blocks: {unet_blocks}
            num_mid_blocks: {unet_mid_blocks}
            num_heads: {unet_heads}
            act_fn: 'gelu'
            static_chunk_size: !ref <chunk_size> * <token_mel_ratio>
            num_decoding_left_chunks: !ref <num_decoding_left_chunks>

hift: !new:cosyvoice.hifigan.generator.HiFTGenerator
    in_channels: 80
    base_channels: {hift_channels}
    nb_harmonics: 8
    sampling_rate: !ref <sample_rate>
    nsf_alpha: 0.1
    nsf_sigma: 0.003
    nsf_voiced_threshold: 10
    upsample_rates: [8, 5, 3]
    upsample_kernel_sizes: [16, 11, 7]
    istft_params:
        n_fft: 16
        hop_len: 4
    resblock_kernel_sizes: [3, 7, 11]
    resblock_dilation_sizes: [[1, 3, 5], [1, 3, 5], [1, 3, 5]]
    source_resblock_kernel_sizes: [7, 7, 11]
    source_resblock_dilation_sizes: [[1, 3, 5], [1, 3, 5], [1, 3, 5]]
    lrelu_slope: 0.1
    audio_limit: 0.99
    f0_predictor: !new:cosyvoice.hifigan.f0_predictor.ConvRNNF0Predictor
        num_class: 1
        in_channels: 80
        cond_channels: {hift_f0_channels}

get_tokenizer: !name:cosyvoice.tokenizer.tokenizer.get_qwen_tokenizer
    token_path: !ref <qwen_pretrain_path>
    skip_special_tokens: True
allowed_special: 'all'
feat_extractor: !name:matcha.utils.audio.mel_spectrogram
    n_fft: 1920
    num_mels: 80
    sampling_rate: !ref <sample_rate>
    hop_size: 480
    win_size: 1920
    fmin: 0
    fmax: 8000
    center: False
"""


def model_yaml(model: ModelSettings) -> str:
    """`cosyvoice2.yaml`."""
    return _YAML.format(
        sample_rate=SAMPLE_RATE,
        speaker_dim=SPEAKER_DIM,
        speech_token_size=model.speech_token_size,
        lm_hidden=model.lm_hidden,
        sampling_top_p=model.sampling_top_p,
        sampling_top_k=model.sampling_top_k,
        sampling_win_size=model.sampling_win_size,
        sampling_tau_r=model.sampling_tau_r,
        flow_width=model.flow_width,
        flow_heads=model.flow_heads,
        flow_inner=model.flow_inner,
        flow_blocks=model.flow_blocks,
        flow_cfg_rate=model.flow_cfg_rate,
        unet_channels=model.unet_channels,
        unet_head_dim=model.unet_head_dim,
        unet_heads=model.unet_heads,
        unet_blocks=model.unet_blocks,
        unet_mid_blocks=model.unet_mid_blocks,
        hift_channels=model.hift_channels,
        hift_f0_channels=model.hift_f0_channels,
    )


def qwen_config(model: ModelSettings) -> str:
    """`CosyVoice-BlankEN/config.json`."""
    return _json(
        {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "vocab_size": model.text_vocab_size,
            "hidden_size": model.lm_hidden,
            "intermediate_size": model.lm_inner,
            "num_hidden_layers": model.lm_layers,
            "num_attention_heads": model.lm_heads,
            "num_key_value_heads": model.lm_kv_heads,
            "hidden_act": "silu",
            "max_position_embeddings": 32_768,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1_000_000.0,
            "tie_word_embeddings": True,
            "use_sliding_window": False,
            "attention_dropout": 0.0,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "torch_dtype": "float32",
        }
    )


def tokenizer_json(vocabulary: Mapping[str, int]) -> str:
    """`CosyVoice-BlankEN/tokenizer.json`: whole symbols, split at white space."""
    end = {
        "id": vocabulary[END_OF_TEXT],
        "content": END_OF_TEXT,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
    return _json(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [end],
            "normalizer": None,
            "pre_tokenizer": {"type": "WhitespaceSplit"},
            "post_processor": None,
            "decoder": None,
            "model": {"type": "WordLevel", "vocab": dict(vocabulary), "unk_token": UNKNOWN},
        },
        indent=None,
    )


def tokenizer_config() -> str:
    """`CosyVoice-BlankEN/tokenizer_config.json`."""
    return _json(
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": END_OF_TEXT,
            "pad_token": END_OF_TEXT,
            "unk_token": UNKNOWN,
            "model_max_length": 32_768,
            "clean_up_tokenization_spaces": False,
        }
    )


def _json(value: object, indent: int | None = 1) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent) + "\n"
