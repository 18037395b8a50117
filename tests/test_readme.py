"""The Python blocks of the README run, and the tools, targets and losses that it names exist."""

import ast
import re
import subprocess
import sys
from pathlib import Path

from det_losses import list_losses

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


# 10 x 10 boxes 5 px apart in x: IoU 50 / 150, and (5 / 10)^2 for the centres.
CHECK_OF_THE_NEW_LOSS = """
import torch, det_losses
pred, target = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[5.0, 0, 15, 10]])
loss = det_losses.build_loss("CenterIoULoss")(pred, target)
assert abs(loss - (1 - 1 / 3 + 0.25)) < 1e-6, loss
assert "CenterIoULoss" in [info.name for info in det_losses.list_losses()]
"""


def test_blocks_that_import_what_they_need_run():
    # In a new process, because one of them registers a loss.
    runnable = [block for block in BLOCKS if "import" in block.split("\n")[0]]
    assert any("class CenterIoULoss" in block for block in runnable)
    runs = [
        f"exec(compile({block!r}, 'block {number} of README.md', 'exec'), {{}})"
        for number, block in enumerate([*runnable, CHECK_OF_THE_NEW_LOSS], 1)
    ]
    subprocess.run([sys.executable, "-c", "\n".join(runs)], check=True, cwd=ROOT)


def test_there_are_blocks_and_all_of_them_are_python():
    assert len(BLOCKS) >= 4
    for block in BLOCKS:
        ast.parse(block)


def test_tools_and_targets_that_are_named_exist():
    tools = set(re.findall(r"tools/(\w+\.py)", README))
    assert {"train.py", "test.py", "compare_losses.py"} <= tools
    assert all((ROOT / "tools" / tool).is_file() for tool in tools)
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make (\w+) ", README):
        assert f"\n{target}:" in makefile


def test_the_table_of_losses_names_every_loss():
    table = README.partition("## Losses\n")[2].partition("\n\n")[0]
    named = re.findall(r"\b[A-Z]\w+", table)
    assert sorted(named) == sorted(info.name for info in list_losses())
