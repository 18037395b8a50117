"""The code of the README and of the pages in docs/ runs."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from det_losses.cli import TOOLS

TESTS = Path(__file__).parent
README = TESTS.parent / "README.md"
PAGES = [README, *sorted((TESTS.parent / "docs").glob("*.md"))]
# Pages whose code needs a training or a checkpoint, and the test that runs it.
RUN_ELSEWHERE = {
    "any_trainer.md": "comparison/test_foreign.py",
    "losses.md": "test_docs.py",
    "predict.md": "inference/test_predict.py",
    "python.md": "test_api.py",
    "transformers.md": "adapters/test_transformers.py",
    "yolo.md": "adapters/test_ultralytics.py",
}

# 10 x 10 boxes 5 px apart in x: IoU 50 / 150, and (5 / 10)^2 for the centres.
CHECK_OF_THE_README = """
import torch, det_losses
pred, target = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[5.0, 0, 15, 10]])
loss = det_losses.build_loss("CenterIoULoss")(pred, target)
assert abs(loss - (1 - 1 / 3 + 0.25)) < 1e-6, loss
assert "CenterIoULoss" in [info.name for info in det_losses.list_losses()]
"""

# A new process, because some blocks register losses. Examples first: they may list all losses.
RUN = """
import doctest, json, sys
pages = json.load(sys.stdin)
runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
for name, _, examples in pages:
    test = doctest.DocTestParser().get_doctest(chr(10).join(examples), {}, name, name, 0)
    assert not runner.run(test).failed
for name, blocks, _ in pages:
    names = {}
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"block {number} of {name}", "exec"), names)
"""


def blocks_of(page, language):
    fence = rf"^```{language}\n(.*?)^```"
    return re.findall(fence, page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def is_config(block):
    return all(isinstance(statement, ast.Assign) for statement in ast.parse(block).body)


def test_code_runs(tmp_path):
    pages = [
        (
            page.name,
            [block for block in blocks_of(page, "python") if not is_config(block)],
            blocks_of(page, "pycon"),
        )
        for page in PAGES
        if page.name not in RUN_ELSEWHERE
    ]
    assert pages[0][0] == "README.md" and len(pages[0][1]) >= 2
    pages[0][1].append(CHECK_OF_THE_README)
    process = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps(pages),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout + process.stderr


def test_blocks_of_code_are_marked_python_or_pycon():
    """Another mark, such as ``py``, would not be run."""
    marks = {
        mark
        for page in PAGES
        for mark in re.findall(r"^```(\w+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert {"python", "pycon"} <= marks <= {"python", "pycon", "math", "text", "bash", "console"}


@pytest.mark.parametrize(("page", "test"), RUN_ELSEWHERE.items())
def test_code_that_is_run_elsewhere_is(page, test):
    assert f"docs/{page}" in (TESTS / test).read_text(encoding="utf-8")


def test_tools_and_options_exist():
    """Every tool that a page calls, and every option that it names."""
    package = "\n".join(
        file.read_text(encoding="utf-8")
        for folder in ("det_losses", "benchmarks")
        for file in (TESTS.parent / folder).rglob("*.py")
    )
    options = set(re.findall(r'"(--[a-z][a-z-]*)"', package))
    options |= {"--train-images", "--val-images"}  # added in a loop
    options |= {"--no-deps", "--force-reinstall", "--logdir"}  # of pip and TensorBoard
    options |= {"--nproc", "--nnodes", "--rdzv-endpoint"}  # of torchrun
    options |= {"--gpus-per-task", "--kill-on-bad-exit", "--head", "--port"}  # of srun and ray
    options |= {"--shm-size"}  # of docker
    options |= {"--train", "--val"}  # of the program in any_trainer.md
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        tools = set(re.findall(r"det-losses (\w+)", text))
        assert tools <= {*TOOLS, "compare"}, page.name
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) <= options, page.name
