"""The site is built without warnings, and needs nothing from the internet."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mkdocs.config import load_config
from mkdocs.structure.files import get_files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    process = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "LOSS_CURVES": "false"},
        capture_output=True,
        text=True,
    )
    # Links to missing pages and anchors, and pages that are not in the navigation, are warnings.
    assert process.returncode == 0, process.stdout + process.stderr
    return {
        file.relative_to(folder).as_posix(): file.read_text() for file in folder.rglob("*.html")
    }


def test_all_pages_are_built(site):
    pages = {
        "index.html" if file.stem == "README" else f"{file.stem}.html"
        for file in ROOT.glob("docs/*.md")
    }
    assert pages | {"overview.html", "architecture.html", "reference/losses.html"} <= set(site)


def test_nothing_is_loaded_from_elsewhere(site):
    loaded = re.compile(
        r'(?:\ssrc="|<link[^>]* rel="(?:stylesheet|preconnect)[^>]* href=")(?:https?:)?//[^"]*'
    )
    assert not {page: found for page, text in site.items() if (found := loaded.findall(text))}


def test_markup_is_rendered(site):
    """Formulas are MathML, and nothing of GitHub's or Sphinx's markup is left."""
    assert site["losses.html"].count('<div class="math">') > 50
    assert site["reference/losses.html"].count('<div class="math">') > 50
    for page, text in site.items():
        shown = re.sub(r"<(code|pre|script)\b.*?</\1>", "", text, flags=re.DOTALL)
        left = re.findall(
            r"\.\. math::|:(?:math|class|func|mod|meth):|\$`|```|&gt;&gt;&gt; ", shown
        )
        assert not left, f"{page}: {left[:5]}"


CARDS = """# The losses

### SumLoss

Sum of losses.

- **Kind**: box loss
- **Note**: one figure, above.

### NotRegistered

No figure.

- **Kind**: box loss

### FocalLoss

Focal loss.

```math
L = 0
```

- **Kind**: classification loss

## Agreement

- no card
"""


def cards_page(monkeypatch, tmp_path, curves):
    """Return the files of the site and the page of the losses, with these cards."""
    monkeypatch.setenv("LOSS_CURVES", curves)
    config = load_config(str(ROOT / "mkdocs.yml"), docs_dir=str(tmp_path), plugins=[])
    (tmp_path / "losses.md").write_text(CARDS)
    files = config.plugins.on_files(get_files(config), config=config)
    page = Page(None, files.get_file_from_path("losses.md"), config)
    return files, config.plugins.on_page_markdown(CARDS, page=page, config=config, files=files)


def test_cards_show_the_curves_of_registered_losses(monkeypatch, tmp_path):
    files, page = cards_page(monkeypatch, tmp_path, "true")
    figures = {file.src_uri: file.content_string for file in files.media_files()}
    assert set(figures) == {"figures/cards/SumLoss.svg", "figures/cards/FocalLoss.svg"}
    assert ">SumLoss(L1Loss, GIoULoss)</text>" in figures["figures/cards/SumLoss.svg"]
    image = "![Gradient and value of {0}](figures/cards/{0}.svg){{.curves}}\n{{.wide}}"
    assert f"Sum of losses.\n\n{image.format('SumLoss')}\n\n- **Kind**" in page
    assert f"```\n\n{image.format('FocalLoss')}\n\n- **Kind**" in page
    assert page.count("![") == 2


def test_without_curves_nothing_is_drawn(monkeypatch, tmp_path):
    files, page = cards_page(monkeypatch, tmp_path, "false")
    assert page == CARDS and not files.media_files()
