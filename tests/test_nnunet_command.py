"""`nnUNetv2_train_segformer` before anything heavy is imported: flags, variables, messages."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from segwright import cli
from segwright.nnunet import command
from segwright.nnunet.command import FOLDERS, THREADS, run_training_entry, trainer_folder

RECIPE = Path(__file__).parents[1] / "recipes" / "nnunet"
FLAGS = [
    "--epochs",
    "--iterations-per-epoch",
    "-tr",
    "-p",
    "--segformer_config",
    "--c",
    "--val",
    "--npz",
    "-device",
    "-num_gpus",
]
WORDS = ["996", "2d", "0", "-device", "cpu"]


@pytest.fixture(autouse=True)
def _kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command sets in the environment ends with the test."""
    for name in (*THREADS, *FOLDERS, command.EXTERNAL):
        monkeypatch.setenv(name, os.environ.get(name, ""))


def test_help_of_the_recipes_script_lists_the_flags_and_imports_no_torch() -> None:
    code = "import sys, runpy; sys.argv = ['x', '--help']\ntry: runpy.run_path(sys.path.pop(0), run_name='__main__')"
    code += "\nfinally: assert 'torch' not in sys.modules"
    script = RECIPE / "nnUNetv2_train_segformer.py"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(script)!r})\n{code}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert [flag for flag in FLAGS if flag not in done.stdout.split()] == []
    assert command.TRAINER in done.stdout


def test_without_nnunet_the_pip_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nnunetv2", None)
    with pytest.raises(SystemExit, match=r"pip install 'segwright\[nnunet\]'"):
        run_training_entry(WORDS)


def test_the_trainers_name_the_pip_command_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nnunetv2", None)
    monkeypatch.setitem(sys.modules, "batchgenerators", None)
    monkeypatch.delitem(sys.modules, "segwright.nnunet.trainer", raising=False)
    with pytest.raises(ImportError, match=r"segwright\[nnunet\]"):
        __import__("segwright.nnunet.trainer")


@pytest.mark.parametrize("missing", [("nnUNet_results",), ("nnUNet_preprocessed", "nnUNet_results")])
def test_variables_that_are_not_set_are_named_with_an_example(
    missing: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "require_nnunet", lambda: None)
    for name in FOLDERS:
        monkeypatch.setenv(name, "/somewhere")
    for name in missing:
        monkeypatch.delenv(name)
    with pytest.raises(SystemExit) as caught:
        run_training_entry(WORDS)
    message = str(caught.value)
    assert [name for name in FOLDERS if f"export {name}=" in message] == list(missing)


def test_threads_are_limited_before_anything_heavy_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    monkeypatch.setattr(command, "require_nnunet", lambda: seen.update({name: os.environ[name] for name in THREADS}))
    monkeypatch.setattr(command, "FOLDERS", {"nnUNet_nothing": "so that it ends here"})
    with pytest.raises(SystemExit):
        run_training_entry(WORDS)
    assert seen == dict.fromkeys(THREADS, "1")


def test_nnunets_own_trainers_folders_stay_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "find_spec", lambda _: True)
    monkeypatch.setenv(command.EXTERNAL, "/mine")
    for _ in range(2):
        command.require_nnunet()
        assert os.environ[command.EXTERNAL] == os.pathsep.join([str(trainer_folder()), "/mine"])


def test_the_folder_for_nnunet_holds_one_module_and_is_printed(capsys: pytest.CaptureFixture) -> None:
    """nnU-Net imports everything in it."""
    assert [path.name for path in trainer_folder().glob("*.py")] == ["segwright_trainers.py"]
    with pytest.raises(SystemExit) as ended:
        cli.main(["nnunet", "path"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == str(trainer_folder())


@pytest.mark.parametrize("words", [["--c", "--val"], ["-device", "tpu"], ["--epoch", "3"]])
def test_flags_that_cannot_be_are_refused(words: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        run_training_entry([*WORDS, *words])
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_the_readmes_commands_have_flags_that_exist() -> None:
    """Each line, and each part of it after `;`, as the shell would give it."""
    text = (RECIPE / "README.md").read_text().replace("\\\n", " ")
    blocks = text.split("```")[1::2]
    lines = [part for block in blocks for line in block.splitlines() for part in line.split(";")]
    commands = [shlex.split(line, comments=True) for line in lines if "nnUNetv2_train_segformer " in line]
    assert len(commands) >= 3
    for program, *words in commands:
        assert program == "nnUNetv2_train_segformer"
        assert command._parser().parse_args(words).configuration == "2d"
