"""One file of a repository on the Hugging Face hub: from the cache, fetched, or at once said to be out of reach."""

import re
from collections.abc import Sequence
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

from segwright.encoders import sources
from segwright.encoders.making import NETWORK
from segwright.errors import WeightsError

REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
"""What an id on the hub looks like: owner/name."""


class OutOfReachError(WeightsError):
    """The hub cannot be asked; the message is the reason alone."""


def hub_file(repository: str, names: Sequence[str]) -> Path:
    """The first of `names` that the repository has.

    Raises:
        OutOfReachError: it is in no cache and the hub does not answer; within seconds, where the hub's own client
            would try for most of a minute.
        WeightsError: the hub answers, but has no such repository, or that has none of these files.
    """
    for name in names:
        found = huggingface_hub.try_to_load_from_cache(repository, name)
        if isinstance(found, str):
            return Path(found)
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        raise OutOfReachError("HF_HUB_OFFLINE is set, and they are not in the cache")
    if reason := sources.unreachable(huggingface_hub.constants.ENDPOINT):
        raise OutOfReachError(reason)
    for name in names:
        if (path := _fetch(repository, name)) is not None:
            return path
    raise WeightsError(
        f"'{repository}' on the Hugging Face hub has none of the files {', '.join(names)}. Choose another repository."
    )


def _fetch(repository: str, name: str) -> Path | None:
    """The file, downloaded; None: the repository has none of that name."""
    try:
        return Path(huggingface_hub.hf_hub_download(repository, name))
    except RepositoryNotFoundError:
        raise WeightsError(
            f"the Hugging Face hub shows no repository '{repository}'; it may be private. Check the id, or log in with "
            "`hf auth login`."
        ) from None
    except EntryNotFoundError as error:
        if isinstance(error, LocalEntryNotFoundError):
            raise OutOfReachError(_first_line(error)) from None
        return None
    except Exception as error:
        if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in NETWORK:
            raise OutOfReachError(_first_line(error)) from None
        raise


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
