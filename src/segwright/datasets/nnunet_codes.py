"""What reading nnU-Net's raw layout can find beside what every reader of pairs finds."""

from segwright.datasets import pairs
from segwright.datasets.base import Level

CODES: dict[str, tuple[Level, str, str]] = pairs.CODES | {
    "unknown-ending": (
        "error",
        "image files of a kind that is not read here",
        "Volumes (.nii.gz and others) are nnU-Net's own work: train there, with nnUNetv2_train_segformer. Here images "
        "are .png, .tif or .bmp.",
    ),
    "regions": (
        "error",
        "labels that are regions, each a union of several values, so that a pixel has several classes at once",
        "Give each value a label of its own, e.g. edema: 1, core: 2; a region can be made of the classes afterwards.",
    ),
    "labels": (
        "error",
        "labels of dataset.json that nnU-Net does not allow: whole numbers from 0, the background, without gaps; an "
        "'ignore' label is the highest",
        "Renumber labels and masks.",
    ),
    "too-many-labels": ("error", "more labels than the 254 that masks of 8 bits can tell apart", "Merge some."),
    "channels": (
        "error",
        "images of a number of channel files that cannot become RGB; 1 (grey or RGB) or 3 (grey each) can",
        "Choose the channels that matter and write the images as RGB.",
    ),
    "listed-files": (
        "error",
        "a dataset.json that lists its files under 'dataset' instead of using the folders, which is not read here",
        "Put or link the files into imagesTr and labelsTr, and take the list out.",
    ),
    "num-training": (
        "warning",
        "numTraining of dataset.json is not the number of training images; nnU-Net refuses that",
        "Mend the number, or restore what is missing.",
    ),
    "not-json": ("error", "files that are no JSON of the form that nnU-Net writes", "Restore the file."),
    "no-such-fold": ("error", "no such fold in the list of folds", "Set data.fold to one that is there."),
    "unknown-case": ("error", "cases of a fold without image and label", "Restore them, or make the folds anew."),
    "not-in-fold": ("warning", "cases that are in neither half of the fold, left out", "Make the folds anew."),
}
"""code -> (level, what it is and why it matters, what to do)."""
