"""The settings of the section ``data``; part of :mod:`rlprune.config`."""

from dataclasses import dataclass

from rlprune.config_field import setting


@dataclass(frozen=True)
class DataConfig:
    """Which images, and how they are split."""

    source: str = setting(
        "digits",
        "digits | cifar10 | cifar100 | svhn | parquet:DIR | imagefolder:DIR | "
        "package.module:factory (called without arguments)",
    )
    root: str = setting(
        "~/.cache/rlprune/data",
        "folder for data sets that torchvision downloads, and for what is known of image folders",
    )
    image_size: int = setting(
        32, "imagefolder: images are resized to this height and width, in pixels", low=8
    )
    resize: str = setting(
        "stretch",
        "imagefolder: stretch: the whole image, whatever its shape; crop: its central square, of 7/8 of the "
        "shorter side (what networks trained on ImageNet are measured with)",
        choices=("stretch", "crop"),
    )
    stream: str = setting(
        "auto",
        "imagefolder: always: images are decoded from disk whenever they are needed; never: all are held in "
        "memory; auto: held if they take at most a quarter of the free memory (else val and reward are, if "
        "they alone do)",
        choices=("auto", "always", "never"),
    )
    mean: tuple[float, ...] = setting(
        (),
        "mean of x / 255 that the network is given images by, one or one a channel (none: that of train)",
        low=0,
        high=1,
    )
    std: tuple[float, ...] = setting((), "the same for the standard deviation", above=0, high=1)
    reward_fraction: float = setting(
        0.1, "share of the training images held out for rewards", above=0, high=0.9
    )
    val_fraction: float = setting(
        0.2, "share held out as val where the source has none of its own", above=0, high=0.9
    )
    test_fraction: float = setting(
        0.2, "share held out as test where the source has none of its own", above=0, high=0.9
    )
    split_seed: int = setting(0, "seed of the splits: the same for every trial of a run", low=0)
