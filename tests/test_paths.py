import re

import pytest

from det_losses.paths import configs_root, find_config, import_root, shipped_configs


def test_configs_are_next_to_the_package_in_a_checkout():
    assert configs_root() == import_root() / "configs"


def test_parts_in_base_are_no_configs():
    assert not [name for name in shipped_configs() if "_base_" in name]


def test_a_path_is_found_with_and_without_suffix(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("")
    assert find_config(file) == file
    assert find_config(tmp_path / "mine") == file


def test_a_shipped_name_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config("_base_/runtime") == configs_root() / "_base_" / "runtime.py"


def test_a_misspelt_name_gets_the_nearest_names(monkeypatch):
    monkeypatch.setattr(
        "det_losses.paths.shipped_configs", lambda: ["quickstart/retinanet_shapes", "coco/other"]
    )
    with pytest.raises(FileNotFoundError, match=r"Did you mean 'quickstart/retinanet_shapes'\?"):
        find_config("quickstart/retinanet_shape")
    with pytest.raises(FileNotFoundError, match="quickstart/retinanet_shapes"):
        find_config("retinanet_shapes.py")
    with pytest.raises(FileNotFoundError, match=re.escape("`list_configs` shows them all")):
        find_config("zzzzzz")


def test_an_installation_without_configs_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("det_losses.paths._PACKAGE", tmp_path / "det_losses")
    with pytest.raises(FileNotFoundError, match="the installation is incomplete"):
        configs_root()
