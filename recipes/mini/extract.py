"""extract: the corpus as codes and speaker embeddings, by the very encoders that are shipped.

Freezes the encoders first. Codes that the same encoders made of an earlier corpus are kept. WORK/codes.safetensors:
job, num int32 (u,); codes uint16 (sum of num,); embedding float16 (u, 192), each of unit length before it is rounded.
WORK/codes.json: how the codes are used and how they repeat.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from recipes.mini.corpus import TOKEN, Corpus
from recipes.mini.encoders import FrozenEncoders, freeze, load_frozen
from recipes.mini.errors import RecipeError
from recipes.mini.features import at_16_khz, frame_mask, speaker_features, speech_features
from recipes.mini.models.speaker import EMBED_DIM
from recipes.mini.models.tokenizer import NUM_CODES
from recipes.mini.settings import SAMPLE_RATE, Settings
from recipes.mini.train.utterances import CODES_NAME

logger = logging.getLogger(__name__)

FACTS_NAME = "codes.json"

_BATCH_SAMPLES = 96 * 16 * 24_000  # of padded audio
_WINDOW = 10  # codes, of the released sampler
_TOLERATED = 0.002  # share of natural codes that the sampler may forbid


@dataclass(frozen=True, slots=True)
class CodeFacts:
    """tokenizer, speaker: digests of the encoders' weights

    utterances, hours: in all; corpus_bytes: of the shards that were encoded last
    perplexity: of the codes, at most 729
    repeated: share of codes that occurred at least 1, 2, ... 10 times among the 10 before
    win_size, tau_r: repetition-aware sampling that forbids hardly a code that is natural
    """

    tokenizer: str
    speaker: str
    utterances: int
    hours: float
    corpus_bytes: int
    perplexity: float
    repeated: list[float]
    win_size: int
    tau_r: float


def extract(settings: Settings, work: Path, checkpoints: Path, device: torch.device) -> CodeFacts:
    """Encode every utterance. Raises RecipeError without checkpoints or corpus, or for an impossible result."""
    freeze(settings, work, checkpoints)
    encoders = load_frozen(settings, work, device)
    corpus = Corpus(work / "corpus", device)
    if not corpus.refresh():
        raise RecipeError(f"{corpus.folder} holds no speech (generate makes it)")
    codes, embedding = encode_corpus(corpus, encoders)
    _check(corpus, codes, embedding)
    job = torch.from_numpy(corpus.job).int()
    earlier = _earlier(work, encoders, job)
    if earlier is not None:
        job = torch.cat([job, earlier[0]])
        codes, embedding = codes + earlier[1], torch.cat([embedding, earlier[2]])
    num = [len(row) for row in codes]
    _save(
        work / CODES_NAME,
        {
            "job": job,
            "num": torch.tensor(num, dtype=torch.int32),
            "codes": torch.cat(codes).to(torch.uint16),
            "embedding": embedding.half(),
        },
    )
    facts = _facts(encoders, codes, corpus_bytes(work))
    (work / FACTS_NAME).write_text(json.dumps(asdict(facts), indent=1) + "\n", "utf-8")
    logger.info("extract: %d utterances, %.1f h, perplexity %.0f", len(codes), facts.hours, facts.perplexity)
    return facts


def corpus_bytes(work: Path) -> int:
    """Of all shards: tells whether a corpus is the one that was encoded."""
    return sum(path.stat().st_size for path in (work / "corpus").glob("shard-*.safetensors"))


def _earlier(work: Path, encoders: FrozenEncoders, job: Tensor) -> tuple[Tensor, list[Tensor], Tensor] | None:
    """Jobs, codes and embeddings of what these encoders encoded before and is not among `job`."""
    try:
        facts = json.loads((work / FACTS_NAME).read_text("utf-8"))
        made_by = facts["tokenizer"], facts["speaker"]
        arrays = load_file(work / CODES_NAME)
    except (FileNotFoundError, KeyError, ValueError):
        return None
    if made_by != (encoders.tokenizer_weights.digest(), encoders.speaker_weights.digest()):
        return None
    kept = ~torch.isin(arrays["job"], job)
    rows = arrays["codes"].long().split(arrays["num"].tolist())
    codes = [row for row, keep in zip(rows, kept.tolist(), strict=True) if keep]
    return arrays["job"][kept], codes, arrays["embedding"].float()[kept]


@torch.inference_mode()
def encode_corpus(corpus: Corpus, encoders: FrozenEncoders) -> tuple[list[Tensor], Tensor]:
    """Codes of each utterance, (num,) int64, and (u, 192) float32 embeddings; in the corpus's order, on the CPU."""
    codes: list[Tensor] = [torch.zeros(0, dtype=torch.int64)] * len(corpus)
    embedding = torch.zeros(len(corpus), EMBED_DIM)
    for index in _batches(corpus.length):
        wav, lens = corpus.whole(index)
        wav, lens = at_16_khz(wav), lens * 2 // 3
        rows = encoders.tokenizer(*speech_features(wav, lens)).long().cpu()
        fbank, num_frames = speaker_features(wav, lens)
        voices = encoders.speaker(fbank, frame_mask(num_frames, fbank.shape[1]))
        embedding[torch.from_numpy(index)] = voices.cpu()
        for utterance, row in zip(index, rows, strict=True):
            codes[utterance] = row[: corpus.length[utterance] // TOKEN].clone()
    return codes, embedding


def _batches(length: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Utterances of similar length together, as many as make _BATCH_SAMPLES with their padding."""
    order = np.argsort(-length, kind="stable")
    batches, first = [], 0
    while first < len(order):
        count = max(1, _BATCH_SAMPLES // int(length[order[first]]))
        batches.append(order[first : first + count])
        first += count
    return batches


def _check(corpus: Corpus, codes: list[Tensor], embedding: Tensor) -> None:
    """An index that is out of range takes a GPU down: no such thing may reach the file."""
    for utterance, row in enumerate(codes):
        if len(row) != corpus.length[utterance] // TOKEN or int(row.min()) < 0 or int(row.max()) >= NUM_CODES:
            raise RecipeError(
                f"job {corpus.job[utterance]}: {len(row)} codes from {int(row.min())} to {int(row.max())}; "
                f"must be {corpus.length[utterance] // TOKEN} below {NUM_CODES}"
            )
    lengths = embedding.norm(dim=1)
    if not bool(embedding.isfinite().all()) or not bool((lengths - 1.0).abs().max() < 1e-3):
        raise RecipeError(
            f"embeddings have lengths {float(lengths.min())} to {float(lengths.max())}, must be 1"
        )
    if len(np.unique(corpus.job)) != len(corpus):
        raise RecipeError(f"{corpus.folder}: a job was spoken twice")


def _facts(encoders: FrozenEncoders, codes: list[Tensor], encoded_bytes: int) -> CodeFacts:
    share = torch.bincount(torch.cat(codes), minlength=NUM_CODES).double()
    share = share / share.sum()
    perplexity = float(torch.exp(-(share * (share + 1e-12).log()).sum()))
    repeated = repetitions(codes)
    return CodeFacts(
        tokenizer=encoders.tokenizer_weights.digest(),
        speaker=encoders.speaker_weights.digest(),
        utterances=len(codes),
        hours=sum(map(len, codes)) * TOKEN / SAMPLE_RATE / 3600,
        corpus_bytes=encoded_bytes,
        perplexity=perplexity,
        repeated=repeated,
        win_size=_WINDOW,
        tau_r=sampling_threshold(repeated),
    )


def repetitions(codes: list[Tensor]) -> list[float]:
    """Share of codes that occurred at least 1, 2, ... 10 times among the 10 before them."""
    counts = torch.zeros(_WINDOW + 1, dtype=torch.int64)
    for row in codes:
        padded = torch.cat([torch.full((_WINDOW,), -1), row])
        before = padded.unfold(0, _WINDOW, 1)[: len(row)]
        counts += torch.bincount((before == row[:, None]).sum(dim=1), minlength=_WINDOW + 1)
    at_least = counts.flip(0).cumsum(0).flip(0)[1:]
    return [float(count) / int(counts.sum()) for count in at_least]


def sampling_threshold(repeated: list[float]) -> float:
    """tau_r for a window of 10: a code may come again while it occurred fewer than 10 tau_r times.

    Half a count lower than the first number of occurrences that hardly ever happens, so that no rounding matters.
    """
    for occurrences, share in enumerate(repeated, start=1):
        if share <= _TOLERATED:
            return (occurrences - 0.5) / _WINDOW
    return 1.05  # even ten of ten are natural: never forbid


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    partial = path.with_name(f".{path.name}.tmp")
    save_file(tensors, partial)
    partial.replace(path)
