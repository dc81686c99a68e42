#!/usr/bin/env python
"""The command `nnUNetv2_train_segformer` as a script: python nnUNetv2_train_segformer.py 996 2d 0"""

from segwright.nnunet import run_training_entry

if __name__ == "__main__":
    run_training_entry()
