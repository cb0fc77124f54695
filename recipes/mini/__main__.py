"""`python -m recipes.mini VERB`: every step of the recipe. README.md has them in order."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch

from light_tts.errors import LightTTSError
from recipes.mini.errors import RecipeError
from recipes.mini.settings import Settings
from recipes.mini.travel import Places

logger = logging.getLogger("recipes.mini")

STAGES = ("tokenizer", "speaker", "flow", "lm", "vocoder")
_NAMED = {"default": Settings.default, "tiny": Settings.tiny}


class Verbs(Protocol):
    def add_parser(self, name: str, *, help: str) -> argparse.ArgumentParser: ...


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 done, 1 failed."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S"
    )
    options = parser().parse_args(arguments)
    action: Callable[[argparse.Namespace], int] = options.action
    try:
        return action(options)
    except (RecipeError, LightTTSError) as error:
        logger.error("%s", error)
        return 1


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m recipes.mini", description=__doc__)
    verbs = top.add_subparsers(required=True, metavar="VERB")
    _add_preparation(verbs)
    _add_training(verbs)
    _add_travel(verbs)
    _add_results(verbs)
    return top


def _verb(
    verbs: Verbs, name: str, text: str, action: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=text)
    verb.set_defaults(action=action)
    verb.add_argument("--settings", default="default", help="default, tiny or a JSON file")
    verb.add_argument("--work", type=Path, required=True, help="folder of text, speech and codes")
    return verb


def _with_checkpoints(verb: argparse.ArgumentParser) -> argparse.ArgumentParser:
    verb.add_argument("--checkpoints", type=Path, required=True, help="folder of what was trained")
    return verb


def _on_device(verb: argparse.ArgumentParser) -> argparse.ArgumentParser:
    verb.add_argument("--device", help="cpu or cuda (default: run.device of the settings)")
    verb.add_argument("--budget", type=float, default=float("inf"), help="seconds that it may take")
    return verb


def _add_preparation(verbs: Verbs) -> None:
    text = _verb(verbs, "prepare-text", "sentences, phonemes and speakers: WORK/text", _prepare_text)
    _add_sources(text)
    text.add_argument(
        "--sentences", type=Path, help="folder of sent_en.txt and sent_zh.txt, to use in place of packages"
    )
    text.add_argument(
        "--exclude", type=Path, nargs="*", default=[], help="texts never to be trained on (.txt, .jsonl)"
    )
    text.add_argument("--vocabulary", type=Path, help="tokenizer.json whose symbols are kept")
    text.add_argument("--processes", type=int, default=2)
    text.add_argument(
        "--append",
        type=int,
        metavar="N",
        help="add N utterances to WORK/text, whose rows stay as they are (append of the settings)",
    )
    teacher = _verb(
        verbs, "prepare-teacher", "the teachers' weights: WORK/teacher, WORK/ge2e", _prepare_teacher
    )
    teacher.add_argument("--downloads", type=Path, required=True, help="folder of packages")
    record = _verb(verbs, "record", "the teacher reads prompts and tone pairs: WORK/recordings", _record)
    _add_sources(record)


def _add_sources(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--downloads", type=Path, required=True, help="folder of packages; what is missing is fetched"
    )
    verb.add_argument(
        "--python", type=Path, required=True, help="of the environment of requirements-prepare.txt"
    )


def _add_training(verbs: Verbs) -> None:
    _on_device(
        _with_checkpoints(_verb(verbs, "generate", "the teacher reads all sentences: WORK/corpus", _generate))
    )
    train = _on_device(_with_checkpoints(_verb(verbs, "train", "one stage", _train)))
    train.add_argument("stage", choices=STAGES)
    _on_device(_with_checkpoints(_verb(verbs, "extract", "the corpus as codes and embeddings", _extract)))
    _on_device(_with_checkpoints(_verb(verbs, "flow-mels", "mels of the flow, for the vocoder", _flow_mels)))
    run = _on_device(_with_checkpoints(_verb(verbs, "run", "all of these side by side", _run)))
    run.add_argument("--out", type=Path, help="leave volumes of what matters most here")
    dry = _verb(verbs, "dry-run", "everything on made-up speech, on the CPU", _dry_run)
    dry.add_argument("--budget", type=float, default=150.0, help="seconds for the training")


def _add_travel(verbs: Verbs) -> None:
    pack = _with_checkpoints(_verb(verbs, "pack", "cut a run into pieces that can travel", _pack))
    pack.add_argument("--out", type=Path, required=True)
    pack.add_argument("--piece_mb", type=float, default=32.0, help="largest piece, MiB (default 32)")
    collect = _with_checkpoints(
        _verb(verbs, "collect", "at most 4 volumes of a run, what matters most first", _collect)
    )
    collect.add_argument("--out", type=Path, required=True)
    collect.add_argument(
        "--batch", type=int, default=0, help="1: the next 4, and so on; only while nothing trains"
    )
    receive = _with_checkpoints(_verb(verbs, "receive", "put volumes into place", _receive))
    receive.add_argument("--volumes", type=Path, required=True, help="folder that holds them, at any depth")


def _add_results(verbs: Verbs) -> None:
    export = _with_checkpoints(_verb(verbs, "export", "the model directory", _export))
    export.add_argument("--model_dir", type=Path, required=True)
    voices = _verb(verbs, "voices", "built-in voices from WORK/recordings", _voices)
    voices.add_argument("--model_dir", type=Path, required=True)
    evaluate = _verb(
        verbs, "evaluate", "speak test sentences and compare the figures with the bars", _evaluate
    )
    evaluate.add_argument("--model_dir", type=Path, required=True)
    evaluate.add_argument(
        "--tests", type=Path, required=True, help="tests.jsonl: sentences with three kinds of prompts"
    )
    evaluate.add_argument("--evaluator", type=Path, help="script that scores a folder of speech")
    evaluate.add_argument("--python", type=Path, default=Path(sys.executable), help="that runs the evaluator")
    evaluate.add_argument("--out", type=Path, required=True, help="folder of the speech and the figures")
    evaluate.add_argument("--seeds", type=int, default=1, help="of every sentence")
    evaluate.add_argument("--limit", type=int, help="only so many sentences")


def _settings(options: argparse.Namespace) -> Settings:
    named = _NAMED.get(options.settings)
    return named() if named is not None else Settings.load(Path(options.settings))


def _device(options: argparse.Namespace, settings: Settings) -> torch.device:
    return torch.device(options.device or settings.run.device)


def _places(options: argparse.Namespace) -> Places:
    return Places(options.work, options.checkpoints)


def _prepare_text(options: argparse.Namespace) -> int:
    from recipes.mini.prepare.append import append_text
    from recipes.mini.prepare.text import TextSources, prepare_text

    sources = TextSources(
        options.downloads, options.python, options.sentences, tuple(options.exclude), options.vocabulary
    )
    if options.append is not None:
        append_text(_settings(options), options.work, sources, options.append, options.processes)
    else:
        prepare_text(_settings(options), options.work, sources, options.processes)
    return 0


def _prepare_teacher(options: argparse.Namespace) -> int:
    from recipes.mini.models.ge2e import FILE_NAME, convert_ge2e
    from recipes.mini.prepare import packages
    from recipes.mini.prepare.teacher_weights import pack_teacher

    packages.fetch((*packages.TEACHER, packages.GE2E), options.downloads)
    pack_teacher(options.downloads, options.work / "teacher")
    convert_ge2e(packages.find(packages.GE2E, options.downloads), options.work / FILE_NAME)
    return 0


def _record(options: argparse.Namespace) -> int:
    from recipes.mini.recordings import record

    record(_settings(options), options.work, options.downloads, options.python)
    return 0


def _generate(options: argparse.Namespace) -> int:
    from recipes.mini.prepare.generate import generate

    settings = _settings(options)
    generate(settings, options.work, _device(options, settings), options.budget)
    return 0


def _train(options: argparse.Namespace) -> int:
    settings = _settings(options)
    stage = importlib.import_module(f"recipes.mini.train.{options.stage}")
    stage.train(settings, options.work, options.checkpoints, _device(options, settings), options.budget)
    return 0


def _extract(options: argparse.Namespace) -> int:
    from recipes.mini.extract import extract

    settings = _settings(options)
    extract(settings, options.work, options.checkpoints, _device(options, settings))
    return 0


def _flow_mels(options: argparse.Namespace) -> int:
    from recipes.mini.train.flow_mels import write_flow_mels

    settings = _settings(options)
    device, hours = _device(options, settings), settings.run.flow_mels_hours
    write_flow_mels(settings, options.work, options.checkpoints, device, hours)
    return 0


def _run(options: argparse.Namespace) -> int:
    from recipes.mini.run import run

    settings = _settings(options)
    if options.device:
        settings = replace(settings, run=replace(settings.run, device=options.device))
    return run(settings, _places(options), options.out, options.budget)


def _dry_run(options: argparse.Namespace) -> int:
    from recipes.mini.dry_run import dry_run

    dry_run(Settings.tiny(), options.work, options.budget)
    return 0


def _pack(options: argparse.Namespace) -> int:
    from recipes.mini.collect import to_travel
    from recipes.mini.travel import pack

    places = _places(options)
    for piece in pack(places, to_travel(places), options.out, round(options.piece_mb * 2**20)):
        logger.info("%s", piece)
    return 0


def _collect(options: argparse.Namespace) -> int:
    from recipes.mini.collect import collect
    from recipes.mini.tasks import Pipeline

    places = _places(options)
    pipeline = Pipeline(_settings(options), Path(options.settings), places)
    collect(places, pipeline.finished, options.out, options.batch)
    return 0


def _receive(options: argparse.Namespace) -> int:
    from recipes.mini.travel import receive

    logger.info("%d files are complete", len(receive(options.volumes, _places(options))))
    return 0


def _export(options: argparse.Namespace) -> int:
    from recipes.mini.export import check_model, export_model, size_table

    export_model(_settings(options), options.work, options.checkpoints, options.model_dir)
    check_model(options.model_dir)
    logger.info("\n%s", size_table(options.model_dir))
    return 0


def _voices(options: argparse.Namespace) -> int:
    from recipes.mini.export import check_model
    from recipes.mini.voices import make_voices

    make_voices(options.work, options.model_dir)
    check_model(options.model_dir)
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from recipes.mini.evaluate import Evaluator, evaluate

    evaluator = Evaluator(options.evaluator, options.python) if options.evaluator else None
    rows = evaluate(
        options.work,
        options.model_dir,
        options.tests,
        options.out,
        evaluator,
        seeds=options.seeds,
        limit=options.limit,
    )
    return 1 if any(row.verdict == "MISSED" for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
