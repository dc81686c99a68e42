"""Splits for data that come without: made by chance from a seed, with what belongs together on one side."""

from segwright.splitting.division import CODES, Config, Picked, Record, as_json, divided, read_record, record, seen_from
from segwright.splitting.groups import deal, joined

__all__ = [
    "CODES",
    "Config",
    "Picked",
    "Record",
    "as_json",
    "deal",
    "divided",
    "joined",
    "read_record",
    "record",
    "seen_from",
]
