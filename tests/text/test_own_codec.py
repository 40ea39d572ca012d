"""A layout of one's own is one class: it is converted to, trained on, decoded by its grammar, scored and reported."""

import json
import re
import runpy
import sys
from types import SimpleNamespace

import pytest

from data_prep import stats, to_toon, toyworld
from rewards import R1_SGG, GraphScorer
from rewards.__main__ import main as rewards_command
from rewards.trl import rewards_named
from sgrl import data
from sgrl.errors import SgrlError
from sgrl.inference import Generation
from sgrl.text import CODECS, Codec, FormatError, ParsedGraph, answer, detect_codec, get_codec, productions, register
from sgrl.text.codec import as_text
from sgrl.text.grammar import ebnf
from sgrl.text.parsed import MAX_RECOVERED, to_graph
from sgrl.text.places import Place
from sgrl.text.tables import check_relations, pixels
from sgrl.training.launch import SceneGraphArguments
from sgrl.vocabulary import canonical

OBJECT = re.compile(r"([a-z][a-z-]{0,60}+) (\d{1,3}+) at (\d{1,4}+) (\d{1,4}+) (\d{1,4}+) (\d{1,4}+)\.")
RELATION = re.compile(r"^(\d{1,3}+) ([a-z][a-z-]{0,60}+) (\d{1,3}+)\.", re.MULTILINE)


class Sentences(Codec):
    """circle 1 at 4 8 40 44.
    square 2 at 50 8 90 44.
    1 left-of 2."""

    name = "sentences"
    title = "Short sentences"
    opening = "a thing, its number and 'at'"
    rules = "- A sentence per object: name, number, at, left, top, right and bottom. Then one per relation."

    def encode(self, graph):
        lines = [
            f"{canonical(o.label)} {i} at {' '.join(map(str, pixels(o.box)))}." for i, o in enumerate(graph.objects, 1)
        ]
        return "\n".join(
            lines + [f"{r.subject + 1} {canonical(r.predicate)} {r.object + 1}." for r in graph.relations]
        )

    def parse(self, text, width, height, tags=True):
        body = answer.body(text, tags)
        parsed, issues = self.recover_parsed(body, width, height)
        if issues or self.encode(to_graph(parsed, width, height)) != body or not parsed.labels:
            raise FormatError((issues or ["expected sentences"])[0])
        check_relations(parsed.relations)
        if not all(0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height for x1, y1, x2, y2 in parsed.boxes):
            raise FormatError("a box leaves the image or is empty")
        return parsed

    def recover_parsed(self, text, width, height):
        body = self.body_of(as_text(text))
        objects = OBJECT.findall(body)[:MAX_RECOVERED]
        position = {int(number): i for i, (_, number, *_) in enumerate(objects)}
        relations = [
            (position.get(int(s), -1), predicate, position.get(int(o), -1))
            for s, predicate, o in RELATION.findall(body)[:MAX_RECOVERED]
        ]
        issues = ["a relation names an unknown object"] if any(-1 in (s, o) for s, _, o in relations) else []
        return ParsedGraph([o[0] for o in objects], [tuple(map(float, o[2:])) for o in objects], relations), issues

    def recognises(self, text):
        return bool(OBJECT.match(text.strip().removeprefix(answer.OPEN).strip()))

    def grammar(self, vocabulary, max_objects, max_relations):
        line, number = productions.literal("\n"), productions.integers(1, max_objects)
        return {
            "object": f'({productions.labels(vocabulary.objects)}) " " ({number}) " at " x1 " " y1 " " x2 " " y2 "."',
            "relation": f'({number}) " " ({productions.labels(vocabulary.predicates)}) " " ({number}) "."',
            "graph": f"object ({line} object){{0,{max_objects - 1}}} ({line} relation){{0,{max_relations}}}",
        }

    def places(self, text):
        for match in RELATION.finditer(text):
            yield Place(match[2], (int(match[1]), int(match[3])), [match.span(1), match.span(2), match.span(3)])


@pytest.fixture(scope="module", autouse=True)
def codec():
    yield register(Sentences())
    del CODECS["sentences"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The toy world in sentences."""
    folder = tmp_path_factory.mktemp("sentences")
    assert toyworld.main(["--output", str(folder / "world"), "--train", "12", "--test", "6", "--seed", "3"]) == 0
    words = ["--layout", "psg", "--root", str(folder / "world"), "--output", str(folder / "data")]
    assert to_toon.main([*words, "--resize", "keep", "--codec", "sentences"]) == 0
    return folder / "data"


class Writer:
    """An engine that writes the answers of the data set, a character a token, where its grammar allows them."""

    name, batch_size = "openai", 4

    def __init__(self, answers):
        self.answers, self.compiled = list(answers), {}

    def generate(self, images, prompts, grammars=None):
        return [self._write(self.answers.pop(0), grammar) for grammar in grammars or [None] * len(images)]

    def _write(self, text, grammar):
        assert accepts(grammar, text)
        return Generation(text, len(text), 0.01, "stop", 5, tuple(text), (-0.001,) * len(text))

    def close(self):
        pass


def accepts(grammar, text):
    xgrammar = pytest.importorskip("xgrammar")
    tokens = xgrammar.TokenizerInfo([bytes([i]) for i in range(256)] + [b"</s>"], stop_token_ids=[256])
    matcher = xgrammar.GrammarMatcher(xgrammar.GrammarCompiler(tokens, max_threads=1).compile_grammar(grammar))
    return all(matcher.accept_token(byte) for byte in text.encode()) and matcher.accept_token(256)


def test_it_is_found_by_name_and_by_its_texts(codec):
    assert get_codec("sentences") is codec
    assert detect_codec("cat 1 at 1 2 3 4.") == detect_codec("<answer>\ncat 1 at 1 2 3 4.\n</answer>") == "sentences"
    assert detect_codec("obj[1]{id,name,x1,y1,x2,y2}:") == "toon"
    with pytest.raises(
        FormatError, match=r"obj\[N\]\{...\}: or a JSON object or a thing, its number and 'at', found 'I "
    ):
        detect_codec("I see a cat.")
    with pytest.raises(FormatError, match="there is a codec 'toon' already, TOON; choose another name"):
        register(type("Other", (Sentences,), {"name": "toon"})())
    assert register(codec) is codec


def test_conversion_and_lengths(world, codec, capsys):
    metadata = data.read_metadata(world)
    row = data.load(world, "train")[0]
    assert metadata["codec"] == "sentences" and row["completion"][0]["content"] == answer.wrap(row["solution"])
    assert OBJECT.match(row["solution"]) and codec.rules in row["prompt"][0]["content"]
    assert re.search(r"<answer>\n[a-z-]+ 1 at [^<]*\n1 [a-z-]+ 2\.\n</answer>", row["prompt"][0]["content"])
    assert stats.main([str(world)]) == 0
    assert "| Short sentences |" in capsys.readouterr().out


def test_rows_for_training(world, tmp_path):
    """Through the checks of the recipes for PSG, into the batch that the loss is made of."""
    from transformers import AutoProcessor

    from sgrl.tiny import Tiny, build_tiny_vlm
    from sgrl.training.dataset import DataKind, check_dataset, drop_long_rows, load_rows
    from sgrl.training.sft import COLUMNS, SceneGraphCollator

    build_tiny_vlm(tmp_path / "model", tiny=Tiny(codec="sentences"))
    processor = AutoProcessor.from_pretrained(tmp_path / "model")
    check_dataset(str(world), DataKind("psg", codec="json"))
    with pytest.raises(SgrlError, match="are sentences, but this recipe is for toon-pairs; convert .* toon-pairs"):
        check_dataset(str(world), DataKind("psg", codec="toon-pairs"))
    rows, _ = load_rows(
        SceneGraphArguments(dataset=str(world)), SimpleNamespace(eval_strategy="no"), COLUMNS, processor
    )
    rows = drop_long_rows(rows, processor, 4096, {}, answers=True)
    batch = SceneGraphCollator(processor, completion_only_loss=True)([dict(rows[0])])
    learnt = processor.tokenizer.decode(batch["labels"][batch["labels"] >= 0])
    assert rows[0]["completion"][0]["content"] in learnt


def test_rewards(world):
    row = data.load(world, "train")[0]
    size = row["width"], row["height"]
    right, wrong = answer.wrap(row["solution"]), answer.wrap(row["solution"].replace(" at ", " near "))
    scorer = GraphScorer("sentences", *size)
    assert scorer(right, row["solution"]).valid
    assert not scorer(wrong, row["solution"]).valid
    assert GraphScorer("sentences", *size, preset=R1_SGG)(right, row["solution"]).valid
    functions, _ = rewards_named(["full"])
    columns = {"solution": [row["solution"]] * 2, "width": [size[0]] * 2, "height": [size[1]] * 2}
    found = [function(completions=[right, wrong], **columns) for function in functions]
    assert sum(values[0] for values in found) > sum(values[1] for values in found)
    with pytest.raises(SgrlError, match="in toon and toon-pairs, found the family 'scenegraphvlm' in 'sentences'"):
        GraphScorer("sentences", *size, protocol="published")


def test_what_it_leaves_out_has_a_default(codec):
    text = "hm</think><answer>\ncat 1 at 1 2 3 4.\n1 on 7.\n</answer>"
    assert codec.recover_published(text) == (codec.recover_parsed(text, 9, 9)[0], {})
    assert codec.diagnose(text) == {
        "no_relation": 1.0, "num_objects": 1.0, "num_relations": 0.0, "invalid_relation_fraction": 1.0,
        "has_answer_tags": 1.0,
    }  # fmt: skip
    bare = type("Bare", (Sentences,), {"grammar": Codec.grammar, "places": Codec.places})()
    with pytest.raises(FormatError, match="the layout 'sentences' has no grammar"):
        ebnf(bare, data.vocabulary_of(TOY), 96, 96)
    assert list(bare.places(text)) == []


TOY = {"vocabulary": {"name": "toy", "objects": ["cat"], "predicates": ["on"]}}


def test_constrained_prediction_evaluation_and_report(root, world, tmp_path, monkeypatch, capsys):
    from sgrl.inference import predict
    from sgrl.report.command import main as report

    rows = data.load(world, "test")
    writer = Writer(row["completion"][0]["content"] for row in rows)
    monkeypatch.setattr(predict, "load_engine", lambda *_, **__: writer)
    words = ["--model", "m", "--engine", "openai", "--dataset", world, "--output", tmp_path / "run", "--constrain"]
    monkeypatch.setattr(sys, "argv", ["recipes/evaluate.py", *map(str, words), "--split", "test"])
    runpy.run_path(str(root / "recipes/evaluate.py"), run_name="__main__")
    found = json.loads((tmp_path / "run/metrics.json").read_text())
    assert (found["failure_rate"], found["object_f1"], found["relation_f1"]) == (0, 1, 1)
    for line in (tmp_path / "run/predictions.jsonl").read_text().splitlines():
        row = json.loads(line)
        count = len(RELATION.findall(row["solution"]))
        assert len(row["confidence"]) == count and all(0.9 < value < 1 for value in row["confidence"])

    capsys.readouterr()
    arguments = ["--reference", str(world), "--split", "test"]
    assert rewards_command(["score", str(tmp_path / "run"), *arguments]) in (0, None)
    assert "1.000" in capsys.readouterr().out
    report([str(tmp_path / "run"), "--output", str(tmp_path / "report")])
    page = (tmp_path / "report/index.html").read_text()
    assert "sentences" in page and len(list((tmp_path / "report/images").iterdir())) == len(rows)
