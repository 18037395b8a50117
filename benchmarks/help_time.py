"""CPU time of each tool's --help, compared with `import torch`.

    python benchmarks/help_time.py

Each command runs several times in its own process; the minimum of user plus system time is used.
Printing help should cost little more than `import det_losses`, which should cost little more than
`import torch`.
"""

import argparse
import resource
import subprocess
import sys

from det_losses.cli import TOOLS


def main() -> None:
    """Print one line for each command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="processes for each command")
    repeats = parser.parse_args().repeats
    commands = {
        "import torch": ["-c", "import torch"],
        "import det_losses": ["-c", "import det_losses"],
        **{f"{tool} --help": ["-m", "det_losses", tool, "--help"] for tool in TOOLS},
    }
    seconds = {name: cpu_seconds(command, repeats) for name, command in commands.items()}
    for name, value in seconds.items():
        ratio = value / seconds["import torch"]
        above = value - seconds["import det_losses"]
        print(f"{name:26} {value:5.2f} s  {ratio:5.2f} x torch  {above:+5.2f} s to det_losses")


def cpu_seconds(arguments: list[str], repeats: int) -> float:
    """Return the minimum CPU time of a Python process, in seconds."""
    times = []
    for _ in range(repeats):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


if __name__ == "__main__":
    main()
