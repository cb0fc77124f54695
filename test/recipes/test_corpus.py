"""The resident corpus and the table of jobs, on made-up speech."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from recipes.mini.corpus import FRAME, TOKEN, Corpus, Job, Jobs, Utterance, write_jobs, write_shard
from recipes.mini.errors import RecipeError
from recipes.mini.testing import write_tiny_corpus

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    write_tiny_corpus(folder, seed=3, num_utterances=12)
    return folder


def ramp(job: int, num_tokens: int) -> Utterance:
    """Sample n is n, frame k has pitch and phone k: a crop tells where it came from."""
    n = num_tokens * TOKEN
    frames = np.arange(n // FRAME)
    return Utterance(job, np.arange(n).astype(np.int16), frames.astype(np.float16), frames.astype(np.uint8))


def test_tiny_corpus_is_the_same_for_the_same_seed(work: Path, tmp_path: Path) -> None:
    write_tiny_corpus(tmp_path, seed=3, num_utterances=12)
    names = sorted(path.relative_to(work) for path in work.rglob("*.*"))
    assert [str(name) for name in names] == [
        "corpus/shard-000-000.safetensors",
        "corpus/shard-000-001.safetensors",
        "text/jobs.json",
        "text/jobs.safetensors",
        "text/voices.safetensors",
    ]
    for name in names:
        assert (tmp_path / name).read_bytes() == (work / name).read_bytes()


def test_crop_takes_wave_pitch_and_phone_from_the_same_place(tmp_path: Path) -> None:
    write_shard(tmp_path / "shard-000-000.safetensors", [ramp(7, 3), ramp(9, 20)])
    corpus = Corpus(tmp_path, CPU)
    assert corpus.refresh() == 2
    wav, f0, phone, lens = corpus.crops(np.array([1] * 8), 4 * TOKEN, context=100)
    first_sample = (wav[:, 100] * 32768).long()
    assert len(first_sample.unique()) > 1
    assert (first_sample % TOKEN == 0).all()
    assert (first_sample // FRAME == phone[:, 0]).all()
    torch.testing.assert_close(f0, phone.float())
    steps = (wav * 32768).diff(dim=1)
    assert (steps[first_sample > 0] == 1).all()  # the context continues the crop on either side
    assert (lens == 4 * TOKEN).all()


def test_crop_beyond_the_end_is_silence_of_no_phone(tmp_path: Path) -> None:
    write_shard(tmp_path / "shard-000-000.safetensors", [ramp(7, 3), ramp(9, 20)])
    corpus = Corpus(tmp_path, CPU)
    corpus.refresh()
    wav, f0, phone, lens = corpus.crops(np.array([0]), 5 * TOKEN, context=50)
    assert wav.shape == (1, 5 * TOKEN + 100)
    assert lens.tolist() == [3 * TOKEN]
    assert not wav[0, :50].any()
    assert not wav[0, 50 + 3 * TOKEN :].any()
    assert not f0[0, 6:].any()
    assert not phone[0, 6:].any()
    assert phone[0, :6].tolist() == list(range(6))


def test_whole_utterances_are_padded_on_the_right(work: Path) -> None:
    corpus = Corpus(work / "corpus", CPU)
    corpus.refresh()
    index = np.array([2, 5])
    wav, lens = corpus.whole(index)
    f0, phone = corpus.tracks(index)
    assert lens.tolist() == corpus.length[index].tolist()
    assert wav.shape == (2, lens.max())
    assert f0.shape == phone.shape == (2, lens.max() // FRAME)
    start = corpus.offset[5]
    torch.testing.assert_close(wav[1, : lens[1]], corpus.wav[start : start + lens[1]].float() / 32768)


def test_crops_repeat_from_the_state_of_the_generator(work: Path) -> None:
    corpus = Corpus(work / "corpus", CPU, seed=1)
    corpus.refresh()
    index = np.arange(8)
    state = corpus.rng.bit_generator.state
    once = corpus.crops(index, 10 * TOKEN)[0]
    assert not torch.equal(once, corpus.crops(index, 10 * TOKEN)[0])
    corpus.rng.bit_generator.state = state
    assert torch.equal(once, corpus.crops(index, 10 * TOKEN)[0])


def test_refresh_adds_later_shards_and_stops_at_max_hours(tmp_path: Path) -> None:
    hour = 3600 * 25
    corpus = Corpus(tmp_path, CPU, max_hours=5 / hour)
    assert corpus.refresh() == 0
    for number in range(4):
        write_shard(tmp_path / f"shard-000-{number:03d}.safetensors", [ramp(number, 2)])
        corpus.refresh()
    assert corpus.job.tolist() == [0, 1, 2]
    assert corpus.offset.tolist() == [0, 2 * TOKEN, 4 * TOKEN]
    assert corpus.hours == pytest.approx(6 / hour)


@pytest.mark.parametrize("index", [[-1], [12], [0, 99], []])
def test_index_out_of_range_never_reaches_the_device(work: Path, index: list[int]) -> None:
    corpus = Corpus(work / "corpus", CPU)
    corpus.refresh()
    with pytest.raises(RecipeError):
        corpus.crops(np.array(index, np.int64), TOKEN)


def test_waiting_for_nothing_ends_with_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no speech"):
        Corpus(tmp_path, CPU).wait(1.0, timeout_s=0.0)


def test_damaged_shard_is_named(work: Path, tmp_path: Path) -> None:
    whole = (work / "corpus" / "shard-000-000.safetensors").read_bytes()
    (tmp_path / "shard-000-000.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RecipeError, match="shard-000-000"):
        Corpus(tmp_path, CPU).refresh()


def test_jobs_come_back_as_written(tmp_path: Path) -> None:
    jobs = [
        Job([5, 6, 7], ([1, 2], [1, 3, 3], [3, 3, 3]), 0, 0, 1.1),
        Job([8], ([4], [4], [4]), 1, 1, 0.9),
    ]
    write_tiny_corpus(tmp_path / "tiny", 0, 1)
    tiny = Jobs(tmp_path / "tiny" / "text")
    write_jobs(tmp_path, jobs, tiny.speakers, tiny.voices, tiny.vocabulary, {"seed": 4})
    table = Jobs(tmp_path)
    assert len(table) == 2
    assert table.speakers == tiny.speakers
    assert [table.ids(0, variant).tolist() for variant in range(3)] == [[1, 2], [1, 3, 3], [3, 3, 3]]
    assert [table.ids(1, variant).tolist() for variant in range(3)] == [[4], [4], [4]]
    assert table.teacher_ids(0).tolist() == [5, 6, 7]
    assert table.language.tolist() == [0, 1]
    assert table.speed.tolist() == pytest.approx([1.1, 0.9])


def test_jobs_with_an_unknown_speaker_or_symbol_are_refused(tmp_path: Path) -> None:
    write_tiny_corpus(tmp_path / "tiny", 0, 1)
    tiny = Jobs(tmp_path / "tiny" / "text")
    for job in (Job([1], ([1], [1], [1]), 0, 99, 1.0), Job([1], ([999], [1], [1]), 0, 0, 1.0)):
        write_jobs(tmp_path, [job], tiny.speakers, tiny.voices, tiny.vocabulary, {})
        with pytest.raises(RecipeError, match=r"999|speaker"):
            Jobs(tmp_path)
    with pytest.raises(RecipeError, match="no job 1"):
        tiny.ids(1)
