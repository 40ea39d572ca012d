import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgrl.text import FormatError, answer


def test_wrap_and_strict_undo_each_other():
    assert answer.strict(answer.wrap("a\nb")) == "a\nb"


@pytest.mark.parametrize(
    "text",
    [
        "<answer>\nX\n</answer>",
        " \n<answer>\nX\n</answer>\n\n",
        "<answer>\nX\n</answer><|im_end|>",
        "<answer>\nX\n</answer>\n<|im_end|>\n<|endoftext|> <|end|>",
        "<answer>\nX\n</answer>\"<|im_end|>\" '<|im_end|>'",
        "<think>hm <answer>\nY\n</answer></think>\n<answer>\nX\n</answer>",
        # the chat template has written the opening tag
        "hm\n</think>\n\n<answer>\nX\n</answer>",
        "</think><answer>\nX\n</answer>",
        "\n\n</think>\n\n<answer>\nX\n</answer><|im_end|>",
        "hm <answer>\nY\n</answer></think>\n<answer>\nX\n</answer>",
        "<answer>\nY\n</answer></think>\n<answer>\nX\n</answer>",
        "<thinking>hm</thinking>\n<answer>\nX\n</answer>",
        "[THINK]hm[/THINK]<answer>\nX\n</answer>",
        "hm[/THINK]<answer>\nX\n</answer>",
        "<answer>\nY\n[/THINK]<answer>\nX\n</answer>",
        "◁think▷hm◁/think▷<answer>\nX\n</answer>",
        "<answer>\nY◁/think▷<answer>\nX\n</answer>",
    ],
)
def test_well_formed_answers(text):
    assert answer.strict(text) == "X"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "must begin with <answer>"),
        ("X", "must begin with <answer>"),
        ("<answer>\nX", "must end with </answer>"),
        ("X\n</answer>", "must begin with"),
        ("<answer>X\n</answer>", "followed by a newline"),
        ("<answer>\nX</answer>", "beginning of a line"),
        ("<answer>\r\nX\n</answer>", "followed by a newline"),
        ("<answer>\nX\n  </answer>", "beginning of a line"),
        ("<ANSWER>\nX\n</ANSWER>", "must begin with"),
        ("so: <answer>\nX\n</answer>", "must begin with"),
        ("<answer>\nX\n</answer>.", "must end with"),
        ("<answer>\nX\n</answer><|eot_id|>", "must end with"),
        ("<answer>\nX\n</answer>\n<answer>\nX\n</answer>", "more than one answer"),
        ("<answer>\n<answer>\nX\n</answer>", "more than one answer"),
        ("<think>hm\n<answer>\nX\n</answer>", "<think> is not closed"),
        ("<think>a</think><think>b</think><answer>\nX\n</answer>", "must begin with"),
        ("<think>a</think>b</think><answer>\nX\n</answer>", "must begin with"),
        ("a</think>b</think><answer>\nX\n</answer>", "must begin with"),
        ("so <think>a</think><answer>\nX\n</answer>", "must begin with"),
        ("<answer>\nX\n</answer>\n</think>", "must begin with"),
        ("<answer>\nX\n</answer>\n</think>\nwell", "must begin with"),
        ("<answer>\nX</think>\n</answer>", "must begin with"),
        ("<think>hm</thinking>\n<answer>\nX\n</answer>", "<think> is not closed"),
        ("[THINK]hm\n<answer>\nX\n</answer>", r"\[THINK\] is not closed"),
        ("<answer></answer>", "newline"),
        ("<answer>\n</answer", "must end with"),
    ],
)
def test_malformed_answers_say_why(text, reason):
    with pytest.raises(FormatError, match=reason):
        answer.strict(text)


def test_newlines_may_be_optional():
    assert answer.strict("<answer>{}</answer>", newline=False) == "{}"
    assert answer.strict("<answer></answer>", newline=False) == ""
    with pytest.raises(FormatError):
        answer.strict("<answer>", newline=False)


def test_references_may_have_tags_or_not():
    assert answer.body("<answer>\nX\n</answer>", None) == answer.body(" X\n", None) == answer.body("X", False) == "X"
    with pytest.raises(FormatError):
        answer.body("X", True)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("obj[1]", "obj[1]"),
        ("<answer>obj[1]</answer>", "obj[1]"),
        ("<ANSWER>obj[1]</ANSWER> bye", "obj[1]"),
        ("<answer>obj[1]", "obj[1]"),
        ("obj[1]</answer>", "obj[1]"),
        ("<answer>obj[1]</answer><answer>OBJ[2]</answer>", "OBJ[2]"),
        ("<answer>obj[1]</answer><answer>done</answer>", "obj[1]"),
        ("<think>obj[1]</think><answer>obj[2]</answer>", "obj[2]"),
        ("<think>obj[1]</think>obj[2]", "obj[2]"),
        ("<answer>obj[1]</answer></think>", ""),
        ("<think>obj[1]</think>", ""),
        ("<think>obj[1]</think> I do not know", " I do not know"),
        ("obj[1]</think><answer>obj[2]</answer>", "obj[2]"),
        ("<answer>obj[1]</answer></think>obj[2]", "obj[2]"),
        ("<think>a</think>obj[1]</think>obj[2]", "obj[2]"),
        ("<answer>obj[1]</answer><think>obj[2]</think>", "obj[1]"),
        ("obj[1]<think>is it right?</think>", "obj[1]"),
        ("[THINK]obj[1][/THINK]obj[2]", "obj[2]"),
        ("<think>obj[1] or", ""),  # cut off
        ("<think>hm<answer>obj[1]</answer>", "obj[1]"),  # not closed
        ("</answer>", "</answer>"),
        ("", ""),
    ],
)
def test_lenient_search(text, found):
    assert answer.lenient(text, "obj[") == found


@pytest.mark.parametrize("tag", [tag for pair in answer.THOUGHTS for tag in pair])
def test_every_tag_is_seen_inside_an_answer(tag):
    """The quick way through `strict` looks for single characters of tags."""
    if "/" in tag:
        with pytest.raises(FormatError):
            answer.strict(f"<answer>\nX{tag}\n</answer>")
        assert answer.strict(f"<answer>\nX{tag}<answer>\nY\n</answer>") == "Y"


PIECES = [*(tag for pair in answer.THOUGHTS for tag in pair), answer.OPEN, answer.CLOSE, "\n", "hm", "obj[1]"]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_a_thought_that_began_in_the_prompt_is_a_thought(text):
    """With a closing tag and no opening one before it, the text is worth what it is worth with the opening tag."""
    ends = [place for _, closing in answer.THOUGHTS if (place := text.find(closing)) >= 0]
    starts = [place for opening, _ in answer.THOUGHTS if (place := text.find(opening)) >= 0]
    if not ends or (starts and min(starts) < min(ends)):
        return
    closing = next(c for _, c in answer.THOUGHTS if text.startswith(c, min(ends)))
    whole = dict((c, o) for o, c in answer.THOUGHTS)[closing] + text
    assert answer.without_thoughts(text) == answer.without_thoughts(whole)
    assert answer.lenient(text, "obj[") == answer.lenient(whole, "obj[")
    assert read(text) == read(whole)


def read(text):
    try:
        return answer.strict(text)
    except FormatError:
        return None
