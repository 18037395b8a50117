import json

import pytest

from det_losses.cli.test import main
from det_losses.cli.train import main as train


@pytest.fixture
def trained(tiny_config, tmp_path):
    options = [
        "optim_wrapper.optimizer.lr=0.05",
        "train_cfg.max_epochs=1",
        "model.score_thresh=0.0",
    ]
    run = tmp_path / "run"
    assert train([str(tiny_config), "--work-dir", str(run), "--cfg-options", *options]) == 0
    return [str(tiny_config), str(run / "epoch_1.pth"), "--work-dir", str(tmp_path / "test")]


def test_both_backends_and_the_result_file(trained, tmp_path, capsys):
    out = tmp_path / "found.json"
    options = ["--out", str(out), "--cfg-options", "model.score_thresh=0.0"]
    texts = []
    for backend in ("hotcoco", "pycocotools"):
        assert main([*trained, "--backend", backend, *options]) == 0
        texts.append(capsys.readouterr().out.partition(f"({backend})\n")[2].partition(" - ")[0])
    # The table is the same to its last digit, up to the next line's time.
    assert texts[0].splitlines()[:-1] == texts[1].splitlines()[:-1]
    assert "AP of each class (boxes)" in texts[0]
    assert {entry["category_id"] for entry in json.loads(out.read_text())} <= {3, 7, 18}


def refused(arguments, capsys):
    with pytest.raises(SystemExit) as info:
        main(arguments)
    assert info.value.code == 2
    return capsys.readouterr().err


def test_a_checkpoint_that_does_not_fit_is_refused(trained, capsys):
    error = refused([*trained, "--cfg-options", "model.num_convs=2"], capsys)
    assert "epoch_1.pth does not fit the config's model" in error
    assert len(error.splitlines()) == 1
    error = refused([*trained, "--cfg-options", "val_dataloader.dataset.classes=[cat]"], capsys)
    assert "was trained on the classes cat, dog, bird, but the data has cat" in error


def test_a_file_that_is_not_a_checkpoint_is_an_error(tiny_config, tmp_path, capsys):
    other = ["--work-dir", str(tmp_path / "test")]
    error = refused([str(tiny_config), "absent.pth", *other], capsys)
    assert error == "error: checkpoint absent.pth: no such file\n"
    assert "is not a checkpoint" in refused([str(tiny_config), str(tiny_config), *other], capsys)
    assert not (tmp_path / "test").exists()


def test_a_directory_as_result_file_is_refused_before_the_test(trained, tmp_path, capsys):
    assert "is a directory, expected a file" in refused([*trained, "--out", str(tmp_path)], capsys)


def test_averaged_weights_are_tested(tiny_config, tmp_path):
    # the example in configs/_base_/runtime.py
    hooks = 'custom_hooks = [dict(type="EMAHook", momentum=0.0002)]'
    tiny_config.write_text(f"{tiny_config.read_text()}{hooks}\n")
    run, out = tmp_path / "run", tmp_path / "found.json"
    threshold = ["--cfg-options", "model.score_thresh=0.0"]
    assert train([str(tiny_config), "--work-dir", str(run), *threshold]) == 0
    arguments = [str(tiny_config), str(run / "epoch_2.pth"), "--work-dir", str(tmp_path / "test")]
    assert main([*arguments, "--out", str(out), *threshold]) == 0
    averaged = out.read_text()
    # The checkpoint's model is the averaged one.
    tiny_config.write_text(tiny_config.read_text().replace(hooks, ""))
    assert main([*arguments, "--out", str(out), *threshold]) == 0
    assert out.read_text() == averaged
