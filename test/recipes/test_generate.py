"""Cutting what the teacher said into utterances, and writing them to shards again and again."""

from __future__ import annotations

import queue
import threading
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from recipes.mini.corpus import FRAME, TOKEN, Corpus, Utterance
from recipes.mini.errors import RecipeError
from recipes.mini.prepare.generate import finished, generate, read_jobs, shard_paths
from recipes.mini.prepare.kokoro import SAMPLES_PER_F0, SAMPLES_PER_FRAME, Spoken
from recipes.mini.prepare.utterance import teacher_speed, to_utterance
from recipes.mini.settings import SAMPLE_RATE, GenerateSettings, Settings
from recipes.mini.testing import write_tiny_corpus

SETTINGS = GenerateSettings()


def said(num_phonemes: int, frames_each: int = 8, silent_frames: int = 20) -> tuple[np.ndarray, Spoken]:
    """A tone of 200 Hz, silent at either end for the padding phonemes."""
    ids = np.arange(1, num_phonemes + 1)
    durations = torch.tensor([silent_frames, *[frames_each] * num_phonemes, silent_frames])
    loud = torch.zeros(int(durations.sum()))
    loud[silent_frames:-silent_frames] = 1
    wav = loud.repeat_interleave(SAMPLES_PER_FRAME)
    wav *= 0.2 * torch.sin(torch.arange(len(wav)) * (2 * torch.pi * 200 / SAMPLE_RATE))
    f0 = (loud * 200).repeat_interleave(SAMPLES_PER_FRAME // SAMPLES_PER_F0)
    return ids, Spoken(wav, f0, durations.cumsum(0))


def cut(ids: np.ndarray, spoken: Spoken, warp: float = 1.0) -> Utterance | None:
    return to_utterance(3, ids, spoken, warp, SETTINGS, np.random.default_rng(0))


def test_utterance_is_trimmed_levelled_and_a_multiple_of_a_token() -> None:
    utterance = cut(*said(6))
    assert utterance is not None
    assert len(utterance.wav) % TOKEN == 0
    assert len(utterance.f0) == len(utterance.phone) == len(utterance.wav) // FRAME
    loud_s = 6 * 8 * SAMPLES_PER_FRAME / SAMPLE_RATE
    assert loud_s + 0.15 < len(utterance.wav) / SAMPLE_RATE < loud_s + 0.16 + TOKEN / SAMPLE_RATE
    assert 0.45 * 32767 - 1 <= np.abs(utterance.wav).max() <= 0.9 * 32767


def test_pitch_and_phones_lie_where_they_are_heard() -> None:
    ids, spoken = said(6)
    utterance = cut(ids, spoken)
    assert utterance is not None
    level = np.abs(utterance.wav.reshape(-1, FRAME).astype(np.float64)).mean(1)
    heard = level > 0.5 * level.max()
    assert ((utterance.f0 > 0) == heard).mean() > 0.95
    assert set(utterance.f0[utterance.f0 > 0].tolist()) == {200.0}
    order = [int(phone) for phone in dict.fromkeys(utterance.phone.tolist())]
    assert [phone for phone in order if phone] == ids.tolist()
    # the teacher's durations lag behind what is heard by two of its frames, 50 ms
    starts = [int(np.flatnonzero(utterance.phone == phone)[0]) for phone in (2, 3)]
    assert starts[1] - starts[0] == pytest.approx(8 * SAMPLES_PER_FRAME / FRAME, abs=1)
    expected = np.flatnonzero(heard)[0] + (8 - 2) * SAMPLES_PER_FRAME / FRAME
    assert starts[0] == pytest.approx(expected, abs=1.5)


@pytest.mark.parametrize("warp", [0.92, 1.08])
def test_warped_speech_has_another_pitch_and_the_wanted_length(warp: float) -> None:
    ids, spoken = said(6)
    utterance, plain = cut(ids, spoken, warp), cut(ids, spoken)
    assert utterance is not None
    assert plain is not None
    assert utterance.f0.max() == pytest.approx(200 * warp, abs=0.1)
    spectrum = np.abs(np.fft.rfft(utterance.wav * np.hanning(len(utterance.wav))))
    assert spectrum.argmax() * SAMPLE_RATE / len(utterance.wav) == pytest.approx(200 * warp, abs=2)
    assert len(utterance.wav) == pytest.approx(len(plain.wav) / warp, rel=0.1)
    assert teacher_speed(1.08, 1.08) == pytest.approx(1.0)  # so the teacher speaks slower for a high voice


def test_useless_speech_is_left_out() -> None:
    ids, spoken = said(6)
    assert cut(ids, Spoken(spoken.wav * 0, spoken.f0, spoken.ends)) is None
    assert cut(ids, Spoken(spoken.wav * float("nan"), spoken.f0, spoken.ends)) is None
    assert cut(*said(1, frames_each=2)) is None  # shorter than min_s
    assert cut(*said(2, frames_each=60)) is None  # stumbled: over 0.4 s a phoneme
    assert cut(*said(90)) is None  # longer than max_s


class FakeTeacher:
    """Job n is n + 1 tokens long; job 3 cannot be used, job 5 fails."""

    def __init__(self) -> None:
        self.read_jobs: list[int] = []

    def read(self, job: int) -> Utterance | None:
        self.read_jobs.append(job)
        if job == 5:
            raise RuntimeError("out of memory")
        if job == 3:
            return None
        n = (job + 1) * TOKEN
        tracks = np.zeros(n // FRAME)
        return Utterance(job, np.ones(n, np.int16), tracks.astype(np.float16), tracks.astype(np.uint8))


def run(
    corpus: Path, jobs: list[int], stop: threading.Event | None = None
) -> tuple[FakeTeacher, list[float]]:
    teacher, reports = FakeTeacher(), queue.SimpleQueue[float]()
    read_jobs(teacher, jobs, shard_paths(corpus, 0), 2, stop or threading.Event(), reports)
    return teacher, [reports.get() for _ in range(reports.qsize())]


def test_shards_hold_what_could_be_read_and_a_second_run_adds_to_them(tmp_path: Path) -> None:
    _, seconds = run(tmp_path, [0, 1, 2, 3, 4, 5])
    assert finished(tmp_path) == ({0, 1, 2, 4}, (1 + 2 + 3 + 5) * TOKEN)
    assert sum(seconds) == pytest.approx(11 * TOKEN / SAMPLE_RATE)
    run(tmp_path, [6])
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        f"shard-000-{number:03d}.safetensors" for number in range(3)
    ]
    corpus = Corpus(tmp_path, torch.device("cpu"))
    assert corpus.refresh() == 5
    assert corpus.job.tolist() == [0, 1, 2, 4, 6]


def test_a_stopped_process_reads_no_further_job(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    teacher, _ = run(tmp_path, [0, 1], stop)
    assert teacher.read_jobs == []
    assert finished(tmp_path) == (set(), 0)


def test_a_process_gives_up_when_everything_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        run(tmp_path, [5] * 30)


def test_free_shard_names_skip_those_taken(tmp_path: Path) -> None:
    (tmp_path / "shard-002-000.safetensors").touch()
    names = [path.name for path in islice(shard_paths(tmp_path, 2), 2)]
    assert names == ["shard-002-001.safetensors", "shard-002-002.safetensors"]


def test_generate_checks_everything_before_it_starts_a_process(tmp_path: Path) -> None:
    write_tiny_corpus(tmp_path, 0, 4)
    generated = generate(Settings.tiny(), tmp_path, torch.device("cpu"), budget_s=1.0)  # all jobs are there
    assert generated.utterances == 4
    assert generated.added_hours == 0
    (tmp_path / "corpus" / "shard-000-000.safetensors").unlink()
    with pytest.raises(RecipeError, match="teacher"):  # there are no parts of it
        generate(Settings.tiny(), tmp_path, torch.device("cpu"), budget_s=1.0)
    (tmp_path / "text" / "voices.safetensors").write_bytes(b"no voices")
    with pytest.raises(RecipeError, match="voices"):
        generate(Settings.tiny(), tmp_path, torch.device("cpu"), budget_s=1.0)
