"""Splits of every source, errors that say where bad data are, normalisation and augmentation."""

import dataclasses
import io
import json
import pickle
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch.nn import functional
from torchvision.datasets import CIFAR10, CIFAR100

from rlprune.config import DataConfig
from rlprune.data import (
    DataInfo,
    DataSplits,
    ImageSplit,
    Preprocess,
    RawData,
    anchored,
    augment,
    decoding,
    image_tensor,
    load_splits,
)
from rlprune.data.facts import image_hashes
from rlprune.data.normalisation import channel_statistics, crop_padding_for, keeps_class_when_mirrored
from rlprune.data.parquet import read_parquet
from rlprune.data.splits import fingerprint
from rlprune.data.splitting import make_splits
from rlprune.errors import DataError

CLASSES = ("ant", "bee", "cow")


def random_split(count: int, seed: int, size: int = 16) -> ImageSplit:
    """Images of three classes, nearly as many of each."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % len(CLASSES)
    return ImageSplit(rng.integers(0, 256, (count, 3, size, size), dtype=np.uint8), labels)


def raw_data(**changes: ImageSplit | None) -> RawData:
    raw = RawData(random_split(60, 0), None, None, CLASSES, flip=True, crop_padding=2)
    return dataclasses.replace(raw, **changes)


def encode(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(
    path: Path, contents: list[bytes | None], labels: list[int | None], metadata: dict[str, str] | None = None
) -> None:
    images = [{"bytes": content, "path": None} for content in contents]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(images, kind), "label": pa.array(labels, pa.int64())})
    pq.write_table(table.replace_schema_metadata(metadata), path)


def parquet_folder(folder: Path, **changes: object) -> Path:
    """A good data set of 60 + 12 images, or one with changed rows: ``image_7=b"..."``, ``label_3=None``."""
    for name, count, seed in (("train", 60, 0), ("validation", 12, 1)):
        split = random_split(count, seed)
        contents: list[bytes | None] = [encode(image) for image in split.images]
        labels: list[int | None] = split.labels.tolist()
        for key, value in changes.items() if name == "train" else ():
            column, _, row = key.partition("_")
            (contents if column == "image" else labels)[int(row)] = value  # type: ignore[call-overload]
        write_parquet(folder / f"{name}.parquet", contents, labels, {"class_names": ",".join(CLASSES)})
    return folder


def image_folder(folder: Path, seed: int) -> Path:
    split = random_split(60, seed, size=20)
    for index, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
        path = folder / CLASSES[label] / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode(image))
    return folder


def cifar_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twenty images in every batch file of CIFAR-10's own layout; their checksums are not the real ones."""
    batches = folder / CIFAR10.base_folder
    batches.mkdir()
    names = [name for name, _ in CIFAR10.train_list + CIFAR10.test_list]
    for seed, name in enumerate(names):
        rng = np.random.default_rng(seed)
        content = {
            "data": rng.integers(0, 256, (20, 3072), dtype=np.uint8),
            "labels": [i % 10 for i in range(20)],
        }
        (batches / name).write_bytes(pickle.dumps(content))
    (batches / CIFAR10.meta["filename"]).write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    unchecked = [[(name, None) for name, _ in names] for names in (CIFAR10.train_list, CIFAR10.test_list)]
    monkeypatch.setattr(CIFAR10, "train_list", unchecked[0])
    monkeypatch.setattr(CIFAR10, "test_list", unchecked[1])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": None})
    return folder


def cifar100_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four hundred images in the layout of CIFAR-100; their checksums are not the real ones."""
    (folder / CIFAR100.base_folder).mkdir()
    for seed, name in enumerate(("train", "test")):
        rng = np.random.default_rng(seed)
        content = {
            "data": rng.integers(0, 256, (400, 3072), dtype=np.uint8),
            "fine_labels": [i % 100 for i in range(400)],
        }
        (folder / CIFAR100.base_folder / name).write_bytes(pickle.dumps(content))
    names = {"fine_label_names": [f"thing {chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(100)]}
    (folder / CIFAR100.base_folder / "meta").write_bytes(pickle.dumps(names))
    monkeypatch.setattr(CIFAR100, "train_list", [("train", None)])
    monkeypatch.setattr(CIFAR100, "test_list", [("test", None)])
    monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": None})
    return folder


def svhn_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eighty images in the layout of SVHN, which writes the digit 0 as 10."""
    from scipy.io import savemat

    for seed, name in enumerate(("train", "test")):
        rng = np.random.default_rng(seed)
        images = rng.integers(0, 256, (32, 32, 3, 80), dtype=np.uint8)
        savemat(folder / f"{name}_32x32.mat", {"X": images, "y": np.arange(80)[:, None] % 10 + 1})
    monkeypatch.setattr("torchvision.datasets.svhn.check_integrity", lambda path, md5: Path(path).is_file())
    return folder


def user_module(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "my_images.py").write_text(
        "import numpy as np\n"
        "from rlprune.data import ImageSplit, RawData\n"
        "def make():\n"
        "    rng = np.random.default_rng(0)\n"
        "    images = rng.integers(0, 256, (40, 1, 12, 12), dtype=np.uint8)\n"
        "    return RawData(ImageSplit(images, np.arange(40) % 2), None, None, ('x', 'y'), False, 1)\n"
        "def wrong():\n"
        "    return 3\n"
    )
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "my_images", raising=False)


def config_of(source: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> DataConfig:
    """The settings of a small data set of each kind."""
    if source == "parquet":
        return DataConfig(source=f"parquet:{parquet_folder(folder)}")
    if source == "imagefolder":
        return DataConfig(source=f"imagefolder:{image_folder(folder, 0)}", image_size=16)
    if source == "cifar10":
        return DataConfig(source="cifar10", root=str(cifar_folder(folder, monkeypatch)))
    if source == "cifar100":
        return DataConfig(source="cifar100", root=str(cifar100_folder(folder, monkeypatch)), val_fraction=0.3)
    if source == "svhn":
        return DataConfig(source="svhn", root=str(svhn_folder(folder, monkeypatch)))
    if source == "factory":
        user_module(folder, monkeypatch)
        return DataConfig(source="my_images:make")
    return DataConfig(source=source)


def parts(splits: DataSplits) -> dict[str, ImageSplit]:
    return {name: splits.split(name) for name in ("train", "reward", "val", "test")}


@pytest.mark.parametrize(
    "source", ["digits", "parquet", "imagefolder", "cifar10", "cifar100", "svhn", "factory"]
)
def test_every_source_gives_disjoint_stratified_repeatable_splits(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(source, tmp_path, monkeypatch)
    splits = load_splits(config)
    hashes = [set(image_hashes(split.images).tolist()) for split in parts(splits).values()]
    assert len(set.union(*hashes)) == sum(map(len, hashes))
    for split in parts(splits).values():
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int64
        assert split.images.shape == (len(split), *splits.info.image_shape)
        share = np.bincount(split.labels, minlength=splits.info.num_classes) / len(split)
        whole = np.bincount(splits.train.labels) / len(splits.train)
        np.testing.assert_allclose(share, whole, atol=1.5 / len(split) + 0.03)
    again, other = load_splits(config), load_splits(dataclasses.replace(config, split_seed=1))
    assert again.fingerprint == splits.fingerprint != other.fingerprint
    assert DataInfo.from_dict(json.loads(json.dumps(splits.info.to_dict()))) == splits.info
    assert splits.info.source == config.source


def test_fractions_are_shares_of_the_whole_and_of_train(digits_splits: DataSplits) -> None:
    counts = {name: len(split) for name, split in parts(digits_splits).items()}
    assert sum(counts.values()) == 1797
    assert counts["test"] == pytest.approx(1797 * 0.2, abs=5)
    assert counts["val"] == pytest.approx(1797 * 0.2, abs=5)
    assert counts["reward"] == pytest.approx((1797 - counts["test"] - counts["val"]) * 0.1, abs=5)


def test_digits_are_the_scans_enlarged_bilinearly(digits_splits: DataSplits) -> None:
    from sklearn.datasets import load_digits

    scans = torch.from_numpy(load_digits().images)[:, None]
    grey = (scans * (255 / 16)).round().to(torch.float32)
    large = functional.interpolate(grey, size=32, mode="bilinear", align_corners=False).expand(-1, 3, -1, -1)
    expected = np.sort(image_hashes(large.round().to(torch.uint8).numpy()))
    found = np.concatenate([image_hashes(split.images) for split in parts(digits_splits).values()])
    assert np.mean(np.isin(found, expected)) > 0.99


def test_other_labels_are_other_data(digits_splits: DataSplits) -> None:
    train = digits_splits.train
    swapped = dataclasses.replace(train, labels=np.roll(train.labels, 1))
    assert fingerprint({"train": swapped}, digits_splits.info) != fingerprint(
        {"train": train}, digits_splits.info
    )


def test_sealed_splits_have_no_test_images(digits_splits: DataSplits) -> None:
    sealed = digits_splits.sealed()
    assert sealed.test is None
    assert sealed.fingerprint == digits_splits.fingerprint
    with pytest.raises(DataError, match="unless sealed"):
        sealed.split("test")


def test_copies_of_an_image_stay_in_one_split() -> None:
    train = random_split(60, 0)
    order = np.random.default_rng(0).permutation(180)
    tripled = ImageSplit(np.tile(train.images, (3, 1, 1, 1))[order], np.tile(train.labels, 3)[order])
    splits = make_splits(raw_data(train=tripled), DataConfig())
    assert sum(map(len, parts(splits).values())) == 180
    for split in parts(splits).values():
        _, copies = np.unique(image_hashes(split.images), return_counts=True)
        assert set(copies) == {3}


def test_images_that_the_source_has_in_several_splits_stay_in_the_one_that_measures() -> None:
    train, val, test = random_split(60, 0), random_split(12, 1), random_split(12, 2)
    val = ImageSplit(
        np.concatenate([val.images, test.images[:2]]), np.concatenate([val.labels, test.labels[:2]])
    )
    leaking = ImageSplit(
        np.concatenate([train.images, val.images[:3], test.images[-4:]]),
        np.concatenate([train.labels, val.labels[:3], test.labels[-4:]]),
    )
    splits = make_splits(raw_data(train=leaking, val=val, test=test), DataConfig())
    assert len(splits.test) == 12
    assert len(splits.val) == 12
    assert len(splits.train) + len(splits.reward) == 60


def test_statistics_are_those_of_the_training_images() -> None:
    splits = make_splits(raw_data(), DataConfig())
    pixels = splits.train.images / 255
    np.testing.assert_allclose(splits.info.mean, pixels.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(splits.info.std, pixels.std(axis=(0, 2, 3)), rtol=1e-12)
    black = ImageSplit(np.zeros((4, 1, 8, 8), np.uint8), np.arange(4))
    assert channel_statistics(black, CLASSES)[1] == (1 / 255,)


def test_parquet_files_that_number_their_classes_differently_are_refused(tmp_path: Path) -> None:
    contents = [encode(np.full((3, 8, 8), value, np.uint8)) for value in range(16)]
    for name, start, classes in (("train", 0, "cat,dog"), ("test", 8, "dog,cat")):
        part, labels = contents[start : start + 8], [0, 1] * 4
        write_parquet(tmp_path / f"{name}.parquet", part, labels, {"class_names": classes})
    config = DataConfig(source=f"parquet:{tmp_path}")
    with pytest.raises(
        DataError, match=r"test.parquet has other classes than train: label 0 is dog, in train cat"
    ):
        load_splits(config)


def test_channel_statistics_do_not_depend_on_how_many_images_are_counted_at_a_time() -> None:
    images = np.random.default_rng(0).integers(0, 256, (150, 2, 4, 4), dtype=np.uint8)
    mean, std = channel_statistics(ImageSplit(images, np.zeros(150, dtype=np.int64)), ("a", "b"))
    np.testing.assert_allclose(mean, images.mean((0, 2, 3)) / 255)
    np.testing.assert_allclose(std, images.std((0, 2, 3)) / 255)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("cat", "dog"), True),
        (("0", "1", "10"), False),
        (("0 - zero", "1 - one"), False),  # torchvision's MNIST
        (("zero", "One"), False),
        (("3D printer", "stone", "oneiric", "707-320"), True),
        (("a", "b"), False),
        (("turn left", "stop"), False),
        (("right_turn", "stop"), False),
        (("leftover", "brightness"), True),
    ],
)
def test_flips_only_where_the_class_survives_them(names: tuple[str, ...], expected: bool) -> None:
    assert keeps_class_when_mirrored(names) is expected


def test_real_cifar_is_recognised(shared_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "train.parquet").symlink_to(shared_dir / "data" / "cifar10" / "validation.parquet")
    splits = make_splits(read_parquet(tmp_path), DataConfig())
    assert splits.info.mean == (0.4914, 0.4822, 0.4465)
    assert splits.info.image_shape == (3, 32, 32)
    assert (splits.info.flip, splits.info.crop_padding) == (True, 4)
    assert splits.info.class_names[3] == "cat"


def test_image_folder_with_its_own_splits(tmp_path: Path) -> None:
    for seed, name in enumerate(("train", "val", "test")):
        (tmp_path / name).mkdir()
        image_folder(tmp_path / name, seed)
    splits = load_splits(DataConfig(source=f"imagefolder:{tmp_path}", image_size=16))
    assert [len(split) for split in parts(splits).values()] == [54, 6, 60, 60]
    assert splits.info.image_shape == (3, 16, 16)
    (tmp_path / "val" / "dog").mkdir()
    with pytest.raises(DataError, match="train has no class dog"):
        load_splits(DataConfig(source=f"imagefolder:{tmp_path}"))


def test_hidden_files_are_no_images(tmp_path: Path) -> None:
    image_folder(tmp_path, 0)
    (tmp_path / "ant" / "._0.png").write_bytes(b"what macOS leaves beside each file")
    splits = load_splits(DataConfig(source=f"imagefolder:{tmp_path}", image_size=16))
    assert sum(len(split) for split in parts(splits).values()) == 60


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    for name, seed in (("plain", 0), ("store", 1)):
        (tmp_path / name).mkdir()
        image_folder(tmp_path / name, seed)
    plain = tmp_path / "plain"
    (plain / "ant" / "more").symlink_to(tmp_path / "store" / "ant")
    (tmp_path / "store" / "ant" / "back").symlink_to(plain / "ant")
    splits = load_splits(DataConfig(source=f"imagefolder:{plain}", image_size=16))
    assert np.bincount(np.concatenate([split.labels for split in parts(splits).values()])).tolist() == [
        40, 20, 20,
    ]  # fmt: skip


def test_a_class_of_that_name_may_stand_beside_others(tmp_path: Path) -> None:
    (image_folder(tmp_path, 0) / "ant").rename(tmp_path / "test")
    splits = load_splits(DataConfig(source=f"imagefolder:{tmp_path}", image_size=16))
    assert splits.info.class_names == ("bee", "cow", "test")


def test_huggingface_class_names_are_read(tmp_path: Path) -> None:
    split = random_split(30, 0)
    features = {"info": {"features": {"label": {"names": list(CLASSES), "_type": "ClassLabel"}}}}
    write_parquet(
        tmp_path / "train.parquet",
        [encode(image) for image in split.images],
        split.labels.tolist(),
        {"huggingface": json.dumps(features)},
    )
    assert read_parquet(tmp_path).class_names == CLASSES


def broken_parquet(**changes: object) -> Callable[[Path], DataConfig]:
    return lambda folder: DataConfig(source=f"parquet:{parquet_folder(folder, **changes)}")


def with_columns(**columns: pa.Array) -> Callable[[Path], DataConfig]:
    def make(folder: Path) -> DataConfig:
        pq.write_table(pa.table(columns), folder / "train.parquet")
        return DataConfig(source=f"parquet:{folder}")

    return make


def not_parquet(folder: Path) -> DataConfig:
    (folder / "train.parquet").write_bytes(b"hello")
    return DataConfig(source=f"parquet:{folder}")


def broken_folder_image(folder: Path) -> DataConfig:
    (image_folder(folder, 0) / "bee" / "1.png").write_bytes(b"hello")
    return DataConfig(source=f"imagefolder:{folder}")


def deep_folder_image(folder: Path) -> DataConfig:
    pixels = np.full((16, 16), 40_000, dtype=np.uint16)
    Image.fromarray(pixels).save(image_folder(folder, 0) / "bee" / "1.png")
    return DataConfig(source=f"imagefolder:{folder}")


def ids_as_labels(folder: Path) -> DataConfig:
    images = pa.array([{"bytes": encode(np.zeros((3, 8, 8), np.uint8))}] * 4)
    pq.write_table(pa.table({"image": images, "label": [7, 3, 12, 9]}), folder / "train.parquet")
    return DataConfig(source=f"parquet:{folder}")


def ids_as_labels_of_val(folder: Path) -> DataConfig:
    for name, count, factor in (("train", 60, 1), ("validation", 12, 4_500_000)):
        split = random_split(count, factor)
        contents: list[bytes | None] = [encode(image) for image in split.images]
        write_parquet(folder / f"{name}.parquet", contents, (split.labels * factor).tolist())
    return DataConfig(source=f"parquet:{folder}")


def folder_of(*names: str) -> Callable[[Path], DataConfig]:
    """Such folders, each with one folder for each class."""

    def make(folder: Path) -> DataConfig:
        for seed, name in enumerate(names):
            (folder / name).mkdir()
            image_folder(folder / name, seed)
        return DataConfig(source=f"imagefolder:{folder}")

    return make


def class_without_images(train: str) -> Callable[[Path], DataConfig]:
    """Train has two more classes without images; val, where train is a folder of its own, has some."""

    def make(folder: Path) -> DataConfig:
        (folder / train).mkdir(exist_ok=True)
        image_folder(folder / train, 0)
        for name in ("dog", "elk"):
            (folder / train / name).mkdir()
            (folder / train / name / "notes.txt").touch()
        if train:
            (folder / "val").mkdir()
            (image_folder(folder / "val", 1) / "cow").rename(folder / "val" / "dog")
        return DataConfig(source=f"imagefolder:{folder}")

    return make


SMALL = encode(np.zeros((3, 8, 8), np.uint8))
BAD = {
    "unknown source": (lambda folder: DataConfig(source="digit"), r"got 'digit'; did you mean 'digits'"),
    "no such folder": (
        lambda folder: DataConfig(source=f"parquet:{folder}/x"),
        r"parquet:.*/x: no such folder",
    ),
    "no train.parquet": (
        lambda folder: DataConfig(source=f"parquet:{folder}"),
        r"expected train.parquet.*nothing",
    ),
    "not parquet": (not_parquet, r"train.parquet cannot be read as parquet"),
    "wrong column": (
        with_columns(img=pa.array([b"x"]), label=pa.array([0])),
        r"train.parquet: expected columns image: .* got img: binary, label: int64",
    ),
    "image no struct": (
        with_columns(image=pa.array([b"x"]), label=pa.array([0])),
        r"column image must be a struct",
    ),
    "labels are words": (
        with_columns(image=pa.array([{"bytes": b"x"}]), label=pa.array(["cat"])),
        r"column label must hold integers.*string",
    ),
    "no image": (broken_parquet(image_7=None), r"train.parquet, row 7: image is empty"),
    "not an image": (broken_parquet(image_7=b"GIF89"), r"train.parquet, row 7: image cannot be decoded"),
    "cut-off image": (broken_parquet(image_7=SMALL[:-30]), r"train.parquet, row 7: image cannot be decoded"),
    "other size": (broken_parquet(image_9=SMALL), r"row 9: image has 8 x 8 pixels, the first image 16 x 16"),
    "no label": (broken_parquet(label_4=None), r"train.parquet, row 4: label is missing"),
    "negative label": (broken_parquet(label_4=-1), r"train.parquet, row 4: label -1 is negative"),
    "label beyond classes": (broken_parquet(label_4=3), r"row 4: label 3 is not one of the 3 classes"),
    "no image folder": (lambda folder: DataConfig(source=f"imagefolder:{folder}/x"), r"no such folder"),
    "no class folders": (
        lambda folder: DataConfig(source=f"imagefolder:{folder}"),
        r"two or more; it holds 0",
    ),
    "broken file": (broken_folder_image, r"bee/1.png cannot be decoded"),
    "sixteen bits": (deep_folder_image, r"bee/1.png has pixels of more than 8 bits \(mode I;16\)"),
    "more than memory holds": (
        lambda folder: DataConfig(source=f"imagefolder:{image_folder(folder, 0)}", image_size=1_000_000),
        r"images of 1000000 x 1000000 pixels need .* GiB .* lower data.image_size",
    ),
    "ids for labels": (
        ids_as_labels,
        r"train.parquet: 4 distinct labels for 4 images, up to 12, look like ids; .* the schema's metadata",
    ),
    "ids for labels of val": (
        ids_as_labels_of_val,
        r"for 60 images, up to 9000000 in val or test, look like ids",
    ),
    "splits in capitals": (
        folder_of("Train", "Test"),
        r"Test, Train: named like splits, not like classes; expected DIR/train/CLASS/\* .* rename them",
    ),
    "splits by other names": (
        folder_of("training", "validation"),
        r"training, validation: named like splits",
    ),
    "no train": (folder_of("val", "test", "valid"), r"test, val, valid: named like splits"),
    "a class without images": (
        class_without_images(""),
        r"no images \(.bmp, .*\) of class dog, elk; add some",
    ),
    "a class only in val": (
        class_without_images("train"),
        r"/train: no images \(.*\) of class dog, elk; add",
    ),
    "no such module": (
        lambda folder: DataConfig(source="no_such_package:make"),
        r"cannot import 'no_such_package'",
    ),
    "no module at all": (lambda folder: DataConfig(source=":make"), r"cannot import ''"),
    "no folder named": (lambda folder: DataConfig(source="parquet:"), r"got 'parquet:'$"),
    "no such function": (
        lambda folder: DataConfig(source="rlprune.data:make"),
        r"rlprune.data has no function 'make'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_data_end_with_an_error_that_says_where(case: str, tmp_path: Path) -> None:
    make, message = BAD[case]
    with pytest.raises(DataError, match=message):
        load_splits(make(tmp_path))


def test_user_factory_must_return_raw_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user_module(tmp_path, monkeypatch)
    with pytest.raises(DataError, match=r"must return rlprune.data.RawData; it returned int"):
        load_splits(DataConfig(source="my_images:wrong"))


def test_augmentation_that_the_images_do_not_allow() -> None:
    assert [crop_padding_for(*sides) for sides in ((32, 32), (64, 4), (8, 128), (40, 33))] == [4, 0, 1, 4]
    wrong = dataclasses.replace(raw_data(), flip="no", crop_padding=16)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"digits: flip: .* got 'no'; crop_padding: .* 0 to 15 .* got 16"):
        make_splits(wrong, DataConfig())


def test_cifar10_without_copy_or_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    with pytest.raises(
        DataError, match=r"no complete cifar-10-batches-py, and the download failed.*data.root"
    ):
        load_splits(DataConfig(source="cifar10", root=str(tmp_path)))


@pytest.mark.parametrize(
    ("mode", "kind"), [("L", "png"), ("P", "gif"), ("1", "png"), ("RGBA", "png"), ("CMYK", "jpg")]
)
def test_images_of_other_colours_and_sizes_become_rgb_of_one_size(
    mode: str, kind: str, tmp_path: Path
) -> None:
    folder = image_folder(tmp_path, 0)
    odd = Image.fromarray(np.full((20, 31, 3), 200, np.uint8)).convert(mode)
    odd.save(folder / "bee" / f"odd.{kind}")
    splits = load_splits(DataConfig(source=f"imagefolder:{folder}", image_size=16))
    assert splits.info.image_shape == (3, 16, 16)
    pixels = np.concatenate([split.images for split in parts(splits).values()])
    assert (np.abs(pixels.astype(int) - 200).max((1, 2, 3)) < 60).any(), "the grey image is there"


@pytest.mark.parametrize("name", ["cifar100", "svhn"])
def test_other_sets_without_copy_or_network(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = "http://127.0.0.1:9/file"
    monkeypatch.setattr(CIFAR100, "url", nowhere)
    lists = {part: [nowhere, f"{part}_32x32.mat", ""] for part in ("train", "test")}
    monkeypatch.setattr("torchvision.datasets.SVHN.split_list", lists)
    with pytest.raises(DataError, match=rf"{name}: .* holds no complete .*download failed.*data.root"):
        load_splits(DataConfig(source=name, root=str(tmp_path)))


def test_one_class_too_few_images_and_greedy_fractions() -> None:
    train = random_split(60, 0)
    with pytest.raises(DataError, match=r"all training images are of one class \('ant'\)"):
        make_splits(raw_data(train=train.take(train.labels == 0)), DataConfig())
    few = train.take(np.flatnonzero((train.labels != 1) | (np.arange(60) < 6)))
    with pytest.raises(DataError, match=r"class 'bee' has 1 distinct image\(s\) left for train and val"):
        make_splits(raw_data(train=few), DataConfig())
    with pytest.raises(DataError, match="leave nothing to train on"):
        make_splits(raw_data(), DataConfig(val_fraction=0.5, test_fraction=0.5))


def test_preprocess_normalises(digits_splits: DataSplits) -> None:
    info = dataclasses.replace(digits_splits.info, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    images = digits_splits.val.images[:5]
    expected = (images / 255 - np.reshape(info.mean, (1, 3, 1, 1))) / np.reshape(info.std, (1, 3, 1, 1))
    found = Preprocess(info)(torch.from_numpy(images))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.filterwarnings("error")
def test_read_only_arrays_become_tensors_without_copy_or_warning(digits_splits: DataSplits) -> None:
    images = digits_splits.val.images.copy()
    images.setflags(write=False)
    tensor, _ = image_tensor(ImageSplit(images, digits_splits.val.labels), torch.device("cpu"))
    assert tensor.data_ptr() == images.ctypes.data


def reflected(images: torch.Tensor) -> torch.Tensor:
    """Images that are continued by two pixels at each edge: uint8 ``(n, c, h + 4, w + 4)``."""
    return functional.pad(images.float(), (2, 2, 2, 2), mode="reflect").to(torch.uint8)


def test_augmented_images_are_crops_of_the_reflected_ones_half_of_them_mirrored() -> None:
    images = torch.from_numpy(random_split(64, 3, size=8).images)
    found = augment(images, 2, True, torch.Generator().manual_seed(0))
    padded = reflected(images)
    mirrored = 0
    for original, image in zip(padded, found, strict=True):
        places = {
            (y, x, flip): crop.flip(2) if flip else crop
            for y in range(5)
            for x in range(5)
            for flip in (False, True)
            for crop in [original[:, y : y + 8, x : x + 8]]
        }
        matches = [place for place, crop in places.items() if torch.equal(crop, image)]
        assert len(matches) == 1
        mirrored += matches[0][2]
    assert 18 <= mirrored <= 46


def test_every_crop_of_the_reflected_image_occurs() -> None:
    image = torch.from_numpy(random_split(1, 3, size=8).images)
    found = augment(image.expand(600, -1, -1, -1), 2, False, torch.Generator().manual_seed(0))
    (padded,) = reflected(image)
    crops = {padded[:, y : y + 8, x : x + 8].numpy().tobytes() for y in range(5) for x in range(5)}
    assert {crop.numpy().tobytes() for crop in found} == crops


def test_augmentation_repeats_and_can_do_nothing() -> None:
    images = torch.from_numpy(random_split(16, 3).images)
    first, second = (augment(images, 2, True, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, images)
    assert torch.equal(augment(images, 0, False, torch.Generator()), images)


def test_a_source_is_anchored_to_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert anchored("parquet:images") == f"parquet:{tmp_path.resolve() / 'images'}"
    assert [anchored(name) for name in ("digits", "cifar10", "module:factory")] == [
        "digits",
        "cifar10",
        "module:factory",
    ]


def test_images_are_refused_that_fit_into_memory_but_cannot_be_split_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tracemalloc.start()
    try:
        raw = RawData(random_split(2000, 0, 32), None, None, CLASSES, flip=False, crop_padding=0)
        tracemalloc.reset_peak()
        make_splits(raw, DataConfig())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    monkeypatch.setattr(decoding, "available_memory", lambda root: peak)
    with pytest.raises(DataError, match=r"2,000 images of 32 x 32 pixels need .* take fewer"):
        decoding.check_memory(2000, 32, 32, "take fewer")
    monkeypatch.setattr(decoding, "available_memory", lambda root: 2 * peak)
    decoding.check_memory(2000, 32, 32, "take fewer")
