import json

import pytest

from det_losses.cli.compare_losses import main


def runs(folder):
    return json.loads((folder / "results.json").read_text())["runs"]


def test_an_interrupted_comparison_continues_with_the_same_command(
    tiny_config, once, tmp_path, capsys
):
    once("stop_parent")
    folder = tmp_path / "out"
    command = [str(tiny_config), "--work-dir", str(folder), "--losses", "L1Loss", "GIoULoss"]
    assert main(command) == 130
    assert "interrupted; the same command continues" in capsys.readouterr().out
    first, second = runs(folder)
    assert (first["status"], second["status"]) == ("interrupted", "pending")
    log = folder / first["work_dir"] / "output.log"
    assert "--resume continues it" in log.read_text()  # it ended by itself, it was not killed

    assert main(command) == 0
    assert [run["status"] for run in runs(folder)] == ["done", "done"]
    assert "esumed from" in log.read_text()

    with pytest.raises(SystemExit):
        main([*command, "--cfg-options", "model.num_convs=2"])
    assert "model.num_convs: 1 -> 2" in capsys.readouterr().err
