import sys

from segwright.cli import main

main(["train", *sys.argv[1:]])
