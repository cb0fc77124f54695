from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from light_tts.encode.features import speaker_fbank, whisper_log_mel
from light_tts.encode.resample import resample
from light_tts.models.speaker_encoder import SpeakerEncoder
from light_tts.models.speech_tokenizer import SpeechTokenizer
from recipes.mini import extract as extracting
from recipes.mini.corpus import Corpus, Jobs
from recipes.mini.encoders import freeze, frozen_path, load_frozen
from recipes.mini.errors import RecipeError
from recipes.mini.extract import extract, repetitions, sampling_threshold
from recipes.mini.models.speaker import EMBED_DIM
from recipes.mini.models.stored import StoredWeights, store
from recipes.mini.models.tokenizer import NUM_CODES
from recipes.mini.settings import Settings
from recipes.mini.train import speaker, tokenizer
from recipes.mini.train.utterances import read_utterances
from test.recipes.encoder_parts import CPU, settings_for, write_work

SETTINGS = settings_for(3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A work folder of which everything is there but the codes, and its checkpoints."""
    root = tmp_path_factory.mktemp("trained")
    work, checkpoints = write_work(root / "work", 10), root / "checkpoints"
    for stage in (tokenizer, speaker):
        stage.train(SETTINGS, work, checkpoints, CPU, 1e9)
    return work, checkpoints


@pytest.fixture(scope="module")
def extracted(trained: tuple[Path, Path]) -> Path:
    work, checkpoints = trained
    extract(SETTINGS, work, checkpoints, CPU)
    return work


def test_the_file_is_what_the_other_stages_read(extracted: Path) -> None:
    tensors = load_file(extracted / "codes.safetensors")
    kinds = {name: value.dtype for name, value in tensors.items()}
    assert kinds == {
        "job": torch.int32,
        "num": torch.int32,
        "codes": torch.uint16,
        "embedding": torch.float16,
    }
    utterances = read_utterances(extracted, Jobs(extracted / "text"), NUM_CODES)
    assert len(utterances) == 10
    corpus = Corpus(extracted / "corpus", CPU)
    corpus.refresh()
    assert np.array_equal(utterances.num, corpus.length // 960)
    torch.testing.assert_close(utterances.embedding.norm(dim=1), torch.ones(10), atol=1e-3, rtol=0)


def test_codes_and_embeddings_are_those_of_serving_by_the_exported_files(
    extracted: Path, tmp_path: Path
) -> None:
    encoders = load_frozen(SETTINGS, extracted, CPU)
    encoders.write_tokenizer(tmp_path / "t.onnx")
    encoders.write_speaker(tmp_path / "s.onnx")
    tokens, voice = (
        SpeechTokenizer(tmp_path / "t.onnx", NUM_CODES),
        SpeakerEncoder(tmp_path / "s.onnx", EMBED_DIM),
    )
    utterances = read_utterances(extracted, Jobs(extracted / "text"), NUM_CODES)
    corpus = Corpus(extracted / "corpus", CPU)
    corpus.refresh()
    unsettled = 0
    for k in range(len(corpus)):
        wav = corpus.wav[corpus.offset[k] : corpus.offset[k] + corpus.length[k]].float() / 32768
        at_16k = resample(wav, 24_000, 16_000)
        codes = utterances.codes[utterances.start[k] : utterances.start[k] + utterances.num[k]]
        log_mel = whisper_log_mel(at_16k)
        served = tokens(log_mel)
        assert len(served) == len(codes)
        hidden = encoders.tokenizer.hidden(log_mel[None], torch.tensor([log_mel.shape[1]]))[0][0]
        settled = ((hidden.abs() - 0.5).abs() > 1e-3).all(
            dim=1
        )  # what is 0.5 but for noise rounds either way
        assert torch.equal(served[settled], codes[settled])
        unsettled += int((~settled).sum())
        torch.testing.assert_close(utterances.embedding[k], voice(speaker_fbank(at_16k)), atol=1e-3, rtol=0)
    assert unsettled < 0.05 * len(utterances.codes)


def test_the_facts_name_the_encoders_and_the_use_of_codes(extracted: Path) -> None:
    facts = json.loads((extracted / "codes.json").read_text())
    assert facts["utterances"] == 10
    assert 1 < facts["perplexity"] <= NUM_CODES
    assert facts["tokenizer"] == StoredWeights.load(frozen_path(extracted, "tokenizer")).digest()
    assert facts["speaker"] != facts["tokenizer"]
    assert facts["win_size"] == len(facts["repeated"]) == 10


def test_frozen_encoders_outlive_further_checkpoints(trained: tuple[Path, Path], extracted: Path) -> None:
    before = {name: frozen_path(extracted, name).read_bytes() for name in ("tokenizer", "speaker")}
    freeze(SETTINGS, extracted, trained[1] / "nowhere")
    assert before == {name: frozen_path(extracted, name).read_bytes() for name in before}


def test_the_batches_do_not_matter(extracted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoders = load_frozen(SETTINGS, extracted, CPU)
    corpus = Corpus(extracted / "corpus", CPU)
    corpus.refresh()
    together, voices = extracting.encode_corpus(corpus, encoders)
    monkeypatch.setattr(extracting, "_BATCH_SAMPLES", 1)
    alone, own_voices = extracting.encode_corpus(corpus, encoders)
    different = sum(int((one != two).sum()) for one, two in zip(together, alone, strict=True))
    assert different <= 0.01 * sum(len(row) for row in alone)  # 0.5 but for noise rounds either way
    torch.testing.assert_close(voices, own_voices, atol=1e-5, rtol=0)


def test_without_checkpoints_there_is_nothing_to_freeze(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"holds no checkpoint \(train tokenizer\)"):
        extract(SETTINGS, tmp_path, tmp_path, CPU)


def test_encoders_of_other_settings_are_refused(extracted: Path) -> None:
    with pytest.raises(RecipeError, match="not of these settings"):
        load_frozen(Settings.default(), extracted, CPU)


@pytest.mark.parametrize("fault", ["code", "length", "not finite", "too long"])
def test_impossible_codes_and_embeddings_never_reach_the_file(extracted: Path, fault: str) -> None:
    corpus = Corpus(extracted / "corpus", CPU)
    corpus.refresh()
    codes = [torch.zeros(length // 960, dtype=torch.int64) for length in corpus.length]
    embedding = torch.nn.functional.normalize(torch.ones(len(corpus), EMBED_DIM), dim=1)
    extracting._check(corpus, codes, embedding)
    if fault == "code":
        codes[3][1] = NUM_CODES
    elif fault == "length":
        codes[3] = codes[3][1:]
    elif fault == "not finite":
        embedding[2, 5] = torch.nan
    else:
        embedding[2] *= 2
    with pytest.raises(RecipeError):
        extracting._check(corpus, codes, embedding)


def test_repetitions_are_counted_over_the_ten_before() -> None:
    row = torch.tensor([1, 1, 1, 2, 3, 1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 1])
    at_least = repetitions([row])
    assert at_least[0] == pytest.approx(4 / 16)  # the last 1 has its equal 10 places before
    assert at_least[1] == pytest.approx(2 / 16)
    assert at_least[2] == pytest.approx(1 / 16)
    assert at_least[3:] == [0.0] * 7


def test_the_threshold_lets_natural_repetitions_pass() -> None:
    assert sampling_threshold([0.3, 0.1, 0.001, *[0.0] * 7]) == pytest.approx(
        0.25
    )  # three of ten are refused
    assert sampling_threshold([0.0] * 10) == pytest.approx(0.05)
    assert 10 * sampling_threshold([0.5] * 10) > 10


def test_weights_in_eight_bits_keep_their_largest_and_round_the_rest() -> None:
    weights = {"w": torch.tensor([[1.0, -0.5, 0.003], [1e-4, 0.0, 5e-5]]), "b": torch.tensor([1e-9, 2.0])}
    packed = store(weights, "int8")
    restored = packed.floats()
    assert packed.values["w"].dtype == torch.int8
    assert torch.equal(restored["b"], weights["b"])
    error = (restored["w"] - weights["w"]).abs()
    assert bool((error <= torch.tensor([[1.0], [1e-4]]) / 254 + 1e-9).all())
    with pytest.raises(RecipeError, match="w is not finite"):
        store({"w": torch.full((2, 2), torch.inf)}, "int8")


def test_stored_weights_come_back_from_their_file(tmp_path: Path) -> None:
    packed = store({"w": torch.randn(4, 3), "v": torch.randn(2, 2, 2), "b": torch.randn(4)}, "int8")
    packed.save(tmp_path / "w.safetensors")
    loaded = StoredWeights.load(tmp_path / "w.safetensors")
    assert loaded.digest() == packed.digest()
    for name, value in packed.floats().items():
        assert torch.equal(loaded.floats()[name], value)
    with pytest.raises(RecipeError, match="holds no weights"):
        StoredWeights.load(tmp_path / "none.safetensors")


def test_codes_of_an_earlier_corpus_are_kept_while_the_encoders_are_the_same(
    trained: tuple[Path, Path], extracted: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    shutil.copytree(extracted, work)
    before = load_file(work / "codes.safetensors")
    shards = sorted((work / "corpus").glob("shard-*.safetensors"))
    assert len(shards) > 1
    for shard in shards[1:]:
        shard.unlink()
    facts = extract(SETTINGS, work, trained[1], CPU)
    after = load_file(work / "codes.safetensors")
    assert sorted(after["job"].tolist()) == sorted(before["job"].tolist())
    assert facts.utterances == 10
    by_job = {
        int(job): (row, voice)
        for job, row, voice in zip(
            before["job"],
            before["codes"].long().split(before["num"].tolist()),
            before["embedding"],
            strict=True,
        )
    }
    rows = after["codes"].long().split(after["num"].tolist())
    kept = 0
    for job, row, voice in zip(after["job"], rows, after["embedding"], strict=True):
        kept += torch.equal(row, by_job[int(job)][0])
        torch.testing.assert_close(voice, by_job[int(job)][1], atol=2e-3, rtol=0)
    assert kept >= 9  # batches of other sizes may round a code of an encoded one differently
    utterances = read_utterances(work, Jobs(work / "text"), NUM_CODES)
    corpus = Corpus(work / "corpus", CPU)
    corpus.refresh()
    present = utterances.of_jobs(corpus.job)
    assert sorted(present.job.tolist()) == sorted(corpus.job.tolist())

    path = work / "codes.json"
    other = json.loads(path.read_text("utf-8")) | {"tokenizer": "another"}
    path.write_text(json.dumps(other), "utf-8")
    assert extract(SETTINGS, work, trained[1], CPU).utterances == len(corpus)
