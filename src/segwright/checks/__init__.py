"""What is wrong with a data set, found before anything is computed on it."""

from segwright.checks.source import check_source, summary

__all__ = ["check_source", "summary"]
