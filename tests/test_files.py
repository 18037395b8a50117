"""Files are written completely or not at all."""

import json
import os

import pytest

from det_losses.files import write_json


def test_files_are_written_into_new_folders_without_temporary_files(tmp_path):
    path = tmp_path / "new" / "folder" / "numbers.json"
    write_json(path, {"AP": 0.1}, indent=2)
    write_json(path, {"AP": None})
    assert json.loads(path.read_text()) == {"AP": None}
    assert list(path.parent.iterdir()) == [path]


def test_failure_keeps_the_old_file(tmp_path):
    path = tmp_path / "numbers.json"
    write_json(path, [1])
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, [float("nan")])
    assert json.loads(path.read_text()) == [1]


def test_failure_of_the_disk_leaves_no_part(tmp_path, monkeypatch):
    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_json(tmp_path / "numbers.json", [1])
    assert list(tmp_path.iterdir()) == []
