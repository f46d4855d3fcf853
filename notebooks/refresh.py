"""Run notebooks and keep their outputs, ready to commit: `python notebooks/refresh.py 01_red_ink`; no name means all.

Pictures are stored with at most 128 colours each, which is hardly seen and makes the files several times smaller.
"""

import base64
import io
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def with_fewer_colours(png: str) -> str:
    """A base64 PNG with a palette of 128 colours, if that is smaller."""
    from PIL import Image

    picture, smaller = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"), io.BytesIO()
    picture.quantize(128, method=Image.Quantize.MEDIANCUT, kmeans=1, dither=Image.Dither.NONE).save(smaller, "PNG", optimize=True)
    return min(png, base64.b64encode(smaller.getvalue()).decode(), key=len)


def kept(output):
    """An output as it is committed; None for a progress bar."""
    data = output.get("data", {})
    if data.pop("application/vnd.jupyter.widget-view+json", None):
        if "it/s]" in data["text/plain"]:
            return None
        data["text/plain"] = "(controls, when a kernel runs)"
    if "image/png" in data:
        data["image/png"] = with_fewer_colours(data["image/png"])
    return output


def refresh(path: Path) -> None:
    """Run one notebook in place; it is left as it was if a cell fails."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(path.parent)}}).execute()
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if "outputs" in cell:
            cell.outputs = [output for output in map(kept, cell.outputs) if output]
    temporary = path.with_suffix(".tmp")
    nbformat.write(notebook, temporary)
    temporary.replace(path)
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(p.stem for p in HERE.glob("[0-9]*.ipynb")):
        refresh(HERE / f"{name}.ipynb")
