"""Image sets: where they live, how each is read, downloaded and checked."""

from robustness_lib.data.dataset import ImageDataset, class_balanced_subset, data_root
from robustness_lib.data.imagenet_downsampled import class_list
from robustness_lib.data.io import write_bundle
from robustness_lib.data.registry import SOURCES, Status, check, expand_names, fetch, list_sets, load

__all__ = [
    "SOURCES",
    "ImageDataset",
    "Status",
    "check",
    "class_balanced_subset",
    "class_list",
    "data_root",
    "expand_names",
    "fetch",
    "list_sets",
    "load",
    "write_bundle",
]
