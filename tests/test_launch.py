"""Who a process is, by the environment; what it may share, by the config; which images it takes."""

import logging

import pytest
import torch

from segwright.data.batches import EpochBatches, Share, evaluation_batches, training_batches
from segwright.engine import Engine
from segwright.engine.asked import sharing
from segwright.engine.processes import Group
from segwright.errors import ConfigError, MissingPackageError
from segwright.launch import Launch, alone_among, first_host, launched, tasks_per_node

TORCHRUN = {
    "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1",
}  # fmt: skip
STEP = {
    "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "1", "SLURM_PROCID": "2", "SLURM_LOCALID": "0", "SLURM_NODEID": "1",
    "SLURM_STEP_NUM_TASKS": "3", "SLURM_STEP_TASKS_PER_NODE": "2,1", "SLURM_STEP_NODELIST": "localhost,n2",
}  # fmt: skip
ALONE, TWO = Launch(), Launch(processes=2, local_processes=2, by="a launcher")


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch):
    for name in (*TORCHRUN, "SLURM_NTASKS", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("batch_size", "batch"), [(64, 3), (3, 3), (2, 2)])
def test_a_batch_size_that_the_images_do_not_fill_is_lowered_and_warned_of(caplog, batch_size, batch):
    """Six images, two batches a step: three in each at most."""
    with caplog.at_level(logging.WARNING, "segwright"):
        _, sampler = training_batches(range(6), None, None, batch_size, 0, workers=0, share=Share(accumulate=2))
    assert sampler.batch_size == batch
    assert ("train.batch_size is 64, but there are only 6 images" in caplog.text) == (batch_size == 64)
    assert not caplog.records or "so a batch holds 3" in caplog.text


def test_without_a_launcher_a_process_is_alone():
    assert launched({}) == Launch()
    assert launched({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}) == Launch()


def test_torchruns_variables_are_taken_as_they_are():
    assert launched(TORCHRUN) == Launch(
        rank=3, processes=4, local_rank=1, local_processes=2, address="a", port=1, by="a launcher"
    )
    assert launched(TORCHRUN).variables() == TORCHRUN


def test_sruns_variables_give_torchruns():
    found = launched(STEP)
    assert (found.rank, found.processes, found.local_rank, found.local_processes) == (2, 3, 0, 1)
    assert (found.address, found.by) == ("localhost", "srun")
    assert found.port == 12000 + 7 * 7 + 1
    assert launched(STEP | {"SLURM_JOB_ID": "8"}).port != found.port, "two jobs on one node would meet each other"
    assert launched(STEP | {"MASTER_ADDR": "b", "MASTER_PORT": "9"}).address == "b"


def test_torchrun_within_srun_counts():
    assert launched(STEP | TORCHRUN).processes == 4


@pytest.mark.parametrize(
    ("text", "tasks"), [("2", [2]), ("1(x2)", [1, 1]), ("2(x3),1", [2, 2, 2, 1]), ("4,2(x2)", [4, 2, 2])]
)
def test_slurms_short_form_of_tasks(text, tasks):
    assert tasks_per_node(text) == tasks


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("n1", "n1"), ("n[1-2]", "n1"), ("gpu[03-05,7],big1", "gpu03"), ("a[1-2]b[3-4]", "a1b3"), ("x,y[1-2]", "x")],
)
def test_the_first_host_of_slurms_list(nodes, first):
    assert first_host(nodes) == first


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        (TORCHRUN | {"RANK": "4"}, "process 4 of 4"),
        (TORCHRUN | {"LOCAL_RANK": "2"}, "2 of 2 on this machine"),
        (TORCHRUN | {"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'"),
        ({"WORLD_SIZE": "2"}, "not RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT"),
        ({"RANK": "0"}, "set RANK, but not WORLD_SIZE"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "each would train by itself"),
    ],
)
def test_a_launcher_that_contradicts_itself_is_refused(lie, said):
    with pytest.raises(ConfigError, match=said):
        launched(lie)


def test_a_batch_script_without_srun_is_known():
    assert alone_among({"SLURM_NTASKS": "2"}) == 2
    assert alone_among({"SLURM_NTASKS": "2"} | STEP) == 1
    assert alone_among({}) == 1


@pytest.mark.parametrize(
    ("wanted", "launch", "kind"),
    [
        ("auto", ALONE, "none"),
        ("auto", TWO, "ddp"),
        ("none", ALONE, "none"),
        ("ddp", TWO, "ddp"),
        ("auto_zero1", ALONE, "none"),
        ("auto_zero1", TWO, "zero1"),
        ("zero2", TWO, "zero2"),
    ],
)
def test_what_is_asked_for_is_what_is_shared(wanted, launch, kind, monkeypatch):
    monkeypatch.setattr("segwright.engine.zero.require", lambda wanted: None)
    assert sharing(wanted, launch, None) == kind
    assert sharing(wanted, launch, launch.processes) == kind


@pytest.mark.parametrize(
    ("wanted", "launch", "processes", "said"),
    [
        ("none", TWO, None, "each would do all of it"),
        ("ddp", ALONE, None, "this process is alone"),
        ("zero1", ALONE, None, "this process is alone"),
        ("auto", ALONE, 2, "train.processes is 2, but 1 take part"),
        ("auto", TWO, 4, "train.processes is 4, but 2 take part"),
        ("zero3", TWO, None, "Did you mean"),
    ],
)
def test_never_alone_or_unshared_where_it_was_not_asked_for(wanted, launch, processes, said):
    with pytest.raises(ConfigError, match=said):
        sharing(wanted, launch, processes)


def test_zero_with_one_process_is_had_by_asking_for_one(monkeypatch):
    monkeypatch.setattr("segwright.engine.zero.require", lambda wanted: None)
    assert sharing("zero1", ALONE, 1) == "zero1"
    assert sharing("ddp", ALONE, 1) == "none"


def test_slurm_tasks_without_srun_stop_a_run_but_not_what_one_process_does(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "2")
    with pytest.raises(ConfigError, match="Put srun before the command"):
        sharing("auto", ALONE, None)
    assert sharing("auto", ALONE, 1) == "none"
    assert sharing("none", ALONE, None) == "none"


def test_accelerates_flags_are_heard_or_refused(monkeypatch):
    monkeypatch.setattr("segwright.engine.zero.require", lambda wanted: None)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "1")
    assert sharing("auto", TWO, None) == "zero1"
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3")
    with pytest.raises(ConfigError, match="ZeRO stage 3"):
        sharing("auto", TWO, None)
    monkeypatch.delenv("ACCELERATE_USE_DEEPSPEED")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match="FSDP"):
        sharing("auto", TWO, None)


def test_another_precision_than_accelerate_was_told_is_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(ConfigError, match=r"told --mixed_precision fp16, but this run computes in float32"):
        Engine(amp=False, device="cpu")


def test_accelerates_variables_change_nothing_behind_our_back(monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR")
    engine = Engine(amp=False, device="cpu")
    weight = torch.ones(1, requires_grad=True)
    engine.backward(weight.sum())
    assert weight.grad == 1


def test_deepspeed_that_is_missing_is_named_with_the_command(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"pip install 'segwright\[deepspeed\]'"):
        sharing("zero1", TWO, None)


def test_alone_every_common_operation_gives_back_what_it_was_given():
    group = Group(ALONE, torch.device("cpu"))
    assert group.sum(torch.tensor([2.0])) == 2
    assert (group.any(True), group.any(False), group.broadcast({"a": 1})) == (True, False, {"a": 1})
    with group.first(), group.together():
        group.wait()


@pytest.mark.parametrize(("processes", "accumulate"), [(2, 1), (1, 2), (2, 2), (4, 1)])
@pytest.mark.parametrize(("length", "passes"), [(16, 1), (19, 2)])
def test_a_step_has_the_same_images_however_it_is_shared(length, passes, processes, accumulate):
    whole = EpochBatches(length, 8, seed=3, passes=passes)
    parts = [
        EpochBatches(
            length, 8 // processes // accumulate, 3, passes, Share(rank=r, processes=processes, accumulate=accumulate)
        )
        for r in range(processes)
    ]
    assert whole.images_per_step == parts[0].images_per_step == 8
    for epoch in (0, 1):
        for sampler in (whole, *parts):
            sampler.epoch = epoch
        own = [list(sampler) for sampler in parts]
        assert {len(batches) for batches in own} == {whole.steps * accumulate} == {len(parts[0])}
        for step, batch in enumerate(whole):
            shared = [batches[step * accumulate + part] for part in range(accumulate) for batches in own]
            assert [key for piece in shared for key in piece] == batch


def test_an_epoch_that_goes_on_leaves_out_what_is_done():
    sampler = EpochBatches(10, 2, seed=1, passes=2, share=Share(accumulate=2))
    sampler.epoch = 3
    whole = list(sampler)
    sampler.done = 3
    assert list(sampler) == whole[6:]
    assert len(sampler) == len(whole) - 6


def test_fewer_images_than_processes_are_refused():
    with pytest.raises(ConfigError, match="3 images to train on"):
        EpochBatches(3, 1, 0, share=Share(processes=4))


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_each_image_is_validated_once(processes):
    class Three:
        def __len__(self):
            return 3

    own = [
        list(evaluation_batches(Three(), None, 2, 0, Share(rank=rank, processes=processes)).sampler)
        for rank in range(processes)
    ]
    assert sorted(index for indices in own for index in indices) == [0, 1, 2]
