import pytest

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
        ("<answer>obj[1]</answer></think>", "obj[1]"),
        ("<think>obj[1]</think>", "<think>obj[1]</think>"),
        ("</answer>", "</answer>"),
        ("", ""),
    ],
)
def test_lenient_search(text, found):
    assert answer.lenient(text, "obj[") == found
