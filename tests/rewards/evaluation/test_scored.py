"""Scored predictions against references: known answers through files, every metric by command, and bad input."""

import json
from dataclasses import replace

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from rewards.__main__ import main
from rewards.metrics import ActionGenomeRecall, SceneGraphMetrics, SceneGraphRecall, VideoRecall
from sgrl import data
from sgrl.errors import SgrlError
from sgrl.files import fingerprint
from sgrl.graph import Object, Relation, SceneGraph
from sgrl.scores import ScoredGraph, ScoreWriter, from_text, read_scores
from sgrl.text import ParsedGraph, answer, get_codec
from sgrl.tubes import BoxTube, MaskTube, TimedRelation, TubeObject, VideoGraph
from sgrl.vocabulary import Vocabulary, get_vocabulary

AG = get_vocabulary("action_genome")
WORDS = Vocabulary("small", ("cat", "mat", "hat"), ("on", "near", "under"))
W, H = 640, 480


def through_files(folder, graphs, vocabulary):
    """The same, written and read."""
    with ScoreWriter(folder, vocabulary, dataset="toy") as writer:
        for graph in graphs:
            writer.add(graph)
    return list(read_scores(folder))


def scene(number, predicate=None):
    """A cat on, near or under a mat, and a hat near it; on every fifth image nothing else than the cat."""
    objects = [Object("cat", (number, 0, 100 + number, 100)), Object("mat", (0, 80, 200, 120))]
    if number % 5 == 4:
        return SceneGraph(objects[:1], [], W, H)
    objects.append(Object("hat", (300, 300, 400, 400)))
    relations = [Relation(0, predicate or WORDS.predicates[number % 3], 1), Relation(2, "near", 0)]
    return SceneGraph(objects, relations, W, H)


def write_rows(folder, rows, vocabulary=WORDS, codec="toon", split="test"):
    """A data set of graphs with ids, as the converter writes the columns that evaluation needs."""
    metadata = {"codec": codec, "coords": "pixel", "vocabulary": vocabulary.to_json()}
    full = [
        {"solution": get_codec(codec).encode(graph), "width": W, "height": H, "dataset": "toy", **names}
        for graph, names in rows
    ]
    folder.mkdir(exist_ok=True)
    table = pyarrow.Table.from_pylist(full).replace_schema_metadata({b"sgrl": json.dumps(metadata)})
    pyarrow.parquet.write_table(table, folder / f"{split}-0.parquet")
    return folder


@pytest.fixture
def references(tmp_path):
    return write_rows(tmp_path / "data", [(scene(n), {"image_id": f"i{n}"}) for n in range(30)])


def detected(number, seed=0, **changes):
    """What a detector of middling quality says of a scene: all pairs, with the right predicate often the surest."""
    graph = scene(number)
    generator = np.random.default_rng([seed, number])
    n = len(graph.objects)
    pairs = [(s, o) for s in range(n) for o in range(n) if s != o]
    table = generator.uniform(0, 0.6, (len(pairs), 3))
    for r in graph.relations:
        table[pairs.index((r.subject, r.object)), WORDS.predicates.index(r.predicate)] += generator.uniform(0, 0.4)
    values = {
        **{"image_id": f"i{number}", "dataset": "toy", "width": W, "height": H, "boxes": graph.boxes},
        **{"labels": [o.label for o in graph.objects], "scores": generator.uniform(0.5, 1, n)},
        **{"pairs": pairs, "predicate_scores": table},
    }
    return ScoredGraph(**values | changes)


@pytest.fixture
def score(tmp_path, references, capsys):
    """`score(graphs, *arguments)`: exit status, figures, what was printed. graphs: scored ones, or a path."""

    def run(graphs, *arguments, reference=references, vocabulary=WORDS, **options):
        folder = graphs
        if isinstance(graphs, list):
            folder = tmp_path / "scores"
            with ScoreWriter(folder, vocabulary, **{"dataset": "toy", **options}) as writer:
                for graph in graphs:
                    writer.add(graph)
        output = tmp_path / "metrics.json"
        output.unlink(missing_ok=True)
        words = ["score", folder, "--reference", reference, "--output", output, *arguments]
        status = main(list(map(str, words)))
        printed = capsys.readouterr()
        found = json.loads(output.read_text()) if output.exists() else None
        return status, found, printed.out + printed.err

    return run


ALL = [detected(n) for n in range(30)]


def test_figures_are_those_of_the_metric(score):
    status, found, printed = score(ALL, "--metrics", "recall")
    counted = SceneGraphRecall(vocabulary=WORDS, training_triplets=None)
    for n, graph in enumerate(ALL):
        counted.add(graph, scene(n))
    assert status == 0
    figures = found["rankings"]["recall"]
    assert {name: figures[name] for name in counted.compute()} == counted.compute()
    assert figures["per_predicate"] == counted.per_predicate()
    low, high = figures["intervals"]["mean_recall@20"]
    assert low < figures["mean_recall@20"] <= high <= 1
    assert "jackknife over 30 images in 30 groups" in printed and "mean_recall" in printed
    assert score(ALL, "--metric", "recall")[1]["rankings"] == found["rankings"]


def test_texts_and_scores_meet_in_one_table(score, tmp_path, references):
    """Texts through --metrics give the figures of --metric by confidence; against themselves as scores nothing."""
    encode = get_codec("toon").encode
    rows = []
    for n in range(30):
        graph = scene(n, "near" if n % 4 == 0 else None)
        text = answer.wrap(encode(graph)) if n % 7 else "no graph"
        sure = [0.25 + 0.5 * (n % 2), 0.5][: len(graph.relations)]
        rows.append({"image_id": f"i{n}", "prediction": text, "confidence": sure, "width": W, "height": H})
    path = tmp_path / "predictions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, one, _ = score(path, "--metric", "recall")
    _, several, _ = score(path, "--metrics", "recall")
    expected = one["by_confidence"]
    assert {name: several["rankings"]["recall"][name] for name in expected} == expected

    names = ("image_id", "prediction", "confidence")
    graphs = [
        from_text(text, "toon", W, H, confidences=sure, image_id=image, dataset="toy")
        for image, text, sure in ([row[name] for name in names] for row in rows)
    ]
    _, found, printed = score(graphs, "--metrics", "recall", "--against", path)
    assert found["rankings"] == several["rankings"]
    assert set(map(tuple, found["differences"]["recall"].values())) == {(0.0, 0.0, 0.0)}
    assert f"Difference to {path}, paired:" in printed


def test_differences_are_paired(score, tmp_path):
    """Both differ on the same images: the interval of the difference is narrower than those of the two allow."""
    other = tmp_path / "other"
    through_files(other, [detected(n, seed=1) if n % 3 else detected(n) for n in range(30)], WORDS)
    _, found, _ = score(ALL, "--metrics", "recall", "--against", other)
    _, theirs, _ = score(other, "--metrics", "recall")
    name = "recall@20"
    name = max(found["differences"]["recall"], key=lambda key: abs(found["differences"]["recall"][key][0]))
    difference, low, high = found["differences"]["recall"][name]
    ours = found["rankings"]["recall"]
    assert difference == ours[name] - theirs["rankings"]["recall"][name] != 0
    widths = [b - a for a, b in (ours["intervals"][name], theirs["rankings"]["recall"]["intervals"][name])]
    assert low < difference < high and high - low < sum(widths)


def video_rows(count=6, frames=4):
    rows = []
    for video in range(count):
        for frame in range(frames):
            names = {"image_id": f"v{video}/{frame}", "video_id": f"v{video}", "frame": 10 * frame}
            rows.append((scene(5 * video + min(frame, 1)), names))
    return rows


def whole_videos(rows, tube=BoxTube):
    """Each video as one row: tubes of its objects, and spans of its relations, right in every frame."""
    graphs = []
    for video in dict.fromkeys(names["video_id"] for _, names in rows):
        scenes = [graph for graph, names in rows if names["video_id"] == video]
        boxes = [[g.objects[i].box for g in scenes] for i in range(3)]
        held = {}
        for t, g in enumerate(scenes):
            for r in g.relations:
                held.setdefault((r.subject, r.predicate, r.object), []).append(t)
        spans = [[(min(ts), max(ts))] for ts in held.values()]
        names = {"dataset": "toy", "video_id": video, "width": W, "height": H, "frames": [0, 10, 20, 30], "fps": 30}
        tubes = [BoxTube(one) for one in boxes] if tube is BoxTube else [masked(one) for one in boxes]
        graphs.append(
            ScoredGraph(
                **names, labels=["cat", "mat", "hat"], tubes=tubes, pairs=[(s, o) for s, _, o in held],
                predicates=[p for _, p, _ in held], relation_scores=[0.9] * len(held), spans=spans,
            )
        )  # fmt: skip
    return graphs


def masked(boxes):
    """The boxes as masks."""
    masks = np.zeros((len(boxes), H, W), dtype=bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[int(y1) : int(y2), int(x1) : int(x2)] = True
    return MaskTube.from_masks(masks)


@pytest.mark.parametrize("tube", [BoxTube, MaskTube])
def test_whole_videos_in_every_metric(score, tmp_path, tube):
    rows = video_rows()
    reference = write_rows(tmp_path / "videos", rows)
    graphs = whole_videos(rows, tube)
    status, found, printed = score(graphs, "--metrics", "recall,video-recall", reference=reference)
    assert status == 0 and "jackknife over 6 videos in 6 groups" in printed
    assert found["rankings"]["video-recall"]["recall@20"] == found["rankings"]["recall"]["recall@20"] == 1
    assert found["input"]["missing"]["count"] == 0

    _, found, _ = score(graphs[:3], "--metrics", "recall,video-recall", reference=reference)
    assert found["rankings"]["video-recall"]["recall@20"] == found["rankings"]["recall"]["recall@20"] == 0.5
    assert found["input"]["missing"]["count"] == 12
    low, high = found["rankings"]["recall"]["intervals"]["recall@20"]
    assert low == 0 and high == 1  # six videos, three of them without a prediction


def test_annotated_videos_are_references_with_their_masks(score, tmp_path):
    """Truth through files finds everything; masks count as masks where both have them, else as boxes."""
    rows = video_rows()
    truth = [replace(graph, relation_scores=None) for graph in whole_videos(rows, MaskTube)]
    through_files(tmp_path / "truth", truth, WORDS)
    words = ("--metrics", "recall,video-recall")
    for tube in (MaskTube, BoxTube):
        _, found, _ = score(whole_videos(rows, tube), *words, reference=tmp_path / "truth")
        assert found["rankings"]["video-recall"]["recall@20"] == found["rankings"]["recall"]["recall@20"] == 1
        assert found["rankings"]["recall"]["images"] == 24 and found["input"]["missing"]["count"] == 0
    # half of each mask, the same boxes around it: only masks tell
    thin = []
    for graph in whole_videos(rows, MaskTube):
        tubes = []
        for tube in graph.tubes:
            masks = np.zeros((4, H, W), dtype=bool)
            for mask, (x1, y1, x2, y2) in zip(masks, tube.boxes().boxes.astype(int), strict=True):
                mask[y1:y2, x1 : x1 + (x2 - x1) // 4] = mask[y1 : y1 + 1, x1:x2] = True
            tubes.append(MaskTube.from_masks(masks))
        thin.append(replace(graph, tubes=tubes))
    _, found, _ = score(thin, *words, reference=tmp_path / "truth")
    assert found["rankings"]["video-recall"]["recall@20"] == 0 and found["rankings"]["recall"]["recall@20"] == 1

    through_files(tmp_path / "dense", [detected(0)], WORDS)
    status, _, printed = score(ALL, "--metrics", "recall", reference=tmp_path / "dense")
    assert status == 1 and "found scores of all predicates; expected predicates: a reference names" in printed


def test_frames_of_videos_are_linked_as_texts_are(score, tmp_path):
    rows = video_rows()
    reference = write_rows(tmp_path / "videos", rows)
    path = tmp_path / "predictions.jsonl"
    with open(path, "w") as file:
        for graph, names in rows:
            file.write(json.dumps(names | {"prediction": answer.wrap(get_codec("toon").encode(graph))}) + "\n")
    graphs = [from_text(get_codec("toon").encode(g), "toon", W, H, dataset="toy", **names) for g, names in rows]
    _, texts, _ = score(path, "--metric", "video-recall", reference=reference)
    _, scores, _ = score(graphs, "--metrics", "video-recall", reference=reference)
    assert texts["recall@20"] == 1
    assert {name: texts[name] for name in scores["rankings"]["video-recall"] if name in texts} | {
        "intervals": scores["rankings"]["video-recall"]["intervals"]
    } == scores["rankings"]["video-recall"]
    detectors = [detected(0, boxes=g.boxes, image_id=n["image_id"]) for g, n in rows if len(g.objects) == 3]
    assert score(detectors, "--metrics", "video-recall", reference=reference)[0] == 0


def test_action_genome_by_command(score, tmp_path):
    objects = [Object("person", (0, 0, 50, 90)), Object("cup/glass/bottle", (20, 20, 40, 40))]
    labels = (("unsure", "attention"), ("in_front_of", "spatial"), ("holding", "contacting"))
    graph = SceneGraph(objects, [Relation(0, name, 1, group) for name, group in labels], W, H)
    rows = [(graph, {"image_id": f"v/{n}", "video_id": f"v{n // 3}", "frame": n}) for n in range(9)]
    reference = write_rows(tmp_path / "ag", rows, AG, "toon-pairs")
    table = np.zeros((1, 26))
    for name, _ in labels:
        table[0, AG.predicates.index(name)] = 0.9
    base = {"dataset": "toy", "width": W, "height": H, "labels": ["person", "cup/glass/bottle"], "pairs": [(0, 1)]}
    base |= {"boxes": graph.boxes, "predicate_scores": table}
    graphs = [ScoredGraph(image_id=names["image_id"], **base) for _, names in rows]
    words = ("--metrics", "ag-recall,recall,video-recall", "--constraint", "no")
    _, found, _ = score(graphs, *words, reference=reference, vocabulary=AG)
    assert found["rankings"]["ag-recall"]["recall@20"] == found["rankings"]["video-recall"]["recall@20"] == 1
    recall = found["rankings"]["recall"]  # under its graph constraint a pair has one predicate
    assert recall["ng_recall@20"] == 1 and recall["recall@20"] == pytest.approx(1 / 3)
    assert recall["predicates"] == 26 and set(recall["per_predicate"]) == set(AG.predicates)
    listed = base | {"predicate_scores": None, "predicates": ["holding"]}
    graphs = [ScoredGraph(image_id=names["image_id"], **listed, relation_scores=[0.5]) for _, names in rows]
    graphs[0] = ScoredGraph(image_id="v/0", **base | {"predicate_scores": None, "pairs": (), "predicates": ()})
    _, found, _ = score(graphs, *words, reference=reference, vocabulary=AG)
    assert found["rankings"]["ag-recall"]["recall@20"] == pytest.approx(8 / 27)


def test_boxes_are_those_of_the_image_that_was_seen(score):
    """A detector saw images of half the size; its boxes are led to the references' size."""
    half = [detected(n, width=W // 2, height=H // 2, boxes=scene(n).boxes / 2) for n in range(30)]
    assert score(half, "--metrics", "recall")[1]["rankings"] == score(ALL, "--metrics", "recall")[1]["rankings"]


def test_bad_rows_are_counted_and_named(score, tmp_path):
    graphs = [detected(0), detected(0, seed=1), detected(2), detected(3), detected(1, image_id="nobody's")]
    folder = tmp_path / "scores"
    through_files(folder, graphs, WORDS)
    path = folder / "scores.parquet"
    table = pyarrow.parquet.read_table(path)
    rows = table.to_pylist()
    rows[2]["scores"][1] = float("nan")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, table.schema), path)
    status, found, printed = score(folder, "--metrics", "recall")
    counts = {name: found["input"][name]["count"] for name in ("missing", "unknown", "duplicates", "damaged")}
    assert status == 0 and counts == {"missing": 28, "unknown": 1, "duplicates": 1, "damaged": 1}
    assert "scores.parquet, row 2: image 'i2', scores: found nan at 1" in printed
    assert found["rankings"]["recall"]["images"] == 30 and found["rankings"]["recall"]["failures"] == 28
    status, found, printed = score(folder, "--metrics", "recall", "--strict")
    assert status == 1 and found is None and "--strict allows none" in printed


@pytest.mark.parametrize(
    "words, message",
    [
        ((), "the metric 'strict' counts texts; scored predictions are ranked: --metrics recall"),
        (("--metrics", "recal"), "--metrics has 'recal'; did you mean 'recall'?"),
        (("--metrics", "recall", "--protocol", "sttran"), "--metric recall has no protocol 'sttran'"),
        (("--metrics", "video-recall"), "the data set has no videos"),
    ],
)
def test_what_cannot_be_asked(score, words, message):
    status, found, printed = score(ALL, *words)
    assert status == 2 and found is None and message in printed and len(printed.strip().splitlines()) == 1


def test_another_vocabulary_or_data_set_is_refused(score, references):
    other = Vocabulary("other", ("cat", "mat", "hat"), ("on", "near", "over"))
    status, _, printed = score(ALL, "--metrics", "recall", vocabulary=other)
    assert status == 1 and "only the scores have 'over'; score it with" in printed
    spelt = Vocabulary("small", ("mat", "hat", "CAT"), ("On", "near", "under"))
    status, found, _ = score([detected(0, labels=["CAT", "mat", "hat"])], "--metrics", "recall", vocabulary=spelt)
    assert status == 0 and found["rankings"]["recall"]["failures"] == 29
    status, _, printed = score([detected(0, image_id="x")], "--metrics", "recall")
    assert status == 1 and "not one of 1 scored predictions is for an image or video of" in printed
    known = fingerprint(data.files(references, "test"))
    assert "Note: made from" not in score(ALL, "--metrics", "recall", fingerprint=known)[2]
    status, _, printed = score(ALL, "--metrics", "recall", fingerprint="other")
    assert status == 0 and "Note: made from another data set than the references" in printed
    status, _, printed = score(ALL, "--metrics", "recall", "--strict", fingerprint="other")
    assert status == 1 and "--strict does not allow it" in printed


def test_metrics_say_what_they_take():
    whole = whole_videos(video_rows(1))[0]
    for counted in (SceneGraphRecall(vocabulary=WORDS), ActionGenomeRecall()):
        with pytest.raises(SgrlError, match="video 'v0', tubes: found a whole video; expected an image"):
            counted.add(whole, ParsedGraph([], [], []))
    with pytest.raises(TypeError, match="expected a text, found ScoredGraph"):
        SceneGraphMetrics("toon", W, H).add(detected(0), scene(0))
    truth = VideoGraph(
        [TubeObject("cat", whole.tubes[0]), TubeObject("mat", whole.tubes[1])], [TimedRelation(0, "on", 1)]
    )
    assert VideoRecall().add(whole, truth)["relations_reference"] == 1
    with pytest.raises(SgrlError, match="give vocabulary="):
        VideoRecall().add(
            ScoredGraph(video_id="v", width=9, height=9, labels=["cat"] * 2, tubes=[BoxTube([None])] * 2,
                        pairs=[(0, 1)], predicate_scores=[[1.0]]), truth)  # fmt: skip
