"""What all metrics have in common: they merge exactly, and commands run them by their name alone."""

import json
import pickle
import random

import numpy as np
import pytest

import rewards.metrics
from rewards import GraphScorer
from rewards.__main__ import main
from rewards.evaluation import Evaluation
from rewards.metrics import (
    METRICS,
    ActionGenomeRecall,
    Metric,
    PairScores,
    SceneGraphMetrics,
    SceneGraphRecall,
    SoftMetrics,
    VideoRecall,
    WrittenRecall,
)
from sgrl.errors import SgrlError
from sgrl.graph import Object, Relation, SceneGraph
from sgrl.text import ParsedGraph, answer, get_codec
from sgrl.tubes import BoxTube, TimedRelation, TubeObject, VideoGraph
from sgrl.vocabulary import get_vocabulary

W, H = 640, 480
AG = get_vocabulary("action_genome")
PREDICATES = ("on", "near", "looking-at", "under")


def draw_graph(rng, grouped):
    """Up to six objects and as many relations, repeated labels among them."""
    objects = [Object("person" if grouped else "cat", (0, 0, 90, 90))]
    for _ in range(rng.randint(1, 5)):
        x, y = rng.randrange(300), rng.randrange(300)
        label = rng.choice(AG.objects[1:] if grouped else ("cat", "mat", "dog"))
        objects.append(Object(label, (x, y, x + rng.randint(20, 200), y + rng.randint(20, 150))))
    relations = {}
    for _ in range(rng.randint(0, 7)):
        target = rng.randrange(1, len(objects))
        group = rng.choice(list(AG.groups)) if grouped else None
        predicate = rng.choice(AG.groups[group] if grouped else PREDICATES)
        relations[target, group] = Relation(0, predicate, target, group)
    return SceneGraph(objects, relations.values(), W, H)


def disturbed(rng, graph, grouped):
    """The text of a graph with some predicates and boxes changed; sometimes none at all."""
    if rng.random() < 0.1:
        return "nothing to see"
    objects = [
        Object(o.label, [max(0, v + rng.randint(-9, 9) * (i > 1)) for i, v in enumerate(o.box)]) for o in graph.objects
    ]
    relations = {}
    for r in graph.relations:
        names = AG.groups[r.group] if grouped else PREDICATES
        predicate = rng.choice(names) if rng.random() < 0.4 else r.predicate
        relations[r.object, r.group] = Relation(r.subject, predicate, r.object, r.group)
    return answer.wrap(
        get_codec("toon-pairs" if grouped else "toon").encode(SceneGraph(objects, relations.values(), W, H))
    )


def images(rng, grouped=False, count=60):
    """(prediction, reference) as texts."""
    codec = get_codec("toon-pairs" if grouped else "toon")
    graphs = [draw_graph(rng, grouped) for _ in range(count)]
    return [((disturbed(rng, graph, grouped), codec.encode(graph)), {}) for graph in graphs]


def read(rng):
    """(prediction, reference, perhaps confidences) as codecs read them."""
    codec, found = get_codec("toon"), []
    for (text, solution), _ in images(rng):
        graph, _ = codec.recover_parsed(text, W, H)
        confidences = [rng.random() for _ in graph.relations] if rng.random() < 0.7 else None
        found.append(((graph, codec.parse(solution, W, H, tags=False)), {"confidences": confidences}))
    return found


def detected(rng):
    """A detector's scores for the images."""
    found = []
    for (_, solution), _ in images(rng):
        graph = get_codec("toon").decode(solution, W, H, tags=False)
        n = len(graph.objects)
        pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
        scores = [[rng.random() for _ in PSG.predicates] for _ in pairs]
        labels = [o.label for o in graph.objects]
        found.append(((PairScores(labels, graph.boxes, [rng.random() for _ in labels], pairs, scores), graph), {}))
    return found


PSG = get_vocabulary("psg")


def videos(rng):
    def draw():
        tubes = [
            BoxTube([(x + t * step, 10, x + 60 + t * step, 80) if rng.random() < 0.8 else None for t in range(9)])
            for x, step in ((rng.randrange(99), rng.randrange(5)) for _ in range(4))
        ]
        objects = [TubeObject(rng.choice(("cat", "mat")), tube) for tube in tubes]
        relations = [
            TimedRelation(*(i, rng.choice(PREDICATES[:2]), j), spans=((rng.randrange(4), rng.randint(5, 9)),))
            for i, j in (rng.sample(range(4), 2) for _ in range(rng.randint(0, 5)))
        ]
        return VideoGraph(objects, relations)

    return [((draw() if rng.random() < 0.9 else None, draw()), {}) for _ in range(40)]


KINDS = {
    "strict": (lambda: SceneGraphMetrics("toon", W, H), images),
    "soft": (lambda: SoftMetrics("toon", W, H), images),
    "recall": (lambda: SceneGraphRecall("toon", W, H, training_triplets={("cat", "on", "mat")}), images),
    "recall of scores": (lambda: SceneGraphRecall(vocabulary=PSG), detected),
    "ag-recall": (lambda: ActionGenomeRecall(W, H), lambda rng: images(rng, grouped=True)),
    "video-recall": (VideoRecall, videos),
    "written-recall": (WrittenRecall, read),
}


@pytest.mark.parametrize("kind", KINDS)
def test_parts_add_up_exactly(kind):
    """In any order, over processes, and whatever the parts: bit for bit, intervals aside, which draw images by
    their place."""
    make, draw = KINDS[kind]
    rng = random.Random(kind)
    samples = draw(rng)
    whole, parts = make(), [make() for _ in range(4)]
    assert isinstance(whole, Metric) and whole.name
    for arguments, more in samples:
        whole.add(*arguments, **more)
    for arguments, more in rng.sample(samples, len(samples)):
        rng.choice(parts).add(*arguments, **more)
    first, *others = pickle.loads(pickle.dumps(parts))
    for other in others:
        first.merge(other)
    found, expected = first.compute(), whole.compute()
    assert found.pop("intervals", None) is None or expected.pop("intervals")
    assert found == expected
    assert any(0 < value < 1 for value in expected.values() if isinstance(value, float)) or kind == "written-recall"
    assert first.per_predicate() == whole.per_predicate() and whole.per_predicate()
    with pytest.raises(SgrlError, match="cannot be added to"):
        whole.merge(Toy())


def test_other_settings_are_not_added():
    with pytest.raises(SgrlError, match="different settings cannot be added: codec is 'json' there, 'toon' here"):
        SceneGraphMetrics("toon", W, H).merge(SceneGraphMetrics("json", W, H))
    with pytest.raises(SgrlError, match="different settings"):
        SoftMetrics("toon", W, H).merge(SoftMetrics("toon", W, H, scene=True))


def test_parts_of_an_evaluation_add_up():
    rng = random.Random(0)
    rows = [
        {"prediction": text, "solution": solution, "width": W, "height": H, "tokens": 7, "seconds": rng.random()}
        | {"confidence": [rng.random() for _ in range(rng.randint(0, 4))]}
        for (text, solution), _ in images(rng)
    ]
    rows[3]["prediction"] = None
    whole, first, second = (Evaluation("toon", frequency={"on": 3, "near": 2, "under": 1}) for _ in range(3))
    whole.add_all(rows)
    first.add_all(rows[:25])
    second.add_all(rows[25:])
    first.merge(pickle.loads(pickle.dumps(second)))
    assert first.compute(resamples=50) == whole.compute(resamples=50)
    assert whole.compute(resamples=50)["calibration"] and whole.metrics.per_predicate()["on"]["group"] == "head"


class Toy(Metric):
    """How many relations predictions have for each one of the references."""

    name = "toy"

    def __init__(self):
        self.said = self.wanted = 0

    def add(self, prediction, reference, width=None, height=None):
        self.said += (prediction or "").count("on")
        self.wanted += len(reference.relations)
        return {}

    def merge(self, other):
        self.check_same(other)
        self.said, self.wanted = self.said + other.said, self.wanted + other.wanted

    def compute(self):
        return {"said": self.said, "said_of_wanted@all": self.said / max(1, self.wanted)}

    def per_predicate(self):
        return {"on": {"said": self.said}}


def test_a_metric_of_ones_own_is_a_line_in_a_table(monkeypatch, tmp_path, capsys):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    graph = SceneGraph([Object("cat", (0, 0, 9, 9)), Object("mat", (0, 5, 9, 9))], [Relation(0, "on", 1)], W, H)
    text = get_codec("toon").encode(graph)
    rows = [{"image_id": str(i), "solution": text, "width": W, "height": H} for i in range(4)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "test.parquet")
    said = [{"image_id": str(i), "prediction": answer.wrap(text)} for i in range(3)]
    (tmp_path / "said.jsonl").write_text("".join(json.dumps(row) + "\n" for row in said))
    monkeypatch.setitem(rewards.metrics.METRICS, "toy", Toy)
    words = ["score", tmp_path / "said.jsonl", "--reference", tmp_path / "test.parquet", "--metric", "toy"]
    assert main([*map(str, words), "--output", str(tmp_path / "found.json")]) == 0
    found, printed = json.loads((tmp_path / "found.json").read_text()), capsys.readouterr().out
    assert found["metric"] == "toy" and found["said"] == 3 and found["said_of_wanted@all"] == 0.75
    assert found["per_predicate"] == {"on": {"said": 3}} and found["input"]["missing"]["count"] == 1
    assert "said 3" in printed and "0.7500" in printed and "Protocol: default." in printed
    assert main([*map(str, words), "--protocol", "published"]) == 2


def test_names_are_those_of_the_table():
    assert all(name == metric.name and metric.protocols[0] == "default" for name, metric in METRICS.items())


SCORES = PairScores(["cat"], [(0, 0, 9, 9)], [1.0], [], [])
STRANGE = (7, object(), {1}, np.zeros(3), VideoGraph([], []))


@pytest.mark.parametrize("kind", ["scorer", *KINDS])
def test_what_is_not_taken_is_a_type_error_that_names_it(kind):
    """In the place of the prediction and of the reference; and nothing is counted."""
    metric = None if kind == "scorer" else KINDS[kind][0]()
    add = GraphScorer("toon", W, H) if metric is None else metric.add
    graph = SceneGraph([Object("cat", (0, 0, 9, 9))], [], W, H)
    good = {
        "recall of scores": graph,
        "video-recall": VideoGraph([], []),
        "written-recall": ParsedGraph(["cat"], [(0, 0, 9, 9)], []),
        "ag-recall": get_codec("toon-pairs").encode(SceneGraph([Object("person", (0, 0, 9, 9))], [], W, H)),
    }.get(kind, get_codec("toon").encode(graph))
    ranks = metric is not None and metric.ranks and kind != "written-recall"
    for thing in STRANGE:
        if kind == "video-recall" and isinstance(thing, VideoGraph):
            continue
        name = type(thing).__name__
        for arguments in ((thing, good), (good, thing)):
            with pytest.raises(TypeError, match=f"found {name}") as caught:
                add(*arguments)
            assert isinstance(caught.value, SgrlError)
            assert "PairScores, ScoredGraph" in str(caught.value) or not ranks or arguments[1] is thing
    if not ranks:
        with pytest.raises(TypeError, match="found PairScores"):
            add(SCORES, good)
    with pytest.raises(TypeError, match="found PairScores"):
        add(good, SCORES)
    assert metric is None or metric.compute() == KINDS[kind][0]().compute()


def test_published_texts_alone():
    with pytest.raises(TypeError, match="reads texts, found PairScores"):
        ActionGenomeRecall(W, H, protocol="published").add(SCORES, SceneGraph([], [], W, H))
