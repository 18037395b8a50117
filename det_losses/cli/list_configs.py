"""List the shipped configs."""

import ast

from det_losses.cli.arguments import new_parser
from det_losses.cli.errors import user_errors
from det_losses.paths import configs_root, shipped_configs


def main(argv: list[str] | None = None) -> int:
    """Print the name of each config and the first line of its docstring."""
    parser = new_parser(
        "list_configs", "List the shipped configs by name.", "  det-losses list_configs"
    )
    parser.parse_args(argv)
    with user_errors():
        names = shipped_configs()
        width = max(map(len, names), default=0)
        for name in names:
            text = (configs_root() / f"{name}.py").read_text(encoding="utf-8")
            docstring = ast.get_docstring(ast.parse(text)) or ""
            print(f"{name:{width}}  {docstring.partition(chr(10))[0]}".rstrip())
    return 0
