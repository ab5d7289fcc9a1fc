"""Images that a Python program hands over: every form gives the same splits, and what is wrong is named."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import rlprune
from rlprune.data import DataSplits, augment
from rlprune.errors import ConfigError, DataError

N, SIZE = 60, 12


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """uint8 ``(n, c, h, w)``, all different."""
    return np.random.default_rng(0).integers(0, 256, (N, 3, SIZE, SIZE), dtype=np.uint8)


LABELS = np.arange(N) % 3


class Items:
    """A map-style dataset of items of any kind, without names of its classes."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


class Pictures:
    """A map-style dataset."""

    def __init__(self, images: list[Any], labels: Any, classes: list[str] | None = None) -> None:
        self.images, self.labels = images, labels
        if classes:
            self.classes = classes

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.images[index], self.labels[index]


def test_every_form_gives_the_same_splits(pixels: np.ndarray) -> None:
    last = pixels.transpose(0, 2, 3, 1)
    floats = torch.from_numpy(pixels).float() / 255
    tensors = [torch.tensor([label]) for label in LABELS]
    forms = [
        (pixels, LABELS),
        [pixels, LABELS.astype(np.uint8)],
        (last, LABELS[:, None]),
        (torch.from_numpy(pixels), torch.from_numpy(LABELS)),
        (floats, LABELS.tolist()),
        torch.utils.data.TensorDataset(floats, torch.from_numpy(LABELS)),
        Pictures([Image.fromarray(image) for image in last], LABELS.tolist()),
        Pictures(list(torch.from_numpy(pixels)), tensors),
        Items([{"image": image, "label": label} for image, label in zip(last, LABELS, strict=True)]),
        Items([{"labels": label, "img": image} for image, label in zip(pixels, LABELS, strict=True)]),
    ]
    made = [rlprune.splits(form) for form in forms]
    assert all(isinstance(splits, DataSplits) and splits.test is not None for splits in made)
    assert {splits.fingerprint for splits in made} == {made[0].fingerprint}
    assert made[0].info.image_shape == (3, SIZE, SIZE)
    assert made[0].info.class_names == ("0", "1", "2")
    assert made[0].info.source == "memory"
    assert not made[0].info.flip, "whose classes are numbers may be digits"


def test_grey_pictures_and_palettes(pixels: np.ndarray) -> None:
    grey = rlprune.splits((pixels[:, 0], LABELS))
    assert grey.info.image_shape == (1, SIZE, SIZE)
    pictures = [Image.fromarray(image) for image in pixels[:, 0]]
    assert rlprune.splits(Pictures(pictures, LABELS)).fingerprint == grey.fingerprint
    palettes = [picture.convert("P") for picture in pictures]
    assert rlprune.splits(Pictures(palettes, LABELS)).info.image_shape == (3, SIZE, SIZE)


def test_what_is_said_of_the_images_counts(pixels: np.ndarray) -> None:
    found = rlprune.splits(Pictures(list(pixels), LABELS, ["cat", "dog", "hen"]))
    assert found.info.class_names == ("cat", "dog", "hen")
    assert found.info.flip
    assert found.info.crop_padding == SIZE // 8
    said = rlprune.splits(
        (pixels, LABELS), class_names=["cat", "dog", "hen"], mean=0, std=[1, 2, 3], flip=False, crop_padding=0
    )
    assert said.info.mean == (0.0, 0.0, 0.0)
    assert said.info.std == (1.0, 2.0, 3.0)
    assert not said.info.flip
    assert said.info.crop_padding == 0
    assert said.fingerprint != found.fingerprint
    assert np.array_equal(said.train.images, found.train.images)


@pytest.mark.parametrize("shape", [(1, 64, 4), (3, 128, 8)])
def test_narrow_images_can_be_augmented_as_they_are_by_default(shape: tuple[int, int, int]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (N, *shape), dtype=np.uint8)
    info = rlprune.splits((images, LABELS)).info
    assert info.crop_padding == min(shape[1:]) // 8
    assert augment(torch.from_numpy(images), info.crop_padding, True, torch.Generator()).shape == (N, *shape)


def test_a_class_that_is_named_may_have_no_images(pixels: np.ndarray) -> None:
    names = ["cat", "dog", "hen", "yak"]
    assert rlprune.splits((pixels, LABELS), class_names=names).info.class_names == tuple(names)


def test_splits_of_ones_own_stay_what_they_are(pixels: np.ndarray) -> None:
    parts = [(pixels[start : start + 20], LABELS[start : start + 20]) for start in (0, 20, 40)]
    splits = rlprune.splits(parts[0], parts[1], parts[2], reward_fraction=0.3)
    assert np.array_equal(splits.val.images, pixels[20:40])
    assert splits.test is not None
    assert np.array_equal(splits.test.images, pixels[40:])
    assert len(splits.train) + len(splits.reward) == 20
    assert len(splits.reward) == 6


def test_images_of_val_that_train_has_too_stay_in_val(pixels: np.ndarray) -> None:
    splits = rlprune.splits((pixels[:40], LABELS[:40]), (pixels[20:], LABELS[20:]), test_fraction=0.2)
    assert np.array_equal(splits.val.images, pixels[20:])
    assert splits.test is not None
    assert len(splits.train) + len(splits.reward) + len(splits.test) == 20


def test_a_name_is_read_as_on_the_command_line(digits_splits: DataSplits) -> None:
    splits = rlprune.splits("digits")
    assert splits.fingerprint == digits_splits.fingerprint
    assert splits.info.source == "digits"
    assert rlprune.splits("digits", val_fraction=0.1).fingerprint != splits.fingerprint


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda images: images.astype(np.float32),
            "uint8 / 255; got float32 with values 0 to",
        ),
        (lambda images: (images / 255 - 0.5) / 0.5, "mean= and std= instead"),
        (lambda images: images.astype(np.int64), "expected uint8 images"),
        (lambda images: images.reshape(N, SIZE, 3, SIZE), "with 1 or 3 channels"),
        (lambda images: images[:, :, 0, 0], r"got shape \(60, 3\)"),
        (lambda images: images[:10], r"int64 labels \(10,\)"),
    ],
)
def test_pixels_that_cannot_be_used(pixels: np.ndarray, change: Any, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        rlprune.splits((change(pixels), LABELS))


@pytest.mark.parametrize(
    ("mode", "kind"), [("I;16", np.uint16), ("I", np.int32), ("F", np.float32)], ids=["I;16", "I", "F"]
)
def test_pictures_of_more_than_8_bits_are_refused(mode: str, kind: type) -> None:
    deep = np.random.default_rng(0).integers(0, 4096, (N, SIZE, SIZE)).astype(kind)
    with pytest.raises(DataError, match=rf"train, item 0 has pixels of more than 8 bits \(mode {mode}\)"):
        rlprune.splits(Pictures([Image.fromarray(image) for image in deep], LABELS))


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (None, r"train: expected \(images, labels\) or a dataset .* got NoneType"),
        ({"x": 3}, r"train: expected \(images, labels\) or a dataset .* got dict"),
        (Items([{"x": 3, "label": 1}]), r"train, item 0 has no image; expected .* or a dict with image \(or"),
        (Items([{"image": 3, "y": 1}]), r"train, item 0 has no label; expected"),
        (Items([(None, 1)]), "train, item 0 has no image; expected"),
        (Items([("cat", 1)]), "train, item 0: expected uint8 images.* got <U3"),
        (Items([(np.zeros((1, 2, 2), np.uint8), label) for label in (1, [1])]), "train, labels: list cannot"),
        (
            [(np.zeros((1, 8, 8)), 0), (np.zeros((1, 8, 8)), 1)],
            "train: tuple cannot be made an array .* give",
        ),
        ((torch.zeros(N, 1, 8, 8, dtype=torch.bfloat16), LABELS), "train: Tensor cannot .* uint8 or float32"),
    ],
)
def test_what_is_not_images_is_refused_in_words(images: Any, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        rlprune.splits(images)


def test_ids_are_no_classes_unless_they_are_named(pixels: np.ndarray) -> None:
    with pytest.raises(
        DataError, match="train: 3 distinct labels for 60 images, up to 2000000, look like ids"
    ):
        rlprune.splits((pixels, LABELS * 1_000_000))
    with pytest.raises(DataError, match=r"60 distinct labels .* name the classes with class_names="):
        rlprune.splits((pixels, np.arange(N)))
    names = [f"class {number}" for number in range(101)]
    assert rlprune.splits((pixels, LABELS * 50), class_names=names).info.num_classes == 101


def test_datasets_that_cannot_be_used(pixels: np.ndarray) -> None:
    uneven = [pixels[0], pixels[1, :, :8]]
    with pytest.raises(DataError, match=r"train, item 1: its shape is \(3, 8, 12\), that of item 0"):
        rlprune.splits(Pictures(uneven, [0, 1]))
    with pytest.raises(DataError, match=r"train, item 0: expected \(image, label\)"):
        rlprune.splits(pixels)
    with pytest.raises(DataError, match="a dataset with a length"):
        rlprune.splits(iter([]))
    with pytest.raises(DataError, match="val holds no images"):
        rlprune.splits((pixels, LABELS), Pictures([], []))
    with pytest.raises(DataError, match="expected whole numbers as labels"):
        rlprune.splits((pixels, LABELS / 2))


def test_what_is_said_wrongly(pixels: np.ndarray) -> None:
    images = (pixels, LABELS)
    with pytest.raises(ConfigError, match=r"data.val_fractoin: unknown setting; did you mean data.val_f"):
        rlprune.splits(images, val_fractoin=0.1)
    with pytest.raises(ConfigError, match="mean: expected one number or one for each of 3 channels"):
        rlprune.splits(images, mean=[0.5, 0.5])
    with pytest.raises(ConfigError, match="std: expected numbers above 0"):
        rlprune.splits(images, std=0)
    with pytest.raises(ConfigError, match=r"mean: expected one number .* got 'x'"):
        rlprune.splits(images, mean="x")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"class_names or train.classes: expected one name .* got 4"):
        rlprune.splits(Pictures(list(pixels), LABELS, 4))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"class_names or train.classes: .* got 'cat'"):
        rlprune.splits(images, class_names="cat")
    with pytest.raises(DataError, match=r"data.stream always: only .* can be streamed; got 'memory'"):
        rlprune.splits(images, stream="always")
    with pytest.raises(ConfigError, match="come with the source 'digits'"):
        rlprune.splits("digits", test=images)


@pytest.mark.parametrize("padding", [100, SIZE, -1, 1.5, True, "2"])
def test_shifts_that_the_images_do_not_allow(pixels: np.ndarray, padding: Any) -> None:
    expected = f"crop_padding: expected a whole number from 0 to {SIZE - 1} .* got {padding!r}"
    with pytest.raises(ConfigError, match=expected):
        rlprune.splits((pixels, LABELS), crop_padding=padding)
    largest = rlprune.splits((pixels, LABELS), crop_padding=SIZE - 1).info.crop_padding
    assert augment(torch.from_numpy(pixels), largest, False, torch.Generator()).shape == pixels.shape


def test_all_that_is_said_wrongly_of_the_images_is_told_at_once(pixels: np.ndarray) -> None:
    with pytest.raises(ConfigError) as refused:
        rlprune.splits((pixels, LABELS), flip="no", crop_padding=SIZE, std=0)  # type: ignore[arg-type]
    assert [fault.split(":")[0] for fault in refused.value.faults] == ["flip", "crop_padding", "std"]


def test_parts_that_number_their_classes_differently_are_refused(pixels: np.ndarray) -> None:
    last = list(pixels.transpose(0, 2, 3, 1))
    others = [255 - image for image in last]
    train, val = Pictures(last, LABELS, ["ant", "bee", "cat"]), Pictures(others, LABELS % 2, ["ant", "cat"])
    with pytest.raises(DataError, match=r"val has other classes than train.*class_names="):
        rlprune.splits(train, val)
    same = rlprune.splits(train, val, class_names=train.classes)
    assert same.info.class_names == ("ant", "bee", "cat")
