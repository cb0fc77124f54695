"""Every number of the recipe. `Settings.default()` trains the voice, `Settings.tiny()` dry-runs it on a CPU in seconds.

A stage's section is read by that stage alone; `ModelSettings` is what the stages and the exported yaml share.
The settings travel as one JSON file, so that a run that is resumed elsewhere is the same run.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path

from light_tts.models.config import ModelConfig
from recipes.mini.append_settings import AppendSettings
from recipes.mini.augment_settings import AugmentSettings
from recipes.mini.errors import RecipeError
from recipes.mini.model_settings import SAMPLE_RATE, SPEAKER_DIM, ModelSettings, model_config
from recipes.mini.vocoder_settings import VocoderSettings

__all__ = ["SAMPLE_RATE", "SPEAKER_DIM", "ModelSettings", "Settings"]


@dataclass(frozen=True, slots=True)
class TextSettings:
    """prepare-text: which utterances the teacher reads."""

    num_jobs: int = 30_000
    num_speakers: int = 360
    chinese: float = 0.52  # share of the utterances
    mixed_languages: float = 0.06
    numbers: float = 0.07  # share of sentences about numbers, dates, prices and names
    switched: float = 0.05  # of Chinese with English words in it
    short: float = 0.08  # of single words and set phrases
    tones: float = 0.03  # of words that differ in tone alone
    held_out: int = 400  # sentences a language for later tests
    pure_voices: float = 0.15  # share of utterances in an unmixed voice of the teacher
    warped_speakers: float = 0.5
    warp: tuple[float, float] = (0.92, 1.08)
    speed: tuple[float, float] = (0.88, 1.15)
    spelled: tuple[float, float] = (0.15, 0.35)  # share of English words spelled in variants 1 and 2


@dataclass(frozen=True, slots=True)
class GenerateSettings:
    """generate: the teacher reads the jobs."""

    processes: int = 8  # more bring little and multiply the memory and the danger of one bad index
    hours: float = 20.0
    # A later run that begins here adds other speech: codes of all runs are kept, and the language model learns all.
    first_job: int = 0
    min_s: float = 0.5  # single words are short
    max_s: float = 16.0
    utterances_per_shard: int = 60


@dataclass(frozen=True, slots=True)
class TokenizerSettings:
    """train tokenizer: frames of the log-mel to one of 3**6 codes."""

    width: int = 192
    blocks: int = 5
    heads: int = 4
    inner: int = 768
    decoder_width: int = 256  # of the part that only training has
    dropout: float = 0.1
    crop_s: float = 5.12
    batch_size: int = 96
    lr: float = 1.5e-3
    warmup_steps: int = 200
    max_steps: int = 30_000
    ema_decay: float = 0.995
    weight_mel: float = 1.0
    weight_f0: float = 2.0
    weight_voicing: float = 0.3
    weight_usage: float = 0.3
    wanted_codes: float = 600.0  # perplexity of the codes up to which wider use is rewarded
    weight_repetition: float = 0.1
    weight_consistency: float = 0.7  # between what is heard of a recording and of the clean voice
    weight_rounding: float = 0.5
    precision: str = "int8"  # of the shipped weights: int8 or float16
    cuda_graphs: bool = True  # on CUDA: replay a step as one launch
    # Milder than the speaker encoder's: a third of the crops is recorded as it is spoken. Codes cannot be finer for
    # clean speech than what survives in the worst recording.
    augment: AugmentSettings = field(
        default_factory=lambda: AugmentSettings(
            warped=0.5, room=0.2, equaliser=0.35, band=0.12, noise=0.3, noise_snr_db=(10.0, 40.0), chatter=0.1,
            clipping=0.02, level=0.5, mu_law=0.04,
        )
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class SpeakerSettings:
    """train speaker: filter bank to a 192-d embedding."""

    width: int = 256
    blocks: int = 5
    pooled: int = 384  # channels whose mean and deviation over time are taken
    crop_s: float = 3.2
    shortest_s: float = 1.2  # that the encoder hears of a crop; its teacher hears all of it
    batch_size: int = 128
    lr: float = 2e-3
    warmup_steps: int = 200
    max_steps: int = 12_000
    ema_decay: float = 0.999
    weight_distil: float = 10.0
    weight_relations: float = 20.0
    weight_softmax: float = 0.5
    softmax_scale: float = 25.0
    softmax_margin: float = 0.15
    precision: str = "int8"
    cuda_graphs: bool = True
    augment: AugmentSettings = field(
        default_factory=lambda: AugmentSettings(
            speed=(0.75, 1.33), formants=(0.82, 1.22), noise=0.6, room=0.5, band=0.3
        )
    )


@dataclass(frozen=True, slots=True)
class FlowSettings:
    """train flow: codes to mel."""

    batch_tokens: int = 8_400  # speech tokens of a batch: two mel frames each
    row_tokens: tuple[int, ...] = (
        100,
        200,
        400,
        600,
    )  # lengths of its rows, never padded; whole streaming chunks
    lr: float = 1.5e-3
    weight_decay: float = 0.01
    warmup_steps: int = 300
    max_steps: int = 40_000
    max_seconds: float = 1_200.0  # of training in all, over every session
    ema_decay: float = 0.999
    squared: bool = True  # the loss; else absolute
    sigma_min: float = 1e-6
    weight_mean: float = 0.25  # of the distance between what the estimator follows and the mel
    streaming: float = 0.5  # share of the batches with streaming masks
    final: float = 0.5  # share of the rows that end where their speech does; the others have look-ahead
    prompted: float = 0.6  # share of the rows that begin with a prompt
    prompt_max: float = 0.6  # of the row's length
    cfg_dropout: float = 0.2
    guidance: float = 0.7  # learnt by the weights, if model.flow_cfg_rate is 0, which makes synthesis cheaper
    guided_from: float = 0.5  # progress
    validation: float = 0.01  # share of the utterances held out
    validation_utterances: int = 32
    validate_every: int = 500  # steps
    clip_norm: float = 1.0
    cuda_graphs: bool = True  # on CUDA: replay a step as one launch


@dataclass(frozen=True, slots=True)
class LMSettings:
    """train lm: text (and a prompt) to codes."""

    rows: int = 32
    row_tokens: int = 512
    lr: float = 1.5e-3
    weight_decay: float = 0.05
    warmup_steps: int = 300
    max_steps: int = 40_000
    max_seconds: float = 1_200.0  # of training in all, over every session
    dropout: float = 0.25  # for a day of speech; 0.15 learns half of it by heart in 2,500 steps
    ema_decay: float = 0.999
    label_smoothing: float = 0.0
    variants: tuple[float, float, float] = (0.6, 0.25, 0.15)  # shares of the spellings of the text
    paired: float = 0.5  # prompt and target of one speaker in one sequence
    bistream: float = 0.35
    history_noise: float = 0.04
    validation: float = 0.01  # share of the utterances held out
    validate_every: int = 250  # steps
    clip_norm: float = 1.0
    cuda_graphs: bool = True  # on CUDA: replay a step as one launch


@dataclass(frozen=True, slots=True)
class RunSettings:
    """run: what waits for what, and how long a stage may take."""

    # Speech, then the two encoders, then the rest. Beside ten processes of the teacher and the vocoder on an H200, the
    # tokenizer made 2.7 steps a second instead of 9, the speaker encoder 0.6 instead of 7.
    one_after_another: bool = True
    corpus_hours: float = 1.0  # of audio that must lie there before a trainer starts
    corpus_wait_s: float = 240.0
    tokenizer_s: float = 440.0  # training time in all, over every session; then extract, flow and LM begin
    flow_mels_from: float = 0.6  # share of the flow's training at which the vocoder is to hear mels of it
    flow_mels_hours: float = 2.0
    checkpoint_every_s: float = 90.0
    collect_every_s: float = 60.0
    status_every_s: float = 10.0
    finish_s: float = 45.0  # before the budget's end the trainers are told to stop
    restarts: int = 5  # of one stage in one run
    device: str = "cuda:0"


def _tiny_model() -> ModelSettings:
    return ModelSettings(
        lm_hidden=64, lm_inner=96, lm_layers=2, lm_heads=2, flow_width=48, flow_heads=2, flow_inner=64,
        flow_blocks=1, unet_channels=32, unet_heads=2, unet_head_dim=16, unet_mid_blocks=1,
        hift_channels=32, hift_f0_channels=16,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Settings:
    """All sections. `seed` is the only source of randomness: each stage derives its own from it and its name."""

    seed: int = 20_261_123
    model: ModelSettings = field(default_factory=ModelSettings)
    text: TextSettings = field(default_factory=TextSettings)
    append: AppendSettings = field(default_factory=AppendSettings)
    generate: GenerateSettings = field(default_factory=GenerateSettings)
    tokenizer: TokenizerSettings = field(default_factory=TokenizerSettings)
    speaker: SpeakerSettings = field(default_factory=SpeakerSettings)
    flow: FlowSettings = field(default_factory=FlowSettings)
    lm: LMSettings = field(default_factory=LMSettings)
    vocoder: VocoderSettings = field(default_factory=VocoderSettings)
    run: RunSettings = field(default_factory=RunSettings)

    @classmethod
    def default(cls) -> Settings:
        """The bundled voice."""
        return cls()

    @classmethod
    def tiny(cls) -> Settings:
        """Every stage in seconds on one CPU core: for tests and for a dry run before GPU time is spent."""
        return cls(
            model=_tiny_model(),
            text=TextSettings(num_jobs=60, num_speakers=6),
            generate=GenerateSettings(processes=1, hours=0.02, utterances_per_shard=8),
            tokenizer=TokenizerSettings(
                width=32, blocks=1, heads=2, inner=64, decoder_width=32, crop_s=1.92, batch_size=4,
                max_steps=20, warmup_steps=2,
            ),
            speaker=SpeakerSettings(
                width=32, blocks=2, pooled=32, crop_s=1.6, batch_size=4, max_steps=20, warmup_steps=2
            ),
            flow=FlowSettings(
                batch_tokens=200, row_tokens=(25, 50), max_steps=20, warmup_steps=2, validation_utterances=2
            ),
            lm=LMSettings(rows=2, row_tokens=256, max_steps=20, warmup_steps=2),
            vocoder=VocoderSettings(
                batch_size=2, crop_frames=16, long_crop_frames=24, max_steps=20, max_seconds=60.0, warmup_steps=2,
                period_channels=(4, 8, 8), spectrum_channels=(4, 4, 8), validate_every=10,
                validation_utterances=1,
            ),
            run=RunSettings(
                one_after_another=False,
                corpus_hours=0.0, tokenizer_s=10.0, flow_mels_hours=0.01, checkpoint_every_s=5.0, collect_every_s=5.0,
                status_every_s=1.0, finish_s=5.0, restarts=1, device="cpu",
            ),
        )  # fmt: skip

    def model_config(self) -> ModelConfig:
        """What `light_tts.models` is built from: the same as reading the exported yaml."""
        return model_config(self.model)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Raises RecipeError for what is no JSON, for unknown names and for values of another type."""
        try:
            tree = json.loads(text)
        except ValueError as error:
            raise RecipeError(f"settings are not JSON: {error}") from error
        settings = _build(cls, tree, "settings")
        if not isinstance(settings, cls):
            raise RecipeError("settings must be a JSON object")
        return settings

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.to_json(), "utf-8")

    @classmethod
    def load(cls, path: Path) -> Settings:
        return cls.from_json(path.read_text("utf-8"))


def _build(kind: object, value: object, where: str) -> object:
    """`value`, as json has it, as a `kind`: a dataclass, a tuple, or a plain type."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise RecipeError(f"{where} must be an object, is {value!r}")
        hints = typing.get_type_hints(kind)
        unknown = sorted(set(value) - set(hints))
        if unknown:
            raise RecipeError(f"{where} has unknown names: {', '.join(unknown)}")
        return kind(**{name: _build(hints[name], item, f"{where}.{name}") for name, item in value.items()})
    if isinstance(kind, types.GenericAlias):  # tuple[X, ...] or tuple[X, Y]
        return _build_tuple(typing.get_args(kind), value, where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(kind, type) or not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
        raise RecipeError(f"{where} must be {getattr(kind, '__name__', kind)}, is {value!r}")
    return value


def _build_tuple(kinds: tuple[object, ...], value: object, where: str) -> tuple[object, ...]:
    if not isinstance(value, list):
        raise RecipeError(f"{where} must be a list, is {value!r}")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise RecipeError(f"{where} must have {len(kinds)} values, has {len(value)}")
    return tuple(_build(kind, item, where) for kind, item in zip(kinds, value, strict=True))
