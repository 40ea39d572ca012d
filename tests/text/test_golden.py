"""The strict and lenient readers against what the published implementations accept and count."""

import json

import pytest

from sgrl.text import FormatError, answer, get_codec
from sgrl.text.toon_pairs import ToonPairs

DIAGNOSTICS = {
    "no_relation": "diag_frac_no_rel",
    "num_objects": "diag_num_pred_objs",
    "num_relations": "diag_num_pred_rels",
    "invalid_relation_fraction": "diag_frac_invalid_rel",
    "has_answer_tags": "diag_has_answer_tags",
}
# Where we mean to differ: digits, letters, line breaks and blanks are ASCII, and nothing inside <think> is read.
EXOTIC = {"unicode_digits_exotic", "kelvin_label_exotic", "line_separator_exotic", "nbsp_indent_exotic"}
THOUGHT = {"think_with_answer_inside", "think_with_answer_inside_valid"}


def cases(known_answers, name):
    return json.loads((known_answers / name).read_text())["cases"]


def text_of(completion):
    if isinstance(completion, list):
        completion = completion[0]
    return completion["content"] if isinstance(completion, dict) else completion


def codec_of(file, variant):
    if variant == "cfg_no_person_rule":
        return ToonPairs(person_subject=False)
    if variant == "cfg_caps":
        return ToonPairs(limits=(2, 1, 1))
    return get_codec("toon-pairs" if "action" in file else "toon")


FINE_REFERENCES = ("gt_no_tags", "gt_special", "gt_upper", "gt_messages")
FILES = ("rewards_scenegraphvlm.json", "rewards_action_genome.json")


@pytest.mark.parametrize("file", FILES)
def test_strict_reading_agrees_on_what_is_valid(known_answers, file):
    for case in cases(known_answers, file):
        size = (1000, 1000) if case["variant"] == "cfg_1000x1000" else (640, 480)
        codec, text, kind = codec_of(file, case["variant"]), text_of(case["completion"]), case["kind"]
        if not case["valid"] or kind in EXOTIC:
            with pytest.raises(FormatError) as error:
                codec.parse(text, *size)
            assert error.value.reason, kind
            continue
        parsed = codec.parse(text, *size)
        if kind not in THOUGHT:
            counts = (len(parsed.labels), len(parsed.relations))
            assert counts == (case["detail"]["n_pr_objs"], case["detail"]["n_pr_rels"]), kind
            assert codec.recover_parsed(text, *size) == (parsed, []), kind


def test_text_inside_think_is_not_read(known_answers):
    """Published: the first answer anywhere is scored, so a copy of the reference inside <think> earns everything."""
    for file, kind in zip(FILES, sorted(THOUGHT), strict=True):
        (case,) = [c for c in cases(known_answers, file) if c["kind"] == kind]
        text = text_of(case["completion"])
        codec = codec_of(file, "default")
        assert codec.parse(text, 640, 480) == codec.parse(text.partition("</think>")[2], 640, 480)
        assert codec.diagnose(text) == codec.diagnose(text.partition("</think>")[2])
        assert codec.diagnose(text)["num_relations"] != case["expected"]["diag_num_pred_rels"]


@pytest.mark.parametrize("file", FILES)
def test_diagnostics_agree(known_answers, file):
    for case in cases(known_answers, file):
        if case["kind"] in EXOTIC | THOUGHT:
            continue
        found = codec_of(file, case["variant"]).diagnose(text_of(case["completion"]))
        expected = {ours: case["expected"][theirs] for ours, theirs in DIAGNOSTICS.items()}
        assert found == pytest.approx(expected), case["kind"]


@pytest.mark.parametrize("file", FILES)
def test_well_formed_references_are_read_whatever_their_layout(known_answers, file):
    """With tags or without, indented by 0, 2, 6 or 8, with end markers; not the references that are malformed."""
    for case in cases(known_answers, file):
        text = text_of(case["gt"])
        malformed = case["kind"].startswith("gt_") and case["kind"] not in FINE_REFERENCES
        if malformed or case["variant"] == "cfg_caps":  # the references ignore the caps
            continue
        size = (1000, 1000) if case["variant"] == "cfg_1000x1000" else (640, 480)
        parsed = codec_of(file, case["variant"]).parse(text, *size, tags=None)
        if case["detail"]:
            counts = (len(parsed.labels), len(parsed.relations))
            assert counts == (case["detail"]["n_gt_objs"], case["detail"]["n_gt_rels"]), case["kind"]


def test_lenient_reading_counts_what_the_published_metrics_count(known_answers):
    codec, read = get_codec("toon"), 0
    for case in cases(known_answers, "metrics_strict.json"):
        if not isinstance(case.get("predict"), str) or not case.get("detail"):
            continue
        predicted, _ = codec.recover_parsed(answer.published(case["predict"], "obj["), 640, 480)
        reference, _ = codec.recover_parsed(case["content"], 640, 480)
        found = [len(predicted.labels), len(reference.labels), len(predicted.relations), len(reference.relations)]
        assert found == [case["detail"][k] for k in ("n_pred_obj", "n_gt_obj", "n_pred_rel", "n_gt_rel")], case["kind"]
        read += 1
    assert read > 30


def test_json_is_refused_where_r1_sgg_refuses_it(known_answers):
    """Departures: R1-SGG's format reward also accepts repeated ids, boxes without area or outside the image, numbers
    that are not finite, self-relations and repetitions, and a second answer; and it demands <think>."""
    ours = {"duplicate_object_ids", "duplicate_object_and_relation", "duplicate_relations", "bbox_inverted"}
    ours |= {"bbox_degenerate", "bbox_out_of_range", "nan_bbox", "all_nan_boxes", "all_infinity_boxes", "self_loop"}
    ours |= {"two_answers", "cls_task_noise"}
    codec = get_codec("json")
    for case in cases(known_answers, "rewards_r1sgg.json"):
        published = case.get("format_if_set_bug_fixed")
        if case["kind"].startswith("random") or case["kind"] == "unknown_task" or published is None:
            continue
        if published and case["kind"] not in ours:
            codec.parse(case["completion"], 1000, 1000)
        else:
            with pytest.raises(FormatError):
                codec.parse(case["completion"], 1000, 1000)


def test_real_answers_on_psg_are_read(shared):
    folder = shared / "data" / "real" / "scenegraphvlm_outputs"
    paths = sorted(folder.glob("*.toon.txt"))
    assert paths
    for path in paths:
        parsed = get_codec("toon").parse(path.read_text(), 640, 480)
        assert len(parsed.labels) >= 8 and len(parsed.relations) >= 6
