"""From a configuration to the data: the reader's, with the config's classes, and with a validation split."""

import logging

from segwright import splitting
from segwright.data import refuse_mixed
from segwright.datasets import READERS
from segwright.datasets.base import Source, sound
from segwright.datasets.mapping import mapped, set_apart
from segwright.splitting import Record
from segwright.verbs.folder import run_folder
from segwright.verbs.settings import Settings

log = logging.getLogger("segwright")

LOG_LEVEL = {"error": logging.DEBUG, "warning": logging.WARNING, "info": logging.INFO}
"""Of what dividing found; errors are raised."""
SPLIT_FILE = "split.json"
"""In a run's folder: how its images were divided, if the data came without a validation split."""


def read_source(
    settings: Settings, *, scan: bool = False, recorded: Record | None = None, trained: bool = False
) -> Source:
    """The data set that a config names.

    scan: what makes the data unusable is a finding, and the rest is given; images are divided by `split.file` alone,
    not by chance. recorded: how an earlier run divided them, which is done again. trained: for a model that is there,
    whose coarse labels these data need not have.

    Raises:
        DataError: the data cannot be used (with `scan`: cannot be read at all).
        ConfigError: `classes`, `split` or `hierarchy.coarse_labels` do not fit the data.
    """
    reader, config = READERS.part(settings.data.name), settings.data.config
    source = mapped(reader.scan(config) if scan else reader.build(config), settings.classes)
    source = set_apart(source, list(settings.hierarchy.coarse_labels), all_needed=not trained)
    if scan and settings.split.file is None:
        return source
    divided = splitting.divided(source, config.root, settings.split, recorded)
    if scan:
        return divided
    for finding in divided.findings[len(source.findings) :]:
        log.log(LOG_LEVEL[finding.level], "%s %s", finding.message, finding.fix)
    return sound(divided, config.root)


def refuse_mixed_batches(settings: Settings, source: Source) -> None:
    """Raises `ConfigError` where the training images would meet in a batch at different sizes; reads their headers if
    the config gives them no common size."""
    if settings.input.pixels() is None and settings.augment.window() is None:
        refuse_mixed(source.splits["train"], settings.train.batch_size)


def division(settings: Settings, source: Source) -> dict[str, list[str]] | None:
    """How `read_source` divided the images, to do it again; none if the data came divided."""
    return splitting.record(source, settings.data.config.root)


def earlier_division(settings: Settings) -> dict[str, list[str]] | None:
    """How the run in the config's folder divided the images, for going on with it."""
    path = run_folder(settings) / SPLIT_FILE
    return splitting.read_record(path) if path.is_file() else None
