import json
import shutil
from pathlib import Path

import pytest
from synthetic_comparison import write_comparison

from det_losses.cli.compare_detections import main, parse_results
from det_losses.report import analyses

TWO = {"base": 0.1, "new": 0.05}


@pytest.fixture
def results(tmp_path):
    """Ground truth, and label -> files of three seeds."""
    root = write_comparison(tmp_path / "c", noise=TWO)
    files = {
        label: [
            shutil.copy(root / f"runs/{label}/seed_{seed}/detections.json", tmp_path / name)
            for seed, name in enumerate(f"{label}_{n}.json" for n in range(3))
        ]
        for label in TWO
    }
    return str(root / "ground_truth.json"), files


def refused(arguments, capsys):
    with pytest.raises(SystemExit) as info:
        main([str(argument) for argument in arguments])
    assert info.value.code == 2
    return capsys.readouterr().err


def test_one_file_per_name_and_its_caution(results, capsys, tmp_path):
    truth, files = results
    before = sorted(tmp_path.rglob("*"))
    assert main([truth, str(files["base"][0]), str(files["new"][0]), "--resamples", "100"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("One seed cannot show which variant is better")
    assert "With one seed, the intervals are for other images" in text
    assert all(part in text for part in ("## Other metrics", "AP75", "## All pairs"))
    assert sorted(tmp_path.rglob("*")) == before  # nothing is written without --out


def test_a_file_for_each_seed(results, capsys, tmp_path, monkeypatch):
    truth, files = results
    named = [f"{label}={','.join(map(str, paths))}" for label, paths in files.items()]
    options = ["--resamples", "100", "--baseline", "new", "--metric", "AP50"]
    assert main([truth, *named, *options]) == 0
    text = capsys.readouterr().out
    assert "With one seed" not in text
    assert "3/3" in text
    assert "AP50" in next(line for line in text.splitlines() if "| variant" in line)
    monkeypatch.setattr(analyses, "BUILDERS", {})
    out = tmp_path / "out"
    assert main([truth, *named, "--resamples", "100", "--out", str(out)]) == 0
    assert f"report: {out / 'report.html'}" in capsys.readouterr().out
    page = (out / "report.html").read_text()
    assert "Comparison of detections" in page
    assert "Files at the same position" in page
    # Sections about training are left out, not shown as empty.
    titles = ("Loss weights", "Losses that ran", "How to reproduce")
    assert not [title for title in titles if title in page]


def test_the_whole_report_of_detections_with_its_analyses(results, tmp_path):
    truth, files = results
    out = tmp_path / "out"
    texts = [str(files["base"][0]), str(files["new"][0])]
    assert main([truth, *texts, "--resamples", "100", "--out", str(out)]) == 0
    assert "is missing because" not in (out / "report.html").read_text()


def test_names_of_results(tmp_path):
    odd = tmp_path / "a=b,c.json"
    odd.touch()
    comma = tmp_path / "d,e.json"
    comma.touch()
    found = parse_results(["x/y.json", "n=1.json,2.json", str(odd), f"m={comma}"])
    assert {name: [str(path) for path in paths] for name, paths in found.items()} == {
        "y": ["x/y.json"],
        "n": ["1.json", "2.json"],
        "a=b,c": [str(odd)],
        "m": [str(comma)],
    }
    with pytest.raises(ValueError, match="two results have the name y; use NAME=FILE"):
        parse_results(["a/y.json", "b/y.json"])
    for text in ("n=", "=a.json", "n=,"):
        with pytest.raises(ValueError, match="expected FILE or NAME=FILE,FILE"):
            parse_results([text])


def test_errors_are_one_line(results, capsys, tmp_path):
    truth, files = results
    first, second = files["base"][:2]
    error = refused([truth, first, tmp_path / "absent.json"], capsys)
    assert error == f"error: {tmp_path / 'absent.json'}: no such file; give a COCO result json\n"
    error = refused([truth, f"a={first},{second}", f"b={first}"], capsys)
    assert "one per seed in the same order: a has 2, b has 1" in error
    assert "no such file" in refused([tmp_path / "absent.json", first], capsys)
    assert "a COCO result file is a list" in refused([truth, truth], capsys)
    assert error.count("\n") == 1


def test_only_what_is_used_is_required_of_the_ground_truth(results, capsys, tmp_path):
    """Ids as text, no names or sizes of images, no ids of annotations: the same result."""
    truth, files = results
    named = [f"{label}={','.join(map(str, paths))}" for label, paths in files.items()]
    assert main([truth, *named, "--resamples", "100"]) == 0
    expected = capsys.readouterr().out
    coco = json.loads(Path(truth).read_text())
    bare = {
        "images": [{"id": str(image["id"])} for image in coco["images"]],
        "categories": [{"id": float(c["id"]), "name": c["name"]} for c in coco["categories"]],
        "annotations": [
            {key: a[key] for key in ("image_id", "category_id", "bbox", "area", "iscrowd")}
            for a in coco["annotations"]
        ],
    }
    other = tmp_path / "bare.json"
    other.write_text(json.dumps(bare), encoding="utf-16")
    assert main([str(other), *named, "--resamples", "100"]) == 0
    text = capsys.readouterr().out
    notes = [line for line in text.splitlines() if "bare.json: " in line]
    assert len(notes) == 2 and "whole numbers" in notes[0] and ": numbered" in notes[1]
    rest = [line for line in text.splitlines() if line not in notes and line.strip() != "-"]
    assert rest[:10] == expected.splitlines()[:10]


@pytest.mark.parametrize("change", [{"bbox": [1, 1, 0, 5]}, {"iscrowd": 1}])
def test_a_ground_truth_without_boxes_is_refused(results, capsys, tmp_path, change):
    truth, files = results
    coco = json.loads(Path(truth).read_text())
    empty = tmp_path / "empty.json"
    entries = [{**entry, **change} for entry in coco["annotations"]]
    empty.write_text(json.dumps(coco | {"annotations": entries}))
    assert "no box to compare detections with" in refused([empty, files["base"][0]], capsys)


def test_boxes_without_area_and_odd_detections_are_told(results, capsys, tmp_path):
    truth, files = results
    coco = json.loads(Path(truth).read_text())
    first, size = coco["annotations"][0], coco["images"][0]
    void = [dict(first, id=9000 + i, bbox=box) for i, box in enumerate([[1, 1, 0, 5], [1e6] * 4])]
    # An escape sequence in a class name must not reach the terminal.
    coco["categories"][0]["name"] = "\x1b[31mred"
    odd = tmp_path / "odd.json"
    odd.write_text(json.dumps(coco | {"annotations": [*coco["annotations"], *void]}))
    found = json.loads(Path(files["new"][0]).read_text())
    for each in found:
        x, y, w, h = each["bbox"]
        each["bbox"] = [x / 1e4, y / 1e4, w / 1e4, h / 1e4]
    fractions = tmp_path / "fractions.json"
    fractions.write_text(json.dumps(found))
    assert size["width"] < 1e4
    assert main([str(odd), str(files["base"][0]), str(fractions), "--resamples", "100"]) == 0
    text = capsys.readouterr().out
    assert "boxes has no width or height and is left out" in text
    assert "boxes is outside its image and is left out" in text
    assert "fractions.json: " in text and "are they fractions of the image size?" in text
    assert "\x1b" not in text
