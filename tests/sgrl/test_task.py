"""scene_graph.json: what it holds, where it is found, and one line for each that cannot be used."""

import json
import shutil
from dataclasses import replace

import pytest

from sgrl.context import TRAINING_CONTEXTS
from sgrl.errors import SgrlError
from sgrl.prompts import scene_graph_prompt
from sgrl.task import FILE, NAMES, Task, trained_context
from sgrl.vocabulary import Vocabulary, get_vocabulary

TOY = Vocabulary("toy", ("circle", "big square"), ("left of",))
TASK = Task(TOY, "json", system="You see.", coordinates="norm1000", context="generated", context_source="gt")


def test_what_is_written_is_read(tmp_path):
    path = TASK.write(tmp_path)
    found = Task.read(path)
    assert found.versions["sgrl"] and replace(found, versions={}) == TASK
    assert Task.read(tmp_path) == Task.find(str(tmp_path)) == found and found.digest() == TASK.digest()
    assert found.digest() != replace(TASK, prompt="short").digest()
    assert json.loads(path.read_text())["format"] == 1


@pytest.mark.parametrize("name", NAMES)
def test_tasks_by_name_are_for_models_that_never_saw_them(name):
    task = Task.read(name)
    assert task.vocabulary == get_vocabulary(name) and task.coordinates == "auto" and task.context_source is None
    assert task.codec == ("toon-pairs" if name == "action_genome" else "toon")


def test_a_file_by_hand_says_what_it_needs(tmp_path):
    (tmp_path / "mine.json").write_text('{"vocabulary": "psg", "prompt": "Name {objects} and {predicates}, please."}')
    task = Task.read(tmp_path / "mine.json")
    text = scene_graph_prompt(task.vocabulary, task.codec, 640, 480, task.prompt)
    assert text.startswith("Name person, bicycle, ") and text.endswith(
        "entering, exiting, enclosing, leaning-on, please."
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "cannot be read"),
        ("{", "cannot be read"),
        ("[" * 10**5, "cannot be read"),
        ("\udcff", "cannot be read"),
        ("[]", "expected a JSON object, found a list"),
        ("{}", r"vocabulary is null, expected \{name, objects, predicates\} or one of psg"),
        ('{"vocabulary": "psgg"}', "unknown vocabulary 'psgg'; did you mean 'psg'"),
        ('{"vocabulary": {"name": "a", "objects": 5, "predicates": []}}', "vocabulary is .*expected"),
        ('{"vocabulary": "psg", "codek": "toon"}', 'unknown key "codek"; did you mean .codec'),
        ('{"vocabulary": "psg", "codec": "tooon"}', "unknown codec 'tooon'; did you mean 'toon'"),
        ('{"vocabulary": "psg", "prompt": "ful"}', "unknown prompt style 'ful'; did you mean 'full'"),
        ('{"vocabulary": "psg", "prompt": "Name {objekts}."}', r"a slot \{objekts\} .* did you mean 'objects'"),
        ('{"vocabulary": "psg", "coordinates": "pixels"}', 'coordinates is "pixels"; did you mean .pixel.'),
        ('{"vocabulary": "psg", "size": [640]}', r"size is \[640\], expected two whole numbers"),
        ('{"vocabulary": "psg", "pixels": [9, 5]}', "expected the fewest before the most"),
        ('{"vocabulary": "psg", "thinking": 1}', "thinking is 1"),
        ('{"vocabulary": "psg", "context": ["gt"]}', "context is"),
        ('{"vocabulary": "psg", "max_new_tokens": 0}', "max_new_tokens is 0, expected a number from 1"),
        ('{"vocabulary": "psg", "system": 5}', "system is 5, expected a text"),
        ('{"vocabulary": "psg", "versions": 5}', "versions is 5, expected an object"),
        ('{"format": 2, "versions": {"sgrl": "0.9"}}', r'format 2, written by a newer version \(sgrl "0.9"\).*update'),
        ('{"format": "x"}', 'format is "x"'),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(content, said, tmp_path):
    (tmp_path / FILE).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(SgrlError, match=said) as error:
        Task.find(tmp_path)
    assert str(tmp_path / FILE) in str(error.value) and "\n" not in str(error.value)


def test_the_folders_of_a_run_carry_it_alike(tmp_path):
    TASK.write(tmp_path)
    for name in ("checkpoint-7", "adapter"):
        (tmp_path / name).mkdir()
        assert Task.find(tmp_path / name) is not None
    (tmp_path / "other").mkdir()
    assert Task.find(tmp_path / "other") is None and Task.find(tmp_path / "nowhere") is None
    with pytest.raises(SgrlError, match="other holds no task: no scene_graph.json; expected a folder or file, or psg"):
        Task.read(tmp_path / "other")


def test_it_belongs_to_its_weights(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_vl"}')
    replace(TASK, thinking=False).write(tmp_path)
    assert Task.find(tmp_path).model_type == "qwen3_vl"
    begins = "{%- if enable_thinking is not defined %}{% set enable_thinking = true %}{% endif -%}\n"
    (tmp_path / "chat_template.jinja").write_text(begins)
    with pytest.raises(SgrlError, match="says thinking: false, but the chat template of .* with thinking on"):
        Task.find(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "internvl"}')
    with pytest.raises(SgrlError, match='belongs to a qwen3_vl, but .* holds a "internvl"; take the scene_graph.json'):
        Task.find(tmp_path)


def test_a_data_set_is_a_task(toy, tmp_path):
    task = Task.read(toy / "data")
    assert (task.codec, task.prompt, task.coordinates, task.size, task.pixels) == (
        "toon",
        "short",
        "pixel",
        None,
        (9216,) * 2,
    )
    assert task.vocabulary.name == "psg" or "circle" in task.vocabulary.objects
    assert task.differences(Task.of_dataset(toy / "data", pixels=None)) == {}
    other = replace(task, codec="json", vocabulary=get_vocabulary("psg"))
    assert other.differences(task)["codec"] == '"json", not "toon"' and "56 predicates" in str(other.differences(task))


@pytest.mark.parametrize("context", TRAINING_CONTEXTS)
def test_folders_of_before_say_what_their_prompts_held(tmp_path, context):
    (tmp_path / "sgrl.json").write_text(json.dumps({"context": context}))
    (tmp_path / "checkpoint-7").mkdir()
    assert trained_context(tmp_path) == trained_context(str(tmp_path / "checkpoint-7")) == context
    replace(TASK, context_source="corrupted").write(tmp_path)
    assert trained_context(tmp_path) == "corrupted"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"context": "gtt"}', '{"context": ["gt"]}', "\udcff", "[" * 10**5]
)
def test_a_damaged_record_says_nothing_and_that_is_said(tmp_path, caplog, content):
    (tmp_path / "sgrl.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert trained_context(tmp_path) is None and "does not say which of none, gt, corrupted" in caplog.text


def test_models_that_nobody_trained_here_say_nothing(tmp_path):
    assert trained_context(tmp_path) is None and trained_context("nobody/nothing-of-this-name") is None


def test_words_of_ones_own_are_the_prompt(toy, tmp_path):
    """Rows whose prompt no style gives: their first one's words and system message are kept."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    shutil.copytree(toy / "data", tmp_path / "data")
    for file in (tmp_path / "data").glob("*.parquet"):
        table = parquet.read_table(file)
        chat = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "What {a: 1} is there?"}]
        column = pa.array([chat] * len(table), table.schema.field("prompt").type)
        table = table.set_column(table.schema.get_field_index("prompt"), table.schema.field("prompt"), column)
        parquet.write_table(table, file)
    task = Task.of_dataset(tmp_path / "data")
    assert (task.system, task.prompt) == ("Be short.", "What {a: 1} is there?")
    assert scene_graph_prompt(task.vocabulary, task.codec, 9, 9, task.prompt) == task.prompt
