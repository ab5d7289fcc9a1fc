"""The tutorial is a notebook that runs as it stands, and shows what happens in it."""

import os
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_notebook_is_made_from_the_page() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "make_notebook.py"))
    page, notebook = (script[name].read_text(encoding="utf-8") for name in ("PAGE", "NOTEBOOK"))
    assert notebook == script["notebook"](page), "run python scripts/make_notebook.py"


@pytest.mark.ray
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(ROOT / "docs" / "tutorial.ipynb", as_version=4)
    nbformat.validate(notebook)
    NotebookClient(notebook, timeout=500, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = {cell.source: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    (pruning,) = [outputs for source, outputs in shown.items() if "rlprune.prune(" in source]
    progress = [output.data["text/html"] for output in pruning if output.output_type == "display_data"]
    assert len(progress) == 1, "one block that changes"
    assert "[8/8] final fine-tuning" in progress[0]
    said = "".join(output.text for output in pruning if output.output_type == "stream")
    assert "MACs: " in said
    outputs = [output for outputs in shown.values() for output in outputs]
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    assert (tmp_path / "results" / "digits" / "report.html").is_file()
    assert os.listdir(tmp_path / "deploy")
