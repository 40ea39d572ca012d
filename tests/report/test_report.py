"""The report: a folder or one file, nothing from outside, and nothing that a model wrote can act."""

import io
import json
import re
import shutil
from html.parser import HTMLParser

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from rewards.evaluation import Evaluation
from rewards.metrics import SceneGraphMetrics
from sgrl import data
from sgrl.errors import SgrlError
from sgrl.graph import Object, Relation, SceneGraph
from sgrl.report import charts
from sgrl.report.command import main
from sgrl.report.gallery import MAX_OBJECTS, choose, thousandths, to_json
from sgrl.report.pictures import encode
from sgrl.report.runs import SCORES, Run, read_curve, read_run
from sgrl.report.verdicts import verdicts
from sgrl.text import answer, get_codec
from sgrl.vocabulary import Vocabulary

CODEC = get_codec("toon")
GRAPHS = [
    SceneGraph(
        (Object("circle", (4, 4, 30, 30)), Object("square", (40, 40, 80, 80)), Object("cross", (50, 50, 60, 60))),
        (Relation(0, "left-of", 1), Relation(2, "inside", 1)),
        96,
        96,
    ),
    SceneGraph((Object("cross", (8, 8, 40, 40)),), (), 96, 96),
    SceneGraph(
        (Object("square", (0, 0, 20, 20)), Object("circle", (30, 0, 96, 96))), (Relation(0, "above", 1),), 96, 96
    ),
]
GOLD = [answer.wrap(CODEC.encode(graph)) for graph in GRAPHS]
HOSTILE = (
    "</pre></script><script>document.title='owned'</script><answer>\nobj[2]{id,name,x1,y1,x2,y2}:\n"
    '1,"\'><img src=x onerror=alert(1)>",-50,3,4000,90\n2,a b,5,5,5,5\n3,cat,1e300,1,2,3\n'
    "rel[3]{subj,pred,obj}:\n1,<script>document.title='owned'</script>,2\n2,\"><svg onload=x>,77\n"
    "1,\ud800,1\n</answer>"
)


def write_run(folder, predictions, dataset=None, name="model"):
    """A folder as recipes/evaluate.py writes it."""
    metrics = SceneGraphMetrics("toon", 96, 96)
    folder.mkdir(parents=True)
    with open(folder / "predictions.jsonl", "w") as file:
        for index, (text, gold) in enumerate(zip(predictions, GOLD, strict=False)):
            row = {"dataset": "toy", "image_id": f"{index:04d}", "prediction": text, "solution": gold}
            row |= {"width": 96, "height": 96, "tokens": 30, "seconds": 0.01, "finish_reason": "stop"}
            compared = metrics.count(metrics.compare(text, gold))
            row |= {"score": compared.values, "matched": compared.matched}
            file.write(json.dumps(row) + "\n")
    found = metrics.compute() | {"mean_tokens": 30.0, "seconds_per_graph": 0.01, "finished": "2026-01-01"}
    (folder / "metrics.json").write_text(json.dumps(found))
    info = {"model": name, "engine": "vllm", "codec": "toon", "command": f"evaluate --model {name}"}
    info |= {"versions": {"vllm": "0.31.0"}, "dataset": str(dataset), "split": "test"}
    (folder / "run.json").write_text(json.dumps(info))
    return folder


def write_dataset(folder, graphs=GRAPHS, size=(96, 96)):
    folder.mkdir(parents=True)
    vocabulary = data.vocabulary_to_json(
        Vocabulary("toy", ("circle", "square", "cross"), ("inside", "left-of", "above"))
    )
    rows = []
    for index, graph in enumerate(graphs):
        buffer = io.BytesIO()
        Image.new("RGB", size, (90, 120 + index, 30)).save(buffer, "PNG")
        solution = CODEC.encode(graph)
        rows.append(
            {
                "image": {"bytes": buffer.getvalue(), "path": None},
                "prompt": [{"role": "user", "content": "Write the scene graph."}],
                "completion": [{"role": "assistant", "content": answer.wrap(solution)}],
                "solution": solution,
                "width": 96,
                "height": 96,
                "dataset": "toy",
                "image_id": f"{index:04d}",
                "length": 100,
            }
        )
    metadata = {"codec": "toon", "coords": "pixel", "vocabulary": vocabulary, "prompt": "short", "command": ""}
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist(rows, schema=data.schema(metadata)), folder / "test-00000.parquet"
    )
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("report") / "data")


class Page(HTMLParser):
    """Checks that elements nest, collects what could act or load, and the text of elements."""

    VOID = {"meta", "input", "br", "link", "img", "option"}

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.links, self.handlers, self.ids = [], [], [], [], []
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "action", "xlink:href"):
                self.links.append(value)
            if name.startswith("on"):
                self.handlers.append((tag, name))
            if name == "id":
                self.ids.append(value)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
            self.open.pop()


def build(tmp_path, *arguments):
    """The page as one file."""
    output = tmp_path / "page.html"
    main([*map(str, arguments), "--output", str(output)])
    return output.read_text(encoding="utf-8")


def inside(text, name):
    """The data of this id in a page."""
    (found,) = re.findall(rf'<script type="application/json" id="{name}">(.*?)</script>', text, re.S)
    return json.loads(found)


@pytest.fixture
def runs(tmp_path, dataset):
    half = [GOLD[0], "no graph", GOLD[2].replace("above", "inside")]
    return [write_run(tmp_path / "base", half, dataset), write_run(tmp_path / "sft", GOLD, dataset)]


def test_one_file_is_whole_and_loads_nothing(tmp_path, runs, capsys):
    text = build(tmp_path, *runs)
    page = Page(text)
    assert page.tags.count("script") == 3 and page.tags.count("style") == 1  # index, one chunk, the code
    assert not page.handlers
    assert all(link.startswith("#") for link in page.links)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"http://www\.w3\.org/2000/svg", "", text))
    assert len(page.ids) == len(set(page.ids))
    index, chunk = inside(text, "index"), inside(text, "chunk-0")
    assert [item["image"][:22] for item in index["items"]] == ["data:image/png;base64,"] * 3
    assert [item["id"] for item in index["items"]] == ["0000", "0001", "0002"]
    assert [run["name"] for run in index["runs"]] == ["base", "sft"]
    # score, hallucinated objects and relations, missed relations, failed
    assert index["items"][1]["runs"] == [[0, 0, 0, 0, 1], [1, 0, 0, 0, 0]]
    assert index["items"][2]["runs"][0][1:] == [0, 0, 1, 0]
    assert chunk[2]["runs"][0]["relations"][0][1:] == ["inside", 1, "near", "the reference says: above", None]
    assert chunk[2]["reference"]["found"] == [[0, 1]] and chunk[1]["runs"][0]["failed"]
    printed = capsys.readouterr().out
    assert re.search(r"^base .* 0\.333 ", printed, re.M) and re.search(r"^sft .* 1\.000 .* 0\.000 ", printed, re.M)
    assert "All 3 images." in printed and "All 3 images." in text


def test_a_folder_holds_page_images_and_data(tmp_path, runs, monkeypatch):
    output = tmp_path / "report"
    for _ in range(2):  # a report replaces a report
        main([*map(str, runs), "--output", str(output)])
        files = sorted(str(path.relative_to(output)) for path in output.rglob("*") if path.is_file())
        assert files == ["data/0.js", "images/000000.png", "images/000001.png", "images/000002.png", "index.html"]
    with Image.open(output / "images/000001.png") as picture:
        assert picture.size == (96, 96) and picture.getpixel((5, 5)) == (90, 121, 30)
    text = (output / "index.html").read_text()
    assert [item["image"] for item in inside(text, "index")["items"]] == files[1:4]
    assert (output / "data/0.js").read_text().startswith("sgrlChunk(0,[{")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.tex").write_text("years of work")
    with pytest.raises(SgrlError, match="exists and is not a report"):
        main([str(runs[0]), "--output", str(tmp_path / "other")])
    monkeypatch.chdir(tmp_path / "other")
    with pytest.raises(SgrlError, match="exists and is not a report"):
        main([str(runs[0]), "--output", "."])
    assert (tmp_path / "other/thesis.tex").exists()


def test_hostile_answers_stay_text(tmp_path, dataset):
    run = write_run(tmp_path / "run", [HOSTILE, GOLD[1], GOLD[2]], dataset, name="</script><script>x</script>")
    curve = tmp_path / "<b>sft"
    curve.mkdir()
    (curve / "trainer_state.json").write_text(json.dumps({"log_history": [{"step": 1, "reward": 1.0, "<i>": 2}]}))
    text = build(tmp_path, f"<script>a={run}", "--curve", curve, "--title", "</title><script>x</script>")
    page = Page(text)
    assert page.tags.count("script") == 3 and "img" not in page.tags and "b" in page.tags
    assert not page.handlers
    assert "<script>document" not in text and "onerror" in inside(text, "chunk-0")[0]["runs"][0]["text"]
    assert "script-src 'sha256-" in text and "'unsafe-inline'; script-src" in text


def test_json_in_a_page_is_no_markup():
    value = ["</script><!--", "&amp;", "\u2028", "\ud800", 'a"b\\']
    text = to_json(value)
    assert not set(text) & set("<>&") and text.isascii() and json.loads(text) == value


@pytest.mark.parametrize(("boxes", "length"), [(1, 150), (500, 150), (500, 5000)])
def test_size_of_an_image_is_bounded(tmp_path, dataset, boxes, length):
    rows = "\n".join(f"  {i},{'x' * length},1,1,50,50" for i in range(1, boxes + 1))
    relations = "\n".join(f"  {i % boxes + 1},{'y' * length},{(i + 1) % boxes + 1}" for i in range(400))
    answer_text = (
        f"<answer>\nobj[{boxes}]{{id,name,x1,y1,x2,y2}}:\n{rows}\nrel[400]{{subj,pred,obj}}:\n{relations}\n</answer>"
    )
    run = write_run(tmp_path / "run", [answer_text, *GOLD[1:]], dataset)
    chunk = inside(build(tmp_path, run), "chunk-0")
    assert len(json.dumps(chunk[0])) < 40_000
    shown = chunk[0]["runs"][0]
    if length < 1000:  # the reader itself leaves out longer labels
        assert len(shown["objects"]) == min(boxes, MAX_OBJECTS) and shown["more"][0] == boxes - len(shown["objects"])


def test_best_figures_are_bold_and_equal_ones_too(tmp_path, dataset):
    runs = [
        write_run(tmp_path / name, GOLD[:2] + [last], dataset)
        for name, last in (("a", "none"), ("b", GOLD[2]), ("c", GOLD[2]))
    ]
    text = build(tmp_path, *runs)
    row = re.search(r'<th scope="row">failure rate</th>(.*?)</tr>', text).group(1)
    cells = re.findall(r'<td class="(.*?)".*?<span>(.*?)</span>', row)
    assert cells == [("", "0.333"), ("best", "0.000"), ("best", "0.000")]
    row = re.search(r'<th scope="row">tokens per graph</th>(.*?)</tr>', text).group(1)
    assert "best" not in row  # neither more nor fewer tokens are better


def test_runs_on_different_images_are_said_not_to_compare(tmp_path, dataset):
    runs = [write_run(tmp_path / "short", GOLD[:1], dataset), write_run(tmp_path / "long", GOLD, dataset)]
    text = build(tmp_path, *runs)
    assert "cover different images (short 1, long 3; 1 in common)" in text
    assert len(inside(text, "index")["items"]) == 1


def test_a_frame_of_1000_is_drawn_on_the_image(tmp_path):
    """Boxes in thousandths of a wide image: the picture keeps the image's shape."""
    dataset = write_dataset(tmp_path / "wide", size=(200, 100))
    text = build(tmp_path, write_run(tmp_path / "run", GOLD, dataset))
    item = inside(text, "index")["items"][0]
    assert (item["width"], item["height"]) == (200, 100)
    assert inside(text, "chunk-0")[0]["reference"]["objects"][1][:5] == ["square", 417, 417, 833, 833]
    assert thousandths((90, -5, 1e300, 40), (100, 200)) == [900, 0, 1000, 200]


def test_verdicts_tell_right_near_and_hallucinated():
    truth = CODEC.parse(GOLD[0], 96, 96)
    text = "obj[4]{id,name,x1,y1,x2,y2}:\n  1,circle,4,4,30,30\n  2,square,0,60,20,90\n  3,cat,5,5,20,20"
    text += "\n  4,cross,50,50,60,60"
    text += "\nrel[3]{subj,pred,obj}:\n  4,inside,2\n  1,above,3\n  4,left-of,1"
    graph = CODEC.parse(text, 96, 96, tags=False)
    matched = SceneGraphMetrics("toon", 96, 96).compare(answer.wrap(text), GOLD[0]).matched
    objects, relations = verdicts(graph, truth, matched)
    assert [(one.state, one.match) for one in objects] == [("ok", 0), ("near", None), ("bad", None), ("ok", 2)]
    assert "IoU 0.00" in objects[1].reason
    assert [one.state for one in relations] == ["near", "bad", "bad"]
    assert "between other boxes" in relations[0].reason
    assert [one.state for one in verdicts(graph, None, None)[1]] == [""] * 3


def some_run(count, frames=1, values=None):
    keys = [("toy", f"{index:05d}") for index in range(count)]
    places = {key: (f"v{index // frames}", index % frames) for index, key in enumerate(keys)} if frames > 1 else {}
    return Run("r", None, {}, {}, keys, places, values or [index / count for index in range(count)])


def test_choice_of_images_is_what_it_says():
    run = some_run(5000)
    keys, said = choose([run], 10, "worst", 0)
    assert keys == run.keys[:10] and said == "10 of 5,000 images: the worst by SGG score of r."
    assert choose([run], 10, "best", 0)[0] == run.keys[:-11:-1]
    assert choose([run], 3, "first", 0)[0] == run.keys[:3]
    keys, said = choose([run], 10, "random", 7)
    assert keys == sorted(keys) and keys == choose([run], 10, "random", 7)[0] != choose([run], 10, "random", 8)[0]
    assert len(keys) == 10 and "random sample (seed 7)" in said
    assert choose([run], 9000, "worst", 0) == (run.keys, "All 5,000 images.")
    # frames stay with their video and in its order, however the file mixed them
    video = some_run(40, frames=8)
    video.keys.sort(key=lambda key: (int(key[1]) % 8, key))
    keys, said = choose([video], 20, "random", 1)
    videos = [video.places[key] for key in keys]
    assert videos == sorted(videos) and len({name for name, _ in videos}) == 3 and len(keys) == 20
    assert "frames" in said and "Videos are whole" in said


def test_intervals_are_those_of_the_mean_unless_the_metrics_have_their_own(tmp_path, dataset):
    folder = write_run(tmp_path / "run", [GOLD[0], "none", GOLD[2]], dataset)
    run = read_run("run", folder)
    half = 1.96 * (2 / 9 / 3) ** 0.5
    assert run.intervals["object_f1"] == pytest.approx((2 / 3 - half, 2 / 3 + half))
    assert set(run.intervals) == set(SCORES)
    metrics = json.loads((folder / "metrics.json").read_text()) | {"intervals": {"object_f1": [0.25, 0.75]}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    assert read_run("run", folder).intervals["object_f1"] == (0.25, 0.75)
    assert "[0.250, 0.750]" in build(tmp_path, folder)


def test_what_stands_behind_the_means_is_shown_where_it_is_there(tmp_path, dataset):
    folders = [write_run(tmp_path / name, GOLD, dataset) for name in ("old", "new", "newer")]
    assert 'id="predicates"' not in build(tmp_path, folders[0])
    for folder, predictions in zip(folders[1:], ([GOLD[0], "none", GOLD[2]], GOLD), strict=True):
        evaluation = Evaluation("toon")
        for row, prediction in zip(map(json.loads, open(folder / "predictions.jsonl")), predictions, strict=True):
            count = len(CODEC.recover_parsed(prediction, 96, 96)[0].relations)
            evaluation.add(row | {"prediction": prediction, "confidence": [0.9] * count})
        found = evaluation.compute(resamples=20)
        found["failure_reasons"] |= {"</td><script>alert(1)</script>": 7}
        found["predicates"][0]["predicate"] = "<b>above</b>"
        (folder / "metrics.json").write_text(json.dumps(found))
    text = build(tmp_path, *folders)
    page = Page(text)
    assert page.tags.count("script") == 3 and not page.handlers
    for name in ("recall", "predicates", "failures", "confidence"):
        assert f'id="{name}"' in text and f'href="#{name}"' in text
    # all relations are found: the image without a graph has none in its reference
    rows = re.findall(r'<th scope="row">recall, (.*?)</th>(.*?)</tr>', text)
    assert [name for name, _ in rows] == ["as written", "by confidence", "what confidence adds"] * 2
    sure = "1.000<small>[1.000, 1.000]</small>"
    none = "+0.000<small>[+0.000, +0.000]</small>"
    assert [set(re.findall("<td.*?>(.*?)</td>", cells)) for _, cells in rows] == [{sure}, {sure}, {none}] * 2
    assert re.search(r"&lt;script&gt;alert\(1\)&lt;/script&gt;</th><td>0</td><td>7</td><td>7</td>", text)
    assert re.search(r"must begin with &lt;answer&gt;</th><td>0</td><td>1</td><td>0</td>", text)
    # "above" is in one of three references and both runs find it
    row = re.search(
        r'<th scope="row">&lt;b&gt;above&lt;/b&gt;</th><td>1</td><td>(?:head|body|tail)</td>(.*?)</tr>', text
    )
    assert re.findall("<span>(.*?)</span>", row[1]) == ["1.000", "1.000"] and "best" not in row[1]
    assert text.count("calibration error") >= 2 and "calibration error 0.100" in text


def test_soft_figures_stand_beside_the_strict_ones(tmp_path, runs, capsys):
    assert "by a judge" not in build(tmp_path, *runs)
    (runs[1] / "soft.json").write_text(
        json.dumps({"soft": {"object_f1": 0.5, "relation_f1": 0.625, "sgg_score": 0.75}})
    )
    row = re.search(r"Soft, by a judge.*?relations F1</th>(.*?)</tr>", build(tmp_path, *runs), re.S)[1]
    assert re.findall("<span>(.*?)</span>", row) == ["–", "0.625"]
    assert "soft relations F1" in capsys.readouterr().out


def test_large_images_are_shown_smaller():
    noise = Image.effect_noise((1600, 800), 100).convert("RGB")
    content, kind = encode(noise)
    with Image.open(io.BytesIO(content)) as shown:
        assert kind == "jpeg" and shown.size == (960, 480)
    content, kind = encode(noise.crop((0, 0, 100, 50)))
    with Image.open(io.BytesIO(content)) as shown:
        assert kind == "png" and shown.getpixel((3, 3)) == noise.getpixel((3, 3))


def test_the_data_set_is_found_from_another_folder(tmp_path, monkeypatch):
    write_dataset(tmp_path / "work/data")
    run = write_run(tmp_path / "work/eval/sft", GOLD, "data")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    build(tmp_path, run)
    (tmp_path / "work/data").rename(elsewhere / "moved")
    with pytest.raises(SgrlError, match="made from data, which is neither here nor above .* --dataset"):
        build(tmp_path, run)
    build(tmp_path, run, "--dataset", elsewhere / "moved")


def test_curves(tmp_path, dataset):
    folder = tmp_path / "grpo"
    for step in (10, 9):
        (folder / f"checkpoint-{step}").mkdir(parents=True)
        history = [
            {"step": s, "reward": float(s), "rewards/format/mean": 0.5, "loss": 0.0} for s in range(1, step + 1)
        ]
        # A resumed run logs a step again; a diverged one logs nan.
        history += [{"step": 3, "reward": 30.0}, {"step": 4, "kl": float("nan")}, {"train_runtime": 3}]
        (folder / f"checkpoint-{step}" / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    curve = read_curve("grpo", folder)
    assert (
        curve.series["reward"][:4] == [(1, 1.0), (2, 2.0), (3, 30.0), (4, 4.0)] and len(curve.series["reward"]) == 10
    )
    assert "kl" not in curve.series
    drawn = charts.curve_charts(curve)
    Page(drawn)
    assert "mean reward" in drawn and ">format<" in drawn and "loss" not in drawn
    assert "neither reward nor loss" in charts.curve_charts(type(curve)("x", folder, {"speed": [(1, 2.0)]}))
    # the model that a run evaluated is the output folder of its training, or a checkpoint in it
    for model in (folder, folder / "checkpoint-9"):
        run = write_run(tmp_path / f"eval-{model.name}", GOLD, dataset, name=str(model))
        assert "mean reward" in build(tmp_path, run)
    assert "mean reward" not in build(tmp_path, write_run(tmp_path / "other", GOLD, dataset))


@pytest.mark.parametrize(
    "values", [[3.0], [2.0, 2.0, 2.0], [-1e-9, 1e-9], [1e12, -1e12], [float(i) for i in range(5000)]]
)
def test_charts_of_odd_series(values):
    drawn = charts.line_chart("odd", list(enumerate(values, 1)))
    Page(drawn)
    assert "nan" not in drawn and "inf" not in drawn and len(drawn) < 60_000


def test_ticks():
    assert charts.ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert charts.ticks(3.1, 4.9, 4) == [3.5, 4.0, 4.5]
    assert charts.ticks(2, 2) == [2]


def damage_metrics(run, dataset):
    (run / "metrics.json").unlink()


def damage_json(run, dataset):
    (run / "metrics.json").write_text("{")


def damage_line(run, dataset):
    path = run / "predictions.jsonl"
    path.write_text(path.read_text()[:-30])


def damage_unscored(run, dataset):
    rows = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    text = "\n".join(json.dumps({key: row[key] for key in row if key != "matched"}) for row in rows)
    (run / "predictions.jsonl").write_text(text + "\n")


def damage_empty(run, dataset):
    (run / "predictions.jsonl").write_text("")


def damage_missing(run, dataset):
    shutil.rmtree(run)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_metrics, "metrics.json does not exist; finish it with: python recipes/evaluate.py"),
        (damage_json, "metrics.json is not readable as JSON"),
        (damage_line, "predictions.jsonl, line 3 is no scored prediction"),
        (damage_unscored, "predictions.jsonl, line 1 is no scored prediction (KeyError: 'matched')"),
        (damage_empty, "predictions.jsonl is empty"),
        (damage_missing, "is not a folder"),
    ],
)
def test_damaged_runs_are_named(tmp_path, dataset, damage, message):
    run = write_run(tmp_path / "run", GOLD, dataset)
    damage(run, dataset)
    with pytest.raises(SgrlError, match=re.escape(message)):
        build(tmp_path, f"sft={run}")
    assert not (tmp_path / "page.html").exists()


def test_wrong_arguments_are_named(tmp_path, dataset):
    run = write_run(tmp_path / "run", GOLD, dataset)
    with pytest.raises(SgrlError, match="two runs have the same name"):
        build(tmp_path, run, run)
    with pytest.raises(SgrlError, match="holds no trainer_state.json"):
        build(tmp_path, run, "--curve", tmp_path)
    with pytest.raises(SgrlError, match="lacks 2 of 3 predicted images, such as '0001'"):
        build(tmp_path, run, "--dataset", write_dataset(tmp_path / "other", GRAPHS[:1]))
    with pytest.raises(SgrlError, match="--limit is 0"):
        build(tmp_path, run, "--limit", 0)
