"""Configs as text."""

import copy
import math
import pickle
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict

import det_losses.models  # noqa: F401  registers the detectors
from det_losses.engine import build_runner
from det_losses.engine.config_text import FastTextConfig, config_text
from det_losses.paths import configs_root, shipped_configs

VALUES = {
    "none": None,
    "numbers": [0, -3, 1e-07, 0.1, 2**70, True],
    "infinite": (float("inf"), float("-inf")),
    "empty": [[], (), {}, ""],
    "tuples": ((1,), ((2, 3), [4, (5,)])),
    "quotes": """it's "quoted" and 'nested'""",
    "escapes": "C:\\new\ttab\nline \\n é \x00",
    "variables": ["{{ fileDirname }}", "{{$HOME:nowhere}}", "{{ _base_.x }}", "{{{"],
    "nested": dict(a=dict(b=[dict(c=1), dict(type="X", d=(dict(e=None),))])),
    "keys": {"not an identifier": 1, "class": 2, "it's": {3: "three", (1, 2): "pair"}},
    "keyword": {"lambda": 1},
    "long": [f"class number {i}" for i in range(80)],
    "deep": dict(a=dict(b=dict(c=dict(d=dict(names=[f"name {i}" for i in range(20)]))))),
}


def read_back(cfg, folder):
    file = folder / "config.py"
    file.write_text(config_text(cfg), encoding="utf-8")
    return Config.fromfile(file)


def test_every_value_is_read_back_equal(tmp_path):
    cfg = Config({**VALUES, "nan": float("nan")})
    found = read_back(cfg, tmp_path).to_dict()
    assert math.isnan(found.pop("nan"))
    assert found == VALUES
    assert list(found) == list(VALUES)
    # == takes a list for no tuple, but True for 1.
    assert repr(found) == repr(VALUES)
    assert isinstance(read_back(cfg, tmp_path).nested.a.b[0], ConfigDict)


@pytest.mark.parametrize("name", shipped_configs()[::8])
def test_a_shipped_config_is_read_back_equal(name, tmp_path):
    cfg = Config.fromfile(configs_root() / f"{name}.py")
    assert read_back(cfg, tmp_path).to_dict() == cfg.to_dict()


def test_a_class_is_written_as_its_dotted_path(tmp_path):
    cfg = Config(dict(optimizer=dict(type=torch.optim.SGD), collate=math.sqrt))
    found = read_back(cfg, tmp_path)
    assert found.optimizer.type == "torch.optim.sgd.SGD"
    assert found.collate == "math.sqrt"


def test_lines_are_short_and_written_deterministically():
    text = config_text(Config(VALUES))
    assert max(map(len, text.splitlines())) <= 100
    assert text == config_text(Config(VALUES))


def test_a_copy_of_a_fast_config_is_fast(tmp_path):
    cfg = Config(dict(a=dict(b=1)), filename=None)
    fast = FastTextConfig.of(cfg)
    assert fast.a is cfg.a
    for other in (fast, copy.deepcopy(fast), fast.copy(), pickle.loads(pickle.dumps(fast))):
        assert type(other) is FastTextConfig
        assert other.pretty_text == "a = dict(b=1)\n"
        other.dump(tmp_path / "dumped.py")
        assert (tmp_path / "dumped.py").read_text() == other.pretty_text


def test_a_run_never_formats_with_yapf(toy_cfg, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("yapf was called")

    monkeypatch.setattr("mmengine.config.config.FormatCode", refuse)
    monkeypatch.setattr("yapf.yapflib.yapf_api.FormatCode", refuse)
    cfg = toy_cfg(epochs=2)
    runner = build_runner(cfg)
    runner.train()
    # What mmengine itself wrote is the config that the run had.
    (file,) = Path(runner.work_dir).glob("*.py")
    assert Config.fromfile(file).to_dict() == runner.cfg.to_dict()
