"""What travels arrives: in files below the limit, in any order, cut and joined, and nowhere but where it belongs."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from recipes.mini import travel
from recipes.mini.errors import RecipeError
from recipes.mini.travel import Item, Places, fill, items_of, pack, receive, write_volumes


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kilobytes stand for megabytes."""
    for name, value in (("_CUT", 1024), ("_END", 1024), ("VOLUME_BYTES", 16 * 1024)):
        monkeypatch.setattr(travel, name, value)
    monkeypatch.setattr(travel.fill, "__defaults__", (16 * 1024,))
    monkeypatch.setattr(travel.items_of, "__defaults__", (16 * 1024,))


def places_at(root: Path) -> Places:
    return Places(root / "work", root / "checkpoints")


def write_files(places: Places, sizes: dict[str, int]) -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    contents = {name: rng.bytes(size) for name, size in sizes.items()}
    for name, content in contents.items():
        path = places.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return contents


@pytest.mark.usefixtures("small_limits")
def test_files_of_every_size_arrive(tmp_path: Path) -> None:
    here, there = places_at(tmp_path / "here"), places_at(tmp_path / "there")
    sizes = {
        "work/a": 0,
        "work/b/c": 100,
        "checkpoints/lm/x": 15 * 1024,
        "checkpoints/y": 25_000,
        "work/z": 9_000,
    }
    contents = write_files(here, sizes)
    written, total = write_volumes(items_of(here, [here.work, here.checkpoints]), tmp_path / "out")
    assert written == total > 1
    assert all(path.stat().st_size <= 16 * 1024 + 10_240 for path in (tmp_path / "out").iterdir())
    assert sorted(receive(tmp_path / "out", there)) == sorted(sizes)
    for name, content in contents.items():
        assert there.path(name).read_bytes() == content


@pytest.mark.usefixtures("small_limits")
def test_a_cut_file_is_complete_only_with_its_last_piece(tmp_path: Path) -> None:
    here, there = places_at(tmp_path / "here"), places_at(tmp_path / "there")
    contents = write_files(here, {"work/big": 40_000})
    pack(here, [here.work], tmp_path / "out", 64 * 1024)
    volumes = sorted((tmp_path / "out").rglob("volume-*.tar"))
    assert len(volumes) == 3
    for number, volume in enumerate(reversed(volumes)):  # in any order
        alone = tmp_path / f"call-{number}"
        alone.mkdir()
        shutil.copy(volume, alone)
        assert receive(alone, there) == (["work/big"] if number == 2 else [])
        assert there.path("work/big").exists() == (number == 2)
    assert there.path("work/big").read_bytes() == contents["work/big"]
    assert [path.name for path in there.work.iterdir()] == ["big"]


def test_a_volume_is_within_the_limit_of_a_returned_file(tmp_path: Path) -> None:
    here = places_at(tmp_path)
    here.work.mkdir()
    for number in range(3):
        (here.work / f"part-{number}").write_bytes(bytes(14 * 2**20))
    (here.work / "small").write_bytes(bytes(700_000))
    write_volumes(items_of(here, [here.work]), tmp_path / "out")
    sizes = [path.stat().st_size for path in (tmp_path / "out").iterdir()]
    assert len(sizes) == 3
    assert max(sizes) <= 15 * 2**20


def test_what_comes_first_is_in_the_first_volumes() -> None:
    items = [Item(f"work/{k}", Path("none"), 0, 600) for k in range(6)]
    volumes = fill(items, max_bytes=2 * items[0].packed_size)
    assert [[item.name[-1] for item in volume] for volume in volumes] == [["0", "1"], ["2", "3"], ["4", "5"]]


def test_room_that_is_left_takes_later_small_files() -> None:
    items = [
        Item("work/a", Path("a"), 0, 5000),
        Item("work/b", Path("b"), 0, 6000),
        Item("work/c", Path("c"), 0, 100),
    ]
    assert [[item.name for item in volume] for volume in fill(items, 8000)] == [
        ["work/a", "work/c"],
        ["work/b"],
    ]


def test_batches_are_four_volumes_each_and_replace_each_other(tmp_path: Path) -> None:
    here = places_at(tmp_path)
    write_files(here, {f"work/{k:02d}": 12 * 2**20 for k in range(6)})
    items = items_of(here, [here.work])
    assert write_volumes(items, tmp_path / "out", 0) == (4, 6)
    assert write_volumes(items, tmp_path / "out", 1) == (2, 6)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["volume-004.tar", "volume-005.tar"]


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("piece_bytes", [8 * 1024, 40 * 1024])
def test_no_piece_is_larger_than_asked_and_all_together_are_whole(piece_bytes: int, tmp_path: Path) -> None:
    here, there = places_at(tmp_path / "here"), places_at(tmp_path / "there")
    contents = write_files(here, {"work/a": 50_000, "checkpoints/b": 3_000, "checkpoints/c": 12_000})
    pieces = pack(here, [here.work, here.checkpoints], tmp_path / "out", piece_bytes)
    assert len(pieces) > 1
    names: list[str] = []
    for piece in pieces:
        # a tar is padded to 10 KiB, which is nothing beside real sizes
        assert sum(path.stat().st_size - 10_240 for path in piece.iterdir()) <= piece_bytes
        names += receive(piece, there)
    assert sorted(names) == sorted(contents)
    assert all(there.path(name).read_bytes() == content for name, content in contents.items())


def test_a_piece_that_holds_nothing_is_refused(tmp_path: Path) -> None:
    here = places_at(tmp_path)
    write_files(here, {"work/a": 10})
    with pytest.raises(RecipeError, match="too small"):
        pack(here, [here.work], tmp_path / "out", 1000)
    with pytest.raises(RecipeError, match="nothing to pack"):
        pack(here, [here.checkpoints], tmp_path / "out")


def test_hidden_files_stay(tmp_path: Path) -> None:
    here = places_at(tmp_path)
    write_files(here, {"work/.half.tmp": 10, "work/.git/config": 10, "work/whole": 10})
    assert [item.name for item in items_of(here, [here.work])] == ["work/whole"]


def test_a_file_that_vanishes_meanwhile_is_left_out(tmp_path: Path) -> None:
    here, there = places_at(tmp_path / "here"), places_at(tmp_path / "there")
    write_files(here, {"work/old": 10, "work/new": 10})
    items = items_of(here, [here.work])
    (here.work / "old").unlink()
    write_volumes(items, tmp_path / "out")
    assert receive(tmp_path / "out", there) == ["work/new"]


@pytest.mark.parametrize("name", ["/etc/passwd", "work/../../x", "elsewhere/x", "work", "../x"])
def test_a_name_that_leads_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "volume-000.tar", "w") as tar:
        header = tarfile.TarInfo(name)
        header.size = 1
        tar.addfile(header, io.BytesIO(b"x"))
    with pytest.raises(RecipeError, match="leads elsewhere"):
        receive(tmp_path, places_at(tmp_path / "root"))
    assert not (tmp_path / "root").exists()


def test_a_link_in_a_volume_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "volume-000.tar", "w") as tar:
        header = tarfile.TarInfo("work/link")
        header.type = tarfile.DIRTYPE
        tar.addfile(header)
    with pytest.raises(RecipeError, match="no plain file"):
        receive(tmp_path, places_at(tmp_path / "root"))


def test_a_damaged_volume_is_named(tmp_path: Path) -> None:
    (tmp_path / "volume-000.tar").write_bytes(b"not a tar" * 100)
    with pytest.raises(RecipeError, match=r"volume-000.tar is damaged"):
        receive(tmp_path, places_at(tmp_path / "root"))


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="holds no volume"):
        receive(tmp_path, places_at(tmp_path))
