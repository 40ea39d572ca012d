"""Rows of a data set as the detector takes them: targets, priors, mirror images, clips, batches."""

import random

import numpy as np
import pytest
import torch
from PIL import Image

from sgrl import data
from sgrl.errors import SgrlError
from sgrl.models.detection.images import image_processor, padded, to_bytes
from sgrl.models.vost.config import VostConfig
from sgrl.models.vost.data import Clips, Frames, FrameSettings, collate
from sgrl.models.vost.inputs import Disturbance, Labels, as_task, centres, flipped, said, target_of
from sgrl.models.vost.modeling import VostForSceneGraphs
from sgrl.models.vost.priors import PriorPair, Priors
from sgrl.text import get_codec
from sgrl.text.parsed import ParsedGraph
from sgrl.vocabulary import Vocabulary, get_vocabulary

AG = Labels(get_vocabulary("action_genome"))
TEXT = (
    "obj[4]{id,name,x1,y1,x2,y2}:\n  1,person,10,20,50,100\n  2,book,40,40,60,80\n  3,book,0,0,20,20\n"
    "  4,door,80,0,100,100\nrel_pairs[2]{subj,attention,spatial,contacting,obj}:\n"
    '  1,looking_at,in_front_of|beneath,holding|touching,2\n  1,"",behind,"",4\n'
)


def target(text=TEXT, size=(100, 200)):
    return target_of(get_codec("toon-pairs").parse(text, *size, tags=False), size, AG)


def prior(label, box, *predicates, subject_box=(0.1, 0.1, 0.5, 0.5)):
    return PriorPair("person", subject_box, label, box, predicates)


def test_a_target_has_the_pairs_of_the_person():
    found = target()
    assert found["labels"].tolist() == [AG.objects["book"], AG.objects["door"]]
    np.testing.assert_allclose(found["subject_boxes"], [[0.3, 0.3, 0.4, 0.4]] * 2, atol=1e-6)
    np.testing.assert_allclose(found["object_boxes"], [[0.5, 0.3, 0.2, 0.2], [0.9, 0.25, 0.2, 0.5]], atol=1e-6)
    assert found["attention"].tolist() == [[1, 0, 0], [0, 0, 0]] and found["spatial"].sum() == 3
    assert found["contacting"][0].nonzero()[0].tolist() == [AG.places["holding"][1], AG.places["touching"][1]]
    assert found["ends"].tolist() == [[0, 1], [0, 3]] and len(found["boxes"]) == 4
    nobody = target_of(ParsedGraph([], [], []), (100, 200), AG)
    assert nobody["attention"].shape == (0, 3) and nobody["subject_boxes"].shape == (0, 4)


def test_what_was_said_is_given_to_the_pair_that_is_meant():
    near, far = (0.41, 0.2, 0.6, 0.4), (0.0, 0.0, 0.2, 0.1)
    pairs = [prior("door", near, "in"), prior("book", far, "in"), prior("book", near, "holding"), prior("book", near)]
    told = said(list(enumerate(pairs)), np.arange(24.0).reshape(4, 3, 2), AG, 2)
    priors, wanted = as_task("predcls", told, target(), AG)
    assert priors["told"].tolist() == [True, False]  # the door is elsewhere
    assert priors["rows"].tolist() == [[0, AG.objects["book"]], [0, AG.objects["door"]]]
    assert np.flatnonzero(priors["present"][0]).tolist() == [AG.predicates["holding"]]
    assert priors["visual"][0].ravel().tolist() == list(range(12, 18)) and not priors["visual"][1].any()
    np.testing.assert_array_equal(priors["boxes"][:, 1], wanted["object_boxes"])


def test_of_given_boxes_every_ordered_pair_is_asked():
    told = said([(0, prior("chair", (0.41, 0.2, 0.6, 0.4), "holding"))], None, AG, None)
    priors, wanted = as_task("sgcls", told, target(), AG)
    assert len(priors["told"]) == 12 and wanted["pairs"].tolist() == [0, 2]
    assert priors["told"].nonzero()[0].tolist() == [0]  # its class may be wrong, its boxes are these
    assert priors["rows"][0].tolist() == [0, AG.objects["chair"]] and (priors["rows"][1:] == -1).all()


def test_a_mirror_image_mirrors_targets_and_priors():
    told = said([(0, prior("book", (0.0, 0.2, 0.2, 0.4)))], None, AG, None)
    for given in (target(), told):
        once, twice = flipped(given), flipped(flipped(given))
        for name, value in given.items():
            np.testing.assert_allclose(twice[name], value, atol=1e-6)
            assert name.endswith("boxes") or once[name] is value
    np.testing.assert_allclose(flipped(told)["boxes"][0, 1], [0.9, 0.3, 0.2, 0.2], atol=1e-6)


def test_hostile_boxes_are_brought_inside():
    found = centres(np.array([[np.nan, -5, np.inf, 2], [0.5, 0.5, 0.5, 0.5]]))
    assert np.isfinite(found).all() and (found >= 0).all() and (found <= 1).all()
    strange = said([(9, prior("unicorn", (0, 0, 1, 1), "flying"))], np.zeros((1, 2, 5)), AG, 5)
    assert strange["rows"].tolist() == [[0, -1]] and not strange["present"].any() and not strange["visual"].any()


def test_disturbed_priors_keep_their_kind_and_place():
    pairs = [(i, prior("book", (0, 0, 1, 1), "holding", "behind")) for i in range(400)]
    assert Disturbance()(pairs, AG, random.Random(0)) == pairs
    dropped = Disturbance(dropout=0.25)(pairs, AG, random.Random(0))
    assert 260 < len(dropped) < 340 and all(pair is pairs[place][1] for place, pair in dropped)
    noisy = [pair for _, pair in Disturbance(noise=0.5)(pairs, AG, random.Random(0))]
    assert 180 < sum(pair.label == "book" for pair in noisy) < 250
    assert all([AG.places[p][0] for p in pair.predicates] == ["contacting", "spatial"] for pair in noisy)


def config(world, small, **settings):
    vocabulary = data.vocabulary_of(data.read_metadata(world / "data")).to_json()
    return VostConfig(**{**small, "vocabulary": vocabulary, **settings})


PROCESSOR = image_processor(96, 160)


def test_frames_are_the_same_in_every_process_and_epoch_but_not_over_epochs(world, small):
    frames = Frames(
        world / "data", "train", config(world, small), PROCESSOR, Priors(world / "priors"), FrameSettings(True, 0.5)
    )
    first = [frames[i]["pixel_values"] for i in range(len(frames))]
    again = [frames[i]["pixel_values"] for i in reversed(range(len(frames)))][::-1]
    assert all(map(torch.equal, first, again))
    frames.epoch = 1
    others = [frames[i]["pixel_values"] for i in range(len(frames))]
    mirrored = sum(not torch.equal(a, b) for a, b in zip(first, others, strict=True))
    assert 0 < mirrored < len(frames)
    assert all(torch.equal(a, b) or torch.equal(a, b.flip(-1)) for a, b in zip(first, others, strict=True))


@pytest.mark.parametrize("task", ["sgdet", "predcls", "sgcls"])
@pytest.mark.parametrize("temporal", [False, True])
def test_what_a_folder_holds_goes_through_the_model(world, small, task, temporal):
    made = config(world, small, task=task)
    model = VostForSceneGraphs(made)
    if temporal:
        model.add_temporal()
    frames = Frames(world / "data", "test", made, PROCESSOR, Priors(world / "priors"))
    clips = Clips(frames) if temporal else frames
    assert len(frames) == 12 and not frames.priors.missing
    batch = collate([clips[i] for i in (0, 5, 6)])
    found = model.eval()(**batch)
    assert torch.isfinite(found.loss) and len(found.object_logits) == 3
    assert len(batch["pixel_values"]) == 3 * model.config.frames and batch["priors"]["visual"].shape[-1] == 6


def test_clips_stay_in_their_video(world, small):
    frames = Frames(world / "data", "test", config(world, small, references=3, window=2), PROCESSOR)
    clips = Clips(frames)
    assert clips.references(0) == [1, 2, 1] and clips.references(8) == [6, 7, 9] and clips.references(11) == [9, 10, 9]
    frames.settings = FrameSettings(train=True)
    drawn = {tuple(clips.references(8)) for clips.epoch in range(30)}
    assert len(drawn) > 5 and all(set(rows) <= {6, 7, 9, 10} and len(set(rows)) == 3 for rows in drawn)
    alone = Frames(world / "data", "test", config(world, small), PROCESSOR)
    alone.video_ids = list(range(12))
    assert Clips(alone).references(4) == [4, 4]


def test_a_frame_without_priors_gets_none_and_is_counted(world, small, caplog):
    made = config(world, small)
    frames = Frames(world / "data", "train", made, PROCESSOR, Priors(world / "priors"), FrameSettings())
    assert "1 of 19 frames have no priors" in caplog.text
    assert len(frames[0]["priors"]["told"]) == 0 and frames.priors.missing == {frames.image_ids[0]}
    batch = collate([frames[0], frames[1]])
    assert not batch["priors"]["mask"][0].any()


def test_what_does_not_fit_is_refused(world, small):
    made, priors = config(world, small), Priors(world / "priors")
    with pytest.raises(SgrlError, match="vectors of 8 numbers, the model wants 9 .text_size"):
        Frames(world / "data", "test", config(world, small, text_size=9), PROCESSOR, priors)
    groups = made.labels.groups
    other = Vocabulary("x", (*made.labels.objects[:-1], "hexagon"), made.labels.predicates, groups).to_json()
    with pytest.raises(SgrlError, match="which the model does not know"):
        Frames(world / "data", "test", config(world, small, vocabulary=other), PROCESSOR, priors)


def test_images_of_different_sizes_are_padded_masked_and_normalised_as_by_the_processor():
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)) for size in ((120, 60), (50, 70))]
    processor = image_processor(40, 60)
    pixels, mask = padded([to_bytes(image, processor) for image in images], processor)
    wanted = processor(images=images, do_pad=True, return_tensors="pt")
    assert torch.equal(mask, wanted["pixel_mask"]) and mask.sum((1, 2)).tolist() == [30 * 60, 40 * 56]
    torch.testing.assert_close(pixels, wanted["pixel_values"], atol=0.5 / 255 / 0.224 + 1e-4, rtol=0)
    assert not pixels[mask[:, None].expand_as(pixels) == 0].any()


def test_an_image_that_cannot_be_read_does_not_end_training(world, small, caplog):
    frames = Frames(world / "data", "train", config(world, small), PROCESSOR, settings=FrameSettings(train=True))
    row = frames.kept[3]
    frames._held.clear()

    class Damaged:
        def __getitem__(self, row):
            raise SgrlError("cut off")

    frames._pictures = Damaged()
    assert not frames[3]["pixel_values"].any() and f"{frames.image_ids[row]} is black" in caplog.text
    frames.settings = FrameSettings()
    with pytest.raises(SgrlError, match="cut off"):
        frames[2]


def test_what_is_disturbed_is_read_anew(world, small):
    settings = FrameSettings(train=True, disturb=Disturbance(dropout=0.5))
    frames = Frames(world / "data", "train", config(world, small), PROCESSOR, Priors(world / "priors"), settings)
    counts = set()
    for frames.epoch in range(6):
        counts.add(tuple(len(frames[i]["priors"]["told"]) for i in range(len(frames))))
    assert len(counts) > 3
