"""What is wrong with a data set, found before anything is computed on it."""

from segwright.checks.source import Checked, check_quick, check_source, judge, look, summary

__all__ = ["Checked", "check_quick", "check_source", "judge", "look", "summary"]
