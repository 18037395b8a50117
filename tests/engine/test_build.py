"""Building a Runner from a config: defaults, errors and the output on the terminal."""

import copy
import os
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DefaultScope

from det_losses.engine import build_runner, fill_from_data
from det_losses.engine.build import build_datasets
from det_losses.engine.run import build_parts
from det_losses.errors import UserError
from det_losses.registry import OPTIMIZERS

COCO_META = {"classes": ("cat", "dog", "bird"), "category_ids": (17, 18, 16)}


def log_of(runner):
    return (Path(runner.log_dir) / f"{runner.timestamp}.log").read_text()


@pytest.mark.parametrize("given", [{}, {"num_classes": None}, {"num_classes": 3}])
def test_number_of_classes_comes_from_the_data(given):
    model = dict(type="RetinaNet", **given)
    fill_from_data(model, COCO_META)
    assert model == dict(type="RetinaNet", num_classes=3)


def test_class_to_channel_are_the_official_ids():
    model = dict(class_to_channel="category_id")
    fill_from_data(model, COCO_META)
    assert model["class_to_channel"] == [17, 18, 16]
    model = dict(class_to_channel=[4, 5, 6])
    fill_from_data(model, COCO_META)
    assert model["class_to_channel"] == [4, 5, 6]


@pytest.mark.parametrize("kind", [dict, Config])
def test_defaults_are_added_and_the_config_is_not_changed(toy_cfg, kind):
    cfg = toy_cfg(val_evaluator=dict(type="CocoMetric", out_file="found/bbox.json"))
    cfg["model"]["class_to_channel"] = "category_id"
    del cfg["default_scope"], cfg["train_dataloader"]["collate_fn"]
    cfg = kind(cfg)
    before = copy.deepcopy(cfg)
    runner = build_runner(cfg)
    assert str(cfg) == str(before)
    assert (runner.model.num_classes, runner.model.class_to_channel) == (2, [17, 18])
    runner.train()
    assert (Path(runner.work_dir) / "found" / "bbox.json").is_file()
    assert not (Path(runner.work_dir) / ".collect").exists()


def test_work_dir_is_named_after_the_config(toy_cfg, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = toy_cfg(work_dir=None)
    with pytest.raises(ValueError, match="no `work_dir`, and no file name to derive one from"):
        build_runner(cfg)
    Path("toy_giou.py").write_text(Config(cfg).pretty_text)
    runner = build_runner(Config.fromfile("toy_giou.py"))
    assert runner.work_dir == str(tmp_path / "work_dirs" / "toy_giou")


def test_names_without_prefix_do_not_depend_on_the_default_scope(toy_cfg):
    with DefaultScope.overwrite_default_scope("mmengine"):
        assert type(build_runner(toy_cfg()).model).__name__ == "ToyDetector"


def test_testing_needs_no_training_data(toy_cfg):
    trained = build_runner(toy_cfg(epochs=1))
    trained.train()
    cfg = toy_cfg("test", load_from=str(Path(trained.work_dir) / "epoch_1.pth"))
    cfg["train_dataloader"]["dataset"] = dict(type="NoSuchDataset")
    runner = build_runner(cfg, train=False)
    metrics = runner.test()
    assert metrics["AP"] == trained.val_loop.run()["AP"]
    assert runner.train_loop is None
    assert not (Path(runner.work_dir) / "metrics.json").exists()


def test_two_runs_of_one_process_share_no_history(toy_cfg):
    runners = [build_runner(toy_cfg(name, epochs=1)) for name in ("a", "b")]
    for runner in runners:
        runner.train()
        # 6 images, batches of 2, one epoch
        assert len(runner.message_hub.get_scalar("train/loss").data[0]) == 3
        assert list(Path(runner.log_dir).glob("vis_data/scalars.json"))


def test_seed_decides_the_weights(toy_cfg):
    def weights(name, seed):
        runner = build_runner(toy_cfg(name, epochs=1, randomness=dict(seed=seed)))
        runner.train()
        return runner.model.box.weight.detach()

    first = weights("a", 1)
    assert torch.equal(first, weights("b", 1))
    assert not torch.equal(first, weights("c", 2))


def test_epochs_draw_different_numbers_whatever_was_drawn_before(toy_cfg):
    class Draw(Hook):
        def __init__(self, amount):
            self.amount, self.first = amount, []

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if batch_idx == 0:
                self.first.append(torch.rand(self.amount)[0].item())

    draws = []
    for amount in (1, 7):
        runner = build_runner(toy_cfg(str(amount), epochs=3))
        draws.append(Draw(amount))
        runner.register_hook(draws[-1])
        runner.train()
    assert draws[0].first == draws[1].first
    assert len(set(draws[0].first)) == 3


def test_set_epoch_is_called_for_each_epoch(toy_cfg):
    runner = build_runner(toy_cfg(epochs=2, randomness=dict(seed=5)))
    runner.train()
    assert runner.train_dataloader.dataset.epochs == [(0, 5), (1, 5)]


def test_classes_of_joined_validation_data_are_matched_by_name(tiny_coco):
    def other_ids(coco):
        for entry in coco["categories"]:
            entry["id"] = {3: 7, 7: 18, 18: 3}[entry["id"]]
        coco["annotations"] = []

    def coco(files, **options):
        options = dict(ann_file=files.ann_file, image_dir=files.image_dir, **options)
        return dict(type="CocoDataset", **options)

    val = [coco(tiny_coco(name, change=other_ids), test_mode=True) for name in ("b", "c")]
    cfg = Config(
        dict(
            train_dataloader=dict(dataset=coco(tiny_coco("a"))),
            val_dataloader=dict(dataset=dict(type="ConcatDataset", datasets=val)),
        )
    )
    classes = [dataset.metainfo["classes"] for dataset in build_datasets(cfg).values()]
    # by their own ids, those of the validation data would be bird, cat, dog
    assert classes == [("cat", "dog", "bird")] * 2


def test_wrapped_datasets_train_are_evaluated_and_get_the_epoch(toy_cfg, record):
    cfg = toy_cfg(epochs=2, randomness=dict(seed=5))
    toy = cfg["train_dataloader"]["dataset"]
    joined = dict(type="ConcatDataset", datasets=[toy, {**toy, "length": 4}])
    cfg["train_dataloader"]["dataset"] = dict(type="RepeatDataset", times=2, dataset=joined)
    test = cfg["val_dataloader"]["dataset"]
    cfg["val_dataloader"]["dataset"] = dict(type="ConcatDataset", datasets=[test, test])
    runner = build_runner(cfg)
    runner.train()
    assert len(runner.train_dataloader.dataset) == 2 * (6 + 4)
    inner = runner.train_dataloader.dataset.datasets[0].datasets
    assert [dataset.epochs for dataset in inner] == [[(0, 5), (1, 5)]] * 2
    # the ids of the second are shifted, so that its images are evaluated too
    truth = [runner.val_dataloader.dataset.ground_truth(index) for index in range(12)]
    assert len({each["image"]["id"] for each in truth}) == 12
    assert record(runner)["metrics"]["AP"] > 0


class TestRefused:
    def test_contradicting_number_of_classes(self, toy_cfg):
        cfg = toy_cfg(model=dict(type="ToyDetector", num_classes=80))
        with pytest.raises(ValueError, match=r"num_classes is 80, but the data has 2 .*cat, dog"):
            build_runner(cfg)

    @pytest.mark.parametrize(
        ("classes", "message"),
        [
            (("cat", "cow"), "only in training: dog; only in validation: cow"),
            (("cat",), "different classes, only in training: dog. Select"),
            (("dog", "cat"), "in a different order: cat, dog and dog, cat"),
            (
                tuple(f"c{i}" for i in range(80)),
                r"only in validation: c0, .*, c7, \.\.\. \(80 in total\)",
            ),
        ],
    )
    def test_different_classes_in_validation(self, toy_cfg, classes, message):
        cfg = toy_cfg()
        cfg["val_dataloader"]["dataset"]["classes"] = classes
        with pytest.raises(ValueError, match=message):
            build_runner(cfg)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_mixed_precision_without_accelerator(self, toy_cfg):
        cfg = toy_cfg()
        cfg["optim_wrapper"]["type"] = "AmpOptimWrapper"
        with pytest.raises(ValueError, match=r"\(--amp, .*'AmpOptimWrapper'\) needs a GPU"):
            build_runner(cfg)
        assert not Path(cfg["work_dir"]).exists()

    def test_a_launcher_without_its_processes(self, toy_cfg, monkeypatch):
        monkeypatch.setenv("RANK", "0")
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        with pytest.raises(
            ValueError, match=r"launcher: 'pytorch' needs .*\(WORLD_SIZE, .*torchrun"
        ):
            build_runner(toy_cfg(launcher="pytorch"))

    def test_missing_checkpoint(self, toy_cfg):
        with pytest.raises(FileNotFoundError, match=r"checkpoint 'nowhere\.pth': no such file"):
            build_runner(toy_cfg(load_from="nowhere.pth"))

    @pytest.mark.parametrize("key", ["train_dataloader", "train_cfg", "optim_wrapper", "model"])
    def test_incomplete_config_for_training(self, toy_cfg, key):
        cfg = toy_cfg()
        del cfg[key]
        with pytest.raises(ValueError, match=f"has no `{key}`"):
            build_runner(cfg)

    def test_incomplete_config_for_testing(self, toy_cfg):
        cfg = toy_cfg()
        del cfg["val_evaluator"]
        with pytest.raises(ValueError, match="has no `test_evaluator`, which testing requires"):
            build_runner(cfg, train=False)


@OPTIMIZERS.register_module()
class PickySGD(torch.optim.SGD):
    """A user's optimizer: it refuses a value, and has a bug below its constructor."""

    def __init__(self, params, lr=0.1, momentum=0.0, mode="plain"):
        if mode == "unknown":
            raise ValueError("mode 'unknown' is neither plain nor fancy")
        super().__init__(params, lr, momentum)
        if mode == "bug":
            self._helper()

    def _helper(self):
        return [0.1].index("a bug")


class TestRefusedByConstructors:
    """What mmengine passes from the config to constructors, in their order of construction."""

    @pytest.mark.parametrize(
        ("key", "value", "kind", "message"),
        [
            ("train_dataloader.dataset.clases", ["a"], TypeError, "argument 'clases'"),
            ("train_dataloader.dataset.type", "ToyBox", KeyError, "Did you mean 'ToyBoxes'"),
            ("train_dataloader.batchsize", 4, TypeError, "argument 'batchsize'"),
            ("train_dataloader.prefetch_factor", 2, ValueError, "DataLoader: prefetch_factor"),
            ("train_cfg.max_epoch", 5, TypeError, "'max_epoch'"),
            ("model.losweight", 1.0, TypeError, "'losweight'"),
            ("default_hooks.logger.intervall", 5, TypeError, "'intervall'"),
            ("optim_wrapper.optimizer.lrr", 1, TypeError, "'lrr'"),
            ("optim_wrapper.optimizer.lr", -1.0, ValueError, "lr: must be from 0 to 1000"),
            ("optim_wrapper.optimizer", {"type": "PickySGD", "mode": "unknown"}, ValueError,
             "optim_wrapper.optimizer: PickySGD: mode 'unknown' is neither plain nor fancy"),
        ],
    )  # fmt: skip
    def test_a_wrong_constructor_argument_is_a_user_error(self, toy_cfg, key, value, kind, message):
        cfg = Config(toy_cfg())
        cfg.merge_from_dict({key: value})
        with pytest.raises(UserError, match=message) as error:
            build_parts(build_runner(cfg))
        assert isinstance(error.value, kind)
        assert "\n" not in str(error.value)

    def test_a_bug_in_a_deeper_call_is_not_converted(self, toy_cfg):
        cfg = toy_cfg()
        cfg["optim_wrapper"]["optimizer"] = dict(type="PickySGD", mode="bug")
        with pytest.raises(ValueError, match="'a bug' is not in list") as error:
            build_parts(build_runner(cfg))
        assert not isinstance(error.value, UserError)


class TestLog:
    def test_terminal_is_short_and_the_file_complete(self, toy_cfg, capfd, monkeypatch):
        monkeypatch.setenv(
            "PATH", "/nowhere"
        )  # as without a compiler, of which the shell complains
        cfg = toy_cfg(epochs=1)
        cfg["optim_wrapper"]["paramwise_cfg"] = dict(bias_lr_mult=2.0)
        runner = build_runner(cfg)
        next(runner.model.parameters()).requires_grad_(False)
        runner.train()
        captured = capfd.readouterr()
        for dump in (
            "is skipped since its requires_grad=False",
            "System environment",
            "Config:",
            "Hooks will be executed",
            "paramwise_options",
            "Exp name",
        ):
            assert dump in log_of(runner)
            assert dump not in captured.out
        assert captured.err == ""
        assert "WARNING" not in captured.out
        assert not re.search(r"registry|scope", captured.out)
        assert captured.out.count("Epoch(train)") == 3

    def test_no_registry_warning_in_any_log(self, toy_cfg):
        runner = build_runner(toy_cfg(custom_hooks=[dict(type="EMAHook")]))
        runner.train()
        warnings = [line for line in log_of(runner).splitlines() if " WARNING " in line]
        assert all("FileClient" in line or "HardDiskBackend" in line for line in warnings), warnings

    def test_line_of_an_evaluation_has_only_ap(self, toy_cfg, capfd):  # a table has the rest
        runner = build_runner(toy_cfg(epochs=1))
        runner.train()
        out = capfd.readouterr().out
        (line,) = [line for line in out.splitlines() if "Epoch(val)" in line and "AP: " in line]
        assert "AP75" not in line and "AP/cat" not in line
        scalars = next(Path(runner.log_dir).glob("vis_data/scalars.json")).read_text()
        assert "AP/cat" in scalars


def test_a_cosine_ends_with_training(toy_cfg):
    # However long training is, the rate falls to zero once, at its end; mmengine's cosine with a
    # length of its own climbs again in a longer training.
    cosine = dict(type="CosineAnnealingLR", by_epoch=True, convert_to_iter_based=True)
    cfg = toy_cfg(epochs=3, param_scheduler=[cosine])
    start = cfg["optim_wrapper"]["optimizer"]["lr"]
    runner = build_runner(cfg)
    runner.train()
    assert [scheduler.T_max for scheduler in runner.param_schedulers] == [runner.max_iters]
    assert runner.optim_wrapper.get_lr()["lr"][0] < 0.05 * start


def test_broken_images_of_training_and_validation_data_are_one_error(tiny_coco):
    cfg = Config()
    for name in ("train", "val"):
        data = tiny_coco(name)
        os.truncate(f"{data.image_dir}/000011.png", 100)
        dataset = dict(type="CocoDataset", ann_file=data.ann_file, image_dir=data.image_dir)
        cfg[f"{name}_dataloader"] = dict(dataset=dataset)
    message = r"train/images/000011\.png: .*val/images/000011\.png: .* leaves them out\.$"
    with pytest.raises(UserError, match=message) as info:
        build_datasets(cfg)
    assert str(info.value).count("--skip-broken") == 1
