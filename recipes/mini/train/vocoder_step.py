"""The losses of the vocoder's training, and which part goes down which."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from light_tts.models.vocoder.hift import HiFT
from light_tts.models.vocoder.source_noise import SourceNoise
from recipes.mini.losses import adversarial_loss, discriminator_loss, f0_loss, feature_loss, mel_distance
from recipes.mini.models.discriminators import Discriminators
from recipes.mini.train.loop import autocast
from recipes.mini.train.recorded import Gradients, Losses, Placed
from recipes.mini.train.vocoder_data import Batch
from recipes.mini.vocoder_settings import VocoderSettings

GENERATOR, PITCH, DISCRIMINATORS = "generator", "pitch", "discriminators"  # optimizers, and their losses


class _Kind(NamedTuple):
    adversarial: bool
    shape: torch.Size  # of the mel


class VocoderStep:
    """Puts gradients on all parameters and returns the losses; the optimizers are somebody else's.

    Both sides of the game take their gradients from the same pass, each against the other as it was before
    the step: two passes of the discriminators less than one after the other.
    """

    def __init__(self, generator: HiFT, discriminators: Discriminators, settings: VocoderSettings) -> None:
        self._generator, self._discriminators, self._settings = generator, discriminators, settings
        parameters = [*generator.parameters(), *discriminators.parameters()]
        self._gradients = Gradients(self._losses, parameters, settings.cuda_graphs, self._differentiate)

    def __call__(self, batch: Batch, adversarial: bool) -> Losses:
        """By name; those named as an optimizer are what its gradients belong to."""
        return self._gradients(_Kind(adversarial, batch.mel.shape), batch.tensors())

    def _losses(self, kind: Hashable, inputs: Sequence[Tensor]) -> Losses:
        s, generator, batch = self._settings, self._generator, Batch(*inputs)
        f0 = generator.f0(batch.mel)
        losses = {"f0": f0_loss(f0, batch.f0)}
        losses[PITCH] = s.weight_f0 * losses["f0"]
        # No gradient through the source's phase: it would point to a pitch that lines up the waves of one crop.
        pitch = torch.where(batch.guided, batch.f0, f0.detach())
        source = generator.source(pitch, [SourceNoise.recorded(row) for row in batch.noise])
        wav = generator.decode(batch.mel, source)
        losses["mel"] = mel_distance(wav, batch.wav, generator.cfg.sampling_rate)
        losses[GENERATOR] = s.weight_mel * losses["mel"]
        assert isinstance(kind, _Kind)
        if kind.adversarial:
            self._play(wav, batch.wav, losses)
        return losses

    def _play(self, fake: Tensor, real: Tensor, losses: Losses) -> None:
        """Add the game's losses."""
        with autocast(fake.device):  # their spectra stay in float32
            truths, fakes = self._discriminators(real), self._discriminators(fake)
        fake_scores = [judged.score for judged in fakes]
        losses[DISCRIMINATORS] = discriminator_loss([judged.score for judged in truths], fake_scores)
        losses["adversarial"] = adversarial_loss(fake_scores)
        losses["features"] = feature_loss([j.features for j in fakes], [j.features for j in truths])
        game = losses["adversarial"] + self._settings.weight_features * losses["features"]
        losses[GENERATOR] = losses[GENERATOR] + game

    def _differentiate(self, losses: Losses) -> Placed:
        gradients = _gradients(losses[PITCH], [self._generator.f0_predictor])
        if DISCRIMINATORS in losses:
            # Stops at their first layers: nothing of it reaches the generator, nor the generator's reaches them.
            gradients += _gradients(losses[DISCRIMINATORS], [self._discriminators], retain_graph=True)
        return gradients + _gradients(losses[GENERATOR], decoder_parts(self._generator))


def decoder_parts(generator: HiFT) -> list[nn.Module]:
    """All of the generator but the pitch predictor, which has a loss and an optimizer of its own."""
    return [module for module in generator.children() if module is not generator.f0_predictor]


def _gradients(loss: Tensor, modules: Sequence[nn.Module], retain_graph: bool = False) -> Placed:
    parameters = [parameter for module in modules for parameter in module.parameters()]
    gradients = torch.autograd.grad(loss, parameters, retain_graph=retain_graph)
    return list(zip(parameters, gradients, strict=True))
