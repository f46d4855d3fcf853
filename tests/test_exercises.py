"""Every exercise of every notebook: the stub is not solved, the folded solution is."""

import json
import re
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"


def exercises():
    """(notebook, source of the stub's cell, source of its solution) for each cell tagged exercise."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        for cell, following in zip(cells, cells[1:]):
            if "exercise" in cell["metadata"].get("tags", []):
                stub = "".join(cell["source"])
                solution = re.search(r"```python\n(.*?)```", "".join(following["source"]), re.S)
                yield pytest.param(stub, solution and solution[1], id=re.search(r'check\("(\w+)"', stub)[1])


@pytest.mark.parametrize("stub, solution", list(exercises()))
def test_the_stub_fails_and_the_solution_passes(stub, solution, capsys):
    scope = {}
    exec("import torch\nfrom sora_course.kit.exercises import check\n" + stub, scope)
    assert "not solved yet" in capsys.readouterr().out
    assert solution, "the cell after an exercise holds its folded solution"
    exec(solution + "\n" + re.search(r"^check\(.*$", stub, re.M)[0], scope)
    assert capsys.readouterr().out.startswith("[x] ")


def test_the_channels_that_an_exercise_wants_are_the_networks():
    from sora_course.kit.exercises import outcome
    from sora_course.unet import UNet, UNetConfig

    def count(widths, layers):
        net = UNet(UNetConfig(block_out_channels=widths, attention=(False,) * len(widths), layers_per_block=layers))
        return [block.conv1.in_channels for level in net.up_blocks for block in level.resnets]

    assert outcome("channels_on_the_way_up", count) == (True, "solved")


def test_a_wrong_answer_gets_a_hint_and_a_broken_one_its_error():
    from sora_course.kit.exercises import outcome

    assert outcome("latent_frames", lambda n: n // 4) == (False, "not yet: 17 frames become 5 latent frames, and your function says 4")
    assert "ZeroDivisionError" in outcome("latent_frames", lambda n: 1 / 0)[1]
    with pytest.raises(ValueError, match="no exercise"):
        outcome("nothing", None)


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda p: p.stem)
def test_notebooks_are_as_they_should_be(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    code = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    assert path.stat().st_size < 1.5e6 and len({c["id"] for c in notebook["cells"]}) == len(notebook["cells"])
    for cell in code:
        assert len("".join(cell["source"]).splitlines()) <= 25, cell["id"]
        assert cell["execution_count"], f"{cell['id']} has not been run"
        draws_a_bar = re.search(r"\b(train|learn)\(", "".join(cell["source"]))
        assert not draws_a_bar or "nbval-ignore-output" in cell["metadata"]["tags"], f"{cell['id']} shows a progress bar"
        outputs = json.dumps(cell["outputs"])
        assert not re.search(r"Traceback|Warning|/home/|/tmp/|/root/|/Users/", outputs), cell["id"]
