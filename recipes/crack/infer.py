import sys

from segwright.cli import main

main(["infer", *sys.argv[1:]])
