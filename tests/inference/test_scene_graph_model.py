"""Three lines from an image to a graph: whatever an image is given as, its boxes lie on its objects."""

import base64
import functools
import http.server
import io
import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sgrl
from sgrl.errors import SgrlError
from sgrl.inference import SceneGraphModel, SceneGraphStream
from sgrl.inference import scene_graph_model as module
from sgrl.inference.engine import Generation
from sgrl.inference.given import WrongImage, as_image
from sgrl.models.vlm.chat import RefusedPrompt
from sgrl.prompts import split_previous
from sgrl.task import Task
from sgrl.text import answer
from sgrl.vocabulary import Vocabulary

SIZE = (1920, 1080)
BOXES = {"circle": (300, 200, 700, 640), "square": (1200, 100, 1500, 1000)}
COLOURS = {"circle": (250, 20, 20), "square": (20, 20, 250)}  # red and blue: the other way round in BGR
TOY = Vocabulary("toy", tuple(BOXES), ("left of",))
SHORT = Task(TOY, prompt="short", coordinates="pixel", size=(640, 480))


@pytest.fixture(scope="module")
def pixels():
    """A photograph of two things, (height, width, 3)."""
    found = np.full((SIZE[1], SIZE[0], 3), 200, np.uint8)
    for name, (x1, y1, x2, y2) in BOXES.items():
        found[y1:y2, x1:x2] = COLOURS[name]
    return found


@pytest.fixture(scope="module")
def file(pixels, tmp_path_factory):
    path = tmp_path_factory.mktemp("photograph") / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


class Looking:
    """Writes what it sees: the box of each colour, in pixels of what it is shown or in bins of it."""

    name, batch_size, model = "looking", 2, "m"

    def __init__(self, bins=None, y_first=False):
        self.bins, self.y_first = bins, y_first
        self.sizes, self.prompts, self.closed = [], [], False

    def generate(self, images, prompts, grammars=None):
        if any(image.size == (3, 3) for image in images):
            raise RefusedPrompt("too small")
        self.sizes += [image.size for image in images]
        self.prompts += [prompt[-1]["content"] for prompt in prompts]
        return [self._said(self._written(image)) for image in images]

    @staticmethod
    def _said(text):
        return Generation(text, len(text), 0.1, "stop", 5, tuple(text), (-0.01,) * len(text))

    def _written(self, image):
        shown, rows = np.asarray(image).astype(np.int16), []
        for i, (name, colour) in enumerate(COLOURS.items(), 1):
            ys, xs = np.nonzero(np.abs(shown - colour).sum(axis=2) < 90)
            if len(xs):
                box = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
                if self.bins:
                    box = [round(v * self.bins / side) for v, side in zip(box, 2 * image.size, strict=True)]
                if self.y_first:
                    box = [box[i] for i in (1, 0, 3, 2)]
                rows.append(f"\n  {i},{name},{','.join(map(str, box))}")
        names = "y1,x1,y2,x2" if self.y_first else "x1,y1,x2,y2"
        related = "\nrel[1]{subj,pred,obj}:\n  1,left-of,2" if len(rows) == 2 else "\nrel[0]{subj,pred,obj}:"
        return answer.wrap(f"obj[{len(rows)}]{{id,name,{names}}}:{''.join(rows)}{related}")

    def close(self):
        self.closed = True


def lie_on_their_objects(graph, pixel):
    """pixel: of the photograph, for one unit of the coordinates that the model wrote. It may be a smaller print."""
    smaller = SIZE[0] / graph.width
    assert graph.height * smaller == SIZE[1] and [o.label for o in graph.objects] == list(BOXES)
    for o in graph.objects:
        assert [v * smaller for v in o.box] == pytest.approx(BOXES[o.label], abs=pixel + smaller)
    return True


KINDS = {
    "one size": (SHORT, Looking, (640, 480), 3),
    "a budget": (Task(TOY, coordinates="pixel", pixels=(1, 96 * 96)), Looking, (128, 72), 15),
    "thousandths": (Task(TOY, coordinates="norm1000"), functools.partial(Looking, 1000), SIZE, 2),
    "y first": (Task(TOY, coordinates="norm1000-yx"), functools.partial(Looking, 1000, True), SIZE, 2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_lie_on_the_objects_of_a_photograph(kind, file):
    task, looking, shown, pixel = KINDS[kind]
    engine = looking()
    found = SceneGraphModel(engine, task)(file)
    assert engine.sizes == [shown] and lie_on_their_objects(found.graph, pixel)
    (relation,) = found.graph.relations
    assert (relation.subject, relation.predicate, relation.object) == (0, "left-of", 1)
    assert 0.8 < relation.score < 1 and [relation.score] == list(found.confidence)
    assert found.text == engine._written(Image.open(file).resize(shown, Image.Resampling.BILINEAR))
    assert "obj[2]" in found.answer and found.error is None and found.tracks is None
    assert found.to_dict()["objects"][0]["label"] == "circle" and json.loads(found.to_json()) == found.to_dict()
    assert "<svg" in found._repr_html_() and found.draw(file).width > 0


def test_a_real_engine_begins_with_the_opening_and_its_boxes_lie_where_it_wrote_them(toy, file):
    """The tiny model of random weights is made to begin with a graph of what it is shown in 96 x 54 pixels."""
    lines = [
        f"\n  {i},{name},{','.join(str(round(v / 20)) for v in box)}" for i, (name, box) in enumerate(BOXES.items(), 1)
    ]
    opening = (
        f"<answer>\nobj[2]{{id,name,x1,y1,x2,y2}}:{''.join(lines)}\nrel[1]{{subj,pred,obj}}:\n  1,left-of,2\n</answer>"
    )
    task = Task(TOY, prompt="short", coordinates="pixel", size=(96, 54), opening=opening)
    with SceneGraphModel.from_pretrained(toy / "model", "transformers", task, max_new_tokens=2) as model:
        found = model(file)
    assert found.text.startswith(opening) and found.tokens <= 2 and lie_on_their_objects(found.graph, 10)


def server_of(folder):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = lambda *_: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def test_whatever_an_image_is_given_as(pixels, tmp_path):
    torch = pytest.importorskip("torch")
    model = SceneGraphModel(Looking(), replace(SHORT, size=(240, 135)))
    pixels = pixels[::4, ::4].copy()
    file = tmp_path / "photo.png"
    Image.fromarray(pixels).save(file)
    floats = pixels.astype(np.float32) / 255
    alpha = np.concatenate([pixels, np.full((*pixels.shape[:2], 1), 255, np.uint8)], axis=2)
    tensor = torch.from_numpy(pixels)
    server = server_of(file.parent)
    try:
        given = [
            *(str(file), file, file.read_bytes(), io.BytesIO(file.read_bytes()), file.as_uri()),
            f"http://127.0.0.1:{server.server_port}/photo.png",
            *(Image.fromarray(pixels), Image.fromarray(alpha)),
            *(pixels, floats, floats.astype(np.float64), floats.astype(np.float16), alpha, pixels.transpose(2, 0, 1)),
            *(pixels[:, ::-1].copy()[:, ::-1], np.asfortranarray(pixels)),
            *(tensor, tensor.permute(2, 0, 1), tensor.permute(2, 0, 1) / 255, (tensor / 255).requires_grad_()),
        ]
        for one in given:
            assert lie_on_their_objects(model(one).graph, 8)
        together = model(given)
        assert len(together) == len(given) and all(lie_on_their_objects(one.graph, 8) for one in together)
        with pytest.raises(SgrlError, match=r"nothing.png cannot be fetched: .*404"):
            model(f"http://127.0.0.1:{server.server_port}/nothing.png?key=secret")
    finally:
        server.shutdown()
        server.server_close()
    blue_first = pixels[:, :, ::-1]
    assert lie_on_their_objects(model(blue_first, bgr=True).graph, 8)
    assert lie_on_their_objects(model(torch.from_numpy(blue_first.copy()).permute(2, 0, 1), bgr=True).graph, 8)
    assert model(blue_first).graph.objects[0].box[0] > 250  # the colours were the other way round
    assert np.array_equal(np.asarray(as_image(pixels[:, :, 0])), np.repeat(pixels[:, :, :1], 3, axis=2))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "an image is a NoneType; expected a path, bytes, a URL, a PIL image, a numpy array or a torch tensor"),
        ({"a": 1}, "an image is a dict"),
        (5, "an image is a int"),
        (np.zeros((4, 4, 3), np.int32), "holds int32; expected uint8 from 0 to 255 or floating point from 0 to 1"),
        (np.zeros((4, 4, 3), np.uint16), "holds uint16"),
        (np.zeros((4, 4, 3), bool), "holds bool"),
        (np.full((4, 4, 3), 255.0), "float64 from 255 to 255; floating point must be from 0 to 1 .divide by 255"),
        (np.full((4, 4, 3), -2.0, np.float32), "float32 from -2 to -2"),
        (np.full((4, 4, 3), np.nan), "from nan to nan"),
        (np.zeros((2, 4, 4, 3), np.uint8), "is 2 x 4 x 4 x 3: a batch; give a list of its images"),
        (np.zeros((5, 4, 2), np.uint8), "is 5 x 4 x 2; expected 1, 3 or 4 channels on the first or the last axis"),
        (np.zeros(4, np.uint8), "is 4; expected height x width x 3 or 3 x height x width"),
        (np.zeros((0, 4, 3), np.uint8), "is 0 x 4 x 3; expected height"),
        (np.array("x.png", object), "is a number; expected"),
        ("ftp://somewhere/a.png", "begins with ftp:, expected https:, http: or file:"),
    ],
)
def test_what_is_no_image_is_one_line_and_ends_a_list(given, said):
    model = SceneGraphModel(Looking(), SHORT)
    for one in (given, [Image.new("RGB", (4, 4)), given]):
        with pytest.raises(WrongImage, match=said) as error:
            model(one)
        assert "\n" not in str(error.value)


def test_the_order_of_colours_is_for_arrays(file):
    model = SceneGraphModel(Looking(), SHORT)
    for given in (file, Image.new("RGB", (4, 4))):
        with pytest.raises(WrongImage, match="bgr=True is for arrays"):
            model(given, bgr=True)
    with pytest.raises(WrongImage, match="bgr=True, but the ndarray has 1 channel"):
        model(np.zeros((4, 4), np.uint8), bgr=True)


def test_of_a_list_one_that_fails_is_named_and_the_others_are_done(file, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    model = SceneGraphModel(Looking(), Task(TOY, coordinates="pixel"))
    with Image.open(file) as image:
        image.resize((480, 270), Image.Resampling.NEAREST).save(file := tmp_path / "small.png")
    given = [file, tmp_path / "broken.png", file, np.zeros((3, 3, 3), np.uint8), tmp_path / "nowhere.png", file, file]
    found = model(given)
    assert [one.finish_reason for one in found] == [
        "stop",
        "unreadable",
        "stop",
        "refused",
        "unreadable",
        *["stop"] * 2,
    ]
    assert all(lie_on_their_objects(one.graph, 4) for one in found if one.error is None)
    assert "broken.png does not open" in found[1].error and "nowhere.png does not exist" in found[4].error
    assert not found[1].graph.objects and found[3].error == "too small" and model([]) == []
    for one, said in zip(
        (given[1], given[3]), ("broken.png does not open", "the image got no graph: too small"), strict=True
    ):
        with pytest.raises(SgrlError, match=said):
            model(one)


def test_any_number_of_images_is_looked_at_a_few_at_a_time(pixels):
    engine, taken = Looking(), []

    def images():
        for i in range(40):
            taken.append(i)
            yield pixels[::20, ::20]

    found = SceneGraphModel(engine, SHORT).each(images())
    next(found)
    assert len(taken) <= 3 * 2 * engine.batch_size
    assert sum(1 for _ in found) == 39


def moving(step):
    """Frames in which the circle goes to the right and the square stays, with a hidden square in the middle."""
    for i in range(6):
        frame = np.full((96, 96, 3), 200, np.uint8)
        frame[10:40, 5 + step * i : 35 + step * i] = COLOURS["circle"]
        if i != 3:
            frame[60:90, 60:90] = COLOURS["square"]
        yield frame


def test_a_stream_hands_graphs_on_and_knows_objects_again():
    engine = Looking()
    model = SceneGraphModel(engine, Task(TOY, prompt="short", coordinates="pixel", context="generated"))
    found = list(model.stream(moving(4)))
    assert [one.tracks for one in found] == [(1, 2)] * 3 + [(1,)] + [(1, 2)] * 2
    assert [thing["track"] for thing in found[-1].to_dict()["objects"]] == [1, 2] and found[0].seconds > 0
    contexts = [split_previous(prompt)[1] for prompt in engine.prompts]
    assert contexts[0] is None and all("circle" in context for context in contexts[1:])
    assert [one.tracks for one in model.stream(moving(40))][:2] == [(1, 2), (3, 2)]  # it jumped
    list(model.stream(moving(4), context="none"))
    assert split_previous(engine.prompts[-1])[1] is None
    stream = SceneGraphStream(model)
    frames = list(moving(4))
    assert stream.push(frames[0]).tracks == stream.push(frames[1]).tracks == (1, 2)
    assert stream.push(np.zeros((50, 50, 3), np.uint8)).tracks == ()
    stream.reset()
    assert stream.push(frames[0]).tracks == (3, 4)


def test_streams_of_files_and_what_is_none(file, tmp_path):
    model = SceneGraphModel(Looking(), SHORT)
    for i, frame in enumerate(moving(4)):
        Image.fromarray(frame).save(tmp_path / f"{i}.png")
    assert [len(one.graph.objects) for one in model.stream(tmp_path)] == [2, 2, 2, 1, 2, 2]
    (tmp_path / "1.png").write_bytes(b"no picture")
    found = list(model.stream(tmp_path))
    assert "1.png does not open" in found[1].error and found[1].tracks == () and found[2].tracks == (1, 2)
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(str(tmp_path / "walk.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 5, (96, 96))
    for frame in moving(4):
        writer.write(frame[:, :, ::-1])
    writer.release()
    assert sum(1 for _ in model.stream(tmp_path / "walk.mp4")) == 6
    for frames, said in (
        (file, "is no video and no folder"),
        (1.5, "frames are a float"),
        (b"", "frames are a bytes"),
    ):
        with pytest.raises(SgrlError, match=said):
            model.stream(frames)
    with pytest.raises(SgrlError, match="a stream's context is 'none' or 'generated', found 'gt'"):
        model.stream([], context="gt")
    with pytest.raises(SgrlError, match="needs coordinates of pixels or thousandths, x first"):
        SceneGraphModel(Looking(), Task(TOY, coordinates="norm1000-yx")).stream([], context="generated")


class Detector:
    def __init__(self, *given, **settings):
        self.given, self.settings = given, settings


def test_a_folder_says_what_loads_it(tmp_path, monkeypatch):
    monkeypatch.setitem(module.KINDS, "detector", f"{__name__}:Detector")
    task = Task(TOY, kind="detector", settings={"queries": 100})
    task.write(tmp_path)
    found = sgrl.SceneGraphModel.from_pretrained(tmp_path, threshold=0.5)
    assert isinstance(found, Detector) and found.settings == {"threshold": 0.5}
    assert found.given[:2] == (str(tmp_path), "auto") and found.given[2].settings == {"queries": 100}
    Task(TOY, kind="detektor").write(tmp_path)
    with pytest.raises(SgrlError, match="kind: 'detektor', which this version cannot load; did you mean 'detector'"):
        SceneGraphModel.from_pretrained(tmp_path)


def test_what_cannot_be_loaded_is_one_line(toy, tmp_path, monkeypatch):
    with pytest.raises(SgrlError, match=r"does not say how it is asked \(it has no scene_graph.json\); give a task"):
        SceneGraphModel.from_pretrained(toy / "model")
    with pytest.raises(SgrlError, match="the model folder .*nowhere does not exist"):
        SceneGraphModel.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(SgrlError, match="unknown setting 'max_tokens'; did you mean 'max_new_tokens'"):
        SceneGraphModel.from_pretrained(toy / "model", task=SHORT, max_tokens=5)
    with pytest.raises(SgrlError, match="unknown engine 'vlm'; did you mean 'vllm'"):
        SceneGraphModel.from_pretrained(toy / "model", "vlm", SHORT)
    from sgrl.inference import engines, vllm_engine

    made = []

    def make(name):
        def engine(model, settings):
            made.append(name)
            if name == "vllm":
                raise SgrlError("vLLM cannot run this architecture")
            return Looking()

        return engine

    with monkeypatch.context() as patch:  # vLLM is there, and not for this model
        patch.setattr(vllm_engine, "obstacle", lambda: None)
        patch.setattr(engines, "_class_of", make)
        SceneGraphModel.from_pretrained(toy / "model", task=SHORT)
        assert made == ["vllm", "transformers"]
        with pytest.raises(SgrlError, match="cannot run this architecture"):
            SceneGraphModel.from_pretrained(toy / "model", "vllm", SHORT)
    monkeypatch.setattr(vllm_engine, "obstacle", lambda: "vLLM finds no device that it was built for")
    with pytest.raises(SgrlError, match="'vllm' was asked for, but vLLM finds no device .* use the engine 'transform"):
        SceneGraphModel.from_pretrained(toy / "model", "vllm", SHORT)
    with pytest.raises(SgrlError, match="constrain and the task's opening exclude each other"):
        SceneGraphModel(Looking(), Task(TOY, coordinates="pixel", opening="<answer>"), constrain=True)
    with pytest.raises(SgrlError, match="constrain needs coordinates of pixels or thousandths"):
        SceneGraphModel(Looking(), Task(TOY, coordinates="norm1000-yx"), constrain=True)


def test_it_is_closed_at_the_end_of_its_block():
    engine = Looking()
    with SceneGraphModel(engine, SHORT) as model:
        assert isinstance(model, SceneGraphModel)
    assert engine.closed


def test_a_server_is_asked_as_the_task_says(serve, file):
    server = serve(
        otherwise=lambda body: answer.wrap(
            "obj[1]{id,name,x1,y1,x2,y2}:\n  1,person,0,0,500,1000\nrel[0]{subj,pred,obj}:"
        )
    )
    with SceneGraphModel.from_pretrained("qwen3-vl", "openai", "psg", base_url=server.url) as model:
        found = model(file)
    assert found.graph.objects[0].box == (0, 0, 960, 1080)
    parts = server.received[0]["messages"][0]["content"]
    with Image.open(io.BytesIO(base64.b64decode(parts[0]["image_url"]["url"].partition(",")[2]))) as shown:
        assert shown.width * shown.height <= 1024 * 768 and shown.width / shown.height == pytest.approx(
            16 / 9, rel=0.01
        )
    assert "They run from 0 to 1000" in parts[1]["text"] and server.received[0]["max_tokens"] == 1024


def test_the_package_gives_its_names_without_anything_heavy(root):
    import subprocess
    import sys

    heavy = "{'torch', 'transformers', 'numpy', 'pyarrow', 'datasets', 'scipy', 'PIL'}"
    code = f"import sys, sgrl; assert not {heavy} & set(sys.modules); sgrl.SceneGraphModel; import sys; "
    code += (
        "assert not {'torch', 'transformers', 'pyarrow', 'datasets'} & set(sys.modules); assert 'Task' in dir(sgrl)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
    with pytest.raises(AttributeError, match="module 'sgrl' has no attribute 'SceneGraf'"):
        print(sgrl.SceneGraf)
    assert Path(sgrl.__file__).parent == root / "sgrl"


def test_a_local_model_writes_boxes_as_its_family_does(monkeypatch):
    """The engines of local models do not say what they loaded."""
    engine = Looking()
    monkeypatch.setattr(module, "load_engine", lambda *_, **__: engine)
    monkeypatch.delattr(Looking, "model")
    auto = replace(SHORT, coordinates="auto", prompt="full")
    found = module.load_vlm("Qwen/Qwen3-VL-2B-Instruct", "transformers", auto)
    assert found.presentation.frame((640, 480)) == (1000, 1000)
    with pytest.raises(SgrlError, match="'unheard/of' writes boxes is not known.*or in its task"):
        module.load_vlm("unheard/of", "transformers", auto)
