"""Encoders: any hierarchical model of timm, where its weights come from, and what is said when they cannot be had."""

import http.server
import logging
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file

from segwright.encoders import create_encoder, resolve_name, sources
from segwright.errors import ConfigError, WeightsError

FAMILIES = {
    "mit_b0": 64,
    "mobilenetv3_small_050": 64,
    "resnet10t": 64,
    "convnext_atto": 64,
    "pvt_v2_b0": 64,
    "hgnetv2_b0": 64,
    "swin_tiny_patch4_window7_224": 224,
    "hrnet_w18_small": 64,
}
"""A model of each way in which timm gives features (list, getter, a class of its own, channels last), and its size."""


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """No hub, no cache: the hub's address is a port of this machine at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    return address


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a host that takes a connection and never says anything."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.parametrize(("name", "size"), FAMILIES.items())
def test_maps_have_the_stated_channels_and_strides_and_every_parameter_gets_a_gradient(name: str, size: int) -> None:
    encoder = create_encoder(name)
    maps = encoder(torch.randn(2, 3, size, size))
    expected = [(2, c, size // s, size // s) for c, s in zip(encoder.channels, encoder.strides, strict=True)]
    assert [tuple(x.shape) for x in maps] == expected
    assert list(encoder.strides) == sorted(encoder.strides)
    assert encoder.strides[0] == 4
    sum(x.square().mean() for x in maps).backward()
    assert [key for key, p in encoder.named_parameters() if p.grad is None] == []


def test_min_stride_2_keeps_the_finest_map() -> None:
    image = torch.randn(1, 3, 64, 64)
    fine, coarse = (create_encoder("mobilenet_v3_small", min_stride=stride).eval() for stride in (2, 4))
    assert (fine.strides, fine.channels) == ((2, 4, 8, 16, 32), (16, 16, 24, 48, 576))
    assert (coarse.strides, coarse.channels) == ((4, 8, 16, 32), (16, 24, 48, 576))
    assert [x.shape[2] for x in fine(image)] == [32, 16, 8, 4, 2]
    assert [x.shape[2] for x in coarse(image)] == [16, 8, 4, 2]
    with pytest.raises(ConfigError, match="min_stride"):
        create_encoder("mobilenet_v3_small", min_stride=64)


def test_mean_std_licence_and_origin_are_what_timm_states() -> None:
    maxvit, mit = create_encoder("maxvit_tiny"), create_encoder("segformer_b0")
    assert (maxvit.name, maxvit.mean, maxvit.std) == ("maxvit_tiny_tf_384", (0.5,) * 3, (0.5,) * 3)
    assert (mit.name, mit.mean, mit.std) == ("mit_b0", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (mit.origin, mit.licence) == ("random", None)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_numbers_of_channels(channels: int) -> None:
    encoder = create_encoder("mit_b0", in_channels=channels)
    assert encoder(torch.randn(1, channels, 32, 32))[0].shape == (1, 32, 8, 8)
    if channels == 1:
        assert encoder.mean == pytest.approx(((0.485 + 0.456 + 0.406) / 3,))
    else:
        assert encoder.mean == (0.485, 0.456, 0.406, 0.485)
    with pytest.raises(ConfigError, match=rf"\(1, 3, 32, 32\).*\(batch, {channels}, height, width\)"):
        encoder(torch.randn(1, 3, 32, 32))


def test_a_size_that_the_model_cannot_take_is_said_with_its_own_size() -> None:
    encoder = create_encoder("test_coatnet")
    with pytest.raises(ConfigError, match=r"\(1, 3, 100, 100\).*160 x 160.*encoder.image_size makes it for another"):
        encoder(torch.randn(1, 3, 100, 100))
    assert len(create_encoder("test_coatnet", image_size=96)(torch.randn(2, 3, 96, 96))) == 4
    with pytest.raises(
        ConfigError, match=r"'convnext_atto' could not take.*\(1, 3, 16, 16\).*224 x 224.*multiple of 32\.$"
    ):
        create_encoder("convnext_atto")(torch.randn(1, 3, 16, 16))


@pytest.mark.parametrize(
    ("name", "resolved"),
    [
        ("segformer_b0", "mit_b0"),
        ("segformer-b5", "mit_b5"),
        ("mit-b3", "mit_b3"),
        ("mobilenet_v3_small", "mobilenetv3_small_100"),
        ("mobilenet_v3_large", "mobilenetv3_large_100"),
        ("maxvit_tiny", "maxvit_tiny_tf_384"),
        ("convnext_tiny", "convnext_tiny"),
        ("convnext_tiny.fb_in1k", "convnext_tiny.fb_in1k"),
    ],
)
def test_aliases(name: str, resolved: str) -> None:
    assert resolve_name(name) == resolved


def test_a_wrong_name_or_tag_is_offered_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'segformer_bo'. Did you mean 'segformer_b0'\?"):
        resolve_name("segformer_bo")
    with pytest.raises(ConfigError, match=r"'convnext_tiny'.*'fb_in1'. Did you mean 'fb_in1k'\?"):
        resolve_name("convnext_tiny.fb_in1")


def test_models_whose_maps_are_all_of_one_size_are_refused() -> None:
    with pytest.raises(ConfigError, match="3 maps that all have stride 16"):
        create_encoder("xcit_nano_12_p16_224")


def test_options_that_a_model_does_not_have_are_refused() -> None:
    with pytest.raises(ConfigError, match="drop_path_rate"):
        create_encoder("ghostnet_050", drop_path_rate=0.1)
    with pytest.raises(ConfigError, match="gradient checkpointing"):
        create_encoder("hrnet_w18_small", checkpointing=True)


def test_checkpointing_and_drop_path_reach_the_model() -> None:
    encoder = create_encoder("mit_b0", checkpointing=True, drop_path_rate=0.5)
    assert encoder.net.model.grad_checkpointing
    assert encoder.net.model.block4[1].drop_path.drop_prob == 0.5
    assert create_encoder("convnext_atto", checkpointing=True).net.grad_checkpointing


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050", "convnext_atto", "pvt_v2_b0"])
def test_a_file_of_any_timm_model_loads_and_a_missing_tensor_is_an_error(name: str, tmp_path: Path) -> None:
    """Also where timm itself would keep silent; constants that no seed changes (norms) count too."""
    torch.manual_seed(1)
    tensors = timm.create_model(name).state_dict()
    torch.save(tensors, tmp_path / "whole.pth")
    encoder = create_encoder(name, pretrained=tmp_path / "whole.pth")
    assert encoder.origin == str(tmp_path / "whole.pth")
    loaded = {float(p.detach().sum()) for p in encoder.parameters()}
    assert loaded <= {float(tensor.sum()) for tensor in tensors.values()}

    norm = next(key for key, tensor in tensors.items() if tensor.ndim == 1 and bool((tensor == 1).all()))
    del tensors[norm]
    torch.save(tensors, tmp_path / "holed.pth")
    with pytest.raises(WeightsError, match="1 of its tensors are not in the file"):
        create_encoder(name, pretrained=str(tmp_path / "holed.pth"))


def test_a_file_of_another_model_is_refused(tmp_path: Path) -> None:
    torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / "other.pth")
    with pytest.raises(
        WeightsError, match=r"other.pth' do not fit the encoder 'convnext_atto'.*names of another model"
    ):
        create_encoder("convnext_atto", pretrained=tmp_path / "other.pth")
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "smaller.pth")
    with pytest.raises(WeightsError, match=r"conv1\.weight \(64, 64, 3, 3\) instead of \(64, 64, 1, 1\), .* in all\)"):
        create_encoder("resnet50", pretrained=tmp_path / "smaller.pth")


class Code:
    """Unpickled, it would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "it-ran"
    torch.save({"state_dict": Code(trace)}, tmp_path / "evil.pth")
    (tmp_path / "evil.bin").write_bytes(pickle.dumps(Code(trace), protocol=2))
    for name in ("evil.pth", "evil.bin"):
        for encoder in ("mit_b0", "resnet10t"):
            with pytest.raises(WeightsError, match="could run code"):
                create_encoder(encoder, pretrained=tmp_path / name)
    assert not trace.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_that_cannot_be_read_are_refused(suffix: str, tmp_path: Path) -> None:
    whole = tmp_path / f"whole{suffix}"
    tensors = {"a": torch.zeros(1000)}
    save_file(tensors, whole) if suffix == ".safetensors" else torch.save(tensors, whole)
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(whole.read_bytes()[:700])
    text = tmp_path / f"text{suffix}"
    text.write_text("not a checkpoint")
    empty = tmp_path / f"empty{suffix}"
    empty.touch()
    for path in (cut, text, empty):
        with pytest.raises(WeightsError, match=path.name):
            create_encoder("mit_b0", pretrained=path)


def test_a_checkpoint_without_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(WeightsError, match="no tensors by name"):
        create_encoder("mit_b0", pretrained=tmp_path / "empty.pth")


def test_neither_tag_nor_file_is_an_error_that_names_the_tags(nowhere: str) -> None:
    with pytest.raises(WeightsError, match=r"neither a file nor a tag of 'convnext_tiny'. Did you mean 'fb_in1k'\?"):
        create_encoder("convnext_tiny", pretrained="fb_in1kk")
    without = next(name for name in timm.list_models() if not timm.is_model_pretrained(name))
    with pytest.raises(WeightsError, match=f"no pretrained weights for '{without}'"):
        create_encoder(without, pretrained=True)


@pytest.mark.parametrize(("name", "pretrained"), [("mit_b0", True), ("mit_b0", "1"), ("resnet18", "a1_in1k")])
def test_an_unreachable_hub_is_one_warning_and_random_weights_at_once(
    name: str, pretrained: bool | str, nowhere: str, caplog: pytest.LogCaptureFixture
) -> None:
    start_s = time.monotonic()
    encoder = create_encoder(name, pretrained=pretrained)
    elapsed_s = time.monotonic() - start_s
    (message,) = warnings_in(caplog)
    assert f"'{name}' cannot be reached" in message
    assert "random weights" in message
    assert (encoder.origin, encoder.licence) == ("random", None)
    assert elapsed_s < 5


@pytest.mark.slow
def test_a_host_that_never_answers_is_given_up_in_time(
    nowhere: str, silent: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", silent)
    start_s = time.monotonic()
    assert create_encoder("mit_b0", pretrained=True).origin == "random"
    assert time.monotonic() - start_s < 5
    assert len(warnings_in(caplog)) == 1


def test_a_download_that_fails_half_way_is_a_warning_too(
    nowhere: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The host answers, and then the connection breaks."""
    monkeypatch.setattr(sources, "unreachable", lambda address: None)

    def breaks(*args: object, **kwargs: object) -> None:
        raise ConnectionResetError("connection reset by peer")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", breaks)
    assert create_encoder("mit_b0", pretrained=True).origin == "random"
    (message,) = warnings_in(caplog)
    assert "connection reset by peer" in message


def test_offline_mode_asks_nobody(
    nowhere: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(sources, "unreachable", lambda address: pytest.fail("asked the network"))
    create_encoder("mit_b0", pretrained=True)
    assert "HF_HUB_OFFLINE" in warnings_in(caplog)[0]


@pytest.mark.parametrize("filename", ["model.safetensors", "pytorch_model.bin"])
def test_weights_in_the_hub_cache_need_no_network(
    filename: str, nowhere: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The cache as huggingface_hub lays it out: models--owner--name, refs/main -> the revision's folder."""
    repository = tmp_path / "cache" / "models--nvidia--mit-b0"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    folder = repository / "snapshots" / "abc"
    folder.mkdir(parents=True)
    tensors = timm.create_model("mit_b0", num_classes=1000).state_dict()
    (save_file if filename.endswith("safetensors") else torch.save)(tensors, folder / filename)
    encoder = create_encoder("mit_b0", pretrained=True)
    assert warnings_in(caplog) == []
    assert encoder.origin == "nvidia/mit-b0"
    assert "non-commercial" in encoder.licence
    assert torch.equal(encoder.net.model.norm4.weight, tensors["norm4.weight"])
    assert torch.equal(encoder.net.model.block1[0].attn.q.weight, tensors["block1.0.attn.q.weight"])


def test_any_answer_of_a_host_counts_as_reachable(nowhere: str) -> None:

    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(404)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert sources.unreachable(f"http://127.0.0.1:{server.server_port}") is None
        thread.join()
    assert "refused" in (sources.unreachable(nowhere) or "")


@pytest.mark.slow
def test_torch_compile_takes_an_encoder_whole() -> None:
    encoder = create_encoder("mit_b0").eval()
    image = torch.randn(1, 3, 32, 32)
    compiled = torch.compile(encoder, fullgraph=True, backend="eager")
    with torch.no_grad():
        pairs = zip(encoder(image), compiled(image), strict=True)
    # recorded code takes the plain steps, eager inference the fused ones
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in pairs)


def test_without_timm_the_message_says_how_to_install_it() -> None:
    code = (
        "import sys; sys.modules['timm'] = None\n"
        "from segwright.errors import MissingPackageError\n"
        "try:\n    import segwright.encoders\n"
        "except MissingPackageError as error:\n    print(error)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install timm" in found.stdout
