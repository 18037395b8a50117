"""Files are written completely or not at all."""

import json
import os

import pytest

from det_losses.files import check_work_dir, is_damaged, read_whole_json, write_json


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


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    path = tmp_path / "numbers.json"
    part = tmp_path / f"numbers.json.{os.getpid()}.part"
    part.symlink_to("/dev/full")  # a device that is always full
    with pytest.raises(OSError, match="No space left on device") as info:
        write_json(path, [1])
    assert info.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b'{"AP": 0.', b"\xff\xfe{", b"[1] 2"])
def test_a_damaged_file_has_no_content(tmp_path, content):
    path = tmp_path / "numbers.json"
    assert (read_whole_json(path), is_damaged(path)) == (None, False)
    path.write_bytes(content)
    assert (read_whole_json(path), is_damaged(path)) == (None, True)
    write_json(path, [1])
    assert (read_whole_json(path), is_damaged(path)) == ([1], False)


def test_a_file_that_cannot_be_written_is_named_without_its_part(tmp_path):
    target = tmp_path / "folder"
    target.mkdir()
    with pytest.raises(IsADirectoryError) as info:
        write_json(target, [1])
    assert info.value.filename == str(target)
    assert list(tmp_path.iterdir()) == [target]


def test_a_work_dir_that_is_a_link_to_nothing_is_named(tmp_path):
    """As of a storage that is not mounted; mkdir would say that it exists."""
    link = tmp_path / "runs"
    link.symlink_to(tmp_path / "storage" / "runs")
    for folder in (link, link / "seed_0"):
        with pytest.raises(ValueError, match=r"--work-dir .*/runs is a link to .*/storage/runs, w"):
            check_work_dir(folder)
    (tmp_path / "storage" / "runs").mkdir(parents=True)
    check_work_dir(link)
    check_work_dir(tmp_path / "new")
