"""The tools, targets and losses that the README names exist; test_guide.py runs its code."""

import re
from pathlib import Path

from det_losses import list_losses

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


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
