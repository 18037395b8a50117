"""Wrong settings in every section of a config: one line with its key, and no file is written."""

import copy

import pytest
from mmengine.config import Config

from det_losses.cli.train import main
from det_losses.engine import build_runner
from det_losses.engine.config import read_config
from det_losses.engine.config_text import config_text
from det_losses.engine.run import build_parts
from det_losses.engine.settings import check_settings
from det_losses.errors import UserError
from det_losses.paths import shipped_configs
from det_losses.registry import DATASETS

NORMALIZE = "[dict(type='Normalize', mean=[0, 0, 0], std=[1, 1, 1])]"
# An option, and the parts of the message: the key, then what is wrong or what to do.
WRONG = [
    # model
    ("model.type=RetinaNett", ("model.type: ", "Did you mean 'RetinaNet'?")),
    ("model.scor_thresh=0.1", ("model.scor_thresh: ", "Did you mean 'score_thresh'?")),
    ("model.score_thresh=low", ("model.score_thresh: must be a number, got 'low'",)),
    ("model.score_thresh=7", ("model.score_thresh: must be from 0 to 1, got 7",)),
    ("model.min_size=0", ("model.min_size: must be at least 1, got 0",)),
    ("model.detections_per_img=0", ("model.detections_per_img: must be at least 1",)),
    ("model.nms_thresh=1.5", ("model.nms_thresh: must be from 0 to 1, got 1.5",)),
    ("model.detections_per_img=2.5", ("model.detections_per_img: must be a whole number",)),
    ("model.anchors.sizes=[[8]]", ("model.anchors: ", "each of the backbone's")),
    ("model.num_convs=many", ("model.num_convs: must be a whole number, got 'many'",)),
    ("model.num_convs=9", ("model: RetinaNet num_convs must be 1 to 4",)),
    ("model.num_classes=7", ("model.num_classes is 7, but the data has",)),
    ("model.weights=none.pth", ("model: weights 'none.pth': no such file",)),
    ("model=5", ("model: must be a dict of settings, got 5",)),
    # backbone
    ("model.backbone.type=SmalResNetFPN", ("model.backbone.type: ", "'SmallResNetFPN'")),
    ("model.backbone.widts=[4]", ("model.backbone.widts: ", "Did you mean 'widths'?")),
    ("model.backbone.body=3", ("model.backbone.body: ", "widths, norm, out_channels, extra_l")),
    ("model.backbone.widths=7", ("model.backbone.widths: must be a list",)),
    ("model.backbone.widths=[4]", ("model.backbone: widths must be three or more",)),
    ("model.backbone.norm=XX", ("model.backbone: norm must be one of 'BN'",)),
    ("model.backbone.out_channels=0", ("model.backbone: out_channels must be at least 1",)),
    # anchors
    ("model.anchors.size=[[9]]", ("model.anchors.size: ", "Did you mean 'sizes'?")),
    ("model.anchors.sizes=low", ("model.anchors.sizes: must be a list",)),
    ("model.anchors.sizes=[[9], [-9]]", ("model.anchors: ", "sizes above 0")),
    # losses
    ("model.loss_bbox.type=GIuLoss", ("'GIuLoss'", "Did you mean 'GIoULoss'?")),
    ("model.loss_bbox.loss_weight=-1", ("model.loss_bbox: ", "loss_weight must be at least 0")),
    ("model.loss_cls.gamma=high", ("gamma must be a finite number, got 'high'",)),
    ("model.loss_cls.gama=2", ("'gama'", "Did you mean 'gamma'?")),
    ("model.loss_box.type=L1Loss", ("model.loss_box: ", "Did you mean 'loss_bbox'?")),
    # optimizer
    ("optim_wrapper.optimizer.type=AdmW", ("optim_wrapper.optimizer.type: ", "'AdamW'")),
    ("optim_wrapper.optimizer.lr=0,001", ("optim_wrapper.optimizer.lr: ", "write 0.001")),
    ("optim_wrapper.optimizer.lr=fast", ("optim_wrapper.optimizer.lr: must be a number",)),
    ("optim_wrapper.optimizer.lr=-1", ("optim_wrapper.optimizer.lr: must be from 0 to 1000",)),
    ("optim_wrapper.optimizer.weight_decay=-1", ("optim_wrapper.optimizer: ", "Invalid weight")),
    ("optim_wrapper.optimizer.lrr=1", ("optim_wrapper.optimizer.lrr: ", "'lr'")),
    ("optim_wrapper.type=OptimWraper", ("optim_wrapper.type: ", "'OptimWrapper'")),
    ("optim_wrapper.clip_grad.max_nrm=1", ("optim_wrapper.clip_grad.max_nrm: ", "'max_norm'")),
    ("optim_wrapper.clip_grad.max_norm=big", ("optim_wrapper.clip_grad.max_norm: must be",)),
    ("optim_wrapper.accumulative_counts=0", ("optim_wrapper.accumulative_counts: must be",)),
    ("modle.num_convs=2", ("'modle'", "'model'")),
    ("train_cfg.by_epohc=True", ("train_cfg.by_epohc: ", "'by_epoch'")),
    ("default_hooks.loggre.type=LoggerHook", ("default_hooks.loggre: ", "'logger'")),
    ("optim_wrapper.paramwise_cfg.custom_keys.head.lr_mutl=2", ("head.lr_mutl: ", "'lr_mult'")),
    ("optim_wrapper.paramwise_cfg.bias_lr_mul=2", ("paramwise_cfg.bias_lr_mul: ", "_mult'")),
    # schedules
    ("param_scheduler=[dict(type='MultiStepLRR')]", ("param_scheduler.0.type: ", "'MultiStepLR'")),
    (
        "param_scheduler=[dict(type='MultiStepLR', milestnes=[3])]",
        ("param_scheduler.0.milestnes: ", "'milestones'"),
    ),
    (
        "param_scheduler=[dict(type='LinearLR', start_factor=low)]",
        ("param_scheduler.0.start_factor: must be a number, got 'low'",),
    ),
    (
        "param_scheduler=[dict(type='LinearLR', start_factor=7)]",
        ("param_scheduler.0: ", "Starting multiplicative factor"),
    ),
    (
        "param_scheduler=[dict(type='ReduceOnPlateauLR')]",
        ("param_scheduler.0.monitor: no metric 'loss'. It has AP, AP50",),
    ),
    ("auto_scale_lr.base_batch_siz=3", ("auto_scale_lr.base_batch_siz: ", "'base_batch_size'")),
    # loops
    ("train_cfg.max_epochs=0", ("train_cfg.max_epochs: must be at least 1, got 0",)),
    ("train_cfg.max_epochs=ten", ("train_cfg.max_epochs: must be a whole number, got 'ten'",)),
    ("train_cfg.max_epoch=3", ("train_cfg.max_epoch: ", "Did you mean 'max_epochs'?")),
    ("train_cfg.steps=0", ("train_cfg.steps: must be at least 1, got 0",)),
    ("train_cfg.steps=many", ("train_cfg.steps: must be a whole number or None",)),
    ("train_cfg.step=300", ("train_cfg.step: ", "Did you mean 'steps'?")),
    ("train_cfg.val_interval=0", ("train_cfg.val_interval: must be at least 1, got 0",)),
    ("train_cfg.val_interval=often", ("train_cfg.val_interval: must be a whole number",)),
    ("train_cfg.by_epoch=maybe", ("train_cfg.by_epoch must be true or false",)),
    ("val_cfg.fp17=true", ("val_cfg.fp17: ", "Did you mean 'fp16'?")),
    # dataloaders
    ("train_dataloader.batchsize=3", ("train_dataloader.batchsize: ", "'batch_size'")),
    ("train_dataloader.batch_size=two", ("train_dataloader.batch_size: must be a whole number",)),
    ("train_dataloader.batch_size=0", ("train_dataloader.batch_size: must be at least 1",)),
    ("train_dataloader.num_workers=-1", ("train_dataloader.num_workers: must be at least 0",)),
    ("train_dataloader.drop_last=true", ("train_dataloader: no batch: drop_last",)),
    ("train_dataloader.sampler.type=DefaultSample", ("train_dataloader.sampler.type: ",)),
    ("train_dataloader.sampler.shufle=true", ("train_dataloader.sampler.shufle: ", "'shuffle'")),
    ("train_dataloader.collate_fn.type=detection_colate", ("collate_fn.type: ", "_collate'")),
    # datasets and transforms
    ("val_dataloader.dataset.type=ShapeDataset", ("val_dataloader.dataset.type: ",)),
    ("train_dataloader.dataset.num_trian=3", ("dataset.num_trian: ", "'num_train'")),
    ("train_dataloader.dataset.image_size=big", ("dataset.image_size: must be a whole number",)),
    (
        "train_dataloader.dataset.transforms=[dict(type='RandomHorizontalFlp')]",
        ("train_dataloader.dataset.transforms.0.type: ", "'RandomHorizontalFlip'"),
    ),
    (
        "train_dataloader.dataset.transforms=[dict(type='RandomHorizontalFlip', q=1)]",
        ("train_dataloader.dataset.transforms.0.q: ", "Its arguments are p"),
    ),
    (
        "train_dataloader.dataset.transforms=[dict(type='RandomHorizontalFlip', p=2)]",
        ("transforms.0: transform RandomHorizontalFlip: ", "[0.0, 1.0]"),
    ),
    (
        f"train_dataloader.dataset.transforms={NORMALIZE}",
        ("train_dataloader.dataset.transforms.0: Normalize fails", "the detector converts"),
    ),
    # evaluator
    ("val_evaluator.max_det=300", ("val_evaluator.max_det: ", "Did you mean 'max_dets'?")),
    ("val_evaluator.max_dets=3", ("val_evaluator: CocoMetric: max_dets must be greater",)),
    ("val_evaluator.backend=hot", ("val_evaluator: CocoMetric: backend must be one of",)),
    # hooks
    ("default_hooks.logger.intervall=3", ("default_hooks.logger.intervall: ", "'interval'")),
    ("default_hooks.logger.interval=0", ("default_hooks.logger.interval: must be at least 1",)),
    ("default_hooks.checkpoint.interval=often", ("default_hooks.checkpoint.interval: must be",)),
    ("default_hooks.checkpoint.intrval=3", ("default_hooks.checkpoint.intrval: ", "'interval'")),
    ("default_hooks.chekpoint.interval=3", ("default_hooks.chekpoint: ", "'checkpoint'")),
    ("default_hooks.checkpoint.save_best=mAP", ("checkpoint.save_best: ", "'AP'")),
    ("custom_hooks=[dict(type='EMAHok')]", ("custom_hooks.0.type: ", "'EMAHook'")),
    (
        "default_hooks.checkpoint=dict(type='CheckpointHook', save_best='AP', rule='less')",
        ("default_hooks.checkpoint.rule: 'less' keeps the worst, because higher values of AP",),
    ),
    ("custom_hooks=[dict(type='EMAHook', momentum=5)]", ("custom_hooks: EMAHook: momentum must",)),
    ("custom_hooks=[dict(type='EMAHook', begin_epoch=99)]", ("custom_hooks: EMAHook: ", "99")),
    ("custom_hooks=[dict(type='EMAHook', momentm=1)]", ("custom_hooks.0.momentm: ", "'momentum'")),
    (
        "custom_hooks=[dict(type='EarlyStoppingHook', monitor='AP/elipse')]",
        ("custom_hooks.0.monitor: ", "'AP/ellipse'"),
    ),
    # visualizer, log, runtime
    ("visualizer.type=Visualiser", ("visualizer.type: ", "Did you mean 'Visualizer'?")),
    (
        "visualizer.vis_backends=[dict(type='LocalVisBackendd')]",
        ("visualizer.vis_backends.0.type: ", "'LocalVisBackend'"),
    ),
    ("log_processor.window_siz=3", ("log_processor.window_siz: ", "'window_size'")),
    ("log_processor.window_size=many", ("log_processor.window_size: must be a whole number",)),
    ("randomness.sed=3", ("randomness.sed: ", "Did you mean 'seed'?")),
    ("randomness.seed=three", ("randomness.seed: must be a whole number or None",)),
    ("env_cfg.cudn_benchmark=true", ("env_cfg.cudn_benchmark: ", "'cudnn_benchmark'")),
    ("env_cfg.mp_cfg.mp_start_methd=fork", ("env_cfg.mp_cfg.mp_start_methd: ",)),
    ("log_level=LOUD", ("log_level: no such value 'LOUD'. It is one of DEBUG",)),
    ("load_from=3", ("load_from: must be text or None, got 3",)),
    # types, None and numbers that do not fit
    ("model.type=[1]", ("model.type: must be the name of a class, got [1]",)),
    ("model.loss_bbox.type=3", ("model.loss_bbox: the type of a loss must be its name, got 3",)),
    ("train_dataloader.collate_fn.type=3", ("collate_fn.type: must be the name of a class",)),
    ("train_dataloader.sampler=3", ("train_dataloader.sampler: must be a dict of settings",)),
    ("train_dataloader.num_workers=2.5", ("train_dataloader.num_workers: must be a whole",)),
    ("train_dataloader=none", ("no `train_dataloader`, which training requires",)),
    ("model.min_size=none", ("model.min_size: must be a whole number or a list of whole",)),
    ("model.anchors.sizes=none", ("model.anchors.sizes: must be a list of lists of numbers",)),
    ("optim_wrapper.clip_grad.max_norm=-1", ("optim_wrapper.clip_grad.max_norm: must be at",)),
    (f"train_cfg.max_epochs={'9' * 400}", ("train_cfg.max_epochs: must fit into 64 bits",)),
    ("optim_wrapper.optimizer.lr=1e999", ("optim_wrapper.optimizer.lr: must be",)),
    ("randomness.seed=-1", ("randomness.seed: must be from 0 to 4294967295, got -1",)),
    ("env_cfg=none", ("env_cfg: must be a dict, got None",)),
    ("env_cfg.mp_cfg.mp_start_method=x", ("mp_cfg.mp_start_method: must be one of 'fork'",)),
    ("val_evaluator=[]", ("val_evaluator is empty: an evaluation needs a metric",)),
    ("load_from=none.pth", ("load_from: checkpoint 'none.pth': no such file",)),
    # options
    ("optim_wraper.type=OptimWrapper", ("--cfg-options", "Did you mean 'optim_wrapper'?")),
    (f"model{'.a' * 2000}=1", ("--cfg-options model.a.a", "nested deeper than")),
    (f"model.a={'[' * 90}{']' * 90}", ("--cfg-options model.a=[[", "nested deeper than")),
]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """The quickstart's RetinaNet on twelve images, as one flat file."""
    folder = tmp_path_factory.mktemp("settings")
    cfg = read_config("quickstart/retinanet_shapes")
    small = dict(num_train=12, num_val=12, image_size=96, level="easy", data_root=str(folder / "d"))
    for split in ("train", "val"):
        cfg[f"{split}_dataloader"].dataset.update(small)
    DATASETS.build(cfg.train_dataloader.dataset)  # draws the images
    file = folder / "experiment.py"
    file.write_text(config_text(cfg))
    return file


def error_of(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main(list(map(str, arguments)))
    assert stopped.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(("option", "parts"), WRONG, ids=[option[:60] for option, _ in WRONG])
def test_a_wrong_setting_is_one_line_with_its_key(experiment, tmp_path, capsys, option, parts):
    error = error_of(capsys, experiment, "--work-dir", tmp_path / "run", "--cfg-options", option)
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert len(error) < 400
    for part in parts:
        assert part in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("optim_wraper = dict(type='OptimWrapper')", ("optim_wraper: ", "'optim_wrapper'")),
        ("train_dataloaders = dict()", ("train_dataloaders: ", "'train_dataloader'")),
        ("custom_hook = []", ("custom_hook: ", "'custom_hooks'")),
        ("model = dict(", ("SyntaxError",)),
    ],
)
def test_a_wrong_line_of_a_config_is_an_error(experiment, tmp_path, capsys, line, parts):
    file = tmp_path / "wrong.py"
    file.write_text(f"{experiment.read_text()}\n{line}\n")
    error = error_of(capsys, file, "--work-dir", tmp_path / "run")
    assert error.count("\n") == 1
    for part in parts:
        assert part in error
    assert list(tmp_path.iterdir()) == [file]


def keys_of(value, key=()):
    """Every key of a config, and of the first entry of each list."""
    if key:
        yield key
    inner = value.items() if isinstance(value, dict) else ()
    inner = enumerate(value[:1]) if isinstance(value, list) else inner
    for name, each in inner:
        yield from keys_of(each, (*key, name))


@pytest.mark.slow
@pytest.mark.parametrize(
    "value", ["x", -1, [], {}, None, True, 3.7, 10**400, [[1]], float("nan")], ids=range(10)
)
def test_no_value_of_any_key_is_a_traceback(experiment, tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)  # a data_root of "x" is made
    original = Config.fromfile(experiment).to_dict()
    read = [key for key in keys_of(original) if not key[0].startswith(("test_", "work_dir"))]
    assert len(read) > 90
    for key in read:
        cfg = Config(copy.deepcopy(original))
        cfg.work_dir, cfg.log_level = str(tmp_path / "run"), "ERROR"
        *outer, last = key
        inner = cfg._cfg_dict
        for name in outer:
            inner = inner[name]
        inner[last] = copy.deepcopy(value)
        try:
            build_parts(build_runner(cfg))
        except UserError as error:
            assert "\n" not in str(error)
            assert len(str(error)) < 400
        except Exception as error:
            pytest.fail(f"{'.'.join(map(str, key))}={value!r}: {type(error).__name__}: {error}")


VARIABLES = dict(
    data_root="data",
    train_dataset="train",
    hooks=[],
    dataset_type="CocoDataset",
    train_pipeline=[dict(type="RandomHorizontalFlip", p=0.5)],
    val_pipeline=[],
    optimizer=dict(type="AdamW", lr=1e-3),
    backend_args=None,
    base_lr=0.1,
    max_epochs=12,
    model_small=dict(a=1),
    model_2=dict(a=1),
    image_size=(96, 96),
    classes=("circle",),
    _private=dict(type="Anything"),
)


def test_variables_of_a_config_are_no_mistakes(experiment, monkeypatch):
    warned = []
    monkeypatch.setattr(
        "det_losses.engine.settings.print_log", lambda text, **_: warned.append(text)
    )
    cfg = Config.fromfile(experiment)
    cfg.train_dataloader.dataset.transforms = VARIABLES["train_pipeline"]
    cfg.optim_wrapper.optimizer = VARIABLES["optimizer"]
    cfg.merge_from_dict(copy.deepcopy(VARIABLES))
    check_settings(cfg)
    assert warned == []
    cfg.lr_config = dict(type="cosine")
    check_settings(cfg)
    assert len(warned) == 1
    assert "does not read the key 'lr_config'" in warned[0]


def test_every_shipped_config_passes(monkeypatch):
    monkeypatch.setattr("det_losses.engine.settings.print_log", pytest.fail)
    for cfg in map(read_config, shipped_configs()):
        if "trainer" not in cfg:  # its settings are those of another program
            check_settings(cfg)


LEGAL = dict(
    ema=dict(custom_hooks=[dict(type="EMAHook", momentum=0.1, ema_type="MomentumAnnealingEMA")]),
    priority=dict(custom_hooks=[dict(type="EmptyCacheHook", priority=49)]),
    amp=dict(optim_wrapper=dict(type="AmpOptimWrapper", loss_scale=dict(init_scale=2.0),
        dtype="bfloat16", optimizer=dict(type="SGD", lr=1))),
    saved=dict(default_hooks=dict(checkpoint=dict(type="CheckpointHook", save_best=["AP"]))),
    absent=dict(default_hooks=dict(timer=None)),
    by_class=dict(custom_hooks=[]),
    iterations=dict(train_cfg=dict(by_epoch=False, max_iters=100.0, val_interval=10)),
    typed=dict(train_cfg=dict(type="EpochBasedTrainLoop", max_epochs=3)),
    clipped=dict(optim_wrapper=dict(optimizer=dict(type="SGD", lr=1), clip_grad=dict(type="value",
        clip_value=1))),
    own=dict(optim_wrapper=dict(constructor="Mine", generator=dict(), discriminator=dict())),
    dotted=dict(optim_wrapper=dict(optimizer=dict(type="torch.optim.SGD", lr=1))),
    metrics=dict(val_evaluator=[dict(type="CocoMetric"), dict(type="CocoMetric", prefix="b")]),
    evaluator=dict(val_evaluator=dict(type="Evaluator", metrics=dict(type="CocoMetric"))),
    sizes=dict(model=dict(type="RetinaNet", backbone=dict(type="ResNetFPN"), min_size=(64, 96))),
    ids=dict(model=dict(type="FCOS", backbone=dict(type="ResNetFPN", returned_layers=[2, 3]),
        class_to_channel="category_id")),
    whole=dict(model=dict(type="FasterRCNN", backbone=dict(type="TimmFPN", name="x"),
        rpn_pre_nms_top_n_train=10, size_divisible=32)),
    schedule=dict(param_scheduler=dict(type="CosineAnnealingLR", T_max=3, eta_min=0,
        convert_to_iter_based=True, verbose=False)),
    wrapped=dict(train_dataloader=dict(dataset=dict(type="RepeatDataset", times=2, dataset=dict(
        type="CocoDataset", ann_file="a", image_dir="b")))),
    applied=dict(train_dataloader=dict(dataset=dict(type="CocoDataset", ann_file="a", image_dir="b",
        transforms=[dict(type="RandomApply", transforms=[dict(type="ColorJitter", brightness=0.5)]),
        dict(type="RandomCrop", size=[1, 2])]))),
)  # fmt: skip


@pytest.mark.parametrize("changes", LEGAL.values(), ids=LEGAL)
def test_a_legal_setting_passes(changes):
    check_settings(changes)


@pytest.mark.parametrize(
    ("given", "found"),
    [("auto", "AP"), (["AP50", "AP/ellipse"], ["AP50", "AP/ellipse"]), ("AR100", "AR100")],
)
def test_a_higher_ap_is_better(experiment, tmp_path, given, found):
    cfg = Config.fromfile(experiment)
    cfg.work_dir, cfg.log_level = str(tmp_path), "ERROR"
    cfg.default_hooks.checkpoint.save_best = given
    (hook,) = [h for h in build_runner(cfg).hooks if type(h).__name__ == "CheckpointHook"]
    names = [found] if isinstance(found, str) else found
    assert hook.key_indicators == names
    assert all(hook.is_better_than[name](2, 1) for name in names)


def test_none_removes_a_default_hook(experiment, tmp_path):
    cfg = Config.fromfile(experiment)
    cfg.work_dir, cfg.log_level = str(tmp_path), "ERROR"
    cfg.default_hooks.progress = cfg.default_hooks.timer = None
    names = {type(hook).__name__ for hook in build_runner(cfg).hooks}
    assert names & {"ProgressHook", "IterTimerHook", "HistoryHook"} == {"HistoryHook"}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("resume", "maybe", "resume: must be true or false, got 'maybe'"),
        ("launcher", "slurmm", "launcher: no such value 'slurmm'. Did you mean 'slurm'?"),
        ("test_evaluator", dict(type="CocoMetic"), "test_evaluator.type: 'CocoMetic' is not in"),
        ("visualizer", {}, "visualizer: needs a `type`, the name of its class."),
        ("test_cfg", dict(fp=1), "test_cfg.fp: TestLoop has no argument 'fp'"),
    ],
)
def test_keys_that_the_train_command_sets_or_does_not_read(key, value, message):
    with pytest.raises(UserError) as raised:
        check_settings({key: value})
    assert str(raised.value).startswith(message)


def test_a_wrong_setting_of_folds():
    files = dict(ann_file="a.json", image_dir="images")
    dataset = dict(type="CocoDataset", **files, folds=dict(coutn=2, index=0))
    with pytest.raises(TypeError, match=r"^train_dataloader\.dataset\.folds\.coutn: .*'count'\?"):
        check_settings({"train_dataloader": dict(batch_size=1, dataset=dataset)})
