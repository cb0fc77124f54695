"""The hyper-parameters of the vocoder's training."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class VocoderSettings:
    """train vocoder: mel to wave. Phases are shares of the stage's progress: of max_seconds or of max_steps.

    How to spend a total time of training on a shared GPU, at 13 steps/s (which is what a step of 4,000 launches
    allows beside two other trainers; recorded steps do more):

        max_seconds  gan_from  steps before the game, in it
               600       0.4   3,100   4,700
             1,200       0.3   4,700  10,900
             2,400       0.2   6,200  25,000
    """

    batch_size: int = 16
    crop_frames: int = 30
    long_crop_frames: int = 60  # late, with as many fewer rows
    long_crops_from: float = 0.85
    max_steps: int = 120_000  # time ends first
    max_seconds: float = 2_400.0  # of training in all, over every session
    guided_until: float = 0.05  # the source follows the teacher's pitch until the predictor has learnt it
    gan_from: float = 0.2
    warmup_steps: int = 200
    lr_alone: float = 1e-3  # mel-only
    lr_gan: float = 4e-4
    lr_final: float = 2e-5  # of everything, by a cosine
    lr_discriminators: float = 2e-4
    lr_pitch: float = 1e-3
    ema_decay: float = 0.999
    clip_norm: float = 100.0
    weight_mel: float = 45.0
    weight_f0: float = 0.2
    weight_features: float = 2.0
    period_channels: tuple[int, ...] = (24, 64, 160, 256, 256)
    spectrum_channels: tuple[int, ...] = (24, 32, 48, 64, 96)
    perturbed: float = 0.3  # share of the rows whose mel gets noise, and of those that are blurred
    perturbed_noise: float = 0.25  # largest standard deviation
    flow_mels: float = 0.4  # share of the rows with mels of the trained flow, once there are some
    cuda_graphs: bool = True  # on CUDA: replay a step as one launch
    validate_every: int = 1_000
    validation_utterances: int = 8
