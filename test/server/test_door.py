"""Who comes in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from light_tts.config import ServerConfig
from light_tts.errors import Overloaded, Unavailable
from light_tts.messages import Stage
from light_tts.server.door import Door
from test.server.fake_pipeline import FakePipeline, fake_pipeline


@pytest.fixture
def pipeline() -> Iterator[FakePipeline]:
    with fake_pipeline(decode_process_num=2) as pipeline:
        yield pipeline


def _door(pipeline: FakePipeline) -> Door:
    return Door(pipeline.config, pipeline.run_dir)


@pytest.mark.parametrize(("limit", "workers", "places"), [(10, 1, 10), (10, 4, 3), (1, 4, 1), (None, 2, 100)])
def test_a_worker_has_its_share_of_the_places(
    pipeline: FakePipeline, limit: int | None, workers: int, places: int
) -> None:
    config = ServerConfig(max_pending=limit, httpserver_workers=workers)
    door = Door(config, pipeline.run_dir)
    assert door.places == places
    door.check(places - 1)
    with pytest.raises(Overloaded, match="max_pending"):
        door.check(places)


def test_one_process_of_each_stage_is_enough(pipeline: FakePipeline) -> None:
    pipeline.change_state(not_ready=((Stage.DECODE, 0),))
    door = _door(pipeline)
    door.check(0)
    assert door.ready(Stage.DECODE) == [1]


@pytest.mark.parametrize("stage", [Stage.ENCODE, Stage.LLM])
def test_nobody_comes_in_without_a_stage(pipeline: FakePipeline, stage: Stage) -> None:
    pipeline.change_state(not_ready=((stage, 0),))
    with pytest.raises(Unavailable, match=stage.value):
        _door(pipeline).check(0)


def test_nobody_comes_in_while_the_server_stops(pipeline: FakePipeline) -> None:
    pipeline.change_state(draining=True)
    with pytest.raises(Unavailable, match="stopping"):
        _door(pipeline).check(0)


def test_nobody_comes_in_without_a_supervisor(pipeline: FakePipeline) -> None:
    pipeline.change_state(supervised=False)
    with pytest.raises(Unavailable, match="not supervised"):
        _door(pipeline).check(0)


def test_a_lost_process_is_not_used_even_before_it_is_written_down(pipeline: FakePipeline) -> None:
    door = _door(pipeline)
    assert door.ready(Stage.ENCODE) == [0]
    door.lose(pipeline.pids[Stage.ENCODE, 0])
    assert door.ready(Stage.ENCODE) == []
    with pytest.raises(Unavailable, match="encode"):
        door.check(0)
    pipeline.replace(Stage.ENCODE, 0)
    door.check(0)


def test_news_of_a_loss_that_come_late_do_not_hit_the_one_that_took_its_place(pipeline: FakePipeline) -> None:
    door, lost = _door(pipeline), pipeline.pids[Stage.ENCODE, 0]
    pipeline.replace(Stage.ENCODE, 0)
    door.lose(lost)
    door.check(0)
