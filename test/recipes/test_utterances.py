from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from recipes.mini.errors import RecipeError
from recipes.mini.jobs_table import Jobs
from recipes.mini.train.utterances import CODES_NAME, read_utterances
from test.recipes.tiny_codes import write_tiny_work


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    write_tiny_work(folder, 10)
    return folder


def test_speakers_are_those_of_the_jobs_and_embeddings_have_length_one(work: Path) -> None:
    jobs = Jobs(work / "text")
    utterances = read_utterances(work, jobs, 729)
    assert utterances.speaker.tolist() == [jobs.speaker[job] for job in utterances.job]
    assert int(utterances.start[-1] + utterances.num[-1]) == len(utterances.codes)
    torch.testing.assert_close(utterances.embedding.norm(dim=1), torch.ones(10))


def test_what_is_held_out_depends_on_the_job_alone(work: Path) -> None:
    utterances = read_utterances(work, Jobs(work / "text"), 729)
    held_out = utterances.held_out(0.2)
    assert utterances.job[held_out].tolist() == [4, 9]
    grown = replace(utterances, job=np.concatenate([utterances.job, np.arange(10, 30)]))
    assert grown.held_out(0.2)[:10].tolist() == held_out.tolist()
    assert utterances.held_out(0.001).sum() == 1


def changed(work: Path, folder: Path, **tensors: Tensor) -> Path:
    save_file({**load_file(work / CODES_NAME), **tensors}, folder / CODES_NAME)
    return folder


def test_damaged_codes_never_reach_the_device(work: Path, tmp_path: Path) -> None:
    jobs, good = Jobs(work / "text"), load_file(work / CODES_NAME)
    codes = good["codes"].clone()
    codes[7] = 729
    with pytest.raises(RecipeError, match="codes 0 to 729, must be below 729"):
        read_utterances(changed(work, tmp_path, codes=codes), jobs, 729)
    with pytest.raises(RecipeError, match="come twice"):
        read_utterances(changed(work, tmp_path, job=torch.zeros_like(good["job"])), jobs, 729)
    with pytest.raises(RecipeError, match="not among the 10 of the table"):
        read_utterances(changed(work, tmp_path, job=good["job"] + 1), jobs, 729)
    with pytest.raises(RecipeError, match="do not fit"):
        read_utterances(changed(work, tmp_path, num=good["num"] + 1), jobs, 729)
    with pytest.raises(RecipeError, match="not finite"):
        read_utterances(changed(work, tmp_path, embedding=good["embedding"] * torch.nan), jobs, 729)


def test_missing_codes_are_an_error_that_says_what_to_do(work: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="extract makes it"):
        read_utterances(tmp_path, Jobs(work / "text"), 729)
