"""Images streamed from disk: the same numbers as held ones, without holding them; faults are named early."""

import dataclasses
import os
import pickle
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from rlprune.config import DataConfig
from rlprune.data import DataSplits, ImageFiles, feed, holding, imagefolder, load_splits, reward_inputs
from rlprune.data.decoding import decode
from rlprune.data.feeding import StreamedFeed, StreamedInputs, read_ahead
from rlprune.errors import ConfigError, DataError
from rlprune.models.build import build_model
from rlprune.training.fit import FitSchedule, fit

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
NAMES = ("train", "reward", "val", "test")
SCHEDULE = FitSchedule(
    epochs=1.5, batch_size=8, learning_rate=0.05, weight_decay=1e-4, label_smoothing=0.0, warmup_share=0.0
)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ImageNet-like folder: 60 JPEGs of 256 to 400 pixels in 3 classes, train/ and val/."""
    folder = tmp_path_factory.mktemp("streaming") / "photos"
    runpy.run_path(str(ROOT / "scripts" / "bench_streaming.py"))["make_folder"](folder, 60, 3)
    return folder


@pytest.fixture
def own_photos(tmp_path: Path) -> Path:
    """A small folder that a test may spoil: 24 images in 2 classes."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 4)):
        for label in ("ant", "bee"):
            (tmp_path / "photos" / part / label).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "photos" / part / label / f"{number}.png")
    return tmp_path / "photos"


def config_of(folder: Path, root: Path, **changes: object) -> DataConfig:
    values: dict[str, object] = {"image_size": 48, "resize": "crop", "root": str(root), "stream": "always"}
    return DataConfig(source=f"imagefolder:{folder}", **(values | changes))  # type: ignore[arg-type]


def both(folder: Path, root: Path) -> tuple[DataSplits, DataSplits]:
    """The same folder streamed and held."""
    return tuple(load_splits(config_of(folder, root, stream=way)) for way in ("always", "never"))  # type: ignore[return-value]


def trained(splits: DataSplits, state: dict | None = None, epochs: list | None = None) -> dict:
    """The weights after a short training, perhaps continued from an epoch's state."""
    torch.manual_seed(0)
    model = build_model("resnet20", {"width": 0.25}, splits.info.num_classes, 3)
    keep = None if epochs is None else lambda report: epochs.append(pickle.dumps(report.state))
    fit(
        model, splits.train, splits.info, SCHEDULE,
        device=CPU, dtype=torch.float32, seed=5, state=state, on_epoch=keep,
    )  # fmt: skip
    return model.state_dict()


def test_streamed_and_held_images_are_the_same_splits(photos: Path, tmp_path: Path) -> None:
    streamed, held = both(photos, tmp_path)
    assert streamed.fingerprint == held.fingerprint
    assert streamed.info == held.info
    for name in NAMES:
        assert streamed.split(name).is_streamed
        assert not held.split(name).is_streamed
        assert np.array_equal(np.asarray(streamed.split(name).images), held.split(name).images)
        assert np.array_equal(streamed.split(name).labels, held.split(name).labels)


def test_statistics_are_those_of_the_pixels(photos: Path, tmp_path: Path) -> None:
    streamed, held = both(photos, tmp_path)
    pixels = held.train.images.astype(np.float64) / 255
    np.testing.assert_allclose(streamed.info.mean, pixels.mean((0, 2, 3)), rtol=1e-9)
    np.testing.assert_allclose(streamed.info.std, pixels.std((0, 2, 3)), rtol=1e-9)


def test_the_crop_is_that_of_torchvision(photos: Path) -> None:
    usual = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
    for path in sorted(photos.rglob("*.jpg"))[:5]:
        with Image.open(path) as image:
            expected = np.asarray(usual(image.convert("RGB"))).astype(float)
        ours = decode(path, str(path), 224, crop=True).astype(float)
        assert np.abs(ours - expected).max() <= 1  # roundings
        assert np.abs(decode(path, str(path), 224).astype(float) - expected).mean() > 5


def test_training_gives_the_same_weights_streamed_held_and_continued(photos: Path, tmp_path: Path) -> None:
    streamed, held = both(photos, tmp_path)
    epochs: list[bytes] = []
    weights = trained(held, epochs=epochs)
    for other in (trained(streamed), trained(streamed, state=pickle.loads(epochs[0]))):
        assert all(torch.equal(other[name], value) for name, value in weights.items())


def test_batches_come_in_order_with_their_labels_and_decoding_runs_ahead(
    photos: Path, tmp_path: Path
) -> None:
    streamed, held = both(photos, tmp_path)
    order = torch.randperm(len(held.train), generator=torch.Generator().manual_seed(1))
    pairs = zip(
        feed(streamed.train, CPU).shuffled(order, 7), feed(held.train, CPU).shuffled(order, 7), strict=True
    )
    for (images, labels), (expected, truth) in pairs:
        assert torch.equal(images, expected)
        assert torch.equal(labels, truth)
    asked: list[int] = []
    batches = (asked.append(start) or np.arange(start, start + 4) for start in range(0, 40, 4))
    ahead = read_ahead(streamed.train.images, batches, CPU)
    next(ahead)
    assert asked == [0, 4, 8]
    ahead.close()


def test_large_held_images_come_batch_by_batch_as_they_would_from_a_tensor(
    photos: Path, tmp_path: Path
) -> None:
    held = load_splits(config_of(photos, tmp_path, stream="never"))
    images, labels, prepare = reward_inputs(held.val, held.info, CPU)
    assert isinstance(images, torch.Tensor)
    whole = prepare(images)
    parts = StreamedInputs(held.val.images, held.info, CPU)
    assert torch.equal(torch.cat(list(parts.split(5))), whole)
    assert torch.equal(parts[torch.tensor([3, 1])], whole[[3, 1]])
    assert torch.equal(labels, torch.from_numpy(held.val.labels))
    images = torch.cat([batch for batch, _ in StreamedFeed(held.val, CPU).in_order(4)])
    assert torch.equal(images, torch.from_numpy(held.val.images))


def test_auto_holds_what_fits(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def streams(room: int) -> list[str]:
        for module in (holding, imagefolder):
            monkeypatch.setattr(module, "memory_for_images", lambda: room)
        splits = load_splits(config_of(photos, tmp_path, stream="auto"))
        assert splits.fingerprint == expected.fingerprint
        return [name for name in NAMES if splits.split(name).is_streamed]

    expected = load_splits(config_of(photos, tmp_path))
    image = 3 * 48 * 48
    val, reward = len(expected.val) * image, len(expected.reward) * image
    assert streams(60 * image) == []
    assert streams(val + reward) == ["train", "test"]
    assert streams(val) == ["train", "reward", "test"]
    assert streams(0) == list(NAMES)


def test_every_fault_of_the_files_is_named_before_any_work(own_photos: Path, tmp_path: Path) -> None:
    whole = (own_photos / "train/ant/3.png").read_bytes()
    (own_photos / "train/ant/3.png").write_bytes(whole[: len(whole) // 2])
    (own_photos / "val/bee/1.png").write_bytes(b"")
    for way in ("always", "never", "auto"):
        with pytest.raises(DataError) as caught:
            load_splits(config_of(own_photos, tmp_path, stream=way))
        assert "train/ant/3.png cannot be decoded" in str(caught.value)
        assert "val/bee/1.png cannot be decoded" in str(caught.value)


def test_files_are_looked_at_once_and_again_when_they_change(
    own_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    pixels = ImageFiles.pixels

    def counted(files: ImageFiles, index: int) -> np.ndarray:
        looked.append(str(files.path(index)))
        return pixels(files, index)

    monkeypatch.setattr(ImageFiles, "pixels", counted)
    config = config_of(own_photos, tmp_path)
    first = load_splits(config)
    assert len(looked) == 24
    looked.clear()
    assert load_splits(config).fingerprint == first.fingerprint
    assert looked == []
    changed = own_photos / "train/bee/2.png"
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(changed)
    os.utime(changed, ns=(1, 1))
    assert load_splits(config).fingerprint != first.fingerprint
    assert looked == [str(changed)]
    looked.clear()
    load_splits(dataclasses.replace(config, image_size=32))
    assert len(looked) == 24


def test_a_damaged_index_is_made_again(own_photos: Path, tmp_path: Path, caplog) -> None:
    config = config_of(own_photos, tmp_path)
    first = load_splits(config)
    (index,) = (tmp_path / "folders").glob("*.npz")
    index.write_bytes(index.read_bytes()[:100])
    assert load_splits(config).fingerprint == first.fingerprint
    assert "looked at again" in caplog.text


def test_a_file_that_is_damaged_later_ends_the_work_with_its_name(own_photos: Path, tmp_path: Path) -> None:
    splits = load_splits(config_of(own_photos, tmp_path))
    spoiled = splits.train.images.path(3)
    spoiled.write_bytes(b"gone")
    with pytest.raises(DataError, match=f"{spoiled.name} cannot be decoded"):
        list(feed(splits.train, CPU).in_order(4))
    spoiled.unlink()
    with pytest.raises(DataError, match=spoiled.name):
        trained(splits)


def test_colours_and_class_imbalance(own_photos: Path, tmp_path: Path) -> None:
    grey = np.full((60, 30), 77, np.uint8)
    Image.fromarray(grey).save(own_photos / "train/ant/grey.jpg")
    Image.fromarray(grey).convert("CMYK").save(own_photos / "train/ant/cmyk.jpg")
    for number in range(5, 8):
        (own_photos / f"train/bee/{number}.png").unlink()
    splits = load_splits(config_of(own_photos, tmp_path))
    for split in (splits.train, splits.reward, splits.test):
        assert set(split.labels) == {0, 1}
    assert splits.train.images[:].shape[1:] == (3, 48, 48)
    for number in range(1, 5):
        (own_photos / f"train/bee/{number}.png").unlink()
    with pytest.raises(DataError, match="class 'bee' has 1 distinct image"):
        load_splits(config_of(own_photos, tmp_path))


def test_only_folders_can_be_streamed() -> None:
    with pytest.raises(DataError, match="only the files of imagefolder:DIR can be streamed; got 'digits'"):
        load_splits(DataConfig(stream="always"))


def test_mean_and_std_of_the_user_reach_the_network(own_photos: Path, tmp_path: Path) -> None:
    splits = load_splits(config_of(own_photos, tmp_path, mean=(0.485, 0.456, 0.406), std=(0.25,)))
    assert splits.info.mean == (0.485, 0.456, 0.406)
    assert splits.info.std == (0.25,) * 3
    with pytest.raises(DataError, match=r"data.mean: expected one number or one for each of 3 channels"):
        load_splits(config_of(own_photos, tmp_path, mean=(0.4, 0.5)))


def test_what_trials_are_sent_are_names(photos: Path, tmp_path: Path) -> None:
    streamed, held = both(photos, tmp_path)
    sent = [len(pickle.dumps(splits.sealed())) for splits in (streamed, held)]
    assert sent[0] < 150 * 60 + 3000 < sent[1]
    again = pickle.loads(pickle.dumps(streamed))
    assert np.array_equal(again.val.images[2], held.val.images[2])


MEMORY = """
import pathlib, sys
from rlprune.config import DataConfig
from rlprune.data import feed, load_splits
import torch
def peak():  # of this program alone: getrusage tells that of its parent where it was larger
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
load_splits(DataConfig(source=sys.argv[1], image_size=64, resize="crop", root=sys.argv[2], stream="always"))
before = peak()
config = DataConfig(source=sys.argv[1], image_size=1024, resize="crop", root=sys.argv[2], stream=sys.argv[3])
splits = load_splits(config)
for images, labels in feed(splits.train, torch.device("cpu")).in_order(1):
    pass
print(peak() - before)
"""


def test_streaming_does_not_hold_the_images(photos: Path, tmp_path: Path) -> None:
    grown = {}
    for way in ("always", "never"):
        words = [sys.executable, "-c", MEMORY, f"imagefolder:{photos}", str(tmp_path), way]
        done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=120)
        grown[way] = int(done.stdout)
    decoded = 60 * 3 * 1024**2
    assert grown["always"] < 0.75 * decoded  # a few images as floats, however many there are
    assert grown["never"] - grown["always"] > decoded


@pytest.mark.ray
def test_a_node_without_the_files_is_refused(own_photos: Path, tmp_path: Path, local_ray: None) -> None:
    from rlprune.config import Config
    from rlprune.search.on_nodes import _faults_of_nodes, _files_missing_here, check_files

    splits = load_splits(config_of(own_photos, tmp_path))
    check_files(Config(), splits, print)
    there = splits.val.images.path(0)
    wrong = {str(there): there.stat().st_size + 1}
    (fault,) = _faults_of_nodes(Config(), print, _files_missing_here, wrong)
    assert f"{there} has " in fault
    gone = {str(own_photos / "nothing.png"): 1}
    (fault,) = _faults_of_nodes(Config(), print, _files_missing_here, gone)
    assert "nothing.png (No such file" in fault
    held = load_splits(config_of(own_photos, tmp_path, stream="never"))
    there.unlink()
    check_files(Config(), held, print)
    with pytest.raises((ConfigError, FileNotFoundError)):
        check_files(Config(), splits, print)
