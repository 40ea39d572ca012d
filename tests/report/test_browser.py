"""The report as a reader uses it: in a browser, from disk, with mouse, keyboard and a phone's screen."""

import io
import json
import random
import shutil

import numpy as np
import pytest
from PIL import Image

from data_prep import to_toon, toyworld
from rewards.evaluation import Evaluation
from rewards.metrics import SceneGraphMetrics
from sgrl.graph import Object, Relation, SceneGraph
from sgrl.inference.rows import DatasetRows
from sgrl.report.command import main
from sgrl.text import answer

pytestmark = pytest.mark.slow
GREEN, RED = (8, 127, 95), (204, 51, 17)
KEPT = ("dataset", "image_id", "solution", "width", "height", "video_id", "frame")
HOSTILE_LABEL = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


def perturbed(graph, rng, labels, predicates):
    """A graph with right, misplaced, mistaken, missing and made-up parts."""
    objects, relations = list(graph.objects), list(graph.relations)
    if rng.random() < 0.3:
        x1, y1, x2, y2 = objects[0].box
        objects[0] = Object(objects[0].label, (max(0, x1 - 0.7 * (x2 - x1)), y1, max(1, x2 - 0.7 * (x2 - x1)), y2))
    if rng.random() < 0.3:
        objects.append(Object(rng.choice(labels), (5, 5, 0.4 * graph.width, 0.3 * graph.height)))
        relations.append(Relation(len(objects) - 1, rng.choice(predicates), 0))
    if relations and rng.random() < 0.3:
        relations[0] = Relation(relations[0].subject, rng.choice(predicates), relations[0].object)
    if len(relations) > 1 and rng.random() < 0.3:
        relations.pop()
    return SceneGraph(tuple(objects), tuple(dict.fromkeys(relations)), graph.width, graph.height)


def write_run(folder, dataset, split, seed):
    """What evaluating a model would leave; its first answer holds no graph, its second one markup."""
    rng, rows = random.Random(seed), DatasetRows(str(dataset), split)
    evaluation, metrics = Evaluation(rows.codec), SceneGraphMetrics(rows.codec, 96, 96)
    words = [
        [rows.vocabulary.to_text(word) for word in kind]
        for kind in (rows.vocabulary.objects, rows.vocabulary.predicates)
    ]
    folder.mkdir(parents=True)
    with open(folder / "predictions.jsonl", "w") as file:
        for number in range(len(rows)):
            row = rows[number]
            truth = rows.codec.decode(row["solution"], row["width"], row["height"], tags=False)
            graph = perturbed(truth, rng, *words)
            text = answer.wrap(rows.codec.encode(graph))
            if number == 0:
                text = "A lovely picture."
            if number == 1:
                text = answer.wrap(rows.codec.encode(graph)).replace(graph.objects[0].label, json.dumps(HOSTILE_LABEL))
            kept = {
                key: row[key] for key in ("dataset", "image_id", "solution", "width", "height", "video_id", "frame")
            }
            kept |= {"prediction": text, "tokens": 30, "seconds": 0.01, "finish_reason": "stop"}
            count = len(rows.codec.recover_parsed(text, row["width"], row["height"])[0].relations)
            kept["confidence"] = [rng.random() for _ in range(count)]
            sample = (text, row["solution"], row["width"], row["height"])
            kept |= {"score": metrics.add(*sample), "matched": metrics.compare(*sample).matched}
            evaluation.add(kept)
            file.write(json.dumps({key: value for key, value in kept.items() if value is not None}) + "\n")
    (folder / "metrics.json").write_text(json.dumps(evaluation.compute(resamples=50)))
    info = {"model": folder.name, "dataset": str(dataset), "split": split, "codec": rows.codec.name}
    (folder / "run.json").write_text(json.dumps(info))
    return str(folder)


def write_own(folder, like):
    """What recipes/predict.py leaves of one's own video and image: no references, no scores."""
    (folder / "clip").mkdir(parents=True)
    text = "<answer>\nobj[2]{id,name,x1,y1,x2,y2}:\n  1,cross,5,5,40,40\n  2,circle,50,50,90,90\n"
    text += "rel[1]{subj,pred,obj}:\n  1,above,2\n</answer>"
    with open(folder / "predictions.jsonl", "w") as file:
        for number in range(4):
            Image.new("RGB", (96, 96), (200, 60 * number, 90)).save(folder / f"clip/{number}.png")
            row = {"dataset": "files", "image_id": f"clip/{number}.png", "prediction": text, "solution": None}
            row |= {"video_id": "clip", "frame": number} if number < 3 else {"prediction": ""}
            file.write(json.dumps(row | {"width": 96, "height": 96}) + "\n")
    info = {
        "model": "m",
        "dataset": str(like),
        "codec": "toon",
        "input": [str(folder / "clip")],
        "context": "generated",
    }
    (folder / "run.json").write_text(json.dumps(info))
    return str(folder)


@pytest.fixture(scope="module")
def reports(toy, tmp_path_factory):
    """`images`: a folder about two runs. `single`: one file. `video`: a folder about frames."""
    folder = tmp_path_factory.mktemp("reports")
    runs = [write_run(folder / name, toy / "data", "train", seed) for seed, name in enumerate(("first", "second"))]
    history = [{"step": step, "loss": 2 / step, "mean_token_accuracy": 0.5} for step in range(1, 31)]
    (folder / "training").mkdir()
    (folder / "training/trainer_state.json").write_text(json.dumps({"log_history": history}))
    main([*runs, "--output", str(folder / "images"), "--curve", str(folder / "training")])
    main([*runs, "--output", str(folder / "single.html"), "--images", "16", "--pick", "first"])
    world, videos = str(folder / "world"), str(folder / "videos")
    assert toyworld.main(["--layout", "pvsg", "--output", world, "--train", "4", "--test", "1"]) == 0
    assert to_toon.main(["--layout", "pvsg", "--root", world, "--output", videos]) == 0
    main([write_own(folder / "own", toy / "data"), "--output", str(folder / "mine")])
    main([write_run(folder / "frames", folder / "videos", "train", 2), "--output", str(folder / "video")])
    return {
        "images": folder / "images/index.html",
        "single": folder / "single.html",
        "video": folder / "video/index.html",
        "own": folder / "mine/index.html",
    }


@pytest.fixture(scope="module")
def browser():
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, reports):
    """Opens a report; at the end nothing may have gone wrong in it, nor come from outside."""
    pages = []

    def opened(name, width=1280, height=900, scheme="light"):
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        page.problems, page.requested = [], []
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("console", lambda message: message.type == "error" and page.problems.append(message.text))
        page.on("request", lambda request: page.requested.append(request.url))
        page.goto(reports[name].as_uri())
        page.wait_for_selector(".stage[data-shown]")
        pages.append(page)
        return page

    yield opened
    for page in pages:
        assert not page.problems
        assert all(url.startswith(("file://", "data:")) for url in page.requested)
        page.close()


def shown(page):
    """The position of the image on the stage."""
    return int(page.locator(".stage").get_attribute("data-shown"))


def comes(page, position):
    """Waits for this image to be on the stage; fails if it never is."""
    page.wait_for_selector(f'.stage[data-shown="{position}"]', timeout=10_000)


def pixels(page, selector):
    return np.asarray(Image.open(io.BytesIO(page.locator(selector).first.screenshot())).convert("RGB")).astype(int)


def has(image, colour, at_least=60):
    """Whether a screenshot holds a colour."""
    return (np.abs(image - np.array(colour)).max(axis=2) < 12).sum() >= at_least


def index_of(page):
    return json.loads(page.locator("#index").text_content())


def test_filters(open_page):
    page = open_page("images")
    items, words = (index_of(page)[name] for name in ("items", "words"))
    count = page.locator(".tools output")
    assert count.text_content() == f"{len(items)} images"
    left = words.index("left-of")
    page.select_option("[name=predicate]", str(left))
    wanted = [i for i, item in enumerate(items) if left in item["predicates"]]
    assert 0 < len(wanted) < len(items) and count.text_content() == f"{len(wanted)} of {len(items)} images"
    comes(page, wanted[0])
    assert page.locator(".thumb").count() == len(wanted)
    assert page.locator(".triplets .wanted").first.text_content().find("left-of") > 0
    page.select_option("[name=kind]", "relations")
    wanted = [i for i in wanted if items[i]["runs"][1][2]]
    assert wanted and count.text_content() == f"{len(wanted)} of {len(items)} images"
    page.select_option("[name=run]", "0")
    wanted = [i for i, item in enumerate(items) if left in item["predicates"] and item["runs"][0][2]]
    assert count.text_content() == f"{len(wanted)} of {len(items)} images"
    page.select_option("[name=predicate]", "")
    page.select_option("[name=kind]", "failed")
    comes(page, 0)
    assert "no graph could be read" in page.locator(".panel").nth(1).text_content()
    page.select_option("[name=kind]", "all")
    page.select_option("[name=sort]", "worst")
    scores = page.locator(".thumb small").all_text_contents()
    assert scores == sorted(scores) and scores[0] == "0.00" and scores[-1] == "1.00"
    comes(page, min(range(len(items)), key=lambda i: items[i]["runs"][0][0]))
    page.keyboard.press("Escape")
    page.locator("h1").click()
    page.keyboard.press("/")
    page.keyboard.type("no such thing")
    assert count.text_content() == f"0 of {len(items)} images" and page.locator(".thumb").count() == 0
    page.keyboard.press("Control+A")
    page.keyboard.type(items[-1]["id"])
    comes(page, len(items) - 1)
    assert page.locator(".thumb").count() == 1


def test_hover_shows_the_boxes_of_a_triplet_in_every_panel(open_page):
    page = open_page("images")
    items = index_of(page)["items"]
    # right in every part: all three panels hold the same
    right = next(
        i for i, item in enumerate(items) if all(run[0] == 1 for run in item["runs"]) and len(item["labels"]) > 1
    )
    page.locator(".thumb").nth(right).click()
    comes(page, right)
    triplet = page.locator(".panel").nth(2).locator(".triplets li").first
    subject, target = triplet.get_attribute("data-s"), triplet.get_attribute("data-o")
    triplet.hover()
    for number in range(3):
        panel = page.locator(".panel").nth(number)
        assert panel.locator(".picture.focused").count() == 1
        on = {box.get_attribute("data-i") for box in panel.locator(".box.on").all()}
        assert len(on) == 2 and panel.locator(".arrow.on").count() == 1
        if number == 2:
            assert on == {subject, target}
    faded = page.locator(".panel").nth(2).locator(".box:not(.on)")
    page.wait_for_timeout(200)
    assert all(float(box.evaluate("node => getComputedStyle(node).opacity")) < 0.2 for box in faded.all())
    page.locator("h1").hover()
    assert page.locator(".focused").count() == 0
    page.locator(".panel").nth(1).locator(".tag").first.hover()
    assert page.locator(".panel").nth(1).locator(".triplets li.on").count() >= 1


def test_keys_step_and_graphs_are_loaded_as_they_are_looked_at(open_page):
    page = open_page("images")
    scripts = [url for url in page.requested if url.endswith(".js")]
    assert len(scripts) == 1 and scripts[0].endswith("data/0.js")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    comes(page, 3)
    page.keyboard.press("ArrowLeft")
    comes(page, 2)
    assert page.locator(".where").text_content() == f"3 of {len(index_of(page)['items'])}"
    page.keyboard.press("b")
    assert not page.locator(".panel .box").first.is_visible()
    page.keyboard.press("b")
    assert page.locator(".boxes").get_attribute("aria-pressed") == "true"
    page.locator(".thumb").nth(40).click()
    comes(page, 40)
    scripts = [url.rpartition("/")[2] for url in page.requested if url.endswith(".js")]
    assert scripts == ["0.js", "2.js"]
    # what is typed into the filter are no keys
    page.keyboard.press("/")
    page.keyboard.type("bpt")
    assert page.locator("[name=text]").input_value() == "bpt"


def test_a_chart_shows_its_values(open_page):
    page = open_page("images")
    chart = page.locator("#training .chart").first
    before = chart.locator("output").text_content()
    chart.locator("svg").hover(position={"x": 60, "y": 60})
    step, value = chart.locator("output").text_content().removeprefix("step ").split(": ")
    assert float(value) == pytest.approx(2 / float(step), rel=1e-4) and float(step) < 5
    page.locator("h1").hover()
    assert chart.locator("output").text_content() == before
    chart.locator("svg").focus()
    position = shown(page)
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    assert chart.locator("output").text_content().startswith("step 29: ")
    assert shown(page) == position  # the chart's key, not the gallery's
    assert page.locator("#confidence .chart circle").count() > 5 and page.locator("#predicates td.share").count() > 5


def test_a_video_is_stepped_scrubbed_and_played(open_page):
    page = open_page("video")
    items = index_of(page)["items"]
    videos = list(dict.fromkeys(item["video"] for item in items))
    assert page.locator(".thumb").count() == len(videos) >= 4
    first = [i for i, item in enumerate(items) if item["video"] == videos[0]]
    assert [items[i]["frame"] for i in first] == sorted(items[i]["frame"] for i in first)
    output = page.locator(".scrub output")
    assert output.text_content().endswith(f"1 of {len(first)}") and page.locator(".scrub rect").count() == len(first)
    page.keyboard.press("ArrowRight")
    comes(page, first[1])
    assert output.text_content().endswith(f"2 of {len(first)}")
    page.locator(".scrub input").fill(str(len(first) - 1))
    comes(page, first[-1])
    page.keyboard.press("ArrowRight")  # the end of a video leads to the next
    comes(page, first[-1] + 1)
    assert videos[1] in page.locator(".stage h3").text_content()
    page.keyboard.press("Shift+ArrowRight")
    third = next(i for i, item in enumerate(items) if item["video"] == videos[2])
    comes(page, third)
    page.keyboard.press("p")
    comes(page, third + 3)
    page.keyboard.press("p")
    assert page.locator(".scrub button").get_attribute("aria-label") == "play"


def test_own_images_have_pictures_without_references(open_page):
    page = open_page("own")
    assert page.locator("#results").count() == 0 and page.locator(".panel").count() == 1
    assert page.locator(".thumb").count() == 2 and page.locator(".thumb small").count() == 0
    assert page.locator(".scrub rect").count() == 3 and page.locator(".box").count() == 2
    page.keyboard.press("Shift+ArrowRight")
    comes(page, 3)
    assert (
        not page.locator(".scrub").is_visible() and "no graph could be read" in page.locator(".panel").text_content()
    )
    page.select_option("[name=kind]", "failed")
    assert page.locator(".tools output").text_content() == "1 of 4 images"


def test_light_and_dark(open_page):
    def brightness(page):
        return pixels(page, "header").mean()

    light, dark = open_page("images"), open_page("images", scheme="dark")
    assert brightness(light) > 200 and brightness(dark) < 80
    light.click(".theme")
    assert brightness(light) < 80
    light.keyboard.press("t")
    assert brightness(light) > 200
    dark.keyboard.press("t")
    assert brightness(dark) > 200


@pytest.mark.parametrize("name", ["images", "single", "video", "own"])
def test_a_phone_shows_it_without_scrolling_sideways(open_page, name):
    page = open_page(name, width=360, height=740)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    panel = page.locator(".panel").first.bounding_box()
    assert panel["width"] > 240 and panel["x"] >= 0
    page.locator(".next").click()
    comes(page, 1)
    target = page.locator(".next").bounding_box()
    assert target["height"] >= 30 and target["width"] >= 40  # a thumb's reach


@pytest.mark.parametrize("name", ["images", "single"])
def test_pictures_show_right_and_hallucinated_boxes(open_page, name):
    page = open_page(name)
    items = index_of(page)["items"]
    facts = [item["runs"][1] for item in items]
    bad = next(i for i, fact in enumerate(facts) if fact[1] and fact[0] > 0 and i > 1)
    page.locator(".thumb").nth(bad).click()
    comes(page, bad)
    picture = pixels(page, ".panel:nth-child(3) .picture")
    assert picture.std() > 10
    assert has(picture, GREEN) and has(picture, RED)
    reference = pixels(page, ".panel:nth-child(1) .picture")
    assert has(reference, (38, 83, 189)) and not has(reference, RED)
    box = page.locator(".panel:nth-child(3) .picture").bounding_box()
    assert abs(box["width"] / box["height"] - items[bad]["width"] / items[bad]["height"]) < 0.02


@pytest.mark.parametrize("name", ["images", "single"])
def test_markup_that_a_model_wrote_stays_text(open_page, name):
    page = open_page(name)
    page.locator(".thumb").nth(1).click()
    comes(page, 1)
    assert any("<img src=x onerror" in text for text in page.locator(".panel:nth-child(2) .tag").all_text_contents())
    page.wait_for_timeout(300)
    assert page.title() == "Scene graph report"
    # even script that finds its way into the page does not run
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\">')")
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {text: 'document.title = 2'}))"
    )
    page.wait_for_timeout(300)
    assert page.title() == "Scene graph report"
    page.problems.clear()  # the browser's refusals
