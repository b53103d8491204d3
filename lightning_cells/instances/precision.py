"""Matrix products in full float32, whatever the training around them is set to."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Suspend autocast and reduced float32 products (TF32 on GPUs, bfloat16 on CPUs) on a device.

    Args:
        device: where the products are computed.
    """
    with torch.autocast(device.type, enabled=False):
        if hasattr(torch.backends.cuda.matmul, "fp32_precision"):  # since torch 2.9, which refuses to mix both ways
            settings = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
            before = [setting.fp32_precision for setting in settings]
            try:
                for setting in settings:
                    setting.fp32_precision = "ieee"
                yield
            finally:
                for setting, value in zip(settings, before, strict=True):
                    setting.fp32_precision = value
        else:
            precision = torch.get_float32_matmul_precision()
            try:
                torch.set_float32_matmul_precision("highest")
                yield
            finally:
                torch.set_float32_matmul_precision(precision)
