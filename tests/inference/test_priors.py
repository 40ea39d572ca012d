"""Priors: what a model says of all pairs of an image, in a folder that a detector and the metrics read."""

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file

from data_prep import to_toon
from data_prep.toys import action_genome, psg
from rewards.metrics import ActionGenomeRecall
from sgrl import data
from sgrl.errors import SgrlError
from sgrl.folds import fold_of
from sgrl.inference import priors as extraction
from sgrl.inference.engine import Generation
from sgrl.inference.pair_questions import ASK, Asker
from sgrl.inference.priors import Extraction, asked_models, extract
from sgrl.models.detection.regions import RegionEncoder, blended, sentences
from sgrl.models.vost.priors import WHOLE_IMAGE, Priors, written_features
from sgrl.text import get_codec
from sgrl.vocabulary import get_vocabulary

RUN = {"engine": "witness", "max_new_tokens": 100, "dtype": "float32", "thinking": False}


@pytest.fixture(scope="module")
def ag(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ag")
    action_genome.write(folder / "world", train=6, test=3, frames=3)
    options = ["--resize", "keep", "--frame-rule", "all", "--format", "toon-pairs"]
    command = ["--dataset", "action_genome", "--root", str(folder / "world"), "--output", str(folder / "data")]
    assert to_toon.main([*command, *options]) == 0
    return folder / "data"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("psg")
    psg.write(folder / "world", train=4, test=3)
    command = ["--dataset", "psg", "--root", str(folder / "world"), "--output", str(folder / "data")]
    assert to_toon.main([*command, "--resize", "keep"]) == 0
    return folder / "data"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A tiny CLIP with the files of the real one."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("clip")
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[]).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    text = {**small, **ends, "vocab_size": len(words), "max_position_embeddings": 77}
    vision = {**small, "image_size": 32, "patch_size": 16}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(folder)
    return folder


class Witness:
    """An engine that knows the reference of each image, and says what it is asked in the words it is asked for."""

    name, batch_size, trained_context = "witness", 4, "none"

    def __init__(self, dataset, name="witness", asked=None, otherwise=None):
        self.vocabulary = data.vocabulary_of(data.read_metadata(dataset))
        self.codec = get_codec(data.read_metadata(dataset)["codec"])
        rows = [row for split in data.splits(dataset) for row in data.load(dataset, split)]
        self.rows = {row["image"].tobytes(): row for row in rows}
        self.asked = [] if asked is None else asked
        self.model, self.otherwise = name, otherwise or {}

    def close(self):
        pass

    def generate(self, images, prompts, grammars=None):
        return [
            self._one(self.rows[image.tobytes()], chat[-1]["content"])
            for image, chat in zip(images, prompts, strict=True)
        ]

    def _one(self, row, prompt):
        self.asked.append((self.model, row["image_id"]))
        if row["image_id"] in self.otherwise:
            return self.otherwise[row["image_id"]]
        return Generation(self._answer(row, prompt), 10, 0.5, "stop", 7)

    def _answer(self, row, prompt):
        if prompt == row["prompt"][-1]["content"]:
            return row["completion"][-1]["content"]
        graph = self.codec.decode(row["solution"], row["width"], row["height"], tags=False)

        def said(subject, target):
            found = {}
            for relation in graph.relations:
                if (relation.subject, relation.object) == (subject, target):
                    found.setdefault(relation.group or "predicates", []).append(relation.predicate)
            return found

        written = [str([round(v) for v in each.box]) for each in graph.objects]
        if "How are they related?" in prompt:
            a, b = sorted(
                (i for i, box in enumerate(written) if box in prompt), key=lambda i: prompt.index(written[i])
            )
            return json.dumps(said(a, b))
        things = [{"label": each.label, "bbox": list(each.box)} | said(0, i) for i, each in enumerate(graph.objects)]
        return "Sure!\n```json\n" + json.dumps(things) + "\n```"


def settings(dataset, output, **changes):
    plain = Extraction(str(dataset), ("train", "test"), output, ("m",), "dataset", "pixel", "none", regions=False)
    return replace(plain, **changes)


@pytest.fixture(autouse=True)
def words(monkeypatch):
    """Words without an encoder, unless a test has one."""

    class Encoder:
        def __init__(self, name):
            self.name = name

        def texts(self, texts):
            return np.random.default_rng(0).normal(size=(len(texts), 6))

    monkeypatch.setattr(extraction, "RegionEncoder", Encoder)


@pytest.mark.parametrize("ask", ASK)
def test_a_witness_of_the_truth_has_it_in_the_priors(ag, tmp_path, ask):
    counts = extract(settings(ag, tmp_path, ask=ask), RUN, lambda name: Witness(ag, name))
    rows = {row["image_id"]: row for split in ("train", "test") for row in data.load(ag, split)}
    assert counts["images"] == len(rows) and counts["dropped"] == counts["cut"] == counts["without_person"] == 0
    priors = Priors(tmp_path)
    codec, vocabulary = get_codec("toon-pairs"), priors.info.vocabulary
    recall = ActionGenomeRecall(96, 96, "no", vocabulary=vocabulary)
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    for line in lines:
        row = rows[line["image_id"]]
        truth = codec.decode(row["solution"], 96, 96, tags=False)
        found = priors.get(row["image_id"])
        assert (found.video_id, found.frame) == (row["video_id"], row["frame"])
        expected = {}
        for relation in truth.relations:
            label, box = (truth.objects[relation.object].label, truth.objects[relation.object].box)
            expected.setdefault((vocabulary.from_text(label), box), set()).add(
                vocabulary.from_text(relation.predicate)
            )
        said = {}
        for pair in found.pairs:
            assert pair.subject == "person"
            box = tuple(round(96 * v) for v in pair.box)
            said[pair.label, box] = set(pair.predicates)
        assert {key: value for key, value in said.items() if value} == expected
        assert recall.add(line["prediction"], row["solution"])["recall@50"] == (1 if expected else 0)
    assert len(lines) == len(rows)


def test_images_without_groups(images, tmp_path):
    for ask in ("dataset", "pair"):
        extract(settings(images, tmp_path / ask, ask=ask), RUN, lambda name: Witness(images, name))
        priors = Priors(tmp_path / ask)
        for row in data.load(images, "test"):
            truth = get_codec("toon").decode(row["solution"], row["width"], row["height"], tags=False)
            wanted = sorted(priors.info.vocabulary.from_text(relation.predicate) for relation in truth.relations)
            pairs = priors.get(row["image_id"]).pairs
            assert sorted(name for pair in pairs for name in pair.predicates) == wanted
            assert ask == "dataset" or len(pairs) == len(truth.objects) * (len(truth.objects) - 1)
    with pytest.raises(SgrlError, match="ask about pairs instead"):
        extract(settings(images, tmp_path / "frame", ask="frame"), RUN, lambda name: Witness(images, name))


def test_it_goes_on_and_says_what_has_no_answer(ag, tmp_path):
    ids = [row["image_id"] for row in data.load(ag, "train")]
    bad = {ids[2]: Generation("", 0, 0.0, "error", error="no answer"), ids[3]: Generation("\x00{[", 1, 0.1, "length")}
    asked = []
    with pytest.raises(SgrlError, match=r"1 of \d+ images have no answer .*no answer.*tries these again"):
        extract(settings(ag, tmp_path), RUN, lambda name: Witness(ag, name, asked, bad))
    assert not (tmp_path / "priors.json").exists()
    again = []
    counts = extract(settings(ag, tmp_path), RUN, lambda name: Witness(ag, name, again))
    assert [image for _, image in again] == [ids[2]] and counts["cut"] == counts["without_person"] == 1
    assert Priors(tmp_path).get(ids[3]).pairs == () and not Priors(tmp_path).get(ids[3]).person
    none = []
    assert extract(settings(ag, tmp_path), RUN, lambda name: Witness(ag, name, none)) == counts and not none
    with pytest.raises(SgrlError, match="another run: its ask"):
        extract(settings(ag, tmp_path, ask="frame"), RUN, lambda name: Witness(ag, name))


def test_shards_give_what_one_job_gives(ag, tmp_path):
    one = extract(settings(ag, tmp_path / "one"), RUN, lambda name: Witness(ag, name))
    several = settings(ag, tmp_path / "two", num_shards=2)
    assert extract(replace(several, shard_index=1), RUN, lambda name: Witness(ag, name)) == {}
    assert extract(replace(several, shard_index=0), RUN, lambda name: Witness(ag, name)) == one
    a, b = Priors(tmp_path / "one"), Priors(tmp_path / "two")
    for split in ("train", "test"):
        for row in data.load(ag, split):
            assert a.get(row["image_id"]) == b.get(row["image_id"])


def model_folder(path, **identity):
    path.mkdir()
    (path / "run.json").write_text(json.dumps({"identity": {"model_name_or_path": "base", **identity}}))
    return str(path)


def test_models_are_asked_about_the_fold_that_they_have_not_seen(ag, tmp_path):
    models = tuple(
        model_folder(tmp_path / f"vlm-{fold}", dataset=str(ag), folds=2, leave_out_fold=fold) for fold in (0, 1)
    )
    asked = []
    run = settings(ag, tmp_path / "out", models=models, test_model=1)
    extract(run, RUN, lambda name: Witness(ag, name, asked))
    videos = {row["image_id"]: row["video_id"] for row in data.load(ag, "train")}
    assert {models.index(name) for name, image in asked if image not in videos} == {1}
    assert all(fold_of(videos[image], 2) == models.index(name) for name, image in asked if image in videos)
    assert {name for name, image in asked if image in videos} == set(models)
    assert Priors(tmp_path / "out").check_leaks(list(videos.items())) == 0
    with pytest.raises(SgrlError, match="model 0 is to be asked about fold 0 of 2, but .*vlm-1 left out fold 1 of 2"):
        extract(replace(run, output=tmp_path / "swapped", models=models[::-1]), RUN, lambda name: Witness(ag, name))


def test_what_a_model_has_seen(ag, images, tmp_path, caplog):
    vocabulary = data.vocabulary_of(data.read_metadata(ag))

    def asked(*models):
        return asked_models(settings(ag, tmp_path, models=models), vocabulary)

    folded = model_folder(tmp_path / "folded", dataset=str(ag), folds=2, leave_out_fold=0)
    after = model_folder(tmp_path / "after", dataset=str(ag), folds=2, leave_out_fold=0, model_name_or_path=folded)
    spoiled = model_folder(tmp_path / "spoiled", dataset=str(ag), model_name_or_path=folded)
    other = model_folder(tmp_path / "other", dataset=str(images))
    gone = model_folder(tmp_path / "gone", dataset="nowhere")
    assert [m.trained for m in (*asked(other), *asked("Qwen/x"), *asked(gone), *asked(after))] == [
        False,
        False,
        True,
        True,
    ]
    assert asked(after)[0].left_out == 0 and asked(spoiled)[0].left_out is None
    assert "was trained on this data set" in caplog.text
    with pytest.raises(SgrlError, match="spoiled saw all of it"):
        asked(spoiled, folded)


def test_regions_and_words(ag, tmp_path, clip, monkeypatch):
    monkeypatch.setattr(extraction, "RegionEncoder", RegionEncoder)
    monkeypatch.setattr(extraction, "PART", 5)
    run = settings(ag, tmp_path, encoder=str(clip), regions=True)
    extract(run, RUN, lambda name: Witness(ag, name))
    priors = Priors(tmp_path)
    assert (priors.text_size, priors.visual_size) == (8, 8) and priors.info.vision_encoder["name"] == str(clip)
    encoder = RegionEncoder(str(clip))
    row = next(row for row in data.load(ag, "train") if priors.get(row["image_id"]).pairs)
    pair, found = priors.get(row["image_id"]).pairs[0], priors.features(row["image_id"])
    np.testing.assert_allclose(found[0, 0], encoder.regions(row["image"], [pair.subject_box])[0], atol=1e-2)
    assert not np.allclose(found[0, 0], found[0, 1], atol=1e-2)
    texts = encoder.texts(sentences(priors.info.vocabulary)[0])
    np.testing.assert_allclose(priors.objects, texts / np.linalg.norm(texts, axis=1, keepdims=True), atol=1e-5)
    files = sorted((tmp_path / "features").iterdir())
    lost = set(load_file(files[0]))
    files[0].unlink()
    assert len(files) == 4 and not lost & written_features(tmp_path)
    extract(run, RUN, lambda name: Witness(ag, name))  # what is gone is made again, nothing else is touched
    assert lost < written_features(tmp_path)
    assert written_features(tmp_path) == {i for i in map(str, priors._place) if priors.get(i).pairs}


def test_what_lies_around_a_region_is_blended():
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[:2] = 200
    shown = blended(pixels, (0.0, 0.0, 0.5, 0.5))
    assert (shown[:2, :2] == 200).all() and (shown[:2, 2:] == 150).all() and (shown[2:] == 50).all()
    np.testing.assert_array_equal(blended(pixels, WHOLE_IMAGE), pixels)


HOSTILE = [
    "",
    "\x00",
    "[" * 100_000,
    "{" * 50_000,
    '[{"label": "person"}]',
    "null",
    '{"label": NaN}',
    "9" * 10_000,
    "\ud800",
]


@pytest.mark.parametrize("ask", ASK)
def test_hostile_answers_are_counted(ag, ask):
    row = dict(data.load(ag, "train")[0])
    for text in HOSTILE:
        witness = Witness(ag, otherwise={row["image_id"]: Generation(text, 1, 0.1, "stop")})
        asker = Asker(witness, witness.vocabulary, witness.codec, ask)
        (said,) = asker([row])
        assert said.error is None and all(not pair.predicates for pair in said.pairs)


def test_words_of_a_vocabulary():
    objects, predicates = sentences(get_vocabulary("action_genome"))
    assert "a photo of a cup or glass or bottle" in objects and "a person have it on the back an object" in predicates
