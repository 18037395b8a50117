"""Hooks of mkdocs: pages generated from other files, links, and the markup of docstrings.

The pages in ``docs/`` are written for GitHub. This module makes mkdocs understand the same text:
GitHub's formulas become MathML, which browsers show without a script, and links to files above
``docs/`` lead to their pages in the site. Docstrings have formulas, roles and examples in the
syntax of Sphinx; they are translated too. If ``extra.curves`` of mkdocs.yml is true, the curves of
each loss are drawn and shown in its card.
"""

import ast
import re
import xml.etree.ElementTree as ET
from contextlib import suppress
from pathlib import Path

from latex2mathml.converter import convert
from markdown import Extension, Markdown
from markdown.inlinepatterns import InlineProcessor
from markdown.preprocessors import Preprocessor
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
# Files above docs/ that are pages of the site.
ABOVE = {
    "README.md": "overview.md",
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "license.md",
}
# Page of the reference -> its title and what it documents: modules, or packages with all modules.
REFERENCE = {
    "python": ("Comparisons and predictions", ("api", "report.study", "report.runs", "inference")),
    "functional": ("Functions and boxes", ("functional", "boxes", "tensors")),
    "base": ("Base classes and construction", ("losses.core", "registry", "errors")),
    "conformance": ("Conformance suite", ("conformance",)),
    "models": ("Detectors", ("models",)),
    "data": ("Data", ("data",)),
    "evaluation": ("Evaluation", ("evaluation",)),
    "statistics": ("Statistics", ("statistics",)),
}
_FIGURE = "figures/cards/{}.svg"
_NO_MEMBERS = "\n    options:\n      members: false"
_LINK = re.compile(r"(\]\()([^)\s#]+)")
# The heading of a card, and its text before the list of parameters.
_CARD = re.compile(r"^### (\w+)\n(?:(?!#|- \*\*).*\n)*", re.MULTILINE)
_ROLE = re.compile(r":(\w+):`~?([^`]*)`")
_PARAGRAPH = r"(?m)^{}(.*(?:\n.*\S.*)*)"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Let Markdown read formulas and docstrings."""
    config.markdown_extensions.append(_Markup())
    config.mdx_configs["pymdownx.superfences"] = {
        "custom_fences": [{"name": "math", "class": "math", "format": _block_formula}]
    }
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files above ``docs/``, the pages of the reference and the figures of the cards."""
    for source, page in ABOVE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_page_of(source, text)))
    for name, (title, parts) in REFERENCE.items():
        blocks = [f"# {title}", *(block for part in parts for block in _blocks(part))]
        page = File.generated(config, f"reference/{name}.md", content="\n\n".join(blocks))
        files.append(page)
    files.append(File.generated(config, "reference/losses.md", content=_losses()))
    if config.extra.get("curves"):
        cards = files.get_file_from_path("losses.md").content_string
        for name, svg in _curves(_CARD.findall(cards)).items():
            files.append(File.generated(config, _FIGURE.format(name), content=svg))
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: object) -> str:
    """Lead links to files above ``docs/`` to their pages, and show the figures of the cards."""

    def target(match: re.Match) -> str:
        path = match[2].removeprefix("../")
        above = match[2] != path or page.file.src_uri in ABOVE.values()
        return match[1] + (ABOVE.get(path, path.removeprefix("docs/")) if above else match[2])

    def with_figure(card: re.Match) -> str:
        figure = _FIGURE.format(card[1])
        if files.get_file_from_path(figure) is None:
            return card[0]
        image = f"![Gradient and value of {card[1]}]({figure})"
        return f"{card[0].rstrip()}\n\n{image}{{.curves}}\n{{.wide}}\n\n"

    markdown = _LINK.sub(target, markdown)
    return _CARD.sub(with_figure, markdown) if page.file.src_uri == "losses.md" else markdown


def _curves(cards: list[str]) -> dict[str, bytes]:
    """Draw the curves of losses; those that cannot be drawn alone are left out."""
    from det_losses.errors import UserError
    from det_losses.losses import list_losses
    from det_losses.plots.card_figure import card_svg

    found = {}
    for name in [info.name for info in list_losses() if info.name in cards]:
        with suppress(UserError):
            found[name] = card_svg(name)
    return found


def _page_of(source: str, text: str) -> str:
    return text if source.endswith(".md") else f"# License\n\n```text\n{text}```\n"


def _losses() -> str:
    """Return the page of all losses. The methods that they override are on the page of the base."""
    path = ROOT / "det_losses/losses/__init__.py"
    names = [
        alias.name
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ImportFrom) and ".core" not in node.module
        for alias in node.names
    ]
    blocks = [f"::: det_losses.losses.{name}{_NO_MEMBERS}" for name in names]
    return "\n\n".join(["# Losses", *blocks])


def _blocks(part: str) -> list[str]:
    """Document the module ``part`` of det_losses, or all modules of that package."""
    path = ROOT / "det_losses" / part.replace(".", "/")
    if not path.is_dir():
        return [f"::: det_losses.{part}"]
    names = sorted(file.stem for file in path.glob("*.py") if not file.stem.startswith("_"))
    modules = [f"::: det_losses.{part}.{name}" for name in names]
    return [f"::: det_losses.{part}{_NO_MEMBERS}", *modules]


def _mathml(formula: str, display: str) -> str:
    return convert(formula, display=display).replace(
        ' xmlns="http://www.w3.org/1998/Math/MathML"', ""
    )


def _block_formula(source: str, *_: object, **__: object) -> str:
    return f'<div class="math">{_mathml(source, "block")}</div>'


class _Markup(Extension):
    """GitHub's inline formulas, and the markup of docstrings."""

    def extendMarkdown(self, md: Markdown) -> None:
        md.inlinePatterns.register(_InlineFormula(r"\$`([^`]+)`\$", md), "formula", 195)
        # Before superfences (25), which reads the fences that this writes.
        md.preprocessors.register(_Docstring(md), "docstring", 28)


class _InlineFormula(InlineProcessor):
    def handleMatch(self, m: re.Match, data: str) -> tuple[ET.Element, int, int]:
        return ET.fromstring(_mathml(m[1], "inline")), m.start(0), m.end(0)


class _Docstring(Preprocessor):
    """Formulas, roles and examples of Sphinx as Markdown, outside of fences."""

    def run(self, lines: list[str]) -> list[str]:
        parts = re.split(r"(^```.*?^```)", "\n".join(lines), flags=re.DOTALL | re.MULTILINE)
        parts[::2] = map(_markdown, parts[::2])
        return "".join(parts).split("\n")


def _markdown(text: str) -> str:
    """Translate roles, and paragraphs that are a formula or an example."""
    text = _ROLE.sub(lambda role: f"$`{role[2]}`$" if role[1] == "math" else f"`{role[2]}`", text)
    text = re.sub(_PARAGRAPH.format(r"\.\. math::"), r"```math\n\1\n```", text)
    return re.sub(_PARAGRAPH.format("(?=>>> )"), r"```pycon\n\1\n```", text)
