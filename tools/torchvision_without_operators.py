"""Lets `import torchvision` succeed beside a CPU-only torch.

PyPI's torchvision wheel links CUDA libraries, so with a CPU build of torch its C++ operators do not load, and its
import then fails on `operator torchvision::nms does not exist`. Only its Python parts (image transforms) are used
here, and for them it is enough that the two operators are declared. A `.pth` file loads this module at interpreter
start, so that subprocesses (vLLM's among them) are covered too. Where the operators load, it does nothing.
"""

import sys

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


class _DeclareOperators:
    """Acts on the first import of the module that registers shape functions for the operators."""

    library = None  # torch forgets the declarations with the last reference to this object

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == "torchvision._meta_registrations" and cls.library is None:
            import torch
            import torchvision.extension

            if not torchvision.extension._has_ops():
                cls.library = torch.library.Library("torchvision", "DEF")
                for schema in SCHEMAS:
                    cls.library.define(schema)
        return None  # the ordinary finders go on to load the module


sys.meta_path.insert(0, _DeclareOperators)
