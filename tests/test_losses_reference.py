"""Losses against other libraries': values that they gave on an input without randomness, and the libraries themselves.

The input is that of test_losses.py. Values: MONAI 1.6.1, segmentation_models_pytorch 0.6.0, nnunetv2 2.8.1, torch 2.15.
"""

import pytest
import torch

from segwright.losses.bce_dice import BceDiceLoss
from segwright.losses.ce import CeLoss
from segwright.losses.ce_dice import CeDiceLoss
from segwright.losses.cldice import ClDiceLoss, soft_skeleton
from segwright.losses.dc_and_ce import DcAndCeLoss
from segwright.losses.dice_focal import DiceFocalLoss
from segwright.losses.focal import FocalLoss
from segwright.losses.focal_tversky import FocalTverskyLoss
from segwright.losses.lovasz import LovaszLoss
from segwright.losses.tversky import TverskyLoss
from test_losses import labels, made

Z, Y = made(2, 3, 4, 5), labels(2, 4, 5, classes=3)
IGNORED = Y.clone()
IGNORED[0, 0, :2] = IGNORED[1, 3, 4] = 255
ONE, TARGET = Z[:, :1], (Y == 1).long()
W = [0.5, 1.0, 3.0]


def test_the_input_is_the_one_the_values_were_made_with():
    assert Z.sum().item() == pytest.approx(9.916941, abs=1e-5)
    assert Z[0, 0, 0].tolist() == pytest.approx([2.386561, 4.011756, 4.424580, 3.413753, 1.426471], abs=1e-6)
    assert Y[0].tolist() == [[0, 0, 1, 0, 2], [1, 0, 0, 1, 1], [0, 0, 1, 2, 0], [0, 0, 0, 1, 0]]
    assert torch.bincount(Y.flatten()).tolist() == [18, 16, 6]


def dice(**values):
    return CeDiceLoss(ce_weight=0, **values)


def dice_focal(**values):
    """MONAI's: each part once, Dice by image, focal one against the rest, alpha on the positive side."""
    monai = {"focal": "sigmoid", "alpha_on": "positive", "dice_over": "image", "smooth": 1e-5}
    return DiceFocalLoss(1, 1, **{**monai, **values})


SIDED = {"alpha": 0.25, "alpha_on": "positive"}
VALUES = {
    "torch cross-entropy": (CeLoss(), Z, Y, 2.7477176),
    "torch, ignored": (CeLoss(), Z, IGNORED, 2.7808280),
    "torch, weights": (CeLoss(W), Z, Y, 2.4730914),
    "torch, weights, ignored": (CeLoss(W), Z, IGNORED, 2.4779255),
    "BCE": (BceDiceLoss(dice_weight=0), ONE, TARGET, 1.3377316),
    "Dice of one class over the batch": (BceDiceLoss(bce_weight=0), ONE, TARGET, 0.6009502),
    "BCE + Dice": (BceDiceLoss(), ONE, TARGET, 1.9386818),
    "the same by Tversky": (TverskyLoss(0.5, 0.5, smooth=0.5), ONE, TARGET, 0.6009502),
    "Dice of one class by image": (TverskyLoss(0.5, 0.5, "image", smooth=0.5), ONE, TARGET, 0.5855392),
    "MONAI Dice": (dice(dice_over="image", smooth=1e-5), Z, Y, 0.6980616),
    "MONAI Dice, batch": (dice(smooth=1e-5), Z, Y, 0.6911762),
    "MONAI Dice, weights": (dice(dice_over="image", smooth=1e-5, class_weights=W), Z, Y, 1.1150640),
    "SMP Dice": (dice(smooth=0), Z, Y, 0.6911764),
    # SMP adds its smoothing to I and to (P + G) / 2, so one of its pixels is two of ours.
    "SMP Dice, smooth 1": (dice(smooth=2), Z, Y, 0.6416008),
    "SMP Dice, ignored": (dice(smooth=0), Z, IGNORED, 0.7017263),
    "SMP Dice of one class": (TverskyLoss(0.5, 0.5, smooth=0), ONE, TARGET, 0.6186019),
    # SMP counts the two absent classes as nothing lost, and divides by three; ours are left out.
    "SMP Dice, all class 0": (dice(smooth=0), Z, torch.zeros_like(Y), 3 * 0.1719265),
    "MONAI DiceCE": (CeDiceLoss(dice_over="image", smooth=1e-5), Z, Y, 3.4457793),
    "MONAI DiceCE, batch, weights": (CeDiceLoss(smooth=1e-5, class_weights=W), Z, Y, 3.5826859),
    "nnU-Net, batch Dice": (DcAndCeLoss(), Z, Y, 2.4915695),
    "nnU-Net, Dice by image": (DcAndCeLoss(dice_over="image"), Z, Y, 2.4904394),
    "nnU-Net, batch Dice, ignored": (DcAndCeLoss(), Z, IGNORED, 2.5168271),
    "nnU-Net, Dice by image, ignored": (DcAndCeLoss(dice_over="image"), Z, IGNORED, 2.5158517),
    "nnU-Net, its Dice": (DcAndCeLoss(ce_weight=0), Z, Y, -0.2561480),
    "nnU-Net, all background": (DcAndCeLoss(ce_weight=0), Z, torch.zeros_like(Y), -0.0000008),
    "nnU-Net, all ignored": (DcAndCeLoss(), Z, torch.full_like(Y, 255), -1.0),
    "MONAI focal": (FocalLoss(alpha=None, kind="sigmoid"), Z, Y, 0.9657937),
    "MONAI focal, alpha": (FocalLoss(kind="sigmoid", **SIDED), Z, Y, 0.5703385),
    "MONAI focal, alpha, weights": (FocalLoss(kind="sigmoid", class_weights=W, **SIDED), Z, Y, 1.0767057),
    # MONAI's softmax focal is the mean over classes too, so a third.
    "MONAI softmax focal": (FocalLoss(alpha=None), Z, Y, 3 * 0.8315611),
    "MONAI softmax focal, alpha": (FocalLoss(**SIDED), Z, Y, 3 * 0.4223135),
    "SMP focal": (FocalLoss(alpha=None, kind="sigmoid"), Z, Y, 0.9657938),
    "SMP focal, alpha, ignored": (FocalLoss(kind="sigmoid", **SIDED), Z, IGNORED, 0.5702295),
    "torchvision focal": (FocalLoss(**SIDED), ONE, TARGET, 0.5418419),
    "softmax focal": (FocalLoss(alpha=None), Z, Y, 2.4946833),
    "softmax focal, alpha": (FocalLoss(), Z, Y, 0.6236708),
    "softmax focal, weights": (FocalLoss(alpha=None, class_weights=W), Z, Y, 2.3715897),
    "MONAI DiceFocal": (dice_focal(), Z, Y, 1.2684002),
    "MONAI DiceFocal, weights": (dice_focal(class_weights=W), Z, Y, 2.1917696),
    "MONAI DiceFocal, weights, batch": (dice_focal(class_weights=W, dice_over="batch"), Z, Y, 2.1863003),
    "MONAI DiceFocal without alpha": (dice_focal(alpha=None), Z, Y, 1.6638553),
    "MONAI DiceFocal of one class": (dice_focal(), ONE, TARGET, 1.1618705),
    "Dice + focal as 4-artefact has it": (DiceFocalLoss(smooth=2), Z, Y, 0.5 * 0.6416008 + 0.5 * 0.6236708),
    "SMP Tversky": (TverskyLoss(0.3, 0.7, smooth=0), Z, Y, 0.6896130),
    "focal Tversky, 3/4": (FocalTverskyLoss(0.3, 0.7, 0.75, smooth=1e-6), Z, Y, 0.7562907),
    "focal Tversky, 4/3": (FocalTverskyLoss(0.3, 0.7, 4 / 3, smooth=1e-6), Z, Y, 0.6101381),
    "SMP Lovász": (LovaszLoss(), Z, Y, 0.7926512),
    "SMP Lovász by image": (LovaszLoss("image"), Z, Y, 0.7950232),
    "SMP Lovász, ignored": (LovaszLoss(), Z, IGNORED, 0.8025241),
    "SMP Lovász, hinge": (LovaszLoss(), ONE, TARGET, 2.7659137),
}


@pytest.mark.parametrize("case", VALUES, ids=str)
def test_a_loss_equals_its_reference(case):
    loss, logits, mask, expected = VALUES[case]
    assert loss(logits, mask).item() == pytest.approx(expected, abs=1e-5)


def thin_lines() -> tuple[torch.Tensor, torch.Tensor]:
    """(logits (1, 1, 12, 12), mask (1, 12, 12)): a diagonal band of 26 pixels and a noisy answer."""
    i = torch.arange(144)
    truth = ((i // 12 - i % 12).abs() <= 1) & (i % 12 < 9)
    logits = made(144) + 2 * truth - 1
    return logits.view(1, 1, 12, 12), truth.long().view(1, 12, 12)


@pytest.mark.parametrize(
    ("iterations", "skeleton", "expected"), [(3, 44.5802040, 0.6304886), (10, 44.6628571, 0.6307339)]
)
def test_cldice_equals_its_reference(iterations, skeleton, expected):
    logits, mask = thin_lines()
    p = torch.sigmoid(logits[:, 0])
    assert (mask.sum().item(), p.sum().item()) == (26, pytest.approx(60.304901, abs=1e-4))
    assert soft_skeleton(mask.float(), iterations).sum().item() == 9
    assert soft_skeleton(p, iterations).sum().item() == pytest.approx(skeleton, abs=1e-4)
    assert ClDiceLoss(1.0, iterations)(logits, mask).item() == pytest.approx(expected, abs=1e-5)


def random_case(classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    made = torch.Generator().manual_seed(1)
    return 2 * torch.randn(2, classes, 9, 7, generator=made), torch.randint(0, classes, (2, 9, 7), generator=made)


def same_with_gradient(ours, theirs, logits, mask):
    x, y = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    a, b = ours(x, mask), theirs(y, mask)
    assert a.item() == pytest.approx(b.item(), abs=1e-5)
    assert torch.allclose(torch.autograd.grad(a, x)[0], torch.autograd.grad(b, y)[0], atol=1e-6)


@pytest.mark.slow
def test_monais_own_losses_agree_in_value_and_gradient():
    losses = pytest.importorskip("monai.losses", reason="MONAI is not installed")
    z, y = random_case()
    kept, weight = {"to_onehot_y": True}, torch.tensor(W)
    pairs = [
        (dice(dice_over="image", smooth=1e-5), losses.DiceLoss(softmax=True, **kept)),
        (CeDiceLoss(smooth=1e-5, class_weights=W), losses.DiceCELoss(softmax=True, batch=True, weight=weight, **kept)),
        (FocalLoss(kind="sigmoid", **SIDED), losses.FocalLoss(gamma=2, alpha=0.25, **kept)),
        (dice_focal(class_weights=W), losses.DiceFocalLoss(softmax=True, gamma=2, alpha=0.25, weight=weight, **kept)),
    ]
    for ours, theirs in pairs:
        same_with_gradient(ours, lambda x, m, theirs=theirs: theirs(x, m[:, None]), z, y)
    logits, mask = thin_lines()
    soft = losses.SoftDiceclDiceLoss(iter_=3, alpha=0.5)
    theirs = soft(torch.sigmoid(logits), mask[:, None].float()).item()
    assert ClDiceLoss(0.5, 3)(logits, mask).item() == pytest.approx(theirs, abs=1e-4)  # theirs adds 1e-4 to the mean


def test_smps_own_losses_agree_in_value_and_gradient():
    losses = pytest.importorskip("segmentation_models_pytorch.losses", reason="SMP is not installed")
    z, y = random_case()
    y[0, :2] = 255
    pairs = [
        (dice(smooth=0), losses.DiceLoss("multiclass", ignore_index=255)),
        (TverskyLoss(0.3, 0.7, smooth=0), losses.TverskyLoss("multiclass", ignore_index=255, alpha=0.3, beta=0.7)),
        (FocalLoss(kind="sigmoid", **SIDED), losses.FocalLoss("multiclass", alpha=0.25, ignore_index=255)),
        (LovaszLoss(), losses.LovaszLoss("multiclass", ignore_index=255)),
        (LovaszLoss("image"), losses.LovaszLoss("multiclass", per_image=True, ignore_index=255)),
    ]
    for ours, theirs in pairs:
        same_with_gradient(ours, theirs, z, y)


@pytest.mark.nnunet
@pytest.mark.usefixtures("nnunet")
@pytest.mark.parametrize("over", ["batch", "image"])
def test_nnunets_own_loss_agrees_in_value_and_gradient(over):
    from nnunetv2.training.loss import compound_losses as compound
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

    options = {"batch_dice": over == "batch", "smooth": 1e-5, "do_bg": False, "ddp": False}
    theirs = compound.DC_and_CE_loss(options, {}, ignore_label=255, dice_class=MemoryEfficientSoftDiceLoss)
    z, y = random_case()
    y[1, 4:] = 255
    same_with_gradient(DcAndCeLoss(dice_over=over), lambda x, m: theirs(x, m[:, None]), z, y)
