"""A run's own checkpoint as first weights: all of its encoder, its normalisation, and what it records of licences."""

import re
from pathlib import Path

import pytest
import timm
import torch

from segwright import checkpoint
from segwright.encoders import create_encoder
from segwright.encoders.adapter import Encoder
from segwright.errors import ConfigError, WeightsError
from segwright.pretrained.licences import refuse_non_commercial, weights_record

RECORD = {"origin": "timm/somewhere", "licence": "mit", "sha256": "abc"}


def save(path: Path, encoder: Encoder, name: str, **model: torch.Tensor) -> Path:
    """The checkpoint of a run with that encoder."""
    own = {f"encoder.{key}": tensor for key, tensor in encoder.state_dict().items()}
    header = {"config": {"encoder": {"name": name}}, "classes": ["a"], "weights": RECORD}
    normalisation = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    checkpoint.save(path, {"model": own | {"head.classifier.weight": torch.ones(1)} | model} | header | normalisation)
    return path


@pytest.mark.parametrize("name", ["test_resnet", "mobilenet_v3_small", "segformer_b0", "convnext_atto", "test_vit"])
def test_a_runs_checkpoint_gives_its_whole_encoder_and_what_it_records(name, tmp_path):
    torch.manual_seed(1)
    trained = create_encoder(name)
    path = save(tmp_path / "best.pth", trained, name)
    torch.manual_seed(2)
    again = create_encoder(name, pretrained=str(path))
    assert again.state_dict().keys() == trained.state_dict().keys()
    assert all(torch.equal(tensor, again.state_dict()[key]) for key, tensor in trained.state_dict().items())
    assert (again.mean, again.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    written = weights_record(again, None)
    assert (written["origin"], written["licence"], written["trained_from"]) == (str(path), "mit", RECORD)


def test_another_encoders_checkpoint_is_said_by_its_name(tmp_path):
    path = save(tmp_path / "best.pth", create_encoder("mobilenet_v3_small"), "mobilenet_v3_small")
    for name in ("segformer_b0", "test_resnet", "test_vit"):
        with pytest.raises(WeightsError, match=r"was made with the encoder 'mobilenet_v3_small'.*Set --encoder mobil"):
            create_encoder(name, pretrained=path)


def test_an_encoder_that_lacks_a_tensor_or_has_another_shape_is_refused(tmp_path):
    whole = create_encoder("test_resnet")
    save(tmp_path / "grey.pth", create_encoder("test_resnet", in_channels=1), "test_resnet")
    with pytest.raises(WeightsError, match=r"other options.*1 of another shape: net\.conv1.*instead of"):
        create_encoder("test_resnet", pretrained=tmp_path / "grey.pth")
    del whole.net.bn1
    save(tmp_path / "holed.pth", whole, "test_resnet")
    with pytest.raises(WeightsError, match=r"other options: tensors 5 missing: net\.bn1\."):
        create_encoder("test_resnet", pretrained=tmp_path / "holed.pth")


def test_a_plain_vits_pyramid_is_taken_as_far_as_it_is_there(tmp_path):
    trained = create_encoder("test_vit")
    trained.leave_out([0])
    path = save(tmp_path / "best.pth", trained, "test_vit")
    for options in ({}, {"pyramid": False}):
        again = create_encoder("test_vit", pretrained=path, **options).state_dict()
        shared = [key for key in trained.state_dict() if key in again]
        assert len([key for key in shared if ".vit." in key]) == len([key for key in again if ".vit." in key])
        assert all(torch.equal(trained.state_dict()[key], again[key]) for key in shared)


def test_adapters_are_to_be_merged_first(tmp_path):
    path = save(
        tmp_path / "best.pth", create_encoder("test_resnet"), "test_resnet", **{"encoder.a.lora_A": torch.ones(1)}
    )
    with pytest.raises(WeightsError, match="--format merged"):
        create_encoder("test_resnet", pretrained=path)


def test_the_licence_in_a_checkpoint_counts_for_commerce(tmp_path, monkeypatch):
    path = save(tmp_path / "best.pth", create_encoder("test_resnet"), "test_resnet")
    refuse_non_commercial("test_resnet", str(path), None)
    monkeypatch.setitem(RECORD, "licence", "cc-by-nc-4.0")
    save(path, create_encoder("test_resnet"), "test_resnet")
    with pytest.raises(ConfigError, match=r"cc-by-nc-4\.0"):
        refuse_non_commercial("test_resnet", str(path), None)


def test_timm_does_not_list_every_tensor_of_a_file_that_does_not_fit(tmp_path, caplog):
    torch.save(
        {f"elsewhere.{k}": v for k, v in timm.create_model("test_resnet").state_dict().items()}, tmp_path / "x.pth"
    )
    with pytest.raises(WeightsError, match=re.escape("of its tensors are not in the file")):
        create_encoder("test_resnet", pretrained=tmp_path / "x.pth")
    assert not caplog.text
