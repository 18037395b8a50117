"""A config as two comparisons see it: without what does not change the result."""

import json
from collections.abc import Collection, Mapping
from typing import Any

from mmengine.config import Config

# Where a run is written and how it is started: the same experiment otherwise.
_PLACE = ("work_dir", "launcher", "resume", "loss_weights")


def plain(cfg: Config | Mapping[str, Any], without: Collection[str] = ()) -> dict[str, Any]:
    """Return a config as JSON would hold it, without what does not change the result.

    Args:
        cfg: the config.
        without: dotted keys to leave out as well.
    """
    content = cfg.to_dict() if isinstance(cfg, Config) else dict(cfg)
    content = json.loads(json.dumps(content, default=str))
    for key in (*_PLACE, *without):
        *parents, last = key.split(".")
        inner = content
        for parent in parents:
            inner = inner.get(parent, {})
        inner.pop(last, None)
    return content
