"""Cross-fitting: which part of a split a model does not see."""

from types import SimpleNamespace

import pytest
from datasets import Dataset

from sgrl.errors import SgrlError
from sgrl.folds import LeftOut, fold_of
from sgrl.training.launch import SFTArguments


def test_every_video_is_in_one_fold():
    videos = [f"v{i}" for i in range(400)]
    sizes = [sum(LeftOut(4, fold).has(video, "image") for video in videos) for fold in range(4)]
    assert sum(sizes) == 400 and min(sizes) > 70
    assert LeftOut(4, 1).has("v3", "x") == LeftOut(4, 1).has("v3", "y") == (fold_of("v3", 4) == 1)


@pytest.mark.parametrize("video", [True, False])
def test_rows_without_a_fold(video):
    columns = {"image_id": [f"v{i // 3}/{i}" for i in range(90)], "n": list(range(90))}
    if video:
        columns["video_id"] = [f"v{i // 3}" for i in range(90)]
    rows = Dataset.from_dict(columns)
    parts = [set(LeftOut(3, fold).without(rows)["n"]) for fold in range(3)]
    assert set.intersection(*parts) == set() and sum(map(len, parts)) == 180
    if video:
        assert all({i // 3 * 3, i // 3 * 3 + 1} <= part for part in parts for i in part)


@pytest.mark.parametrize("folds, fold", [(1, 0), (0, 0), (2, 2), (3, -1)])
def test_folds_that_cannot_be(folds, fold):
    with pytest.raises(SgrlError, match=f"folds: {folds} and leave_out_fold: {fold} do not fit"):
        LeftOut(folds, fold)


def test_the_setting_is_of_a_run():
    arguments = SFTArguments(dataset="data", folds=2, leave_out_fold=1)
    assert arguments.left_out == LeftOut(2, 1)
    assert arguments.identity(SimpleNamespace())["leave_out_fold"] == 1
    assert SFTArguments(dataset="data").left_out is None
    with pytest.raises(SgrlError, match="go together"):
        SFTArguments(dataset="data", folds=2)
    with pytest.raises(SgrlError, match="do not fit"):
        SFTArguments(dataset="data", folds=2, leave_out_fold=2)
