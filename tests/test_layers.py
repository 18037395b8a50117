"""The order of the packages in ARCHITECTURE.md is that of the imports."""

import ast
import configparser
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "det_losses"


def layers():
    """Package or module -> its row in the table "Packages", from the top."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    rows = re.findall(r"^\| (`.*?) \|", text[text.index("## Packages") :], re.MULTILINE)
    names = [re.findall(r"`(?:det_losses/)?([\w]+)(?:/|\.py)`", row) for row in rows]
    return {name: depth for depth, row in enumerate(names) for name in row}


def imports():
    """Each import of this package: file, package or module that imports, that it imports."""
    for file in sorted(PACKAGE.rglob("*.py")):
        own = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names = [each.name for each in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module == "det_losses":
                names = [f"det_losses.{each.name}" for each in node.names]
            else:
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                package, _, rest = name.partition(".")
                if package == "det_losses" and rest:
                    yield file, own, rest.split(".")[0]


def test_every_package_is_in_the_table():
    places = {
        path.stem
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert places - {"__init__", "__main__"} <= set(layers())


def test_imports_go_downwards():
    depth = layers()
    upwards = [
        f"{file.relative_to(ROOT)} imports {other}"
        for file, own, other in imports()
        if own in depth and other != own and other in depth and depth[other] < depth[own]
    ]
    assert not upwards


def test_every_package_is_installed():
    packages = {
        ".".join(file.parent.relative_to(ROOT).parts) for file in PACKAGE.rglob("__init__.py")
    }
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert packages | {"det_losses.configs"} == set(setup["options"]["packages"].split())


def test_nothing_of_an_extra_is_needed_for_a_comparison():
    """A plain installation has none of these packages; each is imported where it is used."""
    extras = "hypothesis timm onnx onnxruntime ray ultralytics transformers mkdocs tensorboard"
    tools = [path.stem for path in (PACKAGE / "cli").glob("*.py") if path.stem != "check_losses"]
    modules = [f"det_losses.cli.{tool}" for tool in tools] + [
        "det_losses.comparison.comparison",
        "det_losses.engine.run",
        "det_losses.inference",
        "det_losses.plots.curve_figure",
        "det_losses.report.write",
        "det_losses.simulation.run",
    ]
    code = (
        f"import importlib, sys\nfor name in {extras.split()}: sys.modules[name] = None\n"
        f"for name in {modules}: importlib.import_module(name)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
