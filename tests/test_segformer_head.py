"""SegFormer's head is the published function: beside transformers and segmentation_models.pytorch, in every mode."""

import copy
import io
import pickle

import pytest
import torch
from segmentation_models_pytorch.decoders.segformer.decoder import SegformerDecoder
from torch import nn
from torch.nn import functional as F
from transformers import SegformerConfig
from transformers.models.segformer.modeling_segformer import SegformerDecodeHead

from segwright.errors import ConfigError, WeightsError
from segwright.heads import HEADS, summing
from segwright.heads.segformer import Config, SegformerHead
from segwright.heads.segformer_mmseg import SegformerMmsegHead
from segwright.heads.segformer_weights import (
    HUGGING_FACE,
    LAYOUTS,
    MMSEG,
    NVLABS,
    SMP,
    TRANSFORMERS,
    find_layout,
    from_head,
    to_head,
)
from segwright.heads.summing import project_and_sum

CHANNELS = (32, 64, 160, 256)
SQUARE = [(32, 32), (16, 16), (8, 8), (4, 4)]
ODD = [(125, 84), (63, 42), (32, 21), (16, 11)]
"""A Mix Transformer's maps of a 500 x 333 image."""
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
FAST = ("segformer", "segformer_mmseg", "ultrafast_segformer", "extremely_fast_segformer")


def made_maps(sizes, batch=2, channels=CHANNELS, dtype=torch.float32, requires_grad=False):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(batch, c, *size, generator=generator).to(dtype).requires_grad_(requires_grad)
        for c, size in zip(channels, sizes, strict=True)
    ]


def stir(norm):
    """Statistics, scales and shifts that are not the initial ones."""
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.normal_(norm.bias)


def keep_from_zero(norm):
    """Half the channels far above 0 and half far below: in fp32, rounding would decide the ReLU's gradient at 0."""
    sign = torch.tensor([1.0, -1.0]).repeat(len(norm.bias) // 2)
    with torch.no_grad():
        norm.bias.copy_(8 * sign * norm.weight)


def pair(width=32, num_classes=5, dtype=torch.float32):
    """transformers' head and ours with its weights, without dropout."""
    torch.manual_seed(0)
    config = SegformerConfig(
        hidden_sizes=list(CHANNELS), decoder_hidden_size=width, num_labels=num_classes, classifier_dropout_prob=0.0
    )
    theirs = SegformerDecodeHead(config)
    stir(theirs.batch_norm)
    ours = SegformerHead(CHANNELS, num_classes, width, dropout=0.0)
    ours.load_state_dict(to_head(theirs.state_dict(), ours.state_dict()))
    return theirs.to(dtype), ours.to(dtype)


class SmpHead(nn.Module):
    """segmentation_models.pytorch's decoder and the classifier that its model puts behind it."""

    def __init__(self, width, num_classes):
        super().__init__()
        self.decoder = SegformerDecoder([3, 0, *CHANNELS], encoder_depth=5, segmentation_channels=width)
        self.segmentation_head = nn.Sequential(nn.Conv2d(width, num_classes, 1))

    def forward(self, maps):
        height, width = maps[0].shape[-2:]
        image = torch.empty(len(maps[0]), 3, 4 * height, 4 * width)
        return self.segmentation_head(self.decoder([image, image[:, :0], *maps]))


def gradients(head, maps, logits):
    """Of every parameter, in our names, and of every map, for a fixed gradient of the logits."""
    torch.manual_seed(1)
    for tensor in (*head.parameters(), *maps):
        tensor.grad = None
    logits.backward(torch.randn_like(logits, memory_format=torch.contiguous_format))
    named = {key.replace("linear_projections", "linear_c"): p.grad.clone() for key, p in head.named_parameters()}
    return named | {f"map {i}": x.grad.clone() for i, x in enumerate(maps)}


def assert_same_gradients(ours, theirs, tolerance):
    """Relative to each tensor's largest; a bias before a batch norm has gradient 0: relative to the fuse weight's."""
    assert ours.keys() == theirs.keys()
    for key, expected in theirs.items():
        scale = theirs["linear_fuse.weight" if "proj.bias" in key else key].abs().max()
        assert (ours[key] - expected).abs().max() <= tolerance * scale, key


@pytest.mark.parametrize("sizes", [SQUARE, ODD], ids=["128x128", "500x333"])
@pytest.mark.parametrize("num_classes", [1, 19, 150])
def test_evaluation_equals_transformers(sizes, num_classes):
    theirs, ours = pair(num_classes=num_classes)
    maps = made_maps(sizes)
    with torch.no_grad():
        expected = theirs.eval()(maps)
        torch.testing.assert_close(ours.eval()(maps), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours(maps), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("width", [256, 768])
def test_evaluation_equals_transformers_at_the_published_widths(width):
    theirs, ours = pair(width, 19)
    maps = made_maps([(32, 32), (16, 16), (8, 8), (4, 4)], batch=1)
    with torch.inference_mode():
        torch.testing.assert_close(ours.eval()(maps), theirs.eval()(maps), rtol=0, atol=1e-5)


@pytest.mark.parametrize("sizes", [SQUARE, ODD], ids=["128x128", "500x333"])
@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-4), (torch.float64, 1e-11)], ids=["fp32", "fp64"])
def test_logits_gradients_and_statistics_equal_transformers(sizes, mode, dtype, near):
    theirs, ours = (head.train(mode) for head in pair(dtype=dtype))
    if dtype == torch.float32:
        keep_from_zero(theirs.batch_norm)
        keep_from_zero(ours.batch_norm)
    maps = made_maps(sizes, dtype=dtype, requires_grad=True)
    expected, logits = theirs(maps), ours(maps)
    torch.testing.assert_close(logits, expected, rtol=0, atol=near / 10)
    expected, found = gradients(theirs, maps, expected), gradients(ours, maps, logits)
    assert_same_gradients(found, expected, near)
    for key in STATISTICS:
        torch.testing.assert_close(
            getattr(ours.batch_norm, key), getattr(theirs.batch_norm, key), rtol=1e-5, atol=near / 10
        )


@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluation"])
def test_logits_and_gradients_equal_smp(mode):
    torch.manual_seed(0)
    theirs = SmpHead(32, 5)
    stir(theirs.decoder.fuse_stage[1])
    keep_from_zero(theirs.decoder.fuse_stage[1])
    ours = SegformerHead(CHANNELS, 5, 32, dropout=0.0)
    ours.load_state_dict(to_head(theirs.state_dict(), ours.state_dict()))
    maps = made_maps(ODD, requires_grad=True)
    expected, logits = theirs.train(mode)(maps), ours.train(mode)(maps)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    found = gradients(ours, maps, logits)
    theirs_named = gradients(theirs, maps, expected)
    renamed = {key: theirs_named[SMP.name(key, "", 4)] for key in dict(ours.named_parameters())}
    assert_same_gradients(found, renamed | {f"map {i}": theirs_named[f"map {i}"] for i in range(4)}, 1e-4)


def test_after_training_steps_evaluation_still_equals_transformers():
    """Each step is followed by an evaluation, in which the kept weights must be new."""
    theirs, ours = pair()
    optimizers = [torch.optim.SGD(head.parameters(), lr=0.1) for head in (theirs, ours)]
    maps = made_maps(SQUARE)
    for _ in range(3):
        for head, optimizer in zip((theirs, ours), optimizers, strict=True):
            optimizer.zero_grad()
            head.train()(maps).square().mean().backward()
            optimizer.step()
        with torch.no_grad():
            torch.testing.assert_close(ours.eval()(maps), theirs.eval()(maps), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("kind", "layer"), [("channel", nn.Dropout2d), ("element", nn.Dropout)])
def test_dropout_is_that_of_the_map(kind, layer):
    """The same random numbers through the plain form: fused map, dropout layer, classifier."""
    torch.manual_seed(0)
    head = SegformerHead(CHANNELS, 5, 32, dropout=0.5, dropout_kind=kind).train()
    maps = made_maps(SQUARE)
    head.batch_norm.momentum = 0.0
    torch.manual_seed(3)
    logits = head(maps)
    fused = F.relu(head.batch_norm(project_and_sum(maps, *head._products())))
    torch.manual_seed(3)
    torch.testing.assert_close(logits, head.classifier(layer(0.5)(fused)), rtol=0, atol=1e-5)
    torch.manual_seed(3)
    torch.testing.assert_close(logits, head.classifier(head.features(maps)), rtol=0, atol=1e-5)
    assert not torch.equal(logits, head(maps))
    head.eval()
    assert torch.equal(head(maps), head(maps))


def parameters_in_place(head):
    """The first map's projection that there is."""
    with torch.no_grad():
        next(p for key, p in head.named_parameters() if key.endswith("weight")).add_(0.5)


def statistics_in_place(head):
    next(m for m in head.modules() if isinstance(m, nn.BatchNorm2d)).running_var.mul_(4)


def new_state_dict(head):
    head.load_state_dict({key: 2 * value for key, value in head.state_dict().items()})


def assigned_state_dict(head):
    head.load_state_dict({key: 2 * value for key, value in head.state_dict().items()}, assign=True)


def there_and_back_in_bf16(head):
    head.to(torch.bfloat16).to(torch.float32)


def data_replaced(head):
    for parameter in head.parameters():
        parameter.data = parameter.data * 2


def data_written_and_mode_set(head):
    for parameter in head.parameters():
        parameter.data.mul_(2)
    head.eval()


def fused_step_in_evaluation_mode(head):
    """A fused optimizer moves no version counter."""
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.1, fused=True)
    with torch.enable_grad():
        head(made_maps(SQUARE)).square().mean().backward()
    optimizer.step()


def training_forward(head):
    head.train()(made_maps(SQUARE))
    head.eval()


CHANGES = [
    parameters_in_place,
    statistics_in_place,
    new_state_dict,
    assigned_state_dict,
    there_and_back_in_bf16,
    data_replaced,
    data_written_and_mode_set,
    fused_step_in_evaluation_mode,
    training_forward,
]


@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_kept_weights_follow_every_change(name, change, context):
    torch.manual_seed(0)
    head = HEADS.build(name, HEADS[name].Config(width=16), CHANNELS, 5).eval()
    maps = made_maps(SQUARE)
    with context():
        before = head(maps)
    change(head)
    with context():
        after = head(maps)
    torch.testing.assert_close(after, head(maps).detach(), rtol=1e-4, atol=1e-4)  # with gradients: nothing kept
    assert not torch.equal(before, after)


@pytest.mark.parametrize("name", FAST)
def test_weights_are_folded_once_for_each_type(name, monkeypatch):
    head = HEADS.build(name, HEADS[name].Config(width=16), CHANNELS, 5).eval()
    maps, folds = made_maps(SQUARE), []
    kept = head._kept.get
    monkeypatch.setattr(head._kept, "get", lambda t, key, make: kept(t, key, lambda: folds.append(key) or make()))
    with torch.inference_mode():
        for _ in range(3):
            head(maps)
        with torch.autocast("cpu", torch.bfloat16):
            head(maps)
            head(maps)
    assert folds == [torch.float32, torch.bfloat16]


def test_weights_made_in_inference_mode_are_not_kept_but_right():
    """Such tensors have no version counter."""
    with torch.inference_mode():
        head = SegformerHead(CHANNELS, 5, 16).eval()
        maps = made_maps(SQUARE)
        before = head(maps)
        head.linear_fuse.weight.mul_(2)
        assert not torch.allclose(head(maps), before)


@pytest.mark.parametrize("name", FAST)
def test_a_copy_has_its_own_weights_and_a_pickle_holds_no_kept_ones(name):
    torch.manual_seed(0)
    head = HEADS.build(name, HEADS[name].Config(width=16), CHANNELS, 5).eval()
    maps = made_maps(SQUARE)
    with torch.no_grad():
        size = len(pickle.dumps(head))
        before = head(maps)
        twin = copy.deepcopy(head)
        parameters_in_place(twin)
        assert not torch.allclose(twin(maps), before)
        assert torch.equal(head(maps), before)
        assert len(pickle.dumps(head)) == size
        assert torch.equal(pickle.loads(pickle.dumps(head))(maps), before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_types_are_computed_in_that_type(dtype):
    theirs, ours = (head.eval() for head in pair())
    maps = made_maps(SQUARE)
    with torch.no_grad():
        expected = theirs(maps)
        logits = ours.to(dtype)([x.to(dtype) for x in maps])
    assert logits.dtype == dtype
    assert (logits.float() - expected).norm() < {2: 0.02, 8: 1e-6}[dtype.itemsize] * expected.norm()


def test_autocast_rounds_no_more_than_the_published_form_does():
    theirs, ours = (head.eval() for head in pair(64))
    maps = made_maps(ODD)
    with torch.no_grad():
        exact = theirs(maps)
        with torch.autocast("cpu", torch.bfloat16):
            published, found = theirs(maps), ours(maps)
    assert found.dtype == torch.bfloat16
    assert (found.float() - exact).norm() < 1.5 * (published.float() - exact).norm()


def test_large_maps_are_made_in_strips_of_any_height(monkeypatch):
    theirs, ours = (head.eval() for head in pair())
    maps = made_maps(ODD)
    with torch.no_grad():
        expected = theirs(maps)
        for size in (1, 3 * 84 * 32 * 4, summing.STRIP_BYTES):  # 1 row, 3 rows, 8 rows of 125
            monkeypatch.setattr(summing, "STRIP_BYTES", size)
            torch.testing.assert_close(ours(maps), expected, rtol=0, atol=1e-5)


class Whole(nn.Module):
    """torch.export takes tensors, not a list."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, a, b, c, d):
        return self.head([a, b, c, d])


@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize("gradients", [False, True])
def test_an_exported_head_is_the_same_function(name, gradients):
    torch.manual_seed(0)
    head = HEADS.build(name, HEADS[name].Config(width=16), CHANNELS, 5).eval()
    maps = made_maps(SQUARE)
    with torch.set_grad_enabled(gradients):
        program = torch.export.export(Whole(head), tuple(maps))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(*maps), head(maps), rtol=1e-5, atol=1e-5)
    calls = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert any("linear" in call for call in calls)
    assert not any("batch_norm" in call for call in calls)


@pytest.mark.parametrize("name", FAST)
def test_an_exported_head_takes_other_sizes(name):
    torch.manual_seed(0)
    head = HEADS.build(name, HEADS[name].Config(width=16), CHANNELS, 5).eval()
    sides = [{2: torch.export.Dim(f"h{i}", min=2), 3: torch.export.Dim(f"w{i}", min=2)} for i in range(4)]
    with torch.no_grad():
        program = torch.export.export(Whole(head), tuple(made_maps(ODD)), dynamic_shapes=tuple(sides))
        maps = made_maps([(24, 40), (12, 20), (6, 10), (3, 5)])
        torch.testing.assert_close(program.module()(*maps), head(maps), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.*:FutureWarning")
@pytest.mark.parametrize("name", FAST)
def test_a_traced_head_is_the_same_function_at_other_sizes(name):
    torch.manual_seed(0)
    head = HEADS.build(name, HEADS[name].Config(width=16), CHANNELS, 5).eval()
    with torch.no_grad():
        traced = torch.jit.trace(Whole(head), tuple(made_maps(SQUARE)), check_trace=False)
        maps = made_maps([(24, 40), (12, 20), (6, 10), (3, 5)])
        torch.testing.assert_close(traced(*maps), head(maps), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize("mode", [True, False])
def test_a_compiled_head_is_the_same_function_and_one_graph(name, mode):
    torch.manual_seed(0)
    config = HEADS[name].Config(width=16, **({"dropout": 0.0} if name.startswith("segformer") else {}))
    head = HEADS.build(name, config, CHANNELS, 5).train(mode)
    maps = made_maps(SQUARE)
    compiled = torch.compile(head, fullgraph=True, backend="aot_eager")
    with torch.set_grad_enabled(mode):
        torch.testing.assert_close(compiled(maps), head(maps), rtol=1e-5, atol=1e-5)
        parameters_in_place(head)
        torch.testing.assert_close(compiled(maps), head(maps), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prefix", ["", "decode_head.", "module.decode_head."])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.title)
def test_a_state_dict_goes_there_and_back_in_every_layout(layout, prefix):
    own = HEADS.build(layout.head, HEADS[layout.head].Config(width=16), CHANNELS, 5).state_dict()
    foreign = from_head(own, layout, prefix)
    encoder = {"segformer.encoder.layer_norm.0.weight": torch.ones(1), "classifier.other": torch.ones(1)}
    back = to_head(foreign | (encoder if prefix else {}), own)
    assert list(back) == list(own)
    assert all(torch.equal(back[key], own[key]) for key in own)
    assert find_layout(foreign) == (layout, prefix)


def test_the_foreign_names_are_the_foreign_modules():
    """Built by the packages themselves; NVlabs' are listed in facts/models.md and cannot be installed."""
    theirs, ours = pair(16)
    assert set(from_head(ours.state_dict(), TRANSFORMERS)) == set(theirs.state_dict())
    assert set(from_head(ours.state_dict(), SMP)) == set(SmpHead(16, 5).state_dict())
    assert list(from_head(ours.state_dict(), HUGGING_FACE)) == list(ours.state_dict())
    assert {key.rsplit(".", 1)[0] for key in from_head(ours.state_dict(), NVLABS)} == {
        *(f"linear_c{s}.proj" for s in (1, 2, 3, 4)),
        "linear_fuse.conv",
        "linear_fuse.bn",
        "linear_pred",
    }


def test_nvlabs_unused_layer_is_dropped_and_an_old_files_missing_counter_made():
    own = SegformerHead(CHANNELS, 5, 16).state_dict()
    foreign = from_head(own, NVLABS, "decode_head.")
    foreign["decode_head.conv_seg.weight"] = torch.ones(5, 128, 1, 1)
    del foreign["decode_head.linear_fuse.bn.num_batches_tracked"]
    assert to_head(foreign, own).keys() == own.keys()


def test_another_number_of_classes_keeps_the_own_classifier_where_asked():
    own, file = (SegformerHead(CHANNELS, classes, 16).state_dict() for classes in (5, 150))
    fitted = to_head(file, own, new_classifier=True)
    assert torch.equal(fitted["classifier.weight"], own["classifier.weight"])
    assert torch.equal(fitted["linear_fuse.weight"], file["linear_fuse.weight"])
    with pytest.raises(
        WeightsError, match=r"2 of another shape: classifier.weight \(150, 16, 1, 1\) instead of \(5, 16"
    ):
        to_head(file, own)


def test_what_does_not_fit_is_named():
    own = SegformerHead(CHANNELS, 5, 16).state_dict()
    foreign = from_head(own, NVLABS, "decode_head.")
    foreign["decode_head.linear_c5.proj.weight"] = foreign.pop("decode_head.linear_c4.proj.weight")
    with pytest.raises(WeightsError) as caught:
        to_head(foreign, own)
    for part in (
        "NVlabs",
        "1 missing: decode_head.linear_c4.proj.weight",
        "not known: decode_head.linear_c5.proj.weight",
    ):
        assert part in str(caught.value)
    wider = SegformerHead(CHANNELS, 5, 32).state_dict()
    with pytest.raises(WeightsError, match=r"linear_c.0.proj.weight \(32, 32\) instead of \(16, 32\)"):
        to_head(wider, own)


def test_a_checkpoint_without_a_head_is_refused():
    own = SegformerHead(CHANNELS, 5, 16).state_dict()
    with pytest.raises(WeightsError, match=r"no SegFormer head.*keys like block1"):
        to_head({"block1.0.norm1.weight": torch.ones(1)}, own)


def test_weights_of_the_other_function_are_refused_and_its_head_is_named():
    published, own = (SegformerHead(CHANNELS, 5, 16), SegformerMmsegHead(CHANNELS, 5, 16))
    with pytest.raises(WeightsError, match=r"another function than the head 'segformer'.*head.name: segformer_mmseg"):
        to_head(from_head(own.state_dict(), MMSEG, "decode_head."), published.state_dict())
    with pytest.raises(WeightsError, match=r"than the head 'segformer_mmseg'.*Set head.name: segformer,"):
        to_head(published.state_dict(), own.state_dict())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"dropout": 1.0}, r"head\.dropout is 1\.0"), ({"dropout_kind": "row"}, "there are: channel, element")],
)
def test_a_wrong_dropout_is_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        Config(**wrong)


def test_the_head_saves_with_plain_tensors_only():
    head = SegformerHead(CHANNELS, 5, 16)
    file = io.BytesIO()
    torch.save(head.state_dict(), file)
    file.seek(0)
    head.load_state_dict(torch.load(file, weights_only=True))
