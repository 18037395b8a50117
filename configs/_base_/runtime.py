"""Settings shared by all experiments: hooks, logs, checkpoints, seed, processes.

Add hooks with `custom_hooks`, for example EMA:
    custom_hooks = [dict(type="EMAHook", momentum=0.0002)]
torch.compile of the backbone, with its arguments (it needs a compiler):
    compile = dict(mode="default")
Mixed precision, as with --amp, on a GPU (float16 without dtype) and on a CPU:
    optim_wrapper = dict(type="AmpOptimWrapper", dtype="bfloat16")
    optim_wrapper = dict(type="BFloat16OptimWrapper")
--tensorboard adds TensorBoard (pip install "det-losses[tensorboard]"). W&B and MLflow:
    visualizer = dict(
        vis_backends=[
            dict(type="LocalVisBackend"),
            dict(type="WandbVisBackend", init_kwargs=dict(project="losses")),
            dict(type="MLflowVisBackend", tracking_uri="sqlite:///mlflow.db", exp_name="losses"),
        ]
    )
"""

default_scope = "det_losses"

default_hooks = dict(
    logger=dict(type="LoggerHook", interval=50),
    # Keep two, so that a complete one exists while the next is written.
    checkpoint=dict(type="CheckpointHook", interval=1, max_keep_ckpts=2, save_last=True),
    safe_checkpoint=dict(type="SafeCheckpointHook"),
    seed=dict(type="SeedHook"),
    non_finite=dict(type="NonFiniteHook"),
    loss_record=dict(type="LossRecordHook"),
    progress=dict(type="ProgressHook"),
    run_record=dict(type="RunRecordHook"),
    history=dict(type="HistoryHook"),
)
custom_hooks = []

log_processor = dict(type="CompactLogProcessor", window_size=50, by_epoch=True)
log_level = "INFO"

# No name is set: mmengine keeps one visualizer per name, and would write the scalars of a second
# run in the same process to the folder of the first.
visualizer = dict(type="Visualizer", vis_backends=[dict(type="LocalVisBackend")])

env_cfg = dict(
    # Image sizes vary, so benchmarking would select different algorithms.
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend="nccl"),
)
randomness = dict(seed=0)

load_from = None
resume = False
launcher = "none"
