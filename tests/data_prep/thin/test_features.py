"""Image features from models of several kinds with random weights, and their cache."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from data_prep.thin.features import Embedder
from data_prep.thin.maxinfo import MaxInfo
from sgrl.errors import SgrlError
from sgrl.vocabulary import Vocabulary

SMALL = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
TEXT = {**SMALL, "vocab_size": 50, "max_position_embeddings": 16}


def clip():
    config = transformers.CLIPConfig(text_config=TEXT, vision_config=SMALL, projection_dim=20)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    return transformers.CLIPModel(config), transformers.CLIPImageProcessor(**size), 20


def siglip():
    config = transformers.SiglipConfig(text_config=TEXT, vision_config=SMALL)
    size = {"size": {"height": 32, "width": 32}}
    return transformers.SiglipModel(config), transformers.SiglipImageProcessor(**size), 24


def dinov2():
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size")
    config = transformers.Dinov2Config(**{name: SMALL[name] for name in names})
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    return transformers.Dinov2Model(config), transformers.BitImageProcessor(**size), 24


def resnet():
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic")
    return transformers.ResNetModel(config), transformers.ConvNextImageProcessor(size={"shortest_edge": 32}), 12


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folder and width of a random model, by name."""
    folder = tmp_path_factory.mktemp("models")
    made = {}

    def get(name: str):
        if name not in made:
            torch.manual_seed(0)
            if name == "tiny":
                from sgrl.tiny import build_tiny_vlm

                build_tiny_vlm(folder / name)
                made[name] = str(folder / name), 128
            else:
                model, processor, width = {"clip": clip, "siglip": siglip, "dinov2": dinov2, "resnet": resnet}[name]()
                model.save_pretrained(folder / name)
                processor.save_pretrained(folder / name)
                made[name] = str(folder / name), width
        return made[name]

    return get


@pytest.fixture
def frames(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "video").mkdir()
    paths = [tmp_path / "video" / f"{i:04d}.png" for i in range(7)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(path)
    return paths


def fail(message):
    raise AssertionError(message)


@pytest.mark.parametrize("name", ["clip", "siglip", "dinov2", "resnet", "tiny"])
def test_any_model_that_sees(models, frames, name):
    folder, width = models(name)
    features = Embedder(folder, batch_size=3, device="cpu").features(frames, fail)
    assert features.shape == (7, width) and features.dtype == np.float32 and np.isfinite(features).all()
    alone = Embedder(folder, batch_size=1, device="cpu").features(frames[2:3], fail)
    np.testing.assert_allclose(features[2:3], alone, atol=1e-4)
    assert len(np.unique(features.round(5), axis=0)) == 7


def test_clip_features_are_the_projected_ones(models, frames):
    folder, _ = models("clip")
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    with torch.inference_mode():
        inputs = processor(images=[Image.open(frame) for frame in frames], return_tensors="pt")
        expected = model.visual_projection(model.vision_model(**inputs).pooler_output).numpy()
    found = Embedder(folder, device="cpu").features(frames, fail)
    np.testing.assert_allclose(found, expected, atol=1e-5)


class Counting(Embedder):
    """Remembers how many images went through the model."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, device="cpu", **options)
        self.seen = 0

    def _embed(self, images):
        self.seen += len(images)
        return super()._embed(images)


def test_cache(models, frames, tmp_path):
    folder, _ = models("clip")
    cache = tmp_path / "cache"
    first = Counting(folder, cache)
    features = first.features(frames[:5], fail, "video one")
    assert first.seen == 5

    def again(chosen=frames, name="video one", model=folder):
        embedder = Counting(model, cache)
        return embedder.features(chosen, fail, name), embedder.seen

    found, seen = again(frames[4::-1])  # another order
    assert seen == 0
    np.testing.assert_array_equal(found, features[::-1])
    found, seen = again()  # two more frames
    assert seen == 2
    np.testing.assert_array_equal(found[:5], features)
    assert again()[1] == 0
    assert again(name="video two")[1] == 7

    Image.new("RGB", (40, 48)).save(frames[3])  # another picture under an old name
    os.utime(frames[3], (1, 1))
    changed, seen = again()
    assert seen == 1 and not np.allclose(changed[3], found[3])
    assert not list(cache.rglob("*.part"))


def test_cache_knows_the_model_and_its_image_size(models, frames, tmp_path):
    folder, _ = models("clip")
    model, processor, _ = clip()
    cache = tmp_path / "cache"
    Counting(folder, cache).features(frames, fail)
    torch.manual_seed(1)
    model.save_pretrained(tmp_path / "other")
    processor.save_pretrained(tmp_path / "other")
    other = Counting(str(tmp_path / "other"), cache)
    assert other.features(frames, fail).shape == (7, 20) and other.seen == 7
    transformers.CLIPImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}).save_pretrained(
        tmp_path / "other"
    )
    larger = Counting(str(tmp_path / "other"), cache)
    larger.features(frames, fail)
    assert larger.seen == 7


def test_damaged_cache_is_computed_again(models, frames, tmp_path, caplog):
    folder, _ = models("clip")
    cache = tmp_path / "cache"
    features = Counting(folder, cache).features(frames, fail)
    (file,) = cache.rglob("*.npz")
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"text", whole[:-400] + b"\0" * 400):
        file.write_bytes(damaged)
        embedder = Counting(folder, cache)
        np.testing.assert_array_equal(embedder.features(frames, fail), features)
        assert embedder.seen == 7 and "is damaged" in caplog.text
        assert file.read_bytes() == whole
        caplog.clear()


def test_model_is_not_loaded_when_all_is_known(models, frames, tmp_path, monkeypatch):
    folder, _ = models("clip")
    Embedder(folder, tmp_path / "cache", device="cpu").features(frames, fail)
    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", lambda *_, **__: fail("loaded"))
    Embedder(folder, tmp_path / "cache").features(frames, fail)


@pytest.fixture
def broken(frames):
    """Two of the frames are gone or cut."""
    frames[1].unlink()
    frames[4].write_bytes(frames[4].read_bytes()[:500])
    return frames


def test_unreadable_frames_are_counted(models, broken, tmp_path):
    folder, _ = models("clip")
    messages = []
    features = Embedder(folder, tmp_path / "cache", 2, "cpu").features(broken, messages.append)
    assert np.flatnonzero(np.isnan(features).any(1)).tolist() == [1, 4]
    assert "0001.png does not exist" in messages[0] and "0004.png does not open" in messages[1]
    assert len(messages) == 2
    again = Counting(folder, tmp_path / "cache")
    np.testing.assert_array_equal(again.features(broken, messages.append), features)
    assert again.seen == 0 and len(messages) == 4
    assert np.isnan(Embedder(folder, device="cpu").features(broken[1:2], messages.append)).all()


def test_black_frames_of_the_published_code(models, broken, tmp_path):
    folder, _ = models("clip")
    messages = []
    black = Image.new("RGB", (336, 336))
    black.save(tmp_path / "black.png")
    features = Embedder(folder, tmp_path / "cache", 2, "cpu", black_if_unreadable=True).features(
        broken, messages.append
    )
    assert np.isfinite(features).all() and len(messages) == 2
    (expected,) = Embedder(folder, device="cpu").features([tmp_path / "black.png"], fail)
    np.testing.assert_allclose(features[[1, 4]], [expected, expected], atol=1e-5)
    assert np.isnan(Embedder(folder, tmp_path / "cache", 2, "cpu").features(broken, messages.append)[[1, 4]]).all()


def test_features_that_are_not_finite(models, frames, tmp_path):
    folder, _ = models("clip")
    embedder = Embedder(folder, tmp_path / "cache", device="cpu")
    network = embedder._loaded()
    network.visual_projection.weight.data[:] = float("nan")
    messages = []
    assert not np.isfinite(embedder.features(frames, messages.append)).any()
    assert len(messages) == 7 and "are not finite" in messages[0]
    again = Counting(folder, tmp_path / "cache")
    assert np.isfinite(again.features(frames, fail)).all() and again.seen == 7


def test_no_frames(models):
    assert Embedder(models("clip")[0]).features([], fail).shape[0] == 0


def test_method_uses_a_model_and_its_cache(models, frames, tmp_path):
    from data_prep.readers.record import Record
    from sgrl.graph import SceneGraph

    folder, _ = models("clip")
    graph = SceneGraph((), (), 48, 40)
    records = [Record(f"v_{i}", frame, graph, "train", "", "v", i) for i, frame in enumerate(frames)]
    vocabulary = Vocabulary("v", ("a",), ("b",))
    options = MaxInfo.Options(count=4, model=folder, cache=tmp_path / "cache", device="cpu")
    method = MaxInfo(vocabulary, options)
    kept = method.select(records, fail)
    assert len(kept) == 4 and list((tmp_path / "cache").rglob("v-*.npz"))
    published = MaxInfo(vocabulary, replace(options, count=5, cache=None, protocol="published"))
    assert len(published.select(records, fail)) == 4
    assert published.embedder.black_if_unreadable and not method.embedder.black_if_unreadable


def test_models_that_do_not_see(models, frames, tmp_path):
    with pytest.raises(SgrlError, match="is not there or has no image processor.*clip-vit-large-patch14-336"):
        Embedder(str(tmp_path / "nowhere"))
    transformers.BertConfig().save_pretrained(tmp_path / "bert")
    with pytest.raises(SgrlError, match="has no image processor"):
        Embedder(str(tmp_path / "bert"))
    config = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    transformers.BertModel(transformers.BertConfig(**config, vocab_size=50)).save_pretrained(tmp_path / "blind")
    transformers.CLIPImageProcessor().save_pretrained(tmp_path / "blind")
    with pytest.raises(SgrlError, match="blind gives no features of images alone"):
        Embedder(str(tmp_path / "blind"), device="cpu").features(frames, fail)
    (tmp_path / "blind" / "model.safetensors").unlink()
    with pytest.raises(SgrlError, match="blind does not load on cpu"):
        Embedder(str(tmp_path / "blind"), device="cpu").features(frames, fail)
    with pytest.raises(SgrlError, match="batch_size must be a whole number above 0"):
        Embedder(models("clip")[0], batch_size=0)


def test_through_the_converter(models, tmp_path, capsys):
    """--thin maxinfo with CLIP: as many frames as asked for, and the second run asks the cache alone."""
    from data_prep import to_toon
    from data_prep.toys import pvsg
    from sgrl.data import load

    folder, _ = models("clip")
    pvsg.write(tmp_path / "toys", train=2, test=1, frames=10)
    command = ["--layout", "pvsg", "--root", tmp_path / "toys", "--keep-empty", "--thin", "maxinfo", "--thin-options"]
    command += [f"model={folder}", f"cache={tmp_path / 'cache'}", "count=4", "--output"]
    for name in ("first", "second"):
        assert to_toon.main([str(word) for word in (*command, tmp_path / name)]) == 0
        table = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert ["frames", "kept", "8", "4"] in table
    found = [load(tmp_path / name, "train")["image_id"] for name in ("first", "second")]
    assert len(found[0]) == 8 and found[0] == found[1]
    assert len(list((tmp_path / "cache").rglob("*.npz"))) == 3
