import sys

from segwright.cli import main

main(["evaluate", "--split", "valid", *sys.argv[1:]])  # the challenge's test images have no masks
