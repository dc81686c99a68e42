"""One function for each verb: the Python API and the sub-commands are these."""
