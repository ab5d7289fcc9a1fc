"""Networks: the built-in ones, torchvision's and the user's own."""

from rlprune.models.build import build_model
from rlprune.models.load import load_state
from rlprune.models.resnet import resnet20, resnet56
from rlprune.models.vgg import vgg16_bn

__all__ = ["build_model", "load_state", "resnet20", "resnet56", "vgg16_bn"]
