"""The whole detector: sizes, what changes nothing, what it takes over from a DETR, and hostile inputs."""

import logging

import pytest
import torch
from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

from sgrl.errors import SgrlError
from sgrl.models.vost import VostConfig, VostForSceneGraphs
from sgrl.models.vost.checkpoint import take
from sgrl.vocabulary import Vocabulary, get_vocabulary

FULL, BASELINE = 69_417_809, 64_017_233
SPATIAL_HEADS_AND_STAGE = 12_893_768
IMAGES = torch.randn(2, 3, 32, 40, generator=torch.Generator().manual_seed(1))


def count(parameters):
    return sum(p.numel() for p in parameters)


def on_paper(**settings):
    with torch.device("meta"):
        return VostForSceneGraphs(VostConfig(**settings))


def test_sizes_are_the_published_ones():
    baseline = on_paper(content="none", bank="none", temporal=True)
    assert count(baseline.parameters()) == BASELINE  # 64.02 M of OED
    assert count(on_paper(bank="none", temporal=True).parameters()) == BASELINE + 262_400 + 131_328
    full = on_paper(temporal=True)
    assert count(full.parameters()) == FULL and count(full.bank_encoder.parameters()) == 4_738_560
    assert count(full.temporal.layers.parameters()) == 12_612_096
    assert count(full.encoder.parameters()) == 7_890_432
    assert count(full.pair_decoder.layers[0].parameters()) == 1_578_752


def test_sizes_and_what_trains_outlive_a_folder(tmp_path):
    """`from_pretrained` makes everything trainable again; trainers ask `set_trainable`."""
    VostForSceneGraphs(VostConfig(temporal=True)).save_pretrained(tmp_path)
    model = VostForSceneGraphs.from_pretrained(tmp_path)
    assert count(model.parameters()) == FULL and count(model.backbone.parameters()) == 23_454_912
    model.set_trainable()
    assert count(p for p in model.parameters() if p.requires_grad) == SPATIAL_HEADS_AND_STAGE
    model.temporal = None
    model.set_trainable()
    assert count(p for p in model.backbone.parameters() if p.requires_grad) == 23_232_512
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen and all(n.startswith(("backbone.model.embedder", "backbone.model.encoder.stages.0")) for n in frozen)


@pytest.mark.parametrize("temporal", [False, True])
def test_without_priors_it_is_the_baseline_bit_for_bit(detector, temporal, priors_of):
    images = IMAGES.repeat(3, 1, 1, 1) if temporal else IMAGES
    model, baseline = detector(temporal, bank="none"), detector(temporal, bank="none", content="none")
    missing, unexpected = baseline.load_state_dict(model.state_dict(), strict=False)
    assert not missing and all(name.startswith("content.") for name in unexpected)
    wanted = baseline(images)
    nothing = priors_of(len(images), 5)
    nothing["mask"][:] = False
    for priors in (None, nothing):
        found = model(images, None, priors)
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    said = model(images, None, priors_of(len(images), 5))
    assert not torch.equal(said.object_logits, wanted.object_logits)


@pytest.mark.parametrize("task", ["sgdet", "predcls", "sgcls"])
@pytest.mark.parametrize("temporal", [False, True])
def test_padding_changes_nothing(detector, task, temporal, priors_of):
    model = detector(temporal, task=task)
    images = IMAGES.repeat(3, 1, 1, 1) if temporal else IMAGES
    priors = priors_of(len(images), 5)
    wider = {}
    for name, value in priors.items():
        rest = torch.full_like(value[:, :1].repeat(1, 4, *[1] * (value.dim() - 2)), 3 if name == "labels" else 1)
        wider[name] = torch.cat([value, rest * (name not in ("mask", "told"))], dim=1)
    found, wanted = model(images, None, wider), model(images, None, priors)
    for name in ("object_logits", "attention_logits", "contacting_logits"):
        kept = wanted.mask if wanted.mask is not None else slice(None)
        there = found[name][:, : wanted[name].shape[1]][kept]
        torch.testing.assert_close(there, wanted[name][kept], atol=1e-5, rtol=1e-5)


def test_more_pairs_than_slots_are_all_in_the_bank(detector, priors_of):
    model, priors = detector(), priors_of(2, 12)
    before = model(IMAGES, None, priors)
    priors["text"][:, 9] += 1  # behind the 7 slots
    priors["mask"][:, 9] = True
    assert not torch.equal(model(IMAGES, None, priors).contacting_logits, before.contacting_logits)


@pytest.mark.parametrize("temporal", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        {}, {"content": "none", "bank": "text"}, {"content": "none", "bank": "none"}, {"bank_scope": "clip"},
        {"task": "predcls"}, {"task": "predcls", "content": "none", "bank": "none"}, {"task": "sgcls"},
        {"anchors": True, "bank": "geometry"},
    ],
)  # fmt: skip
def test_every_trained_parameter_has_a_gradient_with_and_without_pairs(
    detector, settings, temporal, priors_of, target_of
):
    """In distributed training a process whose batch left one out would be waited for for ever."""
    model = detector(temporal, **settings).train()
    images = IMAGES.repeat(3, 1, 1, 1) if temporal else IMAGES
    for priors, pairs in ((priors_of(len(images), 4), (2, 0)), (None, (0, 0))):
        model.zero_grad()
        found = model(images, None, priors, [target_of(n) for n in pairs])
        found.loss.backward()
        assert torch.isfinite(found.loss)
        without = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
        assert not without
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_boxes_without_area_or_sense_give_no_nan(detector, priors_of, target_of):
    model = detector().train()
    priors = priors_of(2, 4)
    target = target_of(4)
    target["subject_boxes"][:] = torch.tensor([[0, 0, 0, 0], [5, -3, 0, 1], [1, 1, -1, -1], [1e30, 0, 1e30, 1]])
    target["object_boxes"][:] = 0
    priors["geometry"][0, 0] = 1e6
    with torch.no_grad():
        for head in (model.heads.subject_box, model.heads.object_box):
            head.layers[-1].bias[:] = torch.tensor([0, 0, -1e4, -1e4])  # no area
    found = model(IMAGES, None, priors, [target, target_of(0)])
    found.loss.backward()
    assert torch.isfinite(found.loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_the_temporal_stage_leaves_the_rest_alone(detector, priors_of, target_of):
    spatial, model = detector(), detector(temporal=True).train()
    assert not model.encoder.training and model.temporal.training and model.training
    images = IMAGES.repeat(3, 1, 1, 1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(images, None, priors_of(6, 4), [target_of(2), target_of(1)]).loss.backward()
    optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith("temporal.") for name in changed)
    heads = spatial.heads.state_dict()
    assert torch.equal(before["temporal.heads.spatial.weight"], heads["spatial.weight"])
    assert torch.equal(before["temporal.heads.object.weight"], heads["object.weight"][:-1])


def test_references_matter_and_a_frame_alone_is_its_own(detector, priors_of):
    for task in ("sgdet", "predcls"):
        model = detector(temporal=True, task=task)
        clip, priors = IMAGES[[0, 1, 1]], priors_of(3, 4)
        alone = model(IMAGES[[0, 0, 0]], None, {name: value[[0, 0, 0]] for name, value in priors.items()})
        assert torch.isfinite(alone.object_logits).all()
        assert not torch.equal(model(clip, None, priors).object_logits, alone.object_logits)
    priors["mask"][1:] = False  # no reference has a pair: the frame looks at itself
    found = model(clip, None, priors)
    there = found.mask
    assert there.any() and not there.all()
    torch.testing.assert_close(found.object_logits[there], alone.object_logits[there], atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def detr():
    torch.manual_seed(3)
    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], out_features=["stage4"]
    )
    sizes = {
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48,
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 3,
        "num_queries": 7,
    }
    return DetrForObjectDetection(DetrConfig(backbone_config=backbone, **sizes)).eval()


def test_a_detr_is_taken_over_tensor_by_tensor(detr, tmp_path, caplog, small):
    detr.save_pretrained(tmp_path)
    config = VostConfig(**{**small, "patches": None, "content": "none", "bank": "none", "pair_layers": 3})
    with caplog.at_level(logging.INFO, "sgrl.models.vost.checkpoint"):
        model = VostForSceneGraphs.from_detr(str(tmp_path), config).eval()
    assert config.patches is None and model.config.detr.encoder_layers == 2
    images = torch.randn(1, 3, 64, 96)
    states, _ = model._states(images, None, model._with_empty(None, images))
    theirs = detr(images)
    torch.testing.assert_close(states[-1], theirs.last_hidden_state, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model(images).object_boxes, theirs.pred_boxes, atol=1e-5, rtol=1e-5)

    said = [record.getMessage().split() for record in caplog.records]
    taken = {line[1]: line[3] for line in said if line[0] == "taken"}
    new = {line[1] for line in said if line[0] == "new"}
    left = {line[1] for line in said if line[0] == "left"}
    assert taken.keys() | new == model.state_dict().keys() and not taken.keys() & new
    assert set(taken.values()) | left == detr.state_dict().keys()
    assert taken["predicate_decoder.layers.0.mlp.fc1.bias"] == "model.decoder.layers.0.mlp.fc1.bias"
    assert taken["heads.subject_box.layers.0.bias"] == "bbox_predictor.layers.0.bias"
    assert left == {"class_labels_classifier.weight", "class_labels_classifier.bias", *theirs_unused(detr, 3)}
    assert new == {
        f"heads.{n}.{p}" for n in ("object", "attention", "spatial", "contacting") for p in ("weight", "bias")
    }
    weights, theirs = model.state_dict(), detr.state_dict()
    assert all(torch.equal(weights[ours], theirs[name]) for ours, name in taken.items())


def theirs_unused(detr, layers):
    return {name for name in detr.state_dict() if name.startswith(f"model.decoder.layers.{layers}.")}


def test_of_more_or_fewer_slots_the_first_are_taken(detr, small):
    for slots in (5, 9):
        model = VostForSceneGraphs(VostConfig(**{**small, "num_slots": slots, "patches": None, "detr": detr.config}))
        taken = take(model, detr)
        queries = detr.model.query_position_embeddings.weight
        assert torch.equal(model.pair_position.weight[:5], queries[:5]) and "pair_position.weight" in taken.taken
        assert any(name.startswith("bank.") for name in taken.new)


def test_what_is_no_such_detr_is_refused(detr, tmp_path, small):
    config = VostConfig(**small)
    (tmp_path / "config.json").write_text('{"model_type": "detr", "use_timm_backbone": true, "backbone": "resnet50"}')
    with pytest.raises(SgrlError, match="revision no_timm"):
        VostForSceneGraphs.from_detr(str(tmp_path), config)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(SgrlError, match="'bert'; expected 'detr'"):
        VostForSceneGraphs.from_detr(str(tmp_path), config)
    with pytest.raises(SgrlError, match="cannot be loaded"):
        VostForSceneGraphs.from_detr(str(tmp_path / "none"), config)


def test_norms_of_a_backbone_from_random_weights_are_trained(detr, small):
    settings = {**small, "patches": None, "detr": detr.config}
    for frozen in (True, False):
        model = VostForSceneGraphs(VostConfig(**settings, frozen_norm=frozen))
        norms = [m for m in model.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert bool(norms) is not frozen
        model.set_trainable()
        assert all(p.requires_grad for p in model.backbone.parameters()) is not frozen


def test_settings_that_do_not_exist_are_named():
    with pytest.raises(SgrlError, match="bank.*did you mean 'full'"):
        VostConfig(bank="ful")
    for vocabulary in (get_vocabulary("psg"), Vocabulary("x", ["cat"], ["a", "b", "c"], None)):
        with pytest.raises(SgrlError, match="groups attention"):
            _ = VostConfig(vocabulary=vocabulary.to_json()).labels


def test_settings_outlive_a_folder(detector, tmp_path, priors_of):
    model = detector(temporal=True, bank="text", anchors=True)
    model.save_pretrained(tmp_path)
    again = VostForSceneGraphs.from_pretrained(tmp_path).eval()
    assert again.config.labels == get_vocabulary("action_genome")
    images = IMAGES.repeat(3, 1, 1, 1)
    said, wanted = (each(images, None, priors_of(6, 4)) for each in (again, model))
    assert all(torch.equal(said[name], wanted[name]) for name in wanted)


def test_half_precision_and_double(detector, priors_of, target_of):
    priors = priors_of(2, 4)
    assert detector().double()(IMAGES.double(), None, priors).object_logits.dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        found = detector().train()(IMAGES, None, priors, [target_of(2), target_of(0)])
    found.loss.backward()
    assert torch.isfinite(found.loss)
