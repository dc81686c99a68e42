"""Whole SegFormers by name: the published function and widths, first weights of encoder and head, folders and back."""

import json
import logging
from pathlib import Path

import huggingface_hub
import pytest
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from segwright import Segmenter
from segwright.encoders import create_encoder, layouts
from segwright.errors import ConfigError, WeightsError
from segwright.heads import segformer_weights
from segwright.heads.segformer import SegformerHead
from segwright.model import build_model
from segwright.pretrained import WIDTHS, Whole, choose_weights
from segwright.verbs.settings import Settings, gather
from stirring import stirred

ADE20K = "nvidia/segformer-b0-finetuned-ade-512-512"
BLOCK_NORMS = ("layernorm_before", "layernorm_after", "layer_norm")


def settings(**sections) -> Settings:
    return gather({"data": {"root": "somewhere"}, "encoder": {"pretrained": False}, **sections})


def built(s: Settings, num_classes: int = 3) -> Segmenter:
    return build_model(s.model, s.encoder, s.head, num_classes)


def peer(num_classes: int = 3, published_epsilons: bool = False) -> SegformerForSemanticSegmentation:
    """transformers' b0 without dropout."""
    torch.manual_seed(0)
    config = SegformerConfig(num_labels=num_classes, classifier_dropout_prob=0.0, drop_path_rate=0.0)
    model = stirred(SegformerForSemanticSegmentation(config)).eval()
    for name, module in model.named_modules():
        in_block = name.endswith(BLOCK_NORMS) and "patch_embeddings" not in name and "sequence_reduction" not in name
        if published_epsilons and isinstance(module, nn.LayerNorm) and in_block:
            module.eps = 1e-6
    return model


def ours(num_classes: int = 3) -> tuple:
    encoder = create_encoder("mit_b0", drop_path_rate=0.0)
    return encoder, SegformerHead(encoder.channels, num_classes, 256, dropout=0.0)


def filled(tensors: dict[str, Tensor], num_classes: int = 3) -> Segmenter:
    encoder, head = ours(num_classes)
    Whole(dict(tensors), "a test").fill(encoder, head)
    return Segmenter(encoder, head).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What transformers writes of a b0 with three named classes."""
    model = peer()
    model.config.id2label = {0: "wall", 1: "crack", 2: "mould"}
    path = tmp_path_factory.mktemp("hf")
    model.save_pretrained(path)
    return path


@pytest.mark.parametrize(("name", "width"), [("segformer_b0", 256), ("segformer_b2", 768), ("segformer_b5", 768)])
def test_a_whole_model_by_name_has_the_published_width_and_gives_the_run_its_name(name: str, width: int) -> None:
    s = settings(model={"name": name})
    assert (s.encoder.name, s.head.name, s.head.config.width, s.name) == (name, "segformer", width, name)


def test_the_width_can_be_changed_and_a_dumped_config_keeps_it() -> None:
    s = settings(model={"name": "segformer_b2"}, head={"width": 256})
    assert s.head.config.width == 256
    assert gather(s.dump()).dump() == s.dump()


@pytest.mark.parametrize("section", [{}, {"encoder": None, "head": None}, {"head": {"name": None}}])
def test_the_whole_models_names_stand_where_sections_are_empty(section: dict) -> None:
    s = gather({"data": {"root": "x"}, "model": {"name": "segformer_b1"}, **section})
    assert (s.encoder.name, s.head.name, s.head.config.width) == ("segformer_b1", "segformer", 256)


@pytest.mark.parametrize(
    ("sections", "seen"),
    [
        ({"head": {"name": "lite"}}, "whose head is segformer, but head.name is lite"),
        ({"encoder": {"name": "mit_b1"}}, "whose encoder is segformer_b2, but encoder.name is mit_b1"),
        ({"model": {"name": "segformer_b7"}}, "no whole model is called 'segformer_b7'. Did you mean"),
    ],
)
def test_what_contradicts_the_whole_model_is_an_error(sections: dict, seen: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(**{"model": {"name": "segformer_b2"}, **sections})
    assert seen in str(caught.value)


def test_another_name_of_the_same_encoder_is_no_contradiction() -> None:
    assert settings(model={"name": "segformer_b2"}, encoder={"name": "mit-b2"}).name == "segformer_b2"


def test_segformer_lite_and_free_combinations_are_as_before() -> None:
    assert (settings().encoder.name, settings().head.name) == ("segformer_b0", "lite")
    s = settings(model={"name": None}, encoder={"name": "mit_b2"}, head={"name": "segformer"})
    assert (s.name, s.head.config.width) == ("mit_b2_segformer", 256)


@pytest.mark.parametrize(("classes", "expected"), [(150, 3_752_694), (19, 3_719_027), (2, 3_714_658)])
def test_b0_has_the_published_number_of_parameters(classes: int, expected: int) -> None:
    model = built(settings(model={"name": "segformer_b0"}), classes)
    assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize("size", [(128, 128), (125, 84)])
@torch.no_grad()
def test_evaluation_equals_transformers(size: tuple[int, int]) -> None:
    image = torch.randn(2, 3, *size)
    for published, tolerance in ((False, 1e-4), (True, 1e-5)):
        theirs = peer(published_epsilons=published)
        model = filled(theirs.state_dict())
        expected = theirs(image).logits
        scale = max(1.0, float(expected.abs().max()))
        assert (model.head(model.encoder(image)) - expected).abs().max() <= tolerance * scale


@torch.no_grad()
def test_evaluation_equals_segmentation_models_pytorch() -> None:
    torch.manual_seed(0)
    theirs = stirred(smp.Segformer("mit_b0", encoder_weights=None, classes=3)).eval()
    model = filled(theirs.state_dict())
    theirs.segmentation_head = theirs.segmentation_head[0]  # behind it SMP resizes with corners aligned, as we do not
    image = torch.randn(1, 3, 96, 64)
    expected = theirs(image)
    scale = max(1.0, float(expected.abs().max()))
    assert (model.head(model.encoder(image)) - expected).abs().max() <= 1e-5 * scale


ENCODERS = {
    "hub": lambda t: layouts.from_mit(t, layouts.HUGGING_FACE, "segformer."),
    "memory": lambda t: layouts.from_mit(t, layouts.TRANSFORMERS, "segformer."),
    "nvlabs": lambda t: layouts.from_mit(t, layouts.NVLABS, "backbone."),
    "smp": lambda t: layouts.from_mit(t, layouts.NVLABS, "encoder."),
    "mmseg": lambda t: layouts.from_mit(t, layouts.MMSEG, "backbone."),
}
HEADS = {
    "hub": (segformer_weights.HUGGING_FACE, "decode_head."),
    "memory": (segformer_weights.TRANSFORMERS, "decode_head."),
    "nvlabs": (segformer_weights.NVLABS, "decode_head."),
    "smp": (segformer_weights.SMP, ""),
}


@pytest.fixture(scope="module")
def whole() -> Segmenter:
    torch.manual_seed(3)
    return stirred(Segmenter(*ours())).eval()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_weights_go_there_and_back_without_loss(encoder: str, head: str, whole: Segmenter) -> None:
    layout, prefix = HEADS[head]
    tensors = ENCODERS[encoder](whole.encoder.net.model.state_dict())
    tensors |= segformer_weights.from_head(whole.head.state_dict(), layout, prefix)
    back = filled(tensors).state_dict()
    assert back.keys() == whole.state_dict().keys()
    assert all(torch.equal(back[key], tensor) for key, tensor in whole.state_dict().items())


@pytest.mark.parametrize("kind", ["folder", "file", "pth"])
def test_a_path_to_a_whole_model_loads_encoder_and_head(kind: str, folder: Path, tmp_path: Path) -> None:
    path, tensors = folder, load_file(folder / "model.safetensors")
    if kind == "file":
        path = folder / "model.safetensors"
    elif kind == "pth":
        path = tmp_path / "segformer.b0.pth"
        net = filled(tensors)
        names = layouts.from_mit(net.encoder.net.model.state_dict(), layouts.NVLABS, "backbone.")
        names |= segformer_weights.from_head(net.head.state_dict(), segformer_weights.NVLABS, "decode_head.")
        unused = {"decode_head.conv_seg.weight": torch.zeros(3, 128, 1, 1), "decode_head.conv_seg.bias": torch.zeros(3)}
        torch.save({"state_dict": names | unused, "meta": {"epoch": 3}}, path)
    model = built(settings(model={"name": "segformer_b0"}, encoder={"pretrained": str(path)}))
    assert model.encoder.origin == str(path / "model.safetensors" if kind == "folder" else path)
    assert torch.equal(model.head.classifier.weight, tensors["decode_head.classifier.weight"])
    assert torch.equal(model.head.batch_norm.running_var, tensors["decode_head.batch_norm.running_var"])
    expected = tensors["segformer.encoder.patch_embeddings.0.proj.weight"]
    assert torch.equal(model.encoder.net.model.patch_embed1.proj.weight, expected)


def test_a_classifier_for_other_classes_starts_anew_and_it_is_said(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    model = built(settings(model={"name": "segformer_b0"}, encoder={"pretrained": str(folder)}), num_classes=1)
    assert model.head.classifier.weight.shape[0] == 1
    assert model.head.classifier.bias.item() == pytest.approx(-3.892, abs=1e-3)  # ln(0.02 / 0.98)
    assert "classifies 3 classes and this model 1, so the classifier starts anew" in caplog.text
    tensors = load_file(folder / "model.safetensors")
    assert torch.equal(model.head.linear_fuse.weight, tensors["decode_head.linear_fuse.weight"])


def test_a_binary_models_own_classifier_is_kept(tmp_path: Path) -> None:
    tensors = peer(num_classes=1).state_dict()
    torch.save(tensors, tmp_path / "one.pth")
    s = settings(model={"name": "segformer_b0"}, encoder={"pretrained": str(tmp_path / "one.pth")})
    assert torch.equal(built(s, 1).head.classifier.bias, tensors["decode_head.classifier.bias"])


def test_a_whole_models_weights_for_rgb_are_spread_over_other_channels(folder: Path) -> None:
    """timm: one channel gets the sum over RGB."""
    model = built(settings(model={"name": "segformer_b0"}, encoder={"pretrained": str(folder), "in_chans": 1}))
    rgb = load_file(folder / "model.safetensors")["segformer.encoder.patch_embeddings.0.proj.weight"]
    torch.testing.assert_close(model.encoder.net.model.patch_embed1.proj.weight, rgb.sum(1, keepdim=True))


def test_a_file_of_an_encoder_alone_loads_the_encoder(folder: Path, tmp_path: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    encoder = {key: tensor for key, tensor in tensors.items() if key.startswith("segformer.")}
    save_file(encoder, tmp_path / "model.safetensors")
    model = built(settings(model={"name": "segformer_b0"}, encoder={"pretrained": str(tmp_path)}))
    expected = tensors["segformer.encoder.layer_norm.3.weight"]
    assert torch.equal(model.encoder.net.model.norm4.weight, expected)
    assert not torch.equal(model.head.classifier.weight, tensors["decode_head.classifier.weight"])


def test_another_head_takes_the_encoder_of_a_whole_model(folder: Path) -> None:
    model = built(settings(encoder={"pretrained": str(folder)}))
    expected = load_file(folder / "model.safetensors")["segformer.encoder.layer_norm.3.weight"]
    assert torch.equal(model.encoder.net.model.norm4.weight, expected)


def test_weights_that_do_not_fit_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"decode_head.linear_c.0.proj.weight \(256, 32\) instead of \(64, 32\)"):
        built(settings(model={"name": "segformer_b0"}, head={"width": 64}, encoder={"pretrained": str(folder)}))
    tensors = load_file(folder / "model.safetensors")
    del tensors["segformer.encoder.layer_norm.3.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"1 missing: segformer.encoder.layer_norm.3.weight"):
        built(settings(model={"name": "segformer_b0"}, encoder={"pretrained": str(tmp_path)}))
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=r"holds no model.safetensors and no pytorch_model.bin"):
        built(settings(model={"name": "segformer_b0"}, encoder={"pretrained": str(tmp_path / "empty")}))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache, and no hub; gives the cache."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def put_into_cache(cache: Path, repository: str, files: Path) -> None:
    """As huggingface_hub lays it out: models--owner--name, refs/main -> the revision's folder."""
    home = cache / f"models--{repository.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("abc")
    (home / "snapshots").mkdir()
    (home / "snapshots" / "abc").symlink_to(files, target_is_directory=True)


def test_ade20k_that_cannot_be_reached_is_one_warning_and_random_weights(
    offline: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = built(settings(model={"name": "segformer_b0"}, encoder={"pretrained": "ade20k"}))
    (record,) = [r for r in caplog.records if r.levelname == "WARNING"]
    assert f"'{ADE20K}' of the encoder 'mit_b0' cannot be reached (HF_HUB_OFFLINE is set" in record.getMessage()
    assert (model.encoder.origin, model.encoder.licence) == ("random", None)


def test_ade20k_from_the_cache_loads_encoder_and_head_with_origin_and_licence(offline: Path, folder: Path) -> None:
    put_into_cache(offline, ADE20K, folder)
    model = built(settings(model={"name": "segformer_b0"}, encoder={"pretrained": "ade20k"}))
    assert model.encoder.origin == ADE20K
    assert "non-commercial" in model.encoder.licence
    tensors = load_file(folder / "model.safetensors")
    assert torch.equal(model.head.linear_fuse.weight, tensors["decode_head.linear_fuse.weight"])
    assert torch.equal(
        Segmenter.from_pretrained(ADE20K).head.classifier.weight, tensors["decode_head.classifier.weight"]
    )


@pytest.mark.parametrize(
    ("sections", "seen"),
    [
        ({"model": {"name": "segformer_b2"}, "head": {"width": 256}}, "head.width is 256, and the weights of mit_b2"),
        ({"model": {"name": None}, "head": {"name": "lite"}}, "this is mit_b0 with the head 'lite'"),
    ],
)
def test_ade20k_for_a_model_without_such_weights_is_an_error(sections: dict, seen: str) -> None:
    with pytest.raises(ConfigError) as caught:
        built(settings(**sections, encoder={"pretrained": "ade20k"}))
    assert seen in str(caught.value)


@pytest.mark.parametrize(("word", "warnings"), [("imagenet", 1), ("none", 0)])
def test_imagenet_asks_for_the_encoders_weights_and_none_for_nothing(
    word: str, warnings: int, offline: Path, caplog: pytest.LogCaptureFixture
) -> None:
    built(settings(model={"name": "segformer_b0"}, encoder={"pretrained": word}))
    said = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(said) == warnings
    assert all("'nvidia/mit-b0'" in line for line in said)


def test_every_encoder_has_its_width() -> None:
    assert {f"mit_b{i}": 256 if i < 2 else 768 for i in range(6)} == WIDTHS


@torch.no_grad()
def test_from_pretrained_reads_what_transformers_wrote(folder: Path) -> None:
    model = Segmenter.from_pretrained(folder)
    image = torch.randn(1, 3, 64, 64)
    expected = SegformerForSemanticSegmentation.from_pretrained(folder).eval()(image).logits
    assert model.classes == ("wall", "crack", "mould")
    assert not model.training
    torch.testing.assert_close(model.head(model.encoder(image)), expected, rtol=0, atol=1e-4)


def test_from_pretrained_and_save_pretrained_keep_everything(whole: Segmenter, tmp_path: Path) -> None:
    whole.classes, whole.encoder.mean = ("a", "b", "c"), (0.1, 0.2, 0.3)
    again = Segmenter.from_pretrained(whole.save_pretrained(tmp_path / "hf", size=(320, 480)))
    assert (again.classes, again.encoder.mean) == (("a", "b", "c"), (0.1, 0.2, 0.3))
    assert all(torch.equal(again.state_dict()[key], value) for key, value in whole.state_dict().items())
    processor = json.loads((tmp_path / "hf" / "preprocessor_config.json").read_text())
    assert processor["size"] == {"height": 320, "width": 480}


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"model_type": "beit"}, "is a 'beit' model"),
        ({"depths": [2, 2, 2, 3]}, "none of the published"),
        ({"sr_ratios": [4, 4, 2, 1]}, "none of the published"),
        ({"decoder_hidden_size": 128}, "instead of"),
    ],
)
def test_a_folder_of_another_model_is_refused(change: dict, seen: str, folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    with pytest.raises(WeightsError) as caught:
        Segmenter.from_pretrained(tmp_path)
    assert seen in str(caught.value)


def test_from_pretrained_says_what_it_was_given(offline: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="neither a folder in Hugging Face's layout nor an id"):
        Segmenter.from_pretrained(tmp_path / "none" / "here")
    with pytest.raises(WeightsError, match=r"holds no config.json"):
        Segmenter.from_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="the Hugging Face hub cannot be reached"):
        Segmenter.from_pretrained("nvidia/segformer-b1-finetuned-ade-512-512")


@pytest.mark.parametrize(
    ("sections", "seen"),
    [
        ({}, "this is mit_b0 with a LiteHead"),
        ({"model": {"name": "segformer_b0", "detail": 4}}, "has a detail path"),
        (
            {"model": {"name": None}, "encoder": {"name": "resnet10t"}, "head": {"name": "segformer"}},
            "this is resnet10t with a SegformerHead",
        ),
        (
            {"model": {"name": None}, "encoder": {"name": "mit_b0"}, "head": {"name": "segformer_mmseg"}},
            "the head is segformer_mmseg, mmsegmentation's own.*Train with the head segformer",
        ),
    ],
)
def test_other_models_have_no_place_in_hugging_faces_layout(sections: dict, seen: str, tmp_path: Path) -> None:
    sections = {**sections, "encoder": {"pretrained": False, **sections.get("encoder", {})}}
    with pytest.raises(ConfigError, match=seen):
        built(settings(**sections)).save_pretrained(tmp_path)


def test_an_encoder_frozen_for_the_whole_run_has_no_last_frozen_epoch() -> None:
    assert settings(train={"freeze_encoder": True, "epochs": 7}).train.frozen_epochs == 7
    assert settings(train={"freeze_epochs": 2, "epochs": 7}).train.frozen_epochs == 2


@pytest.mark.parametrize("encoder", ["segformer_b0", "resnet18"])
def test_imagenet_means_the_default_weights_of_any_encoder(encoder: str) -> None:
    assert choose_weights(encoder, "aspp", None, "imagenet") == (None, True)
