import json

import pytest

from det_losses import list_losses
from det_losses.cli import main
from det_losses.losses.core.card import BY_HAND
from det_losses.paths import shipped_configs


def test_list_losses_shows_every_loss(capsys):
    assert main(["list_losses"]) == 0
    text = capsys.readouterr().out
    rows = {line.split("|")[1].strip(): line for line in text.splitlines()[2:-1]}
    assert set(rows) == {info.name for info in list_losses()}
    assert "decoded" in rows["EIoULoss"]
    assert "2101.08158" in rows["EIoULoss"]
    assert "delta" in rows["SmoothL1Loss"]
    assert "beta=1.0" in rows["SmoothL1Loss"]
    assert "sigmoid" in rows["FocalLoss"]


def test_list_losses_of_one_kind(capsys):
    main(["list_losses", "--kind", "classification"])
    text = capsys.readouterr().out
    assert "FocalLoss" in text
    assert "GIoULoss" not in text


def test_list_losses_shows_the_card_of_one(capsys):
    assert main(["list_losses", "EIoULoss"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("EIoULoss: box loss on decoded boxes\n\nEfficient IoU: overlap")
    for part in ("\\frac{(w - w_g)^2}{C_w^2}", "eps (1e-07): ", "Disjoint boxes\n", "2101.08158"):
        assert part in text
    assert text.endswith("Example\n  EIoULoss\n")


def test_list_losses_suggests_a_name(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["list_losses", "giou"])
    assert "error: no loss 'giou'. Did you mean 'GIoULoss'" in capsys.readouterr().err


def test_list_losses_shows_a_card_or_a_kind_or_writes_all(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["list_losses", "GIoULoss", "--kind", "box"])
    assert "not allowed with argument" in capsys.readouterr().err


def test_list_losses_writes_all_cards_and_keeps_what_is_by_hand(tmp_path, capsys):
    file = tmp_path / "docs" / "losses.md"
    assert main(["list_losses", "--markdown", str(file)]) == 0
    cards = file.read_text(encoding="utf-8")
    assert all(f"\n### {info.name}\n" in cards for info in list_losses())
    file.write_text(f"# Old\n\n{BY_HAND}\n\nMine.\n", encoding="utf-8")
    main(["list_losses", "--markdown", str(file)])
    again = file.read_text(encoding="utf-8")
    assert again.endswith(f"{BY_HAND}\n\nMine.\n") and "# Old" not in again
    assert "\n### GIoULoss\n" in again
    assert capsys.readouterr().out == f"wrote {file}\n" * 2


def test_list_configs_shows_every_config_with_its_first_line(capsys):
    assert main(["list_configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == shipped_configs()


def test_make_subset_writes_what_it_prints(tiny_coco, tmp_path, capsys):
    ann_file, _ = tiny_coco()
    out = tmp_path / "subset"
    arguments = ["make_subset", str(out), "--train-ann", ann_file, "--num-val", "1"]
    assert main([*arguments, "--classes", "cat", "dog"]) == 0
    assert {path.name for path in out.iterdir()} == {"train.json", "val.json", "manifest.json"}
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["category_ids"] == [3, 7]
    # Images 5, 8 and 11 show a cat or a dog that is no crowd; one of them is for validation.
    assert (manifest["train"]["num_images"], manifest["val"]["num_images"]) == (2, 1)
    boxes = manifest["train"]["num_boxes"], manifest["val"]["num_boxes"]
    last = capsys.readouterr().out.splitlines()[4]
    assert [cell.strip() for cell in last.split("|")[1:-1]] == [
        "all",
        "2",
        str(boxes[0]),
        "1",
        str(boxes[1]),
    ]
    with pytest.raises(SystemExit):
        main([*arguments, "--classes", "cat"])
    assert "already contains" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*arguments, "--overwrite", "--classes", "cta"])
    assert "no class 'cta'" in capsys.readouterr().err
