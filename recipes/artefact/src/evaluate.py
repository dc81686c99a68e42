import sys

from segwright.cli import main

main(["evaluate", *sys.argv[1:]])
