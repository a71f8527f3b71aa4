"""Everything about image sets: where they live, how each is read, downloaded and checked.

>>> from robustness_lib.data import load
>>> target = load("synthetic", "train")
>>> target.images.dtype, target.num_classes
(torch.uint8, 10)
"""

from robustness_lib.data.catalogue import SOURCES, Status, check, fetch, in_full, known_sets, load
from robustness_lib.data.downsampled import class_list
from robustness_lib.data.files import write_bundle
from robustness_lib.data.imageset import ImageSet, class_balanced_subset, data_root

__all__ = [
    "SOURCES",
    "ImageSet",
    "Status",
    "check",
    "class_balanced_subset",
    "class_list",
    "data_root",
    "fetch",
    "in_full",
    "known_sets",
    "load",
    "write_bundle",
]
