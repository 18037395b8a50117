from mmengine.config import Config

from det_losses.config_diff import describe, differences, plain


def test_differences_are_named_by_key():
    old = {"a": {"b": 1, "c": [1, {"d": 2}]}, "gone": None}
    new = {"a": {"b": 2, "c": [1, {"d": 3}]}, "new": True}
    assert differences(old, new) == [
        "a.b: 1 -> 2",
        "a.c.1.d: 2 -> 3",
        "gone: None -> (none)",
        "new: (none) -> True",
    ]
    assert differences(old, old) == []


def test_lists_of_different_lengths_are_one_difference():
    assert differences({"a": [1]}, {"a": [1, 2]}) == ["a: [1] -> [1, 2]"]


def test_a_long_list_is_shortened():
    assert describe(["a", "b"]) == "a; b"
    assert describe([str(i) for i in range(7)]) == "0; 1; 2; 3; 4 and 2 more"


def test_work_dir_launcher_and_resume_are_ignored():
    cfg = Config(
        {"work_dir": "x", "launcher": "none", "model": {"a": 1, "b": (2,)}, "resume": True}
    )
    assert plain(cfg) == {"model": {"a": 1, "b": [2]}}
    assert plain(cfg, without=["model.a", "not.there"]) == {"model": {"b": [2]}}


def test_a_dumped_config_equals_itself(tmp_path):
    cfg = Config({"model": {"a": (1, 2), "b": 1 / 9, "c": None, "d": [{"e": "x\\y'"}]}})
    cfg.dump(tmp_path / "c.py")
    assert differences(plain(Config.fromfile(tmp_path / "c.py")), plain(cfg)) == []
