"""check_data: with a config, and with nothing but an annotation file."""

import json
from xml.etree import ElementTree

import pytest

from det_losses.cli import main


def test_suspicions_coverage_and_a_page_of_an_experiment(tiny_config, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--out", str(out), "--browse", "3", "--seed", "1"]
    options += ["--cfg-options", "test_dataloader.batch_size=1"]  # the rest is val_dataloader's
    assert main(["browse", str(tiny_config), *options]) == 0
    text = capsys.readouterr().out
    assert "training: 6 images, 7 boxes\nvalidation: 6 images, 7 boxes\n" in text
    assert "6 of 6 validation images are also training images" in text
    assert "| all            |      7 |" in text  # boxes with an anchor
    page = (out / "data.html").read_text()
    assert page.count("data:image/jpeg") == 3
    assert "http://" not in page.replace("http://www.w3.org", "")  # it opens offline
    for title in ("Figures", "Coverage by the detector", "Images as trained"):
        assert f"<h2>{title}</h2>" in page
    pictures = page.split("<svg")[1:]
    assert len(pictures) == 4 + 2 + 3
    for picture in pictures:
        ElementTree.fromstring(f"<svg{picture.split('</svg>')[0]}</svg>")


def test_annotation_files_alone(tiny_coco, tmp_path, capsys):
    def as_corners(coco):
        for entry in coco["annotations"]:
            x, y, w, h = entry["bbox"]
            entry["bbox"] = [x, y, x + w, y + h]

    ann_file, image_dir = tiny_coco(change=as_corners)
    given = ["--train-ann", ann_file, "--train-images", image_dir, "--out", str(tmp_path / "out")]
    assert main(["check_data", *given]) == 0
    text = capsys.readouterr().out
    assert "data: instances.json: WRONG BOXES? 4 of 7 boxes reach beyond" in text
    assert "are they x1, y1, x2, y2?" in text
    assert "with an anchor" not in text + (tmp_path / "out" / "data.html").read_text()
    json.loads((tmp_path / "tiny" / "instances.json").read_text())  # the file is not changed


def test_without_a_config_and_without_files(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["check_data"])
    assert "give CONFIG, or --train-ann and --train-images" in capsys.readouterr().err
