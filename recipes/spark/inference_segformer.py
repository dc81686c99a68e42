import sys

from segwright.cli import main

main(["submission", *sys.argv[1:]])
