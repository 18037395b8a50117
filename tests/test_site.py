"""The site is built without warnings, and needs nothing from the internet."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    process = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
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
