"""Answers of language models: whatever they write is read, nothing raises, in linear time."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgrl.errors import SgrlError
from sgrl.models.vost.answers import fold_of, frame_prompt, pair_prompt, parse_frame, parse_pair, prompt_hash
from sgrl.models.vost.loose_json import MAX_DEPTH, values
from sgrl.vocabulary import get_vocabulary

AG, PSG = get_vocabulary("action_genome"), get_vocabulary("psg")
BOOK = {"label": "Book", "bbox": [10, 20, 60, 80], "contact": "holding, touching", "attention": ["looking at"]}


def frame(text, coords="pixel", width=100, height=200):
    return parse_frame(text, AG, width, height, coords)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([BOOK]),
        f"Here it is:\n```json\n{json.dumps([BOOK], indent=2)}\n```\nDone [1].",
        f"<think>{json.dumps([BOOK | {'label': 'door'}])}</think>{json.dumps([BOOK])}",
        json.dumps({"objects": [BOOK]}),
        "\n".join(map(json.dumps, [BOOK])),
        str([BOOK]),
        json.dumps([BOOK, BOOK | {"label": "door"}])[:-12],
        json.dumps([{name.upper(): value for name, value in BOOK.items()}]),
        json.dumps([BOOK])[:-1] + ",]",
        json.dumps([{"class": "book", "bbox_2d": ["60", "80", 10, 20], "contacting": ["holding", "touching"]}])[:-2]
        + ', "spatial": "looking_at"}]',
    ],
)
def test_a_frame_is_read_in_any_dress(text):
    found = frame(text)
    wanted = {"label": "book", "box": [10, 20, 60, 80], "attention": ["looking_at"], "spatial": []}
    assert found.pairs == [wanted | {"contacting": ["holding", "touching"]}] and not found.dropped


def test_what_is_left_out_of_a_frame_has_a_reason():
    person = {"name": "person", "box": [0, 0, 50, 100]}
    items = [person, person, "book", {"bbox": [1, 2, 3, 4]}, BOOK | {"bbox": [1, 2, 3]}, BOOK, BOOK]
    items += [BOOK | {"bbox": [1, 2, float("nan"), 4]}, BOOK | {"bbox": [True, 2, 3, 4]}]
    items += [BOOK | {"label": "door", "contact": ["flying"], "attention": ["unsure", "looking_at"]}]
    found = frame(json.dumps(items))
    assert found.person == [0, 0, 50, 100] and [pair["label"] for pair in found.pairs] == ["book", "door"]
    assert found.dropped == "person item label box duplicate box box predicate predicate".split()


def test_thousandths_are_brought_to_pixels_and_clipped():
    item = BOOK | {"bbox": [-100, 500, 1500, 1000]}
    assert frame(json.dumps([item]), "norm1000").pairs[0]["box"] == [0, 100, 100, 200]
    with pytest.raises(SgrlError, match="norm1000"):
        frame("", "norm100")


def test_a_pair_is_read_from_lines_too():
    text = "**Contact:** holding, none\nSpatial predicates: in front of; \n- Attention: Not looking at, unsure"
    found = parse_pair(text, AG)
    assert (found.attention, found.spatial, found.contacting) == (["not_looking_at"], ["in_front_of"], ["holding"])
    assert found.dropped == ["none", "unsure"]
    assert parse_pair('{"predicates": ["on", "beside", "on", 3]}', PSG).other == ["on", "beside"]
    assert parse_pair('{"answer": {"Contact": ["holding"]}}', AG).contacting == ["holding"]


def test_cut_off_counts_up_to_the_last_whole_value():
    whole = json.dumps({"contact": ["holding", "touching"], "spatial": ["in"], "attention": "unsure"})
    seen = [len(parse_pair(whole[:end], AG).predicates) for end in range(len(whole) + 1)]
    assert seen == sorted(seen) and seen[0] == 0 and seen[-1] == 4 and set(seen) == {0, 1, 2, 3, 4}


@given(st.one_of(st.text(), st.binary(), st.none(), st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(
        ["label", "bbox", "contact", "attention", "spatial", "x"]), inner, max_size=4), max_leaves=12,
).map(lambda value: json.dumps([value])[:200])))  # fmt: skip
def test_nothing_raises(text):
    for vocabulary in (AG, PSG):
        parse_frame(text, vocabulary, 64, 48)
        parse_pair(text, vocabulary)


HOSTILE = [
    "[",
    "{",
    '{"',
    "{'",
    '"',
    "\\",
    '\\"',
    '{"a":',
    '{"label":[',
    "\n",
    "- ",
    "Contact",
    "Contact:",
    "[{},",
    "]}",
]
HOSTILE += ["<think>", "</think>", '{"contact": [" ', "9", '{"label": "book", "bbox": [1,2,3,', "[1e", "1,", "'", "a:"]


@pytest.mark.parametrize("piece", HOSTILE)
def test_time_grows_with_the_text(piece):
    def seconds(size):
        text = piece * (size // len(piece))
        start = time.process_time()
        parse_frame(text, AG, 64, 48)
        parse_pair(text, AG)
        return time.process_time() - start

    small, large = min(seconds(1 << 12) for _ in range(3)), seconds(1 << 17)
    assert large < 32 * 12 * max(small, 1e-4)  # with its square it were a thousand times


def test_depth_is_bounded():
    assert values("[" * 100 + "1" + "]" * 100 + '{"a": 1}')[1] == {"a": 1}
    found, depth = values("[" * 100_000)[0], 0
    while found:
        found, depth = found[0], depth + 1
    assert depth == MAX_DEPTH - 1
    assert json.dumps(values('{"a": {"b": "\\u00e9", \'c\': "d\'"}}')) == json.dumps([{"a": {"b": "é", "c": "d'"}}])


def test_prompts_name_all_labels_and_what_is_told():
    text = frame_prompt(AG, 640, 480)
    assert all(AG.to_text(label) in text for label in (*AG.objects, *AG.predicates)) and "640" in text
    with pytest.raises(SgrlError, match="psg"):
        frame_prompt(PSG, 640, 480)
    text = pair_prompt(AG, ("person", (0, 0, 64, 48)), ("book", (320, 240, 640, 480)), 640, 480, "norm1000")
    assert "[500, 500, 1000, 1000]" in text and "the book" in text and '"attention": "..."' in text
    assert '"predicates"' in pair_prompt(PSG, ("cat", (0, 0, 1, 1)), ("dog", (0, 0, 1, 1)), 10, 10)
    assert len(prompt_hash()) == 16


def test_folds_are_even_and_fixed():
    counts = [0, 0, 0]
    for number in range(3000):
        counts[fold_of(f"video{number}", 3)] += 1
    assert min(counts) > 900
    with pytest.raises(SgrlError, match="folds"):
        fold_of("a", 0)
