"""The report: one file, nothing from outside, and nothing that a model wrote can act."""

import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from rewards.metrics import SceneGraphMetrics
from sgrl import data
from sgrl.errors import SgrlError
from sgrl.graph import Object, Relation, SceneGraph
from sgrl.report import charts
from sgrl.report.__main__ import main
from sgrl.report.gallery import data_url
from sgrl.report.runs import SCORES, read_curve, read_run
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


def write_run(folder, predictions, name="model"):
    """A folder as recipes/evaluate.py writes it."""
    metrics = SceneGraphMetrics("toon", 96, 96)
    folder.mkdir(parents=True)
    with open(folder / "predictions.jsonl", "w") as file:
        for index, (text, gold) in enumerate(zip(predictions, GOLD, strict=False)):
            row = {"dataset": "toy", "image_id": f"{index:04d}", "prediction": text, "solution": gold}
            row |= {"width": 96, "height": 96, "tokens": 30, "seconds": 0.01, "finish_reason": "stop"}
            row |= {"score": metrics.add(text, gold), "matched": metrics.matches(text, gold)}
            file.write(json.dumps(row) + "\n")
    found = metrics.compute() | {"mean_tokens": 30.0, "seconds_per_graph": 0.01, "finished": "2026-01-01"}
    (folder / "metrics.json").write_text(json.dumps(found))
    info = {"model": name, "engine": "vllm", "codec": "toon", "command": f"evaluate --model {name}", "versions": {}}
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


def build(tmp_path, dataset, *arguments):
    output = tmp_path / "page.html"
    main([*map(str, arguments), "--dataset", str(dataset), "--output", str(output)])
    return output.read_text(encoding="utf-8")


def test_page_is_whole_and_loads_nothing(tmp_path, dataset, capsys):
    half = [GOLD[0], "no graph", GOLD[2].replace("above", "inside")]
    runs = [write_run(tmp_path / "base", half), write_run(tmp_path / "sft", GOLD)]
    text = build(tmp_path, dataset, "--run", f"base={runs[0]}", "--run", f"sft={runs[1]}")
    page = Page(text)
    assert page.tags.count("script") == page.tags.count("style") == 1
    assert not page.handlers
    assert all(link.startswith(("data:image/png;base64,", "#image-")) for link in page.links)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", text)
    assert len(page.ids) == len(set(page.ids)) and "image-3" in page.ids
    # 3 images, each with the reference and two runs; one run failed on one image
    assert text.count('class="panel"') == 9 and text.count("no graph could be read") == 1
    assert text.count('data-p="inside"') == 3 + 1  # reference and both runs of image 0, and base's error in image 2
    assert "✗" in text and "✓" in text
    printed = capsys.readouterr().out
    assert re.search(r"^base .* 0\.333 ", printed, re.M) and re.search(r"^sft .* 1\.000 .* 0\.000 ", printed, re.M)


def test_hostile_answers_stay_text(tmp_path, dataset):
    run = write_run(tmp_path / "run", [HOSTILE, GOLD[1], GOLD[2]], name="</script><script>x</script>")
    curve = tmp_path / "<b>sft"
    curve.mkdir()
    (curve / "trainer_state.json").write_text(json.dumps({"log_history": [{"step": 1, "reward": 1.0, "<i>": 2}]}))
    text = build(
        tmp_path, dataset, "--run", f"<script>a={run}", "--curve", curve, "--title", "</title><script>x</script>"
    )
    page = Page(text)
    assert page.tags.count("script") == 1 and "img" not in page.tags and "b" in page.tags
    assert not page.handlers
    assert "alert(1)" not in re.sub(r"&lt;.*?&gt;", "", text)
    assert "script-src 'sha256-" in text


@pytest.mark.parametrize("boxes", [1, 500])
def test_size_of_a_card_is_bounded(tmp_path, dataset, boxes):
    rows = "\n".join(f"  {i},{'x' * 5000},1,1,50,50" for i in range(1, boxes + 1))
    relations = "\n".join(f"  {i % boxes + 1},{'y' * 5000},{(i + 1) % boxes + 1}" for i in range(400))
    answer_text = (
        f"<answer>\nobj[{boxes}]{{id,name,x1,y1,x2,y2}}:\n{rows}\nrel[400]{{subj,pred,obj}}:\n{relations}\n</answer>"
    )
    run = write_run(tmp_path / "run", [answer_text, *GOLD[1:]])
    assert len(build(tmp_path, dataset, "--run", run)) < 150_000


def test_best_figures_are_bold_and_equal_ones_too(tmp_path, dataset):
    runs = [
        write_run(tmp_path / name, GOLD[:2] + [last]) for name, last in (("a", "none"), ("b", GOLD[2]), ("c", GOLD[2]))
    ]
    text = build(tmp_path, dataset, *(word for run in runs for word in ("--run", run)))
    row = re.search(r'<th scope="row">failure rate</th>(.*?)</tr>', text).group(1)
    cells = re.findall(r'<td class="(.*?)".*?<span>(.*?)</span>', row)
    assert cells == [("", "0.333"), ("best", "0.000"), ("best", "0.000")]
    row = re.search(r'<th scope="row">tokens per graph</th>(.*?)</tr>', text).group(1)
    assert "best" not in row  # neither more nor fewer tokens are better


def test_runs_on_different_images_are_said_not_to_compare(tmp_path, dataset):
    runs = [write_run(tmp_path / "short", GOLD[:1]), write_run(tmp_path / "long", GOLD)]
    text = build(tmp_path, dataset, "--run", runs[0], "--run", runs[1])
    assert "cover different images (short 1, long 3; 1 in common)" in text
    assert text.count("<article") == 1


def test_a_frame_of_1000_is_drawn_on_the_image(tmp_path):
    """Boxes in thousandths of a wide image: the picture keeps the image's shape."""
    dataset = write_dataset(tmp_path / "wide", size=(200, 100))
    run = write_run(tmp_path / "run", GOLD)
    assert 'style="aspect-ratio:200/100"' in build(tmp_path, dataset, "--run", run)


def test_half_width_is_that_of_the_mean(tmp_path):
    run = read_run("run", write_run(tmp_path / "run", [GOLD[0], "none", GOLD[2]]))
    assert run.half_widths["object_f1"] == pytest.approx(1.96 * (2 / 9 / 3) ** 0.5)
    assert set(run.half_widths) == set(SCORES)


def test_large_images_are_embedded_smaller():
    noise = Image.effect_noise((1600, 800), 100).convert("RGB")
    buffer = io.BytesIO()
    noise.save(buffer, "PNG")
    url, width, height = data_url(buffer.getvalue())
    assert url.startswith("data:image/jpeg") and len(url) < len(buffer.getvalue()) and (width, height) == (1600, 800)
    with pytest.raises(SgrlError, match="does not open"):
        data_url(b"not an image")


def test_curves(tmp_path):
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


def damage_empty(run, dataset):
    (run / "predictions.jsonl").write_text("")


def damage_missing(run, dataset):
    shutil.rmtree(run)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_metrics, "metrics.json does not exist; finish it with: python recipes/evaluate.py"),
        (damage_json, "metrics.json is not readable as JSON"),
        (damage_line, "predictions.jsonl, line 3 is no prediction"),
        (damage_empty, "predictions.jsonl is empty"),
        (damage_missing, "is not a folder"),
    ],
)
def test_damaged_runs_are_named(tmp_path, dataset, damage, message):
    run = write_run(tmp_path / "run", GOLD)
    damage(run, dataset)
    with pytest.raises(SgrlError, match=re.escape(message)):
        build(tmp_path, dataset, "--run", f"sft={run}")
    assert not (tmp_path / "page.html").exists()


def test_wrong_arguments_are_named(tmp_path, dataset):
    run = write_run(tmp_path / "run", GOLD)
    with pytest.raises(SgrlError, match="two runs have the same name"):
        build(tmp_path, dataset, "--run", run, "--run", run)
    with pytest.raises(SgrlError, match="holds no trainer_state.json"):
        build(tmp_path, dataset, "--run", run, "--curve", tmp_path)
    with pytest.raises(SgrlError, match="lacks 2 of 3 predicted images, such as '0001'"):
        build(tmp_path, write_dataset(tmp_path / "other", GRAPHS[:1]), "--run", run)


@pytest.mark.slow
def test_the_script_runs_in_a_browser_and_injected_ones_do_not(tmp_path, dataset):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    run = write_run(tmp_path / "run", [HOSTILE, GOLD[1], GOLD[2]])
    build(tmp_path, dataset, "--run", run)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    flags += [
        "--disable-background-networking",
        "--disable-component-update",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    command = [browser, *flags, "--dump-dom", (tmp_path / "page.html").as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    assert "<title>Scene graph report</title>" in dom
    # The script filled the list of predicates from the references.
    assert '<option value="left-of">left-of</option>' in dom
