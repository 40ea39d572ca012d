"""The judge behind the soft protocol: a server asked once per question, answers on disk, and recipes/judge.py."""

import _thread
import json
import re
import runpy
import signal
import sys

import pytest

from sgrl.errors import SgrlError
from sgrl.inference import load_engine
from sgrl.inference.engine import EngineSettings
from sgrl.inference.judge import EngineJudge, verdict
from sgrl.inference.openai_engine import OpenAIEngine
from sgrl.text import answer

YES = (
    *("yes", "Yes.", " **YES**", "1", "1.", "Yes, no doubt.", "The answer is yes", "True", "`yes`", "_Yes_"),
    *('"yes"', "Yes they do", "Yes, they mean the same; no difference.", "1. Yes", "2) **Yes**, a mug is a cup"),
    *("Yes!\nNo doubt", "<think>no?</think>Yes.", "no\n</think>\nyes", "[THINK]no[/THINK]yes", "No doubt, yes."),
    *("I would say yes because", '{"answer": "yes"}', '{"same": true, "reason": "there is no difference"}'),
    *('```json\n{"answer": "Yes."}\n```', "[1]", '{"answer": "yes", "reason": "the', "Answer yes or no: yes"),
    *("Ja.", "Oui, c'est la même chose", "Sí", "是的，一样", "Да", "It is not a cat, so yes", "Answer: **Yes**"),
)
NO = (
    *("no", "No, although yes is near", "0", "<think>yes, or 1?</think>\nno", "is: no", "1. No"),
    *("1) No, a mug is no cup.", "No because a mug has a handle", "No they differ", "NO\nThey differ"),
    *("No — they differ", "**No**, they don't", "False", "There is no overlap, so the answer is no."),
    *("They are not the same: no", '{"same": false}', '{"verdict": {"same": "no"}}', "Nein"),
    *("Non, ce sont deux choses", "不是", "нет", "n", "Yes or no? No."),
)
NEITHER = (
    *("", "maybe", "yesterday", "10", "The answer: yes or no", "\ud800", "Yes and no.", "yes?"),
    *("No? They are the same", "<think>yes", "<think>\nStep 1: look at the two words"),
    *("<think>\nNo wait, the user asks", "[THINK]no", "Step 1: look", "There is no difference between the two."),
    *("No difference: both mean the same.", "I cannot say yes.", "Not yes", "I wouldn't say no"),
    *("It's a no-brainer", "No one knows", "If yes, then", "No wait, the user asks", "Option 0 fits"),
    *('{"yes": true, "no": false}', "[]", "{}", '{"same": null}', "[" * 100_000, "nonliving", "Yes/No"),
    *("1. Look at both\n2. Compare", "The two are neither yes nor no"),
)


@pytest.mark.parametrize(
    "text, expected",
    [(text, expected) for texts, expected in ((YES, True), (NO, False), (NEITHER, None)) for text in texts],
)
def test_verdicts(text, expected):
    assert verdict(text) is expected


def test_a_verdict_takes_linear_time():
    for text in ("no ", "not no, ", "1. ", "<think>", "no difference ", "yes or ", "{", "'"):
        verdict(text * 50_000)


def judge_of(server, cache, identity="m", **options):
    engines = []

    def load():
        settings = EngineSettings(16, 2, base_url=server.url, attempts=2)
        engines.append(OpenAIEngine("m", settings, pause=lambda seconds: None))
        return engines[-1]

    judge = EngineJudge(load, identity, cache, **options)
    judge.engines = engines
    return judge


def question_of(body):
    return body["messages"][0]["content"]


def test_answers_are_kept_and_asked_once(serve, tmp_path, caplog):
    server = serve(otherwise=lambda body: {"a": "yes", "b": "no", "c": "well"}[question_of(body)])
    cache = tmp_path / "deep" / "judge.jsonl"
    judge = judge_of(server, cache)
    assert judge(["a", "b", "c"]) == [True, False, None]
    assert (judge.asked, judge.known, judge.tokens, judge.prompt_tokens) == (3, 0, 9, 21)
    assert judge.unclear == {"c": "well"}
    again = judge_of(server, cache)
    assert again(["c", "a"]) == [None, True] and again([]) == []
    assert (again.asked, again.known, again.tokens) == (0, 2, 6) and again.engines == []  # no model loaded
    other = judge_of(server, cache, "another model")
    assert other(["a"]) == [True] and other.asked == 1 and len(server.received) == 4

    # Half a line at the end and damaged ones: what can be read is kept, the next answer begins a line of its own.
    lines = cache.read_text().splitlines(keepends=True)
    cache.write_text("[]\n\n" + lines[0] + '{"judge": "m", "question": "c"}\n' + lines[1][:-9])
    again = judge_of(server, cache)
    assert again(["a", "b", "c"]) == [True, False, None]
    assert (again.asked, again.known) == (2, 1) and "3 damaged lines" in caplog.text
    assert judge_of(server, cache)(["a", "b"]) == [True, False] and len(server.received) == 6


def test_a_server_that_stops_half_way_loses_nothing(serve, tmp_path):
    """Chunks of 8 (four batches of 2): the second one and all after it get no answer, then the server is back."""
    questions = [str(number) for number in range(20)]
    server = serve(*["yes"] * 8, otherwise=(503, {"error": {"message": "overloaded"}}, {}))
    server.script = [lambda body: "yes"] * 8
    judge = judge_of(server, tmp_path / "judge.jsonl")
    with pytest.raises(
        SgrlError, match="12 of 20 questions got no answer .status 503: overloaded.; the others are in"
    ):
        judge(questions)
    assert len(server.received) == 8 + 2 * 8  # the third chunk was not tried
    assert len((tmp_path / "judge.jsonl").read_text().splitlines()) == 8
    server.otherwise = lambda body: "no"
    judge = judge_of(server, tmp_path / "judge.jsonl")
    assert judge(questions) == [True] * 8 + [False] * 12
    assert (judge.asked, judge.known) == (12, 8)


def test_one_question_without_an_answer_does_not_stop_the_others(serve, tmp_path):
    server = serve(otherwise=lambda body: "drop" if question_of(body) == "3" else "yes")
    judge = judge_of(server, tmp_path / "judge.jsonl")
    with pytest.raises(SgrlError, match="1 of 20 questions got no answer"):
        judge([str(number) for number in range(20)])
    assert judge.asked == 19


@pytest.mark.parametrize(
    "status, message",
    [(400, "2 of 2 questions got no answer .*no such thing"), (401, "refuses .*401.: no such thing")],
)
def test_a_refusal_names_the_reason(serve, tmp_path, status, message):
    server = serve(otherwise=(status, {"error": {"message": "no such thing"}}, {}))
    with pytest.raises(SgrlError, match=message):
        judge_of(server, tmp_path / "judge.jsonl")(["a", "b"])


@pytest.fixture
def run(root, tmp_path, monkeypatch, capsys, caplog):
    """Runs recipes/judge.py in this process and returns (exit status, what it printed, what it wrote to the log)."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["recipes/judge.py", *map(str, words)])
        try:
            runpy.run_path(str(root / "recipes/judge.py"), run_name="__main__")
            status = 0
        except SystemExit as error:
            status = error.code
        printed = capsys.readouterr()
        return status, printed.out, printed.err + caplog.text

    return call


def graph(*objects, relation):
    rows = "".join(f"\n  {i},{label},{60 * i},0,{60 * i + 50},50" for i, label in enumerate(objects, 1))
    return f"obj[{len(objects)}]{{id,name,x1,y1,x2,y2}}:{rows}\nrel[1]{{subj,pred,obj}}:\n  1,{relation},2"


@pytest.fixture
def folder(tmp_path):
    """A run of three images: two alike with two disputes about objects and one about a predicate, one failure."""
    path = tmp_path / "run"
    path.mkdir()
    (path / "run.json").write_text(json.dumps({"model": "ours", "dataset": "d", "codec": "toon"}))
    solution = graph("person", "cup", relation="holding")
    said = answer.wrap(graph("man", "mug", relation="gripping"))
    rows = [
        {"dataset": "d", "image_id": str(i), "solution": solution, "prediction": text, "width": 640, "height": 480}
        for i, text in enumerate([said, said, "no graph"])
    ]
    (path / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def referee(body):
    """man = person and gripping = holding; on cups and mugs it has no opinion."""
    words = set(re.findall(r'"(\w+)"', question_of(body)))
    if {"man", "person"} <= words or {"gripping", "holding"} <= words:
        return "Yes"
    return "I would rather not say."


def test_figures_by_hand(serve, run, folder):
    """Two images with object precision and recall 1/2 and relations 1, and a failure: means of 1/3, 2/3 and 1/2."""
    server = serve(otherwise=referee)
    words = [folder, "--model", "judge", "--engine", "openai", "--base-url", server.url]
    status, printed, log = run(*words)
    assert status == 0, log
    found = json.loads((folder / "soft.json").read_text())
    strict, soft = found["strict"], found["soft"]
    assert strict["object_f1"] == strict["relation_f1"] == 0 and strict["samples"] == soft["samples"] == 3
    assert soft["object_precision"] == soft["object_recall"] == pytest.approx(1 / 3)
    assert soft["relation_precision"] == soft["relation_recall"] == pytest.approx(2 / 3)
    assert soft["sgg_score"] == pytest.approx(1 / 2) and soft["failures"] == 1
    assert soft["pooled_object_precision"] == pytest.approx(1 / 2)
    assert found["disputes"] == {"object": 4, "predicate": 2} and found["questions"] == {"object": 2, "predicate": 1}
    assert found["answers"] == {"yes": 2, "no": 0, "neither": 1} and len(server.received) == 3
    assert list(found["unclear"].values()) == ["I would rather not say."]
    assert re.search(r"objects +0\.000 +0\.000 +0\.000 +0\.333 +0\.333 +0\.333\n", printed)
    assert re.search(r"SGG score +0\.000 +0\.500\n", printed)
    assert "3 images: 6 disputes (2.00 an image), 3 distinct questions (1.00)" in printed
    assert "1 neither yes nor no, which count as no: 'I would rather not say.'" in printed
    assert "3 asked now, 0 answered before; 21 tokens in, 9 out" in printed
    # The names in the question about the predicate are the reference's where the judge accepted them.
    assert '("person", "gripping", "mug")' in question_of(server.received[2])

    server.otherwise = (500, {}, {})
    before = json.loads((folder / "soft.json").read_text())
    status, printed, _ = run(*words)
    assert status == 0 and "0 asked now, 3 answered before" in printed
    after = json.loads((folder / "soft.json").read_text())
    assert {**after, "judge": 0} == {**before, "judge": 0}
    (folder / "soft.json").unlink()
    status, _, log = run(*words, "--scene", "--attempts", 1)  # other questions, and no server
    assert status == 1 and "2 of 2 questions got no answer (status 500" in log
    assert not (folder / "soft.json").exists()


def test_interrupted_it_goes_on_there(serve, run, folder, monkeypatch):
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()][:1] * 20
    for i, row in enumerate(rows):  # 20 distinct questions about objects besides that about cups
        rows[i] = row | {"image_id": str(i), "prediction": row["prediction"].replace("man", f"man-{i}")}
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    old = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job ignores

    def interrupt(body):
        _thread.interrupt_main()
        return "yes"

    try:
        server = serve(*[lambda body: "yes"] * 9, interrupt, otherwise=lambda body: "yes")
        words = [folder, "--model", "judge", "--engine", "openai", "--base-url", server.url, "--batch-size", 1]
        status, _, log = run(*words)
    finally:
        signal.signal(signal.SIGINT, old)
    assert status == 130 and "interrupted after 8 answers; the same command goes on there\n" in log
    assert len((folder / "judge.jsonl").read_text().splitlines()) == 8 and not (folder / "soft.json").exists()
    status, printed, _ = run(*words)
    assert status == 0 and "8 answered before" in printed
    found = json.loads((folder / "soft.json").read_text())
    assert found["judge"]["asked"] + 8 == sum(found["questions"].values()) and found["soft"]["sgg_score"] == 1.0


def test_bad_input_is_named_before_a_model_loads(run, folder, tmp_path):
    words = ["--model", "judge", "--engine", "openai"]
    status, _, log = run(tmp_path, *words)
    assert status == 1 and "holds no run; expected a folder that recipes/evaluate.py wrote" in log
    rows = (folder / "predictions.jsonl").read_text()
    (folder / "predictions.jsonl").write_text(rows.replace('"solution": "obj', '"solution": null, "was": "obj', 1))
    status, _, log = run(folder, *words)
    assert status == 1 and "image '0' has no reference" in log
    (folder / "predictions.jsonl").write_text("")
    status, _, log = run(folder, *words)
    assert status == 1 and "holds no prediction" in log
    status, _, log = run(folder, "--model", tmp_path / "nowhere")
    assert status == 1 and "nowhere does not exist" in log
    status, _, log = run(folder, *words, "--constrain", "--thinking")
    assert status == 2 and "exclude each other" in log
    assert not (folder / "judge.jsonl").exists()


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    """A tiny model that takes no images: no processor, and a chat template that takes texts alone."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from sgrl.tiny.tokenizer import build_tokenizer

    folder = tmp_path_factory.mktemp("models") / "language"
    tokenizer = build_tokenizer(["circle"], ["above"])
    tokenizer.chat_template = "{% for m in messages %}<|im_start|>{{ m.content + '' }}<|im_end|>{% endfor %}"
    torch.manual_seed(0)
    Qwen3ForCausalLM(
        Qwen3Config(
            **{"vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
            **{"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "max_position_embeddings": 2048},
            **{"eos_token_id": tokenizer.eos_token_id, "tie_word_embeddings": True},
        )
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_language_model_judges(run, folder, language_model):
    status, printed, log = run(folder, "--model", language_model, "--engine", "transformers", "--constrain")
    assert status == 0, log
    found = json.loads((folder / "soft.json").read_text())
    assert found["answers"]["neither"] == 0 and found["judge"]["asked"] == 3
    with pytest.raises(SgrlError, match="has no processor"):
        load_engine("transformers", language_model)


@pytest.mark.slow
def test_vllm_judges_as_transformers(language_model, tmp_path):
    pytest.importorskip("vllm")
    questions = ["Is a circle round? Answer yes or no.", "Is it square?", "Are circle and ring alike? " * 5]
    answers = {}
    for engine in ("transformers", "vllm"):
        loaded = load_engine(engine, language_model, max_new_tokens=8, max_model_length=512, images=False)
        for constrain in (False, True):
            judge = EngineJudge(lambda loaded=loaded: loaded, f"{constrain}", tmp_path / f"{engine}.jsonl", constrain)
            judge(questions)
        loaded.close()
        rows = [json.loads(line) for line in (tmp_path / f"{engine}.jsonl").read_text().splitlines()]
        answers[engine] = [row["answer"] for row in rows]
    assert answers["vllm"] == answers["transformers"] and set(answers["vllm"][3:]) <= {"yes", "no"}


@pytest.mark.slow
def test_a_real_server_judges(run, folder, vllm_server):
    """The tiny model of random weights babbles; with a grammar it says yes or no, and what it says is what counts."""
    words = [folder, "--model", "tiny", "--engine", "openai", "--base-url", vllm_server]
    status, printed, log = run(*words)
    assert status == 0, log
    found = json.loads((folder / "soft.json").read_text())
    assert found["answers"] == {"yes": 0, "no": 0, "neither": 3} and found["soft"] == found["strict"]
    status, _, log = run(*words, "--constrain")
    assert status == 0, log
    found = json.loads((folder / "soft.json").read_text())
    assert found["answers"]["neither"] == 0 and found["answers"]["yes"] + found["answers"]["no"] == 3
    assert found["judge"]["asked"] == 3  # the answers without a grammar are another judge's
    kept = [json.loads(line) for line in (folder / "judge.jsonl").read_text().splitlines()]
    assert len(kept) == 6 and {row["answer"] for row in kept[3:]} <= {"yes", "no"}
    accepted = sum(row["times"] for row in found["most_disputed"] if row["kind"] == "object" and row["yes"])
    assert found["soft"]["object_recall"] == pytest.approx(accepted / 2 / 3)
    engine = load_engine("openai", "tiny", max_new_tokens=16, base_url=vllm_server)
    questions = [row["question"] for row in kept[3:]]
    judge = EngineJudge(lambda: engine, "again", folder / "again.jsonl", constrain=True)
    assert judge(questions) == [verdict(row["answer"]) for row in kept[3:]]
