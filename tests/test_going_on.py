"""A run begins or goes on: what was asked for has to agree, with itself and with the folder."""

import pytest

import segwright
from segwright.errors import ConfigError, SegwrightError, WeightsError
from segwright.verbs.going_on import goes_on

ASKED = {"resume": False, "resume_anyway": False, "go_on": False, "flags": {}}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"resume": True, "flags": {"run.overwrite": True}}, "--resume and --overwrite"),
        ({"resume_anyway": True, "go_on": True}, "--resume and --continue"),
        ({"go_on": True, "flags": {"run.overwrite": True}}, "--continue and --overwrite"),
    ],
)
def test_wishes_that_exclude_each_other_are_refused(tmp_path, asked, words):
    (tmp_path / "last.pth").touch()
    with pytest.raises(ConfigError, match=f"{words} exclude each other"):
        goes_on(tmp_path, **{**ASKED, **asked})


def test_train_says_that_there_is_no_run_and_which_ones_there_are(tmp_path):
    for name in ("b", "a", "c.replaced"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "last.pth").touch()
    with pytest.raises(WeightsError, match="no run to go on with") as told:
        segwright.train({"data": {"root": "nowhere"}, "run": {"output": str(tmp_path / "none")}}, resume=True)
    assert "Beside it can go on: a, b; name one with --output. To begin a run, leave out --resume" in str(told.value)
    assert "--weights" not in str(told.value)


def test_continue_begins_where_there_is_no_run_and_goes_on_where_there_is_one(tmp_path):
    assert not goes_on(tmp_path, **{**ASKED, "go_on": True})
    (tmp_path / "config.yaml").touch()
    assert goes_on(tmp_path, **{**ASKED, "go_on": True})
    assert goes_on(tmp_path, **{**ASKED, "resume": True})


def test_a_file_in_the_place_of_the_runs_folder_is_refused_and_nothing_is_made_beside_it(tmp_path):
    (tmp_path / "scores.json").touch()
    with pytest.raises(SegwrightError, match=r"scores\.json is a file, where a folder is needed.* with --output"):
        segwright.train({"data": {"root": "nowhere"}, "run": {"output": str(tmp_path / "scores.json")}})
    assert [path.name for path in tmp_path.iterdir()] == ["scores.json"]
