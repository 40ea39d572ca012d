"""Folders of priors: what is written is read, and what does not belong is refused."""

import json
import pickle

import numpy as np
import pytest

from sgrl.errors import SgrlError
from sgrl.folds import fold_of
from sgrl.models.vost.priors import (
    AskedModel,
    FramePriors,
    PriorPair,
    Priors,
    PriorsInfo,
    write_features,
    write_priors,
    write_text,
    written_features,
)
from sgrl.vocabulary import Vocabulary, get_vocabulary

AG = get_vocabulary("action_genome")
PAIR = PriorPair("person", (0.1, 0.1, 0.5, 0.9), "book", (0.4, 0.4, 0.6, 0.6), ("holding", "unsure"), (0.5, 1.0))
WHOLE = PriorPair("person", (0, 0, 1, 1), "door", (0.9, -2.0, 0.8, 7.0))
FOLDED = tuple(AskedModel(f"vlm-{i}", "ab", trained=True, folds=2, seed=3, left_out=i) for i in range(2))


def written(folder, models=FOLDED, frames=None, **info):
    rng = np.random.default_rng(0)
    write_text(folder, rng.normal(size=(36, 8)), rng.normal(size=(26, 8)))
    info = {"dataset": "action_genome", "fingerprints": {"train": "f1"}, "vocabulary": AG, "models": models} | info
    if frames is None:
        frames = [FramePriors(f"v{i}/1", (PAIR, WHOLE), f"v{i}", 1, True, fold_of(f"v{i}", 2, 3)) for i in range(9)]
    write_priors(folder, PriorsInfo(**info), frames)
    return folder


def test_what_is_written_is_read(tmp_path):
    regions = np.random.default_rng(1).normal(size=(2, 3, 4))
    write_features(tmp_path, "00000-of-00001-0000", {"v0/1": regions})
    assert written_features(tmp_path) == {"v0/1"}
    priors = pickle.loads(pickle.dumps(Priors(written(tmp_path))))
    assert len(priors) == 9 and (priors.text_size, priors.visual_size) == (8, 4)
    found = priors.get("v3/1")
    assert found.pairs[0] == PAIR and (found.video_id, found.frame, found.model) == ("v3", 1, fold_of("v3", 2, 3))
    assert found.pairs[1].box == (0.8, 0.0, 0.9, 1.0) and found.pairs[1].predicates == ()
    np.testing.assert_allclose(priors.features("v0/1"), regions, atol=1e-3)
    assert priors.features("v1/1") is None and not priors.missing
    np.testing.assert_allclose(np.linalg.norm(priors.objects, axis=1), 1, atol=1e-6)
    assert priors.get("v99/1") is None and priors.missing == {"v99/1"}


def test_leaks_are_refused_or_counted(tmp_path):
    frames = [(f"v{i}/1", f"v{i}") for i in range(9)]
    assert Priors(written(tmp_path / "right")).check_leaks(frames) == 0
    swapped = Priors(written(tmp_path / "swapped", FOLDED[::-1]))
    with pytest.raises(SgrlError, match=r"'v0' come from 'vlm-\d'.*allow_seen_priors"):
        swapped.check_leaks(frames)
    assert swapped.check_leaks(frames, allow_seen=True) == 9
    all_seen = AskedModel("tuned", trained=True)
    one = Priors(written(tmp_path / "one", (all_seen, all_seen)))
    assert one.check_leaks(frames, allow_seen=True) == 9
    untrained = AskedModel("zero-shot")
    assert Priors(written(tmp_path / "none", (untrained, untrained))).check_leaks(frames) == 0


def test_what_is_of_another_data_set_is_refused(tmp_path):
    priors = Priors(written(tmp_path))
    priors.check("action_genome", "train", "f1", AG)
    other = Vocabulary("action_genome", AG.objects[:-1], AG.predicates, AG.groups)
    for given, words in (
        (("toy", "train", "f1", AG), "not of 'toy'"),
        (("action_genome", "train", "f2", AG), "other files"),
        (("action_genome", "test", "f1", AG), "none of the split 'test'"),
        (("action_genome", "train", "f1", other), "another vocabulary"),
    ):
        with pytest.raises(SgrlError, match=words):
            priors.check(*given)


@pytest.mark.parametrize(
    "frame, words",
    [
        (FramePriors("a", (), model=2), "model 2; there are 2"),
        (FramePriors("a", (PriorPair("person", (0, 0, 1, 1), "unicorn", (0, 0, 1, 1)),)), "'unicorn' is none"),
        (FramePriors("a", (PriorPair("person", (0, 0, 1, 1), "book", (0, 0, 1, float("nan"))),)), "not finite"),
    ],
)
def test_rows_that_do_not_fit_are_not_written(tmp_path, frame, words):
    with pytest.raises(SgrlError, match=words):
        written(tmp_path, frames=[frame])
    assert not (tmp_path / "priors.json").exists() and not (tmp_path / "priors.parquet").exists()


def test_an_image_has_one_row(tmp_path):
    with pytest.raises(SgrlError, match="'a' come twice"):
        written(tmp_path, frames=[FramePriors("a", ())] * 2)


def test_a_folder_of_texts_alone_has_no_priors(tmp_path):
    priors = Priors(written(tmp_path, (), []))
    priors.check("action_genome", "val", "whatever", AG)
    assert priors.get("a") is None and priors.check_leaks([("a", "v")]) == 0 and priors.visual_size is None


def test_damage_is_said_in_one_line(tmp_path):
    with pytest.raises(SgrlError, match="priors.json"):
        Priors(tmp_path)
    written(tmp_path)
    for name in ("text.safetensors", "priors.parquet"):
        rest = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(rest[: len(rest) // 2])
        with pytest.raises(SgrlError, match="extract them again"):
            Priors(tmp_path)
        (tmp_path / name).write_bytes(rest)
    about = json.loads((tmp_path / "priors.json").read_text())
    (tmp_path / "priors.json").write_text(json.dumps(about | {"format": 9}))
    with pytest.raises(SgrlError, match="format 9"):
        Priors(tmp_path)
    write_text(tmp_path, np.ones((35, 8)), np.ones((26, 8)))
    (tmp_path / "priors.json").write_text(json.dumps(about))
    with pytest.raises(SgrlError, match="expected 36 rows"):
        Priors(tmp_path)
