"""Shared by all tests: no network, and where the real images are."""

import errno
import importlib.util
import os

if "PYTEST_XDIST_WORKER" in os.environ:  # several tests at a time: threads that wait must not burn each other's cores
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}

import socket
from pathlib import Path
from typing import Any

import pytest

LOCAL = {"localhost", "127.0.0.1", "::1", "", "0.0.0.0", "::"}


def _is_local(family: int, address: Any) -> bool:
    return family == getattr(socket, "AF_UNIX", None) or (isinstance(address, tuple) and address[0] in LOCAL)


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections leave this machine as little as on one without a network: they fail at once."""
    connect, connect_ex, getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def guarded_connect(self: socket.socket, address: Any) -> None:
        if not _is_local(self.family, address):
            raise OSError(errno.ENETUNREACH, f"tests are offline; refused to connect to {address}")
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        return connect_ex(self, address) if _is_local(self.family, address) else errno.ENETUNREACH

    def guarded_getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name is not None and name not in LOCAL:
            raise socket.gaierror(socket.EAI_AGAIN, f"tests are offline; refused to look up {name}")
        return getaddrinfo(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_getaddrinfo)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets: $SEGWRIGHT_DATA, or `../shared/data` beside the repository. Skips if absent."""
    folder = Path(os.environ.get("SEGWRIGHT_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        absent(f"no real data: {folder} is not there; name their folder with SEGWRIGHT_DATA")
    return folder


def absent(reason: str) -> None:
    """Skips, saying so; fails where everything is required, as it is before a change lands."""
    if os.environ.get("SEGWRIGHT_REQUIRE_ALL"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def nnunet() -> None:
    """For tests beside the real nnU-Net. `make test` runs them in an environment of their own, where none may skip."""
    if importlib.util.find_spec("nnunetv2") is None:
        (pytest.fail if os.environ.get("SEGWRIGHT_NNUNET") else pytest.skip)(
            "nnunetv2 is not in this environment; make test runs this in another"
        )


@pytest.fixture(scope="session")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of twelve small painted photographs."""
    from segwright.painting import write_dataset

    return write_dataset(tmp_path_factory.mktemp("painted") / "data", train=6, valid=3, test=3, size=(64, 96), seed=3)


@pytest.fixture(scope="session")
def finished(painted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of four epochs on it."""
    import segwright
    from runs import small

    folder = tmp_path_factory.mktemp("runs") / "whole"
    run = segwright.train(small(painted, folder))
    assert run.best_iou > 0, "a model that finds nothing would make its tests compare zeros"
    return folder
