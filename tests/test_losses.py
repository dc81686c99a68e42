"""What must hold for every loss, and values worked out with a pencil. Reference values: test_losses_reference.py."""

import math

import pytest
import torch
from torch.nn import functional as F

import segwright
from segwright.errors import ConfigError
from segwright.losses import LOSSES
from segwright.losses.bce_dice import BceDiceLoss
from segwright.losses.ce import CeLoss
from segwright.losses.ce_dice import CeDiceLoss
from segwright.losses.cldice import soft_skeleton
from segwright.losses.dc_and_ce import DcAndCeLoss
from segwright.losses.dice_focal import DiceFocalLoss
from segwright.losses.focal import FocalLoss
from segwright.losses.lovasz import LovaszLoss
from segwright.losses.tversky import TverskyLoss

OF_ONE = {"bce_dice", "cldice", "dice_focal", "focal", "focal_tversky", "lovasz", "tversky"}
OF_SEVERAL = set(LOSSES) - {"bce_dice"}
CASES = [(name, 1) for name in sorted(OF_ONE)] + [(name, 3) for name in sorted(OF_SEVERAL)]
NAMES = [f"{name}-{classes}" for name, classes in CASES]


def made(*shape: int) -> torch.Tensor:
    """3 sin(0.7 i + 0.3) + 1.5 cos(0.13 i) over the flat index i."""
    i = torch.arange(math.prod(shape), dtype=torch.float64)
    return (3 * torch.sin(0.7 * i + 0.3) + 1.5 * torch.cos(0.13 * i)).reshape(shape).float()


def labels(*shape: int, classes: int) -> torch.Tensor:
    i = torch.arange(math.prod(shape))
    return (((3 * i * i + i // 3) % 11) % classes).reshape(shape)


def built(name: str, classes: int):
    return LOSSES.build(name, LOSSES[name].Config(), classes, None)


def mask_for(classes: int, *shape: int) -> torch.Tensor:
    return labels(*shape, classes=max(classes, 2))


def gradient(loss, logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    logits = logits.clone().requires_grad_()
    loss(logits, mask).backward()
    assert logits.grad is not None
    return logits.grad


@pytest.mark.parametrize(("name", "classes"), CASES, ids=NAMES)
def test_logits_of_any_size_are_brought_to_the_masks(name, classes):
    """As if they had been enlarged before, to sizes that are a multiple and to odd ones."""
    for low, high in (((4, 6), (16, 24)), ((5, 7), (17, 30)), ((9, 8), (5, 6))):
        logits, mask = made(2, classes, *low), mask_for(classes, 2, *high)
        large = F.interpolate(logits, size=high, mode="bilinear", align_corners=False)
        loss = built(name, classes)
        assert loss(logits, mask).item() == pytest.approx(loss(large, mask).item(), abs=2e-6)


@pytest.mark.parametrize(("name", "classes"), CASES, ids=NAMES)
def test_the_gradient_is_that_of_the_value(name, classes):
    """gradcheck: in double precision, against differences."""
    logits, mask = made(2, classes, 3, 4).double().requires_grad_(), mask_for(classes, 2, 7, 8)
    mask[0, 0, :3] = 255
    loss = built(name, classes)
    assert loss(logits, mask).dtype == torch.float64
    quick = name == "cldice"  # along random directions instead of every axis: its pooling is slow
    assert torch.autograd.gradcheck(lambda x: loss(x, mask), logits, eps=1e-6, atol=1e-6, fast_mode=quick)


@pytest.mark.parametrize(("name", "classes"), [c for c in CASES if c[0] != "cldice"], ids=lambda v: str(v))
def test_ignored_pixels_count_nowhere(name, classes):
    """A strip that is ignored, whatever its logits, leaves value and gradient as without it."""
    logits, mask = made(2, classes, 4, 6), mask_for(classes, 2, 4, 6)
    wide = torch.cat([logits, torch.full((2, classes, 4, 2), 9.0)], 3)
    ignored = torch.cat([mask, torch.full((2, 4, 2), 255)], 2)
    loss = built(name, classes)
    assert loss(wide, ignored).item() == pytest.approx(loss(logits, mask).item(), abs=1e-6)
    grad = gradient(loss, wide, ignored)
    assert grad[..., 6:].abs().max() == 0
    assert torch.allclose(grad[..., :6], gradient(loss, logits, mask), atol=1e-6)


@pytest.mark.parametrize("classes", [1, 3])
def test_ignored_pixels_have_no_gradient_in_cldice_either(classes):
    mask = mask_for(classes, 2, 4, 6)
    mask[:, :, 4:] = 255
    grad = gradient(built("cldice", classes), made(2, classes, 4, 6), mask)
    assert grad[..., 4:].abs().max() == 0
    assert grad[..., :4].abs().max() > 0


@pytest.mark.parametrize(("name", "classes"), CASES, ids=NAMES)
def test_all_ignored_is_finite_and_without_a_gradient(name, classes):
    loss, logits = built(name, classes), made(2, classes, 4, 4)
    mask = torch.full((2, 8, 8), 255)
    assert loss(logits, mask).item() == (-1 if name == "dc_and_ce" else 0)
    assert gradient(loss, logits, mask).abs().max() == 0


@pytest.mark.parametrize(("name", "classes"), CASES, ids=NAMES)
def test_half_precision_is_computed_in_fp32(name, classes):
    """The value is that of the same numbers in fp32, under autocast and without; the gradient has the logits' type."""
    mask, loss = mask_for(classes, 2, 16, 16), built(name, classes)
    for kind in (torch.bfloat16, torch.float16):
        logits = made(2, classes, 4, 4).to(kind)
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(logits, mask)
            grad = gradient(loss, logits, mask)
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(loss(logits.float(), mask).item(), abs=1e-6)
        assert grad.dtype == kind
        expected = gradient(loss, logits.float(), mask)
        assert torch.allclose(grad.float(), expected, atol=0.01 * float(expected.abs().max()))


@pytest.mark.parametrize(("name", "classes"), CASES, ids=NAMES)
def test_extreme_logits_stay_finite(name, classes):
    """Certain and right, certain and wrong: value and gradient are numbers."""
    mask = mask_for(classes, 1, 4, 4)
    hot = F.one_hot(mask, max(classes, 2)).permute(0, 3, 1, 2)[:, -classes:].float()
    for scale in (200.0, -200.0):
        logits = scale * (2 * hot - 1)
        assert torch.isfinite(built(name, classes)(logits, mask))
        assert torch.isfinite(gradient(built(name, classes), logits, mask)).all()


@pytest.mark.parametrize(("name", "classes"), CASES, ids=NAMES)
def test_the_right_answer_costs_less_than_a_wrong_one(name, classes):
    mask = mask_for(classes, 1, 6, 6)
    hot = F.one_hot(mask, max(classes, 2)).permute(0, 3, 1, 2)[:, -classes:].float()
    loss = built(name, classes)
    right, unsure, wrong = (loss(scale * (2 * hot - 1), mask).item() for scale in (8.0, 0.0, -8.0))
    assert right < unsure < wrong


@pytest.mark.parametrize("name", sorted(OF_SEVERAL))
def test_a_loss_of_several_classes_says_so_to_one(name):
    if name in OF_ONE:
        built(name, 1)
    else:
        with pytest.raises(ConfigError, match=f"loss.name is {name}, which is for several classes.*Use bce_dice"):
            built(name, 1)


def test_bce_dice_says_that_it_is_for_one_class():
    with pytest.raises(ConfigError, match=r"which is for one class, but the data have 5.*Use ce_dice"):
        built("bce_dice", 5)


@pytest.mark.parametrize(("name", "classes"), CASES, ids=NAMES)
def test_class_weights_shift_the_balance_where_a_loss_takes_them(name, classes):
    part = LOSSES[name]
    if classes == 1 or "class_weights" not in part.Config.__dataclass_fields__:
        return
    logits, mask = made(2, 3, 4, 5), labels(2, 4, 5, classes=3)
    plain = gradient(part.build(part.Config(), 3, None), logits, mask)
    same = gradient(part.build(part.Config(), 3, [1, 1, 1]), logits, mask)
    tilted = gradient(part.build(part.Config(), 3, [0.5, 0.5, 2]), logits, mask)
    assert torch.allclose(plain, same, atol=1e-7)
    assert (tilted - plain)[:, 2].abs().max() > 1e-4
    with pytest.raises(ConfigError, match="2 class weights for 3 class"):
        part.build(part.Config(), 3, [1, 2])(logits, mask)


@pytest.mark.parametrize("name", sorted(OF_ONE - {"bce_dice", "cldice", "lovasz"}))
def test_class_weights_for_one_class_are_refused(name):
    with pytest.raises(ConfigError, match="one class has nothing to be weighed against"):
        LOSSES.build(name, LOSSES[name].Config(), 1, [1.0])


@pytest.mark.parametrize("wrong", [[1, -1], [0, 0], ["a", 1], {"a": 1}, 3, [1, math.inf]])
def test_class_weights_that_are_none_are_refused(wrong):
    with pytest.raises(ConfigError, match=r"loss\.class_weights"):
        LOSSES["ce"].Config(class_weights=wrong)


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("bce_dice", {"bce_weight": 0, "dice_weight": 0}, "nothing is learnt"),
        ("bce_dice", {"smooth": 0}, "divide by zero"),
        ("ce_dice", {"ce_weight": -1}, "nothing is learnt"),
        ("ce_dice", {"smooth": -1}, "Give 0 or more"),
        ("dc_and_ce", {"ce_weight": 0, "dice_weight": 0}, "nothing is learnt"),
        ("focal", {"gamma": -1}, "Give 0 or more"),
        ("focal", {"alpha": 0.0}, "above 0 up to 1"),
        ("dice_focal", {"alpha": 2.0}, "above 0 up to 1"),
        ("tversky", {"fn_weight": -0.1}, "Give 0 or more"),
        ("focal_tversky", {"exponent": 0}, "positive power"),
        ("cldice", {"alpha": 1.5}, "Give 0 to 1"),
    ],
)
def test_a_value_without_meaning_is_refused(name, values, words):
    with pytest.raises(ConfigError, match=words):
        LOSSES[name].Config(**values)


def test_bce_dice_by_hand():
    """Logits 0: p = 1/2. Target 0,0,0,1: BCE = ln 2; I = 1/2, P = 2, G = 1, s = 1: Dice = 1 - 2/4 = 1/2."""
    loss = BceDiceLoss()(torch.zeros(1, 1, 2, 2), torch.tensor([[[0, 0], [0, 1]]]))
    assert loss.item() == pytest.approx(math.log(2) + 0.5, abs=1e-6)


FOUR = torch.tensor([[[0, 0], [0, 1]]])


def test_ce_dice_by_hand():
    """Equal logits, 2 classes: p = 1/2. Target 0,0,0,1, s = 0.

    CE = ln 2. dice_0 = 2 (3/2) / (2 + 3) = 3/5, dice_1 = 2 (1/2) / (2 + 1) = 1/3, Dice = 1 - 7/15 = 8/15.
    """
    loss = CeDiceLoss(smooth=0)(torch.zeros(1, 2, 2, 2), FOUR)
    assert loss.item() == pytest.approx(math.log(2) + 8 / 15, abs=1e-6)


def test_weights_of_ce_divide_by_their_sum_and_those_of_dice_do_not():
    """Weights 1 and 3: CE stays ln 2 since each pixel has it; Dice = (1 (2/5) + 3 (2/3)) / 2 = 6/5."""
    loss = CeDiceLoss(smooth=0, class_weights=[1, 3])
    assert loss(torch.zeros(1, 2, 2, 2), FOUR).item() == pytest.approx(math.log(2) + 6 / 5, abs=1e-6)


def test_an_absent_class_is_left_out_of_dice():
    """A third class that no pixel has, p = 1/3: dice_0 = 2 / (4/3 + 3) = 6/13, dice_1 = (2/3) / (4/3 + 1) = 2/7."""
    loss = CeDiceLoss(ce_weight=0, smooth=0)(torch.zeros(1, 3, 2, 2), FOUR)
    assert loss.item() == pytest.approx(1 - (6 / 13 + 2 / 7) / 2, abs=1e-6)


def test_dice_over_the_image_leaves_out_what_that_image_lacks():
    """Image 1 is all class 0: dice_0 = 4 / 6, class 1 left out; with image 0's 3/5 and 1/3 the mean of three."""
    masks = torch.cat([FOUR, torch.zeros(1, 2, 2, dtype=torch.int64)])
    loss = CeDiceLoss(ce_weight=0, smooth=0, dice_over="image")(torch.zeros(2, 2, 2, 2), masks)
    assert loss.item() == pytest.approx(1 - (3 / 5 + 1 / 3 + 2 / 3) / 3, abs=1e-6)


def test_nnunets_loss_punishes_an_absent_class():
    """p = 1/3, class 2 absent: DC_1 = (2/3) / (4/3 + 1) = 2/7, DC_2 = 0; background left out; CE = ln 3."""
    loss = DcAndCeLoss()(torch.zeros(1, 3, 2, 2), FOUR)
    assert loss.item() == pytest.approx(math.log(3) - 1 / 7, abs=1e-4)


def test_focal_by_hand():
    """p = 1/2 everywhere: 0.25 (1/2)^2 ln 2 for a softmax of two; a sigmoid's mean over pixels and classes is the same.

    Positive side, alpha = 1/4: a softmax has 3/4 on the three pixels of class 0 and 1/4 on the other: (9 + 1) / 16.
    A sigmoid has of each pixel's two channels one positive and one negative: 1/2.
    """
    zero, unit = torch.zeros(1, 2, 2, 2), 0.25 * math.log(2)
    assert FocalLoss()(zero, FOUR).item() == pytest.approx(unit / 4, abs=1e-6)
    assert FocalLoss(kind="sigmoid")(zero, FOUR).item() == pytest.approx(unit / 4, abs=1e-6)
    assert FocalLoss(alpha_on="positive")(zero, FOUR).item() == pytest.approx(unit * 5 / 8, abs=1e-6)
    assert FocalLoss(kind="sigmoid", alpha_on="positive")(zero, FOUR).item() == pytest.approx(unit / 2, abs=1e-6)


def test_one_class_is_a_sigmoid_of_two():
    """Logit x for class 1 alone is the same as 0 and x for two classes, in what is asked of class 1 alone."""
    x, mask = made(2, 1, 4, 5), labels(2, 4, 5, classes=2)
    two = torch.cat([torch.zeros_like(x), x], 1)
    for loss in (FocalLoss(), FocalLoss(alpha_on="positive"), FocalLoss(gamma=0, alpha=None)):
        assert loss(x, mask).item() == pytest.approx(loss(two, mask).item(), abs=1e-6)
    only_one = TverskyLoss(class_weights=[0, 2])(two, mask)  # the mean over two classes, of which one counts twice
    assert TverskyLoss()(x, mask).item() == pytest.approx(only_one.item(), abs=1e-6)


def test_focal_without_focus_is_the_cross_entropy():
    logits, mask = made(2, 3, 4, 5), labels(2, 4, 5, classes=3)
    expected = CeLoss()(logits, mask).item()
    assert FocalLoss(gamma=0, alpha=None)(logits, mask).item() == pytest.approx(expected, abs=1e-6)


def test_halves_of_tversky_are_dice():
    logits, mask = made(2, 3, 4, 5), labels(2, 4, 5, classes=3)
    dice = CeDiceLoss(ce_weight=0, smooth=0)(logits, mask).item()
    assert TverskyLoss(0.5, 0.5, smooth=0)(logits, mask).item() == pytest.approx(dice, abs=1e-6)


def test_tversky_prices_what_is_missed_and_what_is_wrongly_found():
    """Nothing found of one pixel, s = 0: TI = 0. All found where one is right of four: 1 / (1 + 3 a)."""
    everything = torch.full((1, 1, 2, 2), 50.0)
    assert TverskyLoss(0.2, 0.8, smooth=0)(everything, FOUR).item() == pytest.approx(1 - 1 / 1.6, abs=1e-6)
    assert TverskyLoss(0.8, 0.2, smooth=0)(everything, FOUR).item() == pytest.approx(1 - 1 / 3.4, abs=1e-6)
    half = torch.tensor([[[[-50.0, -50.0], [50.0, -50.0]]]])  # one found, wrongly; one missed
    one = torch.tensor([[[1, 0], [1, 0]]])
    assert TverskyLoss(0.2, 0.8, smooth=0)(half, one).item() == pytest.approx(1 - 1 / 1.8, abs=1e-6)


def test_lovasz_of_hard_answers_is_the_jaccard_loss():
    """One pixel of four wrong: IoU_0 = 2/3, IoU_1 = 1/2; mean loss 1 - 7/12. One class: that pixel's hinge is 2."""
    logits = 50 * torch.tensor([[[[1.0, 1], [-1, -1]], [[-1, -1], [1, 1]]]])
    assert LovaszLoss()(logits, FOUR).item() == pytest.approx(1 - 7 / 12, abs=1e-5)
    one = torch.tensor([[[[-1.0, -1], [1, 1]]]])
    assert LovaszLoss()(one, FOUR).item() == pytest.approx(2 * 0.5, abs=1e-6)


def test_a_line_is_its_own_skeleton_and_a_thick_one_thins():
    thin = torch.zeros(1, 9, 9)
    thin[0, 4, :] = 1
    thick = torch.zeros(1, 9, 9)
    thick[0, 3:6, :] = 1
    assert torch.equal(soft_skeleton(thin, 3), thin)
    assert torch.equal(soft_skeleton(thick, 3)[0, :, 1:-1], thin[0, :, 1:-1])


def test_cldice_prefers_a_thin_but_whole_line_to_a_broken_one():
    """Both lack the same number of pixels; Dice alone sees no difference."""
    truth = torch.zeros(1, 9, 12, dtype=torch.int64)
    truth[0, 3:6, :] = 1
    whole, broken = truth.clone(), truth.clone()
    whole[0, 3, :6] = 0
    broken[0, 3:6, 5:7] = 0
    dice, line = built("cldice", 1), built("cldice", 1)
    dice.alpha, line.alpha = 0.0, 1.0
    logits = [(20 * (2 * m - 1))[:, None].float() for m in (whole, broken)]
    assert dice(logits[0], truth).item() == pytest.approx(dice(logits[1], truth).item(), abs=1e-5)
    assert line(logits[0], truth) + 0.02 < line(logits[1], truth)


def test_the_public_loss_is_dice_focal():
    logits, mask = made(2, 3, 4, 5), labels(2, 4, 5, classes=3)
    loss = segwright.DiceFocalLoss(class_weights=[0.5, 1, 1.5])
    assert isinstance(loss, DiceFocalLoss)
    built_so = LOSSES.build("dice_focal", LOSSES["dice_focal"].Config(), 3, [0.5, 1, 1.5])
    assert loss(logits, mask).item() == built_so(logits, mask).item()
