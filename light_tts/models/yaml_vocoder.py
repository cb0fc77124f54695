"""The `hift` and `feat_extractor` parts of a model yaml."""

from __future__ import annotations

from light_tts.models.config import HiFTConfig, MelConfig
from light_tts.models.fields import Section

HIFT_CLASS = {
    2: "new:cosyvoice.hifigan.generator.HiFTGenerator",
    3: "new:cosyvoice.hifigan.generator.CausalHiFTGenerator",
}
F0_CLASS = {
    2: "new:cosyvoice.hifigan.f0_predictor.ConvRNNF0Predictor",
    3: "new:cosyvoice.hifigan.f0_predictor.CausalConvRNNF0Predictor",
}
MEL_CLASS = "name:matcha.utils.audio.mel_spectrogram"


def read_hift(hift: Section, version: int, mel_bins: int, sample_rate: int) -> HiFTConfig:
    """The configuration of the vocoder. Raises InvalidModelConfig."""
    hift.expect("in_channels", mel_bins, "flow.output_size")
    hift.expect("sampling_rate", sample_rate, "sample_rate")
    f0_predictor = hift.section("f0_predictor", F0_CLASS[version])
    f0_predictor.expect("num_class", 1)
    f0_predictor.expect("in_channels", mel_bins, "flow.output_size")
    istft = hift.section("istft_params")
    n_fft, hop_len = istft.integer("n_fft", 2, 4096), istft.integer("hop_len", 1, 4096)
    if n_fft % 2 or hop_len > n_fft // 2:
        istft.fail("n_fft", f"is {n_fft}, must be even and at least twice hop_len {hop_len}")
    rates, kernels = _upsampling(hift, version)
    resblock_kernels, resblock_dilations = _resblocks(hift, "resblock")
    source_kernels, source_dilations = _resblocks(hift, "source_resblock")
    if len(source_kernels) != len(rates):
        hift.fail(
            "source_resblock_kernel_sizes",
            f"has {len(source_kernels)} values for {len(rates)} upsample_rates",
        )
    return HiFTConfig(
        version=version,
        in_channels=hift.integer("in_channels", 1, 1024),
        base_channels=_base_channels(hift, len(rates)),
        nb_harmonics=hift.integer("nb_harmonics", 0, 64),
        sampling_rate=sample_rate,
        nsf_alpha=hift.number("nsf_alpha", 0.0, 10.0),
        nsf_sigma=hift.number("nsf_sigma", 0.0, 10.0),
        nsf_voiced_threshold=hift.number("nsf_voiced_threshold", 0.0, 1000.0),
        upsample_rates=rates,
        upsample_kernel_sizes=kernels,
        istft_n_fft=n_fft,
        istft_hop_len=hop_len,
        resblock_kernel_sizes=resblock_kernels,
        resblock_dilation_sizes=resblock_dilations,
        source_resblock_kernel_sizes=source_kernels,
        source_resblock_dilation_sizes=source_dilations,
        lrelu_slope=hift.number("lrelu_slope", 0.0, 1.0),
        audio_limit=hift.number("audio_limit", 1e-3, 1.0),
        f0_cond_channels=f0_predictor.integer("cond_channels", 1, 16_384),
        conv_pre_look_right=hift.integer("conv_pre_look_right", 0, 64, default=4),
    )


def _base_channels(hift: Section, num_stages: int) -> int:
    base_channels = hift.integer("base_channels", 2, 16_384)
    if base_channels % 2**num_stages:
        hift.fail(
            "base_channels", f"is {base_channels}, must be halvable by each of {num_stages} upsample_rates"
        )
    return base_channels


def _upsampling(hift: Section, version: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    rates = hift.integers("upsample_rates", 1, 64)
    kernels = hift.integers("upsample_kernel_sizes", 1, 256)
    if len(kernels) != len(rates):
        hift.fail("upsample_kernel_sizes", f"has {len(kernels)} values for {len(rates)} upsample_rates")
    for rate, kernel in zip(rates, kernels, strict=True):
        # A transposed convolution lengthens exactly by `rate` only if it can cut the same on both sides.
        if kernel < rate or (version == 2 and (kernel - rate) % 2):
            hift.fail("upsample_kernel_sizes", f"has {kernel}, which does not fit upsample rate {rate}")
    return rates, kernels


def _resblocks(hift: Section, prefix: str) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    kernels = hift.integers(f"{prefix}_kernel_sizes", 1, 255)
    dilations = hift.integer_lists(f"{prefix}_dilation_sizes", 1, 1000)
    if len(dilations) != len(kernels):
        hift.fail(f"{prefix}_dilation_sizes", f"has {len(dilations)} lists for {len(kernels)} kernel sizes")
    if any(kernel % 2 == 0 for kernel in kernels):
        hift.fail(f"{prefix}_kernel_sizes", f"is {list(kernels)}, must be odd")
    return kernels, dilations


def read_mel(mel: Section, mel_bins: int, samples_per_frame: int, sample_rate: int) -> MelConfig:
    """The configuration of the prompt's mel. Raises InvalidModelConfig."""
    mel.expect("num_mels", mel_bins, "flow.output_size")
    mel.expect("sampling_rate", sample_rate, "sample_rate")
    mel.expect("hop_size", samples_per_frame, "product of hift.upsample_rates and hift.istft_params.hop_len")
    mel.expect("center", False)
    n_fft, win_size = mel.integer("n_fft", 16, 65_536), mel.integer("win_size", 16, 65_536)
    if win_size > n_fft:
        mel.fail("win_size", f"is {win_size}, must be at most n_fft {n_fft}")
    fmin = mel.number("fmin", 0.0, sample_rate / 2, default=0.0)
    return MelConfig(
        n_fft=n_fft,
        num_mels=mel.integer("num_mels", 1, 1024),
        sampling_rate=sample_rate,
        hop_size=mel.integer("hop_size", 1, n_fft),
        win_size=win_size,
        fmin=fmin,
        fmax=mel.number("fmax", fmin + 1, sample_rate / 2) if mel.has("fmax") else None,
    )
