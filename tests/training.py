"""Running a training in a test."""

from det_losses.engine import build_runner


def run(cfg, *hooks):
    """Train a config with further hooks, which run last; return the runner."""
    runner = build_runner(cfg)
    for hook in hooks:
        runner.register_hook(hook, priority="LOWEST")
    runner.train()
    return runner
