"""Runs all checks."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from light_tts.doctor.findings import Diagnosis
from light_tts.doctor.machine import check_machine
from light_tts.doctor.model_files import check_config, check_onnx, check_tokenizer, check_voices
from light_tts.doctor.report import print_diagnosis
from light_tts.doctor.weights import check_weights
from light_tts.models.bundled import bundled_model_dir


def diagnose(model_dir: Path | None, *, verbose: bool = False) -> Diagnosis:
    """Check this machine and a model directory, by default the bundled voice's if there is one.

    verbose: name every weight that does not fit, not the first of each kind
    Nothing in the directory is run, and the weights are looked at where they lie, so that a model larger than
    the memory can be checked. Raises nothing for a broken model: what is wrong with it is in the findings.
    """
    diagnosis = Diagnosis()
    check_machine(diagnosis, model_dir if model_dir is not None and model_dir.is_dir() else Path.cwd())
    if model_dir is None:
        model_dir = bundled_model_dir()
        if model_dir is None:
            diagnosis.warn(
                "model", "no voice is bundled with this installation; name a model directory to check it"
            )
            return diagnosis
        diagnosis.ok("model", "the bundled voice is installed")
    if not model_dir.is_dir():
        diagnosis.error("model", f"{model_dir} is not a directory")
        return diagnosis
    config = check_config(diagnosis, model_dir)
    check_weights(diagnosis, model_dir, config, verbose=verbose)
    if config is not None:
        check_tokenizer(diagnosis, model_dir, config)
        check_onnx(diagnosis, model_dir, config)
        check_voices(diagnosis, model_dir, config)
    return diagnosis


def run(model_dir: Path | None, console: Console, *, verbose: bool = False) -> int:
    """Diagnose and print. Returns the exit status: 0 if everything that is needed works, else 1."""
    diagnosis = diagnose(model_dir, verbose=verbose)
    print_diagnosis(diagnosis, console)
    return 0 if diagnosis.healthy else 1
