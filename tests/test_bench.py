"""`bench`: contenders are the same model, take turns, and what is written follows from what was measured."""

import functools
import json
import statistics
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from segwright import cli
from segwright.encoders.mit_variants import VARIANTS
from segwright.engine.precision import cpu_has_bf16
from segwright.errors import ConfigError, MissingPackageError
from segwright.model import count_parameters
from segwright.verbs import bench as verb
from segwright.verbs import workload
from segwright.verbs.bench import Claim, bench, bench_defaults, bench_matrix, row, take_turns
from segwright.verbs.bench_report import COLUMNS, bench_table, markdown
from segwright.verbs.peers import Design, build
from segwright.verbs.stint import peak_mb
from segwright.verbs.workload import Load, as_run_by, count_macs, prepare

SMALL = Load(Design("mit_b0", "segformer", 32, 3), size=64, device="cpu")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segwright.verbs.turns.TURN_S", 0)  # a turn is one step
    monkeypatch.setattr(verb, "MATRIX_SIDE", 64)
    monkeypatch.setattr(verb, "peak_mb", lambda name, load: 12.5)


@pytest.mark.parametrize("mode", ["infer", "masks", "train"])
def test_a_bench_writes_what_it_measured(mode: str, tmp_path: Path) -> None:
    load = Load(SMALL.design, size=64, batch=2, mode=mode, device="cpu")
    result = bench([load], ["transformers", "smp"], rounds=2, output=tmp_path)
    rows = {values["name"]: values for values in result["blocks"][0]["rows"]}
    assert list(rows) == ["segwright", "transformers", "smp"]
    for values in rows.values():
        median = statistics.median(values["seconds"])
        assert len(values["seconds"]) == 2
        assert values["images_per_s"] == pytest.approx(2 / median)
        ours = statistics.median(rows["segwright"]["seconds"])
        assert values["segwright_is_faster_by"] == pytest.approx(median / ours)
        assert values["peak_memory_mb"] == 12.5
    stem = f"bench_mit_b0_segformer_{mode}_64_b2_fp32_cpu"
    assert json.loads((tmp_path / f"{stem}.json").read_text())["blocks"] == result["blocks"]
    page = (tmp_path / f"{stem}.md").read_text()
    assert "transformers 5" in page
    assert page.count("mit_b0 + segformer") == 3


def test_the_contenders_are_the_same_model() -> None:
    models = {name: build(name, SMALL.design) for name in ("segwright", "transformers", "smp")}
    assert len({count_parameters(model) for model in models.values()}) == 1
    image = torch.randn(1, 3, 64, 96)
    assert {tuple(model.eval()(image).shape) for model in models.values()} == {(1, 3, 64, 96)}


def test_without_a_width_a_segformer_has_the_published_one() -> None:
    for name in ("segwright", "transformers", "smp"):
        assert count_parameters(build(name, Design("segformer_b0", "segformer", classes=150))) == 3_752_694


def test_a_library_without_the_model_is_left_out() -> None:
    assert build("transformers", Design("resnet10t", "aspp")) is None
    assert build("smp", Design("mit_b0", "aspp")) is None
    assert type(build("smp", Design("resnet18", "aspp"))).__name__ == "DeepLabV3Plus"


def test_turns_alternate_and_the_first_rounds_do_not_count() -> None:
    calls: list[str] = []
    steps = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    seconds = take_turns(steps, rounds=2, device=torch.device("cpu"))
    assert calls == ["b", "a", "a", "b"] * 2
    assert [len(values) for values in seconds.values()] == [2, 2]


def test_a_turn_is_as_many_steps_as_fill_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that the steps themselves put forward, in 64ths of a second: exact in binary."""
    now, calls = [0.0], {"quick": 0, "slow": 0}

    def step(name: str, takes_s: float) -> None:
        calls[name] += 1
        now[0] += takes_s

    monkeypatch.setattr("segwright.verbs.turns.time.perf_counter", lambda: now[0])
    monkeypatch.setattr("segwright.verbs.turns.TURN_S", 0.5)
    steps = {"quick": lambda: step("quick", 1 / 64), "slow": lambda: step("slow", 2.0)}
    seconds = take_turns(steps, rounds=3, device=torch.device("cpu"))
    assert seconds == {"quick": [1 / 64] * 3, "slow": [2.0] * 3}
    assert calls == {"quick": 2 + 3 * 32, "slow": 2 + 3}


def test_a_row_by_hand() -> None:
    """4 images in 2 s are 2 images/s. 3e9 multiplications each are 2 * 3e9 * 4 / 2 s = 12 GFLOP/s; of 48: 1/4."""
    load = Load(SMALL.design, batch=4)
    seconds = {"segwright": [1.0, 1.0, 9.0], "x": [2.0, 1.0, 3.0]}
    values = row("x", load, 7, 3_000_000_000, seconds, rate=48e9)
    assert (values["images_per_s"], values["segwright_is_faster_by"]) == (2.0, 2.0)
    assert values["share_of_matrix_rate"] == pytest.approx(0.25)
    training = row("x", Load(SMALL.design, batch=4, mode="train"), 7, 3_000_000_000, seconds, rate=48e9)
    assert training["share_of_matrix_rate"] == pytest.approx(0.75)


def test_multiplications_by_hand() -> None:
    """A 3x3 convolution, 3 -> 5 channels, on 64 x 64 pixels: 64 * 64 * 5 * 3 * 9, whatever the batch."""
    net = torch.nn.Conv2d(3, 5, 3, padding=1)
    assert count_macs(net, Load(SMALL.design, size=64, batch=3, device="cpu")) == 64 * 64 * 5 * 3 * 9
    assert net.training  # as it came


def test_fused_steps_count_like_plain_ones() -> None:
    """With hooks on its layers an encoder takes the plain steps."""
    net = build("segwright", SMALL.design)
    fused = count_macs(net, SMALL)
    for layer in net.modules():
        layer.register_forward_hook(lambda *_: None)
    assert count_macs(net, SMALL) == fused


def test_attention_is_counted_by_hand() -> None:
    """Two heads of width 8, 6 queries and 4 keys: 6 * 4 * 8 for the scores and as many for what they mix, each head."""

    class Attention(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            query, other = image.new_ones(1, 2, 6, 8), image.new_ones(1, 2, 4, 8)
            return torch.nn.functional.scaled_dot_product_attention(query, other, other)

    assert count_macs(Attention(), SMALL) == 2 * 2 * 6 * 4 * 8


@pytest.mark.parametrize("name", ["segwright", "transformers", "smp"])
def test_masks_are_the_best_classes_at_full_size(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours by pieces from the head's logits, the peers' from logits at full size."""
    net, seen = build(name, SMALL.design).eval(), []

    def kept(of):
        def call(*arguments):
            seen.append(of(*arguments))
            return seen[-1]

        return call

    monkeypatch.setattr(workload, "argmax_resized", kept(workload.argmax_resized))
    monkeypatch.setattr(torch.Tensor, "argmax", kept(torch.Tensor.argmax))
    prepare(net, Load(SMALL.design, size=64, batch=2, mode="masks", device="cpu"))()
    assert sum(mask[None].numel() for mask in seen) == 2 * 64 * 64
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        best = net(image).max(1).indices
    assert torch.equal(torch.cat([mask.reshape(-1, 64, 64) for mask in seen]).long(), best)


def test_a_training_step_changes_the_weights_and_inference_does_not() -> None:
    for mode, changes in (("infer", False), ("train", True)):
        net = torch.nn.Conv2d(3, 3, 1)
        before = net.weight.clone()
        prepare(net, Load(SMALL.design, size=64, mode=mode, device="cpu"))()
        assert (not torch.equal(net.weight, before)) == changes


def test_a_peer_that_cannot_do_the_work_is_left_out_and_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load = Load(SMALL.design, size=72, device="cpu")  # SMP takes multiples of 32 only
    result = bench([load], ["smp"], rounds=1, output=tmp_path)
    assert [values["name"] for values in result["blocks"][0]["rows"]] == ["segwright"]
    assert "smp cannot do this work and is left out" in caplog.text


def test_a_peer_that_is_not_installed_names_the_pip_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'segwright\[bench\]'"):
        bench([SMALL], ["smp"], output=tmp_path)


@pytest.mark.parametrize(
    ("make", "seen"),
    [
        (lambda: bench([SMALL], ["transformer"]), "no peer 'transformer'. Did you mean 'transformers'"),
        (lambda: bench([SMALL], rounds=0), "--rounds is 0"),
        (lambda: Load(SMALL.design, mode="fly"), "--mode is 'fly'"),
        (lambda: Load(SMALL.design, size=16), "--size is 16"),
        (lambda: Load(Design("mit_b0", "segformer", 32, 1), mode="masks"), "--mode masks takes the best of several"),
        (lambda: replace(SMALL, compile=True, own_defaults=True), "--compile and --own-defaults exclude each other"),
        (lambda: build("segwright", Design("mit_b0", "asp")), "no heads part is called 'asp'"),
    ],
)
def test_bad_words_are_named(make, seen: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert seen in str(caught.value)


def test_the_matrix_measures_memory_alone_where_no_speed_is_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = (Claim(SMALL.design, 15, 7), Claim(Design("resnet10t", "lite", None, 3), None, 10))
    monkeypatch.setattr(verb, "MATRIX", claims)
    result = bench_matrix(SMALL, rounds=1, output=tmp_path)
    first, second = (block["rows"][0] for block in result["blocks"])
    assert "images_per_s" in first
    assert second == {"name": "segwright", "peak_memory_mb": 12.5}
    page = (tmp_path / "bench_matrix_infer_64_b1_fp32_cpu.md").read_text()
    assert "15 images/s, 7 GB" in page
    assert "| resnet10t + lite | segwright | - | - | - | 12 | - | - | - | 10 GB |" in page
    console = Console(record=True, width=200)
    bench_table(result, console)
    shown = console.export_text()
    assert all(column in shown for column in COLUMNS)
    assert markdown(result) == page


@pytest.mark.slow
def test_what_differs_is_in_the_name(tmp_path: Path) -> None:
    """Else one's table would take the other's place."""
    for settings in ({}, {"keep_memory": False}, {"channels_last": True}):
        bench([replace(SMALL, **settings)], rounds=1, memory=False, output=tmp_path)
    stem = "bench_mit_b0_segformer_infer_64_b1_fp32"
    names = {f"{stem}{what}_cpu.md" for what in ("", "_plain_memory", "_channels_last")}
    assert {path.name for path in tmp_path.glob("*.md")} == names


@pytest.mark.slow
def test_compiled_models_take_turns_with_the_plain_ones_and_their_first_call_stands_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda model: compiled.append(model) or model)
    result = bench([replace(SMALL, compile=True)], ["transformers"], rounds=1, output=tmp_path)
    assert len(compiled) == 2
    rows = {values["name"]: values for values in result["blocks"][0]["rows"]}
    assert list(rows) == ["segwright", "transformers", "segwright compiled", "transformers compiled"]
    for name, values in rows.items():
        assert values["first_call_s"] > 0
        assert values["macs_per_image"] == rows[name.removesuffix(" compiled")]["macs_per_image"]
        assert ("peak_memory_mb" in values) == (not name.endswith("compiled"))
    page = (tmp_path / "bench_mit_b0_segformer_infer_64_b1_fp32_compile_cpu.md").read_text()
    assert "| transformers compiled |" in page
    assert "first s" in page


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["infer", "train"])
def test_our_model_compiles(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One block a stage has every kind of layer. The training step's graphs are recorded and differentiated, but not
    made machine code, which takes minutes and is PyTorch's own business."""
    monkeypatch.setitem(VARIANTS, "mit_b0", {"widths": (8, 16, 40, 64), "depths": (1, 1, 1, 1)})
    if mode == "train":
        monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    load = replace(SMALL, compile=True, mode=mode, batch=2)
    rows = bench([load], rounds=1, memory=False, output=tmp_path)["blocks"][0]["rows"]
    assert [values["name"] for values in rows] == ["segwright", "segwright compiled"]
    assert rows[1]["first_call_s"] > rows[1]["seconds"][0]


def test_the_command_writes_the_table(tmp_path: Path) -> None:
    fast = ["--size", "64", "--rounds", "1", "--no-memory", "--device", "cpu"]
    words = ["bench", "--width", "32", "--classes", "3", *fast, "--output"]
    with pytest.raises(SystemExit) as ended:
        cli.main([*words, str(tmp_path)])
    assert ended.value.code == 0
    assert (tmp_path / "bench_segformer_b0_segformer_infer_64_b1_fp32_cpu.json").is_file()


def test_at_their_own_defaults_peers_get_none_of_our_settings() -> None:
    load = Load(SMALL.design, amp=True, own_defaults=True)
    peer = as_run_by("smp", load)
    assert as_run_by("segwright", load) == load
    assert (peer.amp, peer.keep_memory, peer.channels_last, peer.own_defaults) == (False, False, False, False)


@pytest.mark.slow
def test_own_defaults_are_measured_in_processes_of_their_own(tmp_path: Path) -> None:
    load = Load(SMALL.design, size=72, mode="train", device="cpu")  # SMP takes multiples of 32 only
    result = bench_defaults(load, against=["transformers", "smp"], rounds=2, output=tmp_path)
    assert [block["rows"][0]["precision"] for block in result["blocks"]] == ["fp32", "bf16"][: 1 + cpu_has_bf16()]
    for block in result["blocks"]:
        assert [values["name"] for values in block["rows"]] == ["segwright", "transformers"]
        ours, theirs = block["rows"]
        assert theirs["precision"] == "fp32"
        assert ours["parameters"] == theirs["parameters"]
        assert min(ours["peak_memory_mb"], theirs["peak_memory_mb"]) > 0
    page = (tmp_path / "bench_mit_b0_segformer_train_72_b1_defaults_cpu.md").read_text()
    assert "each at its own defaults" in page
    assert "transformers in fp32" in page


@pytest.mark.slow
def test_peak_memory_grows_with_the_image_and_the_batch() -> None:
    """Each in a process of its own. 16 images of 256 x 256 have 256 times the pixels of one of 64 x 64."""
    design = Design("test_resnet", "lite", None, 3)
    small = peak_mb("segwright", Load(design, size=64, mode="train", device="cpu"))
    large = peak_mb("segwright", Load(design, size=256, batch=16, mode="train", device="cpu"))
    assert 0 < small < large
