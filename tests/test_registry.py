"""Names, scopes and configs: the class of a ``type``, and the errors for mistakes."""

import importlib
import subprocess
import sys
import types
from pathlib import Path

import mmengine.logging
import pytest
import torch
from mmengine.registry import MODELS as ROOT
from mmengine.registry import DefaultScope
from mmengine.registry import Registry as MMEngineRegistry
from mmengine.utils import import_modules_from_strings
from torch import nn

from det_losses import build_loss
from det_losses.losses import EIoULoss, GIoULoss
from det_losses.registry import MODELS, NotRegisteredError, find, import_modules

SCOPE = "peer_of_det_losses"


@pytest.fixture
def log(monkeypatch):
    """What mmengine logs above DEBUG, whatever its loggers are set to."""
    lines = []

    def record(message, logger=None, level=20):
        if level > 10:
            lines.append(message)

    monkeypatch.setattr(mmengine.logging, "print_log", record)
    return lines


@pytest.fixture
def peer(monkeypatch):
    """Another project: a child registry of mmengine's, with classes of the same names."""
    registry = MMEngineRegistry("model", parent=ROOT, scope=SCOPE)
    for name in ("EIoULoss", "GIoULoss"):
        registry.register_module(module=type(name, (nn.Module,), {"__module__": SCOPE}))
    package = types.ModuleType(SCOPE)
    package.registry = types.ModuleType(f"{SCOPE}.registry")
    monkeypatch.setitem(sys.modules, SCOPE, package)
    monkeypatch.setitem(sys.modules, f"{SCOPE}.registry", package.registry)
    yield registry
    del ROOT.children[SCOPE]


class Holder(nn.Module):
    """A loss that contains a loss, as wrappers do."""

    def __init__(self, *, loss):
        super().__init__()
        self.loss = build_loss(loss)


@pytest.fixture
def holder():
    MODELS.register_module(module=Holder)
    yield
    del MODELS.module_dict["Holder"]


@pytest.mark.parametrize("scope", [None, "mmengine", "det_losses", SCOPE])
def test_names_without_prefix_are_found_under_any_default_scope(scope, peer, holder, log):
    with DefaultScope.overwrite_default_scope(scope):
        assert type(build_loss("EIoULoss", loss_weight=2.0)) is EIoULoss
        nested = dict(type="Holder", loss=dict(type="Holder", loss=dict(type="GIoULoss")))
        assert type(build_loss(nested).loss.loss) is GIoULoss
    assert log == []


def test_an_explicit_prefix_takes_precedence(peer, holder, log):
    theirs = build_loss(dict(type="Holder", loss=dict(type=f"{SCOPE}.GIoULoss"))).loss
    assert type(theirs) is peer.module_dict["GIoULoss"]
    assert type(build_loss("det_losses.GIoULoss")) is GIoULoss
    assert log == []


@pytest.mark.parametrize("scope", [None, "mmengine", SCOPE])
def test_other_projects_use_the_registry_with_a_prefix(scope, peer, holder, log):
    import_modules_from_strings(["det_losses"])
    nested = dict(type="det_losses.Holder", loss=dict(type="GIoULoss"))
    with DefaultScope.overwrite_default_scope(scope):
        for registry in (ROOT, peer):
            assert type(registry.build(dict(type="det_losses.EIoULoss"))) is EIoULoss
            assert type(registry.build(dict(nested)).loss) is GIoULoss
        if scope == SCOPE:
            theirs = peer.build(dict(type="EIoULoss"))
            assert type(theirs) is peer.module_dict["EIoULoss"]
    assert log == []


def test_custom_imports_of_a_config_register_the_losses_and_nothing_heavy(tmp_path):
    """In a fresh interpreter that has not imported det_losses; nothing may be printed."""
    config = tmp_path / "config.py"
    config.write_text(
        'custom_imports = dict(imports=["det_losses"])\nloss = dict(type="det_losses.EIoULoss")\n'
    )
    code = (
        "import sys\n"
        "from mmengine.config import Config\n"
        "from mmengine.registry import MODELS\n"
        f"config = Config.fromfile({str(config)!r})\n"
        "import det_losses\n"
        "assert len(det_losses.list_losses()) >= 14\n"
        "heavy = ('torchvision', 'mmengine.runner', 'mmengine.model', 'cv2', 'matplotlib',\n"
        "         'jinja2', 'hotcoco', 'scipy', 'det_losses.models', 'det_losses.data',\n"
        "         'det_losses.engine')\n"
        "found = [name for name in heavy if name in sys.modules]\n"
        "assert not found, found\n"
        "assert type(MODELS.build(config.loss)).__module__ == 'det_losses.losses.eiou'\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_the_package_imports_its_names_on_first_use():
    """In a fresh interpreter; mmengine finds a loss by its prefix without any import of ours."""
    code = (
        "import sys, det_losses\n"
        "assert not {'torch', 'numpy', 'mmengine'} & {*sys.modules}\n"
        "assert {*det_losses.__all__, 'registry'} <= {*dir(det_losses)}\n"
        "assert not hasattr(det_losses, 'no_name')\n"
        "from mmengine.registry import MODELS, Registry\n"
        "peer = Registry('model', parent=MODELS, scope='peer')\n"
        "loss = dict(type='det_losses.EIoULoss')\n"
        "for registry in (peer, MODELS):\n"
        "    assert type(registry.build(loss)).__module__ == 'det_losses.losses.eiou'\n"
        "from det_losses import functional\n"
        "assert det_losses.functional is functional and det_losses.registry.SCOPE == 'det_losses'\n"
        "assert type(det_losses.build_loss(loss)) is det_losses.losses.EIoULoss\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ["EIouLoss", "det_losses.EIouLoss", "eiou"])
def test_a_misspelt_name_suggests_the_nearest(name, log):
    with pytest.raises(NotRegisteredError) as error:
        build_loss(name)
    assert str(error.value).startswith(f"{name!r} is not in the det_losses model registry. Did you")
    assert "'EIoULoss'" in str(error.value)
    assert log == []


def test_an_unknown_name_without_similar_names_suggests_an_import():
    with pytest.raises(NotRegisteredError, match=r"'zzz' is not in the .* Is it imported\?"):
        find(MODELS, "zzz")


def test_a_reloaded_module_registers_again(log, monkeypatch):
    before = MODELS.module_dict["EIoULoss"]
    module = importlib.import_module("det_losses.losses.eiou")
    monkeypatch.setattr(module, "EIoULoss", before)
    monkeypatch.setitem(MODELS.module_dict, "EIoULoss", before)
    importlib.reload(module)
    assert MODELS.module_dict["EIoULoss"] is module.EIoULoss is not before
    assert build_loss("EIoULoss")(torch.zeros(1, 4), torch.ones(1, 4)).isfinite()
    assert log == []


def test_another_class_of_a_known_name_is_refused():
    with pytest.raises(KeyError, match="EIoULoss is already registered"):
        MODELS.register_module(module=type("EIoULoss", (nn.Module,), {"__module__": "elsewhere"}))


def test_the_current_folder_is_searched_between_python_and_installed_packages(monkeypatch):
    """So a file of the user cannot replace a module of Python, and no package one of the user."""
    paths = ["/venv/bin", Path("/lib"), "/venv/lib/python3/site-packages", "/more"]
    monkeypatch.setattr(sys, "path", list(paths))
    import_modules([])
    assert sys.path == [*paths[:2], "", *paths[2:]]
    import_modules([])
    assert sys.path.count("") == 1


def test_a_module_with_the_name_of_one_of_python_is_refused():
    with pytest.raises(ValueError, match=r"--import code\.mine: Python has a module of this name"):
        import_modules(["code.mine"])
