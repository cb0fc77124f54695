"""The `flow` part of a model yaml."""

from __future__ import annotations

from light_tts.models.config import ConformerConfig, DiTConfig, FlowConfig, UNetConfig
from light_tts.models.fields import Section

FLOW_CLASS = {
    2: "new:cosyvoice.flow.flow.CausalMaskedDiffWithXvec",
    3: "new:cosyvoice.flow.flow.CausalMaskedDiffWithDiT",
}
ENCODER_CLASS = "new:cosyvoice.transformer.upsample_encoder.UpsampleConformerEncoder"
LOOKAHEAD_CLASS = "new:cosyvoice.transformer.upsample_encoder.PreLookaheadLayer"
CFM_CLASS = "new:cosyvoice.flow.flow_matching.CausalConditionalCFM"
UNET_CLASS = "new:cosyvoice.flow.decoder.CausalConditionalDecoder"
DIT_CLASS = "new:cosyvoice.flow.DiT.dit.DiT"

LOOKAHEAD = 3  # tokens; the streaming schedule is built on it


def read_flow(flow: Section, version: int, chunk_size: int, token_rate: int) -> FlowConfig:
    """The configuration of speech tokens to mel. Raises InvalidModelConfig."""
    input_size, output_size = flow.integer("input_size", 1, 16_384), flow.integer("output_size", 1, 1024)
    ratio = flow.integer("token_mel_ratio", 2, 2, default=2)
    flow.expect("pre_lookahead_len", LOOKAHEAD)
    flow.expect("input_frame_rate", token_rate)
    decoder = flow.section("decoder", CFM_CLASS)
    decoder.expect("spk_emb_dim", output_size, "flow.output_size")
    cfm = decoder.section("cfm_params")
    cfm = cfm.section("content") if "content" in cfm.entries else cfm
    cfm.expect("solver", "euler")
    cfm.expect("t_scheduler", "cosine")
    if version == 2:
        estimator: UNetConfig | DiTConfig = _unet(decoder, output_size, chunk_size * ratio)
    else:
        estimator = _dit(decoder, output_size, chunk_size * ratio)
    return FlowConfig(
        version=version,
        vocab_size=flow.integer("vocab_size", 1, 1_000_000),
        input_size=input_size,
        output_size=output_size,
        spk_embed_dim=flow.integer("spk_embed_dim", 1, 4096),
        pre_lookahead_len=LOOKAHEAD,
        token_mel_ratio=ratio,
        encoder=_encoder(flow, input_size, chunk_size, ratio) if version == 2 else None,
        pre_lookahead_channels=_lookahead_channels(flow, input_size, output_size) if version == 3 else None,
        estimator=estimator,
        inference_cfg_rate=cfm.number("inference_cfg_rate", 0.0, 10.0, default=0.7),
    )


def _encoder(flow: Section, input_size: int, chunk_size: int, ratio: int) -> ConformerConfig:
    encoder = flow.section("encoder", ENCODER_CLASS)
    encoder.expect("input_size", input_size, "flow.input_size")
    encoder.expect("input_layer", "linear")
    encoder.expect("pos_enc_layer_type", "rel_pos_espnet")
    encoder.expect("selfattention_layer_type", "rel_selfattn")
    encoder.expect("normalize_before", True)
    encoder.expect("use_cnn_module", False)
    encoder.expect("macaron_style", False)
    encoder.expect("static_chunk_size", chunk_size, "chunk_size")
    output_size, heads = encoder.integer("output_size", 2, 16_384), encoder.integer("attention_heads", 1, 256)
    if output_size % heads or output_size % 2:
        encoder.fail(
            "output_size", f"is {output_size}, must be even and a multiple of attention_heads {heads}"
        )
    return ConformerConfig(
        input_size=encoder.integer("input_size", 1, 16_384),
        output_size=output_size,
        attention_heads=heads,
        linear_units=encoder.integer("linear_units", 1, 131_072),
        num_blocks=encoder.integer("num_blocks", 1, 256),
        pre_lookahead_len=LOOKAHEAD,
        upsample=ratio,
        chunk_size=chunk_size,
    )


def _lookahead_channels(flow: Section, input_size: int, output_size: int) -> int:
    if input_size != output_size:  # the layer's output is the estimator's mu
        flow.fail("input_size", f"is {input_size}, must be output_size {output_size}")
    layer = flow.section("pre_lookahead_layer", LOOKAHEAD_CLASS)
    layer.expect("in_channels", input_size, "flow.input_size")
    layer.expect("pre_lookahead_len", LOOKAHEAD)
    return layer.integer("channels", 1, 65_536)


def _unet(decoder: Section, mel_bins: int, chunk_size: int) -> UNetConfig:
    unet = decoder.section("estimator", UNET_CLASS)
    unet.expect("in_channels", 4 * mel_bins, "noise, encoder output, speaker and prompt")
    unet.expect("out_channels", mel_bins, "flow.output_size")
    unet.expect("act_fn", "gelu")
    unet.expect("static_chunk_size", chunk_size, "chunk_size * token_mel_ratio")
    channels = unet.integers("channels", 1, 16_384)
    if len(channels) != 1:
        unet.fail("channels", f"has {len(channels)} levels, only 1 is supported")
    return UNetConfig(
        in_channels=unet.integer("in_channels", 4, 4096),
        out_channels=unet.integer("out_channels", 1, 1024),
        channels=channels[0],
        attention_head_dim=unet.integer("attention_head_dim", 1, 1024),
        n_blocks=unet.integer("n_blocks", 0, 256),
        num_mid_blocks=unet.integer("num_mid_blocks", 0, 256),
        num_heads=unet.integer("num_heads", 1, 256),
        chunk_size=chunk_size,
    )


def _dit(decoder: Section, mel_bins: int, chunk_size: int) -> DiTConfig:
    dit = decoder.section("estimator", DIT_CLASS)
    for name in ("mel_dim", "mu_dim", "spk_dim", "out_channels"):
        dit.expect(name, mel_bins, "flow.output_size")
    dit.expect("static_chunk_size", chunk_size, "chunk_size * token_mel_ratio")
    dim, dim_head = dit.integer("dim", 16, 16_384), dit.integer("dim_head", 2, 1024)
    if dim % 16:
        dit.fail("dim", f"is {dim}, must be a multiple of 16, the groups of its position convolution")
    if dim_head % 2:
        dit.fail("dim_head", f"is {dim_head}, must be even for rotary positions")
    return DiTConfig(
        dim=dim,
        depth=dit.integer("depth", 1, 256),
        heads=dit.integer("heads", 1, 256),
        dim_head=dim_head,
        ff_mult=dit.integer("ff_mult", 1, 64),
        mel_dim=mel_bins,
        mu_dim=mel_bins,
        spk_dim=mel_bins,
        out_channels=mel_bins,
        chunk_size=chunk_size,
    )
