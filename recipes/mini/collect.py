"""What to bring home from a training machine, the most important first."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from recipes.mini.errors import RecipeError
from recipes.mini.extract import FACTS_NAME
from recipes.mini.models.ge2e import FILE_NAME as GE2E_NAME
from recipes.mini.train.checkpoint import Checkpoint, checkpoints, load_latest, save_checkpoint
from recipes.mini.train.loss_log import LOG_NAME
from recipes.mini.train.utterances import CODES_NAME
from recipes.mini.travel import Item, Places, items_of, write_volumes

logger = logging.getLogger(__name__)

# Whose checkpoint matters most comes first: it is brought home first.
STAGES = ("lm", "flow", "vocoder", "tokenizer", "speaker")
WEIGHTS = "weights"  # below the checkpoints: checkpoints of averages only, which is all that `export` reads
LOGS = "logs"
STATUS = "status.json"
SETTINGS = "settings.json"
BEST = "best"  # a stage's best average by validation, where it keeps one


def collect(
    places: Places, finished: Callable[[str], bool], out: Path, batch: int = 0, stages: Sequence[str] = STAGES
) -> tuple[int, int]:
    """Write the batch-th four volumes into `out`. Returns how many were written, and how many there are.

    Batches of one collection fit together only while nothing trains.
    """
    refresh_weights(places.checkpoints, stages)
    written, total = write_volumes(by_importance(places, finished, stages), out, batch)
    logger.info("batch %d: %d of %d volumes are in %s", batch, written, total, out)
    return written, total


def by_importance(
    places: Places, finished: Callable[[str], bool], stages: Sequence[str] = STAGES
) -> list[Item]:
    """Status, logs, curves; weights; codes of the corpus; then what unfinished and finished stages resume from."""
    root, work = places.checkpoints, places.work
    small = [root / STATUS, root / SETTINGS, root / LOGS, work / FACTS_NAME]
    small += [path for stage in stages for path in sorted((root / stage).glob("*")) if path.is_file()]
    newest = {stage: _newest(root / stage) for stage in stages}
    resumable = sorted(stages, key=finished)  # stable: unfinished ones first, in the order given
    return items_of(
        places,
        [
            *small,
            root / WEIGHTS,
            work / "encoders",
            work / CODES_NAME,
            *(path for stage in resumable for path in newest[stage]),
        ],
    )


def to_travel(places: Places) -> list[Path]:
    """What a training machine needs to begin or to go on: prepared texts and teachers, codes, newest checkpoints."""
    work = places.work
    newest = [path for stage in STAGES for path in _newest(places.checkpoints / stage)]
    logs = [places.checkpoints / stage / LOG_NAME for stage in STAGES]
    prepared = [work / "text", work / "teacher", work / GE2E_NAME]
    return [*prepared, work / "encoders", work / FACTS_NAME, work / CODES_NAME, *newest, *logs]


def _newest(folder: Path) -> list[Path]:
    return [*checkpoints(folder)[-1:], *checkpoints(folder / BEST)[-1:]]


def refresh_weights(root: Path, stages: Sequence[str] = STAGES) -> None:
    """Bring ROOT/weights up to date: every stage's newest averages, and its best ones."""
    for stage in stages:
        for source in (root / stage, root / stage / BEST):
            try:
                _keep_averages(source, root / WEIGHTS / source.relative_to(root))
            except RecipeError as error:
                logger.warning("no weights of %s: %s", stage, error)


def _keep_averages(source: Path, target: Path) -> None:
    present = checkpoints(source)
    if not present or (target / present[-1].name).is_dir():
        return
    checkpoint = load_latest(source)
    assert checkpoint is not None, "there are checkpoints"
    averages = {name: value for name, value in checkpoint.tensors.items() if name.startswith("ema.")}
    for old in checkpoints(target):
        shutil.rmtree(old)
    save_checkpoint(target, Checkpoint(checkpoint.step, averages, checkpoint.facts))
