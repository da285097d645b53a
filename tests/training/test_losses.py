import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError
from scipy.ndimage import distance_transform_edt
from segmentation_models_pytorch.losses import DiceLoss, TverskyLoss

from lib.config.loss_terms import TERMS, parse_terms
from lib.config.training_settings import LossSettings
from lib.masks.metrics import IGNORED
from lib.training.losses import (
    SegmentationLoss,
    border_closeness,
    border_weights,
    boundary_loss,
    presence_loss,
    schedule,
    signed_distance,
    signed_distances,
    tversky_losses,
)

small_masks = arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 1))


def disc(size=32, radius=8.0, shift=0.0) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    return (rows**2 + (columns - shift) ** 2 <= radius**2).astype(np.uint8)


def batch_of(*masks: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Truths and distance maps of single-class masks, both (N, 1, H, W)."""
    distances = np.stack([signed_distances(mask[..., None]) for mask in masks])
    return torch.from_numpy(np.stack(masks)[:, None]), torch.from_numpy(distances)


def logits_of(*masks: np.ndarray, certainty=4.0) -> torch.Tensor:
    return torch.from_numpy(np.stack(masks)[:, None]).float().mul(2).sub(1).mul(certainty)


def value(formula: str, logits, truths, distances=None, done_share=1.0, **settings) -> float:
    return SegmentationLoss(LossSettings(terms=formula, **settings))(logits, truths, distances, done_share)[0].item()


# --- presence


def test_the_loss_of_presence_is_the_cross_entropy_of_whether_a_mask_has_a_known_pixel():
    masks = torch.zeros(2, 2, 3, 4, dtype=torch.uint8)
    masks[0, 0, 1, 2] = 1
    masks[1, 0] = IGNORED
    masks[1, 1] = torch.tensor([IGNORED, 1, 0, 0])
    logits = torch.tensor([[0.3, -1.2], [2.0, 0.1]])
    present = [[True, False], [False, True]]
    by_hand = [
        -math.log(p if there else 1 - p)
        for row, truth in zip(logits.sigmoid().tolist(), present, strict=True)
        for p, there in zip(row, truth, strict=True)
    ]
    assert presence_loss(logits, masks).item() == pytest.approx(sum(by_hand) / 4, abs=1e-6)
    loss = SegmentationLoss(LossSettings(terms="bce"), may_ignore=True, presence_weight=3)
    pixels = torch.randn(2, 2, 3, 4, generator=torch.manual_seed(0))
    alone, _ = loss(pixels, masks, None, 0.5)
    total, terms = loss((pixels, logits), masks, None, 0.5)
    assert total.item() == pytest.approx(alone.item() + 3 * sum(by_hand) / 4, abs=1e-6)
    assert list(terms) == ["bce", "presence"]


# --- the formula


def test_formula_is_read_in_order_with_weights():
    assert parse_terms("dice + focal+0.1*boundary") == {"dice": 1, "focal": 1, "boundary": 0.1}
    assert parse_terms(" .5 * lovasz ") == {"lovasz": 0.5}


@given(st.dictionaries(st.sampled_from(TERMS), st.decimals("0.001", "99", places=3), min_size=1), st.data())
def test_any_sum_of_terms_is_read_back(weights, data):
    gap = st.sampled_from(["", " ", "  "])
    parts = [f"{w}{data.draw(gap)}*{data.draw(gap)}{name}" for name, w in weights.items()]
    formula = f"{data.draw(gap)}+{data.draw(gap)}".join(parts)
    assert parse_terms(formula) == {name: float(weight) for name, weight in weights.items()}


@pytest.mark.parametrize(
    "formula, says",
    [
        ("dcie", "did you mean 'dice'"),
        ("Dice", "did you mean 'dice'"),
        ("quux", "known: bce, border_bce, dice"),
        ("dice + dice", "twice"),
        ("0*dice", "weight 0"),
        ("dice - focal", "'dice - focal' is not a term"),
        ("dice +", "'' is not a term"),
        ("-1*dice", "not a term"),
        ("dice*0.5", "not a term"),
        ("nan*dice", "not a term"),
        ("", "not a term"),
    ],
)
def test_wrong_formulas_say_what_is_wrong(formula, says):
    with pytest.raises(ValidationError, match="terms") as caught:
        LossSettings(terms=formula)
    assert says in str(caught.value)


@given(st.text(max_size=30))
def test_any_other_text_is_a_value_error(text):
    try:
        weights = parse_terms(text)
    except ValueError:
        return
    assert set(weights) <= set(TERMS) and all(weight > 0 for weight in weights.values())


def test_every_term_can_be_built():
    truths, distances = batch_of(disc())
    for name in TERMS:
        loss = SegmentationLoss(LossSettings(terms=name))
        total, terms = loss(logits_of(disc()), truths, distances, 0.5)
        assert total.shape == () and list(terms) == [name]
        assert loss.needs_distance == (name in ("boundary", "border_bce"))


# --- the distance map


def test_distance_of_a_straight_border_by_hand():
    mask = np.zeros((3, 4), np.uint8)
    mask[:, :2] = 1
    expected = np.tile(np.array([-1.5, -0.5, 0.5, 1.5]) / 5, (3, 1))
    np.testing.assert_allclose(signed_distance(mask), expected, atol=1e-6)


@given(small_masks)
def test_distance_against_brute_force(mask):
    height, width = mask.shape
    expected = np.zeros(mask.shape)
    if mask.any() and not mask.all():
        for row in range(height):
            for column in range(width):
                others = np.argwhere(mask != mask[row, column])
                distance = np.hypot(*(others - (row, column)).T).min() - 0.5
                expected[row, column] = -distance if mask[row, column] else distance
    distances = signed_distance(mask)
    assert distances.dtype == np.float32
    np.testing.assert_allclose(distances, expected / math.hypot(height, width), atol=1e-5)


def test_distance_is_the_official_map_less_half_a_pixel():
    mask = (cv2.GaussianBlur(np.random.default_rng(3).standard_normal((70, 90)), (0, 0), 4) > 0).astype(np.uint8)
    official = distance_transform_edt(1 - mask) - (distance_transform_edt(mask) - 1) * mask
    np.testing.assert_allclose(signed_distance(mask) * math.hypot(70, 90), official - 0.5, atol=1e-4)


@given(small_masks)
def test_distance_of_the_complement_is_the_negative(mask):
    np.testing.assert_array_equal(signed_distance(1 - mask), -signed_distance(mask))


def test_distances_per_class_and_without_border():
    masks = np.stack([disc(), np.zeros_like(disc()), np.ones_like(disc())], axis=-1)
    distances = signed_distances(masks)
    assert distances.shape == (3, 32, 32) and np.abs(distances).max() < 1
    np.testing.assert_array_equal(distances[0], signed_distance(disc()))
    assert not distances[1:].any()


# --- values of the terms


def test_pixel_terms_by_hand():
    logits = torch.tensor([2.0, -1.0]).reshape(1, 1, 1, 2)
    truths = torch.tensor([1, 0]).reshape(1, 1, 1, 2)
    p, q = 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(-1))  # the chances given to the right answers
    assert value("bce", logits, truths) == pytest.approx((-math.log(p) - math.log(q)) / 2)
    focal = ((1 - p) ** 2 * -math.log(p), (1 - q) ** 2 * -math.log(q))
    assert value("focal", logits, truths) == pytest.approx(sum(focal) / 2)
    expected = (0.9 * focal[0] + 0.1 * focal[1]) / 2
    assert value("focal", logits, truths, focal_alpha=0.9) == pytest.approx(expected)
    smooth = (-0.9 * math.log(p) - 0.1 * math.log(1 - p) - 0.9 * math.log(q) - 0.1 * math.log(1 - q)) / 2
    assert value("bce", logits, truths, label_smoothing=0.2) == pytest.approx(smooth)


def test_region_terms_by_hand():
    probabilities = torch.tensor([[0.8, 0.6, 0.1, 0.0], [0.2, 0.0, 0.0, 0.0]]).reshape(2, 1, 2, 2)
    truths = torch.tensor([[1.0, 0, 0, 0], [1, 1, 0, 0]]).reshape(2, 1, 2, 2)
    # first image: hits .8, false alarms .7, missed .2; second: .2, 0, 1.8
    dice = [(2 * 0.8 + 2) / (2 * 0.8 + 0.7 + 0.2 + 2), (2 * 0.2 + 2) / (2 * 0.2 + 1.8 + 2)]
    losses = tversky_losses(probabilities, truths, 0.5, "image")
    torch.testing.assert_close(losses.flatten(), 1 - torch.tensor(dice))
    pooled = (2 * 1.0 + 2) / (2 * 1.0 + 0.7 + 2.0 + 2)
    torch.testing.assert_close(tversky_losses(probabilities, truths, 0.5, "batch"), 1 - torch.tensor([pooled]))
    tversky = 1 - (0.8 + 1) / (0.8 + 0.3 * 0.7 + 0.7 * 0.2 + 1)
    assert tversky_losses(probabilities, truths, 0.7, "image")[0, 0].item() == pytest.approx(tversky)
    expected = np.mean((1 - np.array(dice)) ** 0.75)
    logits = torch.logit(probabilities, eps=1e-7)
    assert value("focal_tversky", logits, truths, tversky_beta=0.5) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("beta", [0.5, 0.7])
def test_pooled_region_terms_are_smp_s(beta):
    torch.manual_seed(0)
    logits, truths = torch.randn(3, 2, 8, 8), torch.randint(0, 2, (3, 2, 8, 8)).float()
    reference = TverskyLoss("multilabel", smooth=1.0, alpha=1 - beta, beta=beta)
    ours = tversky_losses(logits.sigmoid(), truths, beta, "batch").mean()
    torch.testing.assert_close(ours, reference(logits, truths))


def test_boundary_term_by_hand_and_lovasz_of_certain_masks():
    truths, distances = batch_of(np.array([[1, 1, 0, 0]] * 3, np.uint8))
    half = torch.zeros(1, 1, 3, 4)
    assert value("boundary", half, truths, distances) == pytest.approx(0, abs=1e-7)
    sure = logits_of(np.array([[1, 0, 0, 0]] * 3, np.uint8), certainty=100)
    assert value("boundary", sure, truths, distances) == pytest.approx(-1.5 / 5 / 4)
    # A certain mask wrong at margin 2 has hinge error 2 there: the hinge is then twice 1 - IoU.
    assert value("lovasz", logits_of(np.array([[1, 0, 0, 0]] * 3, np.uint8), certainty=1), truths) == pytest.approx(1)


@given(small_masks, st.data())
def test_boundary_term_is_the_distance_of_the_pixels_that_differ(truth, data):
    other = data.draw(arrays(np.uint8, truth.shape, elements=st.integers(0, 1)))
    distances = torch.from_numpy(signed_distance(truth))
    best, found = (boundary_loss(torch.from_numpy(mask).float(), distances).item() for mask in (truth, other))
    assert found - best == pytest.approx(np.abs(distances.numpy())[truth != other].sum() / truth.size, abs=1e-6)


def test_border_weights_fall_off_from_the_border_and_average_one():
    _, distances = batch_of(disc(), np.zeros_like(disc()))
    weights = border_weights(border_closeness(distances, width=2), weight=10)
    assert weights.mean().item() == pytest.approx(1)
    order = distances[0].abs().flatten().argsort()
    assert (weights[0].flatten()[order].diff() <= 0).all()
    far, near = weights[1, 0, 0, 0], weights[0].max()  # the empty truth has no border
    assert (near / far).item() == pytest.approx(1 + 10 * math.exp(-(0.5**2) / 8), rel=1e-4)


# --- what the terms reward


@pytest.mark.parametrize("name", TERMS)
def test_a_better_mask_has_a_lower_loss(name):
    truths, distances = batch_of(disc())
    guesses = [disc(), disc(shift=2), disc(shift=6), 1 - disc()]
    losses = [value(name, logits_of(guess, certainty=2), truths, distances) for guess in guesses]
    assert losses == sorted(losses) and len(set(losses)) == len(losses)


@pytest.mark.parametrize("name", TERMS)
def test_gradient_steps_reach_the_truth(name):
    truths, distances = batch_of(disc(16, 4.0))
    logits = torch.zeros(1, 1, 16, 16, requires_grad=True)
    loss = SegmentationLoss(LossSettings(terms=name, boundary_schedule="constant"))
    optimizer = torch.optim.Adam([logits], lr=0.5)
    for _ in range(30):
        optimizer.zero_grad()
        loss(logits, truths, distances, 1.0)[0].backward()
        optimizer.step()
    assert torch.equal(logits > 0, truths > 0)


def test_dice_per_image_counts_a_small_truth_as_much_as_a_large_one():
    large, small = disc(radius=14.0), disc(radius=5.0)
    nothing = np.zeros_like(small)
    truths, _ = batch_of(large, small)
    misses_small, misses_large = logits_of(large, nothing, certainty=20), logits_of(nothing, small, certainty=20)
    of = {(region, name): value("dice", guess, truths, region=region) for region in ("image", "batch")
          for name, guess in (("small", misses_small), ("large", misses_large))}  # fmt: skip
    assert of["image", "small"] == pytest.approx(of["image", "large"], abs=0.02)
    assert of["batch", "small"] < 0.1 < 0.7 < of["batch", "large"]


def test_dice_of_an_empty_truth_is_zero_only_for_an_empty_mask():
    nothing = np.zeros_like(disc())
    truths, _ = batch_of(nothing)
    losses = [value("dice", logits_of(mask, certainty=20), truths) for mask in (nothing, disc(radius=1.0), disc())]
    assert losses[0] == pytest.approx(0, abs=1e-4)
    assert losses[1] > 0.6 and losses[2] > 0.98
    assert DiceLoss("binary")(logits_of(disc(), certainty=20), truths).item() == 0  # why smp's Dice is not used


# --- numbers that must not break


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("certainty", [0.0, 4.0, 200.0, -200.0])
def test_empty_full_and_one_pixel_truths_give_finite_values_and_gradients(name, certainty):
    one = np.zeros((8, 8), np.uint8)
    one[3, 5] = 1
    truths, distances = batch_of(np.zeros_like(one), np.ones_like(one), one)
    logits = (logits_of(np.zeros_like(one), np.ones_like(one), one, certainty=certainty)).requires_grad_()
    for focal_gamma in (1.0, 2.0):
        loss = SegmentationLoss(LossSettings(terms=name, focal_gamma=focal_gamma))
        logits.grad = None
        total, _ = loss(logits, truths, distances, 1.0)
        total.backward()
        assert torch.isfinite(total) and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("over", ["image", "batch"])
@pytest.mark.parametrize("truth", ["random", "empty", "full"])
def test_our_gradients_by_finite_differences(over, truth):
    torch.manual_seed(0)
    logits = torch.randn(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    truths = {"random": torch.randint(0, 2, logits.shape), "empty": torch.zeros(logits.shape), "full": torch.ones(
        logits.shape)}[truth].double()  # fmt: skip
    distances = torch.randn_like(logits.detach())
    torch.autograd.gradcheck(lambda z: tversky_losses(z.sigmoid(), truths, 0.7, over), logits)
    torch.autograd.gradcheck(lambda z: boundary_loss(z.sigmoid(), distances), logits)


@pytest.mark.parametrize("name", TERMS)
def test_gradient_of_each_term_is_its_slope(name):
    torch.manual_seed(1)
    truths, distances = batch_of(disc(12, 4.0))
    logits = torch.randn(1, 1, 12, 12, requires_grad=True)
    loss = SegmentationLoss(LossSettings(terms=name))
    loss(logits, truths, distances, 1.0)[0].backward()
    direction = logits.grad / logits.grad.norm()
    with torch.no_grad():
        ahead, behind = (loss(logits + step * direction, truths, distances, 1.0)[0] for step in (0.05, -0.05))
    assert ((ahead - behind) / 0.1).item() == pytest.approx(logits.grad.norm().item(), rel=0.01)


def test_float32_under_autocast():
    torch.manual_seed(0)
    truths, distances = batch_of(disc(), disc(shift=3))
    logits = torch.randn(2, 1, 32, 32).bfloat16()
    loss = SegmentationLoss(LossSettings(terms=" + ".join(TERMS)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, terms = loss(logits, truths, distances, 1.0)
    expected, _ = loss(logits.float(), truths, distances, 1.0)
    assert total.dtype == torch.float32 and all(term.dtype == torch.float32 for term in terms.values())
    assert torch.equal(total, expected)


def test_classes_are_averaged():
    torch.manual_seed(0)
    masks = np.stack([disc(), disc(radius=3.0, shift=4)], axis=-1)
    truths = torch.from_numpy(masks.transpose(2, 0, 1)[None])
    distances = torch.from_numpy(signed_distances(masks)[None])
    logits = torch.randn(1, 2, 32, 32)
    for name in set(TERMS) - {"border_bce"}:  # whose weights average 1 over the classes together
        single = [value(name, logits[:, [c]], truths[:, [c]], distances[:, [c]]) for c in (0, 1)]
        assert value(name, logits, truths, distances) == pytest.approx(np.mean(single), abs=1e-6), name


# --- the sum and the schedule


def test_total_is_the_weighted_sum_of_the_reported_terms():
    torch.manual_seed(0)
    truths, distances = batch_of(disc())
    logits = torch.randn(1, 1, 32, 32, requires_grad=True)
    for kind, progress, region, boundary in [
        ("constant", 0.0, 1, 1),
        ("ramp", 0.0, 1, 0.01),
        ("ramp", 1.0, 1, 1),
        ("rebalance", 0.0, 0.99, 0.01),
        ("rebalance", 1.0, 0.1, 0.9),
    ]:
        loss = SegmentationLoss(LossSettings(terms="2*dice + focal + 3*boundary", boundary_schedule=kind))
        total, terms = loss(logits, truths, distances, progress)
        expected = region * (2 * terms["dice"] + terms["focal"]) + 3 * boundary * terms["boundary"]
        torch.testing.assert_close(total, expected)
        assert total.requires_grad and not any(term.requires_grad for term in terms.values())


@given(st.sampled_from(["constant", "ramp", "rebalance"]), st.floats(0, 1), st.floats(0, 1))
def test_the_boundary_share_never_falls(kind, early, late):
    early, late = sorted((early, late))
    assert schedule(kind, early)[1] <= schedule(kind, late)[1] + 1e-12
    assert all(0 < factor <= 1 for factor in (*schedule(kind, early), *schedule(kind, late)))
