"""The notebook of examples/ runs from its first cell to its last, and shows what it says."""

import json
import sys

import pytest

NOTEBOOK = "examples/first_graph.ipynb"


@pytest.mark.slow
def test_the_notebook_runs(root, tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    kernel = tmp_path / "kernels" / "this"  # this interpreter, whatever else the machine knows
    kernel.mkdir(parents=True)
    words = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": words, "display_name": "this", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    notebook = nbformat.read(root / NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, kernel_name="this", resources={"metadata": {"path": str(tmp_path)}}).execute()

    shown = {}  # source of a cell -> what it gives, by type
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            shown.setdefault(cell.source, {}).update(output.get("data", {"text/plain": output.get("text")}))
    assert "<svg" in shown["found.graph"]["text/html"]
    assert "image/png" in shown["found.draw(image)"]
    assert "'label': 'triangle'" in shown["found.to_dict()"]["text/plain"]
    assert shown["SceneGraph.from_json(found.to_json()) == found.graph"]["text/plain"] == "True"
    (network,) = [given for source, given in shown.items() if "to_networkx" in source]
    assert "('triangle', 'above', 'circle')" in network["text/plain"]


def test_the_notebook_is_kept_as_it_ran(root):
    """Its outputs are in the file, for those who read it on a page; none is an error, and it stays small."""
    notebook = json.loads((root / NOTEBOOK).read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output["output_type"] for cell in code for output in cell["outputs"]]
    assert len(outputs) >= 6 and set(outputs) <= {"execute_result", "stream"}
    assert (root / NOTEBOOK).stat().st_size < 150_000
