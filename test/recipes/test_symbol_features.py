from __future__ import annotations

import pytest

from recipes.mini.train.symbol_features import feature_table, symbol_features


@pytest.mark.parametrize(
    ("symbol", "features"),
    [
        ("z_zhang1", ["initial zh", "final ang", "tone 1", "final ang1"]),
        ("z_yuan2", ["initial ", "final van", "tone 2", "final van2"]),
        ("z_ju2", ["initial j", "final v", "tone 2", "final v2"]),
        ("z_lv4", ["initial l", "final v", "tone 4", "final v4"]),
        ("z_you3", ["initial ", "final iu", "tone 3", "final iu3"]),
        ("z_wei4", ["initial ", "final ui", "tone 4", "final ui4"]),
        ("z_si4", ["initial s", "final i after z c s", "tone 4", "final i after z c s4"]),
        ("z_shi2", ["initial sh", "final i after zh ch sh r", "tone 2", "final i after zh ch sh r2"]),
        ("e_S_T_R_EH1", ["vowel EH", "stress 1", "onset 0 R", "onset 1 T", "onset 2 S"]),
        ("e_AA0", ["vowel AA", "stress 0"]),
        ("c_NG_K_TH_S", ["coda", "coda 0 NG", "coda 1 K", "coda 2 TH", "coda 3 S"]),
        ("l_x", ["l_x"]),
        (",", [","]),
        ("<unk>", ["<unk>"]),
    ],
)
def test_symbols_fall_into_their_parts(symbol: str, features: list[str]) -> None:
    assert symbol_features(symbol) == features


def test_shared_parts_have_one_number_and_none_is_zero() -> None:
    table, size = feature_table(["z_ma1", "z_ma2", "z_ba1", ","])
    assert table[0, 0] == table[1, 0]  # m
    assert table[0, 1] == table[1, 1] == table[2, 1]  # a
    assert table[0, 2] == table[2, 2] != table[1, 2]  # tone
    assert table[3].tolist() == [int(table.max()), 0, 0, 0]
    assert size == int(table.max()) + 1
    assert bool((table[:3] > 0).all())
