"""train tokenizer: codes from which the teacher's phones, mel and pitch can be recovered.

The first attempt got 66 % of the phones right after 92 s at 8 to 30 steps a second, and used 273 of 729 codes. New:
- over four times the training time at twice the batch;
- the encoder hears the speech through rooms, microphones, noise and telephones and in changed voices, while the
  targets stay clean, so that recordings of people are tokenised like the teacher's speech;
- codes that stay as they are: a recording's are drawn to those of the clean voice, numbers are drawn to what they are
  rounded to, and the level of a recording is taken out (in a trial of 300 steps on a minute of speech, 50 % instead of
  25 % of the codes survived noise at 30 dB, with the same phones and mel);
- a reward for using more codes, until `wanted_codes`;
- attention over 2 s to either side with relative positions: a recording of 30 s is heard as a crop of 5 s is;
- no embedding of the position modulo 9. It forced codes never to repeat within 0.4 s, as the released sampler wants it,
  but made the code of a sound depend on when it is said, which the language model has to keep count of, and broke
  between a prompt and what follows. Instead, `extract` measures how codes repeat, and the yaml's window and threshold
  are chosen by it. A weak penalty on equal neighbours remains: codes then follow the course of a long sound, which
  tells the language model how long it has lasted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from light_tts.encode.features import SPEECH_RATE_HZ, prompt_mel
from light_tts.models.config import MelConfig
from recipes.mini.corpus import FRAME, TOKEN, Corpus
from recipes.mini.encoders import ENCODER, TOKENIZER, is_frozen, tokenizer_shape
from recipes.mini.features import at_16_khz, frame_mask, speech_features, tiled
from recipes.mini.models import ge2e
from recipes.mini.models.token_decoder import Decoded, TokenDecoder, code_distribution
from recipes.mini.models.tokenizer import NUM_CODES, TokenEncoder, codes_of, quantised
from recipes.mini.settings import SAMPLE_RATE, Settings, TokenizerSettings
from recipes.mini.train import augment
from recipes.mini.train.loop import (
    Parts,
    Plan,
    TimeBudget,
    adamw,
    autocast,
    fast_matmul,
    seed_stage,
    train_stage,
)

_LOOK_EVERY = 200  # steps, for new shards of the corpus
_LOWEST_F0_HZ = 30.0
_EQUAL_DIGITS = 1.02  # codes differ for certain when some number differs by more


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """features: (B, 128, 4T) as recorded; the rest is clean. mel: (B, 2T, 80), f0 (Hz, 0 unvoiced), phone: (B, 2T)"""

    features: Tensor
    clean: Tensor  # as features
    num_frames: Tensor  # (B,) of the features, 100 Hz
    speaker: Tensor
    mel: Tensor
    f0: Tensor
    phone: Tensor


def train(settings: Settings, work: Path, checkpoints: Path, device: torch.device, budget_s: float) -> None:
    """Train until the plan or the budget ends; resumes. Returns at once if the encoders are frozen."""
    if is_frozen(work, TOKENIZER):
        return
    budget = TimeBudget(budget_s)
    s = settings.tokenizer
    fast_matmul()
    seed_stage(settings.seed, TOKENIZER)
    corpus = Corpus(work / "corpus", device, seed=settings.seed)
    corpus.wait(settings.run.corpus_hours, settings.run.corpus_wait_s)
    stage = TokenizerStage(s, corpus, ge2e.load_ge2e(work / ge2e.FILE_NAME, device), device)
    plan = Plan(
        max_steps=s.max_steps,
        max_seconds=settings.run.tokenizer_s,
        warmup_steps=s.warmup_steps,
        save_every_s=settings.run.checkpoint_every_s,
    )
    train_stage(stage, checkpoints / TOKENIZER, plan, device, budget, s.cuda_graphs)


class TokenizerStage:
    """See `loop.Stage`."""

    def __init__(
        self, settings: TokenizerSettings, corpus: Corpus, teacher: ge2e.GE2E, device: torch.device
    ) -> None:
        self._settings = settings
        self._corpus = corpus
        self._teacher = teacher
        self._device = device
        self._batches = 0
        self._encoder = TokenEncoder(tokenizer_shape(settings), settings.dropout).to(device)
        self._decoder = TokenDecoder(settings.decoder_width, settings.dropout).to(device)
        self._optimizer = adamw([self._encoder, self._decoder], settings.lr)

    def parts(self) -> Parts:
        return Parts(
            {ENCODER: self._encoder, "decoder": self._decoder},
            {"main": self._optimizer},
            {ENCODER: self._settings.ema_decay},
            {"corpus": self._corpus.rng},
        )

    def next_batch(self) -> TokenBatch:
        self._batches += 1
        if self._batches % _LOOK_EVERY == 0:
            self._corpus.refresh()
        s = self._settings
        num_samples = round(s.crop_s * SAMPLE_RATE / TOKEN) * TOKEN
        source_len = math.ceil(num_samples * s.augment.speed[1] / FRAME) * FRAME
        index = self._corpus.rng.integers(0, len(self._corpus), s.batch_size)
        wav, f0, phone, lens = self._corpus.crops(index, source_len)
        wav, speed, _ = augment.other_voices(wav, num_samples, s.augment, self._corpus.rng, SAMPLE_RATE)
        lens = (lens / speed).long().clamp(max=num_samples)
        f0, phone = _retimed(f0, phone, speed, num_samples // FRAME)
        clean = at_16_khz(wav)
        voice = self._teacher(tiled(clean, lens * 2 // 3))
        heard = augment.recorded(clean, s.augment, SPEECH_RATE_HZ)
        # a crop ends with its utterance: codes of whole 40 ms, as everywhere in the corpus
        lens = lens // TOKEN * (TOKEN * 2 // 3)
        features, num_frames = speech_features(heard, lens)
        plain, _ = speech_features(clean, lens)
        return TokenBatch(features, plain, num_frames, voice, prompt_mel(wav, MelConfig()), f0, phone)

    def loss(self, batch: TokenBatch, progress: Tensor) -> dict[str, Tensor]:
        s = self._settings
        with autocast(self._device):
            wanted = self._undisturbed(batch)
            hidden, mask = self._encoder.hidden(batch.features, batch.num_frames)
            decoded = self._decoder(quantised(hidden), mask, batch.speaker)
        losses = _reconstruction(decoded, batch, frame_mask(batch.num_frames // 2, batch.phone.shape[1]))
        used = code_distribution(hidden, mask)
        entropy = -(used * (used + 1e-9).log()).sum()
        losses["usage"] = F.relu(math.log(s.wanted_codes) - entropy)
        losses["repetition"] = _repetition(hidden, mask)
        losses["consistency"] = _mean((hidden - wanted).abs().mean(dim=2), mask)
        losses["rounding"] = _mean((hidden - hidden.detach().round()).square().mean(dim=2), mask)
        # The codes settle first; where they go on repeating is pushed apart later.
        ramp = (3.0 * progress).clamp(max=1.0)
        losses["loss"] = (
            losses["phone"]
            + s.weight_mel * losses["mel"]
            + s.weight_f0 * losses["f0"]
            + s.weight_voicing * losses["voicing"]
            + s.weight_usage * losses["usage"]
            + s.weight_repetition * ramp * losses["repetition"]
            + s.weight_consistency * ramp * losses["consistency"]
            + s.weight_rounding * ramp * losses["rounding"]
        )
        return losses | _figures(decoded, batch, hidden.detach(), wanted, mask)

    @torch.no_grad()
    def _undisturbed(self, batch: TokenBatch) -> Tensor:
        """What the encoder makes of the clean voice."""
        self._encoder.eval()
        hidden, _ = self._encoder.hidden(batch.clean, batch.num_frames)
        self._encoder.train()
        return hidden


def _retimed(f0: Tensor, phone: Tensor, speed: Tensor, num_frames: int) -> tuple[Tensor, Tensor]:
    """Pitch and phones of frames that are played at another speed: frame j comes from time (j + 0.5) * speed."""
    centre = (torch.arange(num_frames, device=f0.device) + 0.5) * speed[:, None]
    source = centre.long().clamp(max=f0.shape[1] - 1)
    return f0.gather(1, source) * speed[:, None], phone.gather(1, source)


def _reconstruction(decoded: Decoded, batch: TokenBatch, mask: Tensor) -> dict[str, Tensor]:
    """Losses per frame of 20 ms. Pitch is relative to the crop's mean: its height belongs to the speaker."""
    phone = F.cross_entropy(decoded.phones.transpose(1, 2), batch.phone, reduction="none")
    mel = (decoded.mel - batch.mel).abs().mean(dim=2)
    voiced = (batch.f0 > 0).float()
    voicing = F.binary_cross_entropy_with_logits(decoded.voicing, voiced, reduction="none")
    voiced = voiced * mask
    log_f0 = batch.f0.clamp(min=_LOWEST_F0_HZ).log()
    mean = (log_f0 * voiced).sum(dim=1, keepdim=True) / voiced.sum(dim=1, keepdim=True).clamp(min=1.0)
    f0 = (decoded.log_f0 - (log_f0 - mean)).abs() * voiced
    return {
        "phone": _mean(phone, mask),
        "mel": _mean(mel, mask),
        "voicing": _mean(voicing, mask),
        "f0": f0.sum() / voiced.sum().clamp(min=1.0),
    }


def _repetition(hidden: Tensor, mask: Tensor) -> Tensor:
    """How far neighbouring codes are from being different, 0 if all are."""
    difference = (hidden[:, 1:] - hidden[:, :-1]).abs().amax(dim=2)
    return _mean(F.relu(_EQUAL_DIGITS - difference), mask[:, 1:] * mask[:, :-1])


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum().clamp(min=1.0)


def _figures(
    decoded: Decoded, batch: TokenBatch, hidden: Tensor, wanted: Tensor, mask: Tensor
) -> dict[str, Tensor]:
    """What the losses do not say: right phones, the perplexity of the codes, equal neighbours, and how many codes
    of the clean voice survive its recording.
    """
    frames = frame_mask(batch.num_frames // 2, batch.phone.shape[1])
    right = (decoded.phones.argmax(dim=2) == batch.phone).float()
    codes = codes_of(hidden).long()
    share = torch.zeros(NUM_CODES, device=hidden.device).index_add_(0, codes.flatten(), mask.flatten())
    share = share / mask.sum().clamp(min=1.0)
    return {
        "accuracy": _mean(right, frames),
        "codes": torch.exp(-(share * (share + 1e-9).log()).sum()),
        "repeated": _mean((codes[:, 1:] == codes[:, :-1]).float(), mask[:, 1:] * mask[:, :-1]),
        "survived": _mean((codes == codes_of(wanted)).float(), mask),
    }
