"""The code of a model's card runs as it is, and its head says what the Hub asks for."""

import re
import shutil
from types import SimpleNamespace

import huggingface_hub
import pytest

from sgrl.task import Task
from sgrl.training import publish


def arguments(toy, output):
    script = SimpleNamespace(dataset=str(toy / "data"), trainable="decoder", thinking=False, context=None)
    return script, SimpleNamespace(output_dir=str(output), learning_rate=1e-6)


def test_the_code_of_the_card_runs(toy, tmp_path, monkeypatch, capsys):
    from sgrl import data
    from sgrl.inference import vllm_engine

    run = tmp_path / 'runs "mine"'
    shutil.copytree(toy / "model", run)
    Task.of_dataset(toy / "data", max_new_tokens=4).write(run)
    text = publish.model_card("sft", *arguments(toy, run), "me/base", [{"loss": 0.5}])
    publish.write_card(run, text)
    data.load(toy / "data", "train")[0]["image"].save(tmp_path / "photograph.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(vllm_engine, "obstacle", lambda: "it takes a minute to start")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(code, {})
    assert '"objects": [' in capsys.readouterr().out


def test_the_head_says_where_a_model_comes_from(toy, tmp_path, monkeypatch):
    script, training = arguments(toy, tmp_path / "run")
    about = huggingface_hub.ModelCard(publish.model_card("sft", script, training, "me/base", [{"loss": 0.5}])).data
    assert (about.base_model, about.license, about.datasets, about.metrics) == ("me/base", None, None, ["loss"])
    assert (about.library_name, about.pipeline_tag) == ("transformers", "image-text-to-text")
    assert about.tags == ["scene-graph-generation", "sgrl", "sft"]

    base = tmp_path / "base"
    base.mkdir()

    def lineage(card):
        (base / "README.md").write_text(card)
        about = huggingface_hub.ModelCard(publish.model_card("grpo", script, training, str(base))).data
        return about.base_model, about.license

    ours = publish.model_card("sft", script, training, "me/base").replace("\n---\n<", "\nlicense: mit\n---\n<", 1)
    assert lineage(ours) == ("me/base", "mit")  # of the run that this one went on from
    assert lineage("---\nbase_model: other/one\nlicense: mit\n---\ntheirs") == (None, "mit")
    assert lineage("---\n[: {\n---\n") == (None, None)
    assert lineage("no head") == (None, None)


@pytest.mark.parametrize("mine", [False, True])
def test_a_pushed_card_loads_the_repository(toy, tmp_path, monkeypatch, mine):
    class Api:
        def create_repo(self, name, **options):
            return SimpleNamespace(repo_id=name)

        def upload_large_folder(self, **options):
            pass

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    text = publish.model_card("sft", *arguments(toy, tmp_path), "me/base")
    (tmp_path / "config.json").touch()
    (tmp_path / "README.md").write_text(text.replace(publish.MARK, "") if mine else text)
    publish.push(tmp_path, "me/toy")
    assert ('from_pretrained("me/toy")' in (tmp_path / "README.md").read_text()) is not mine
