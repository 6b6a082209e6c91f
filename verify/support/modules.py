"""What can be told of a torch module without running it."""

from __future__ import annotations

from torch import nn

# The base classes of batch normalisation, and the only ones of torch's that mix the samples of a batch.
NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def mixing(module: nn.Module) -> list[str]:
    """Names of the parts that normalise by the statistics of the batch even in eval mode: they keep none."""
    return [
        name or type(part).__name__
        for name, part in module.named_modules()
        if isinstance(part, NORMALISATIONS) and part.running_mean is None
    ]


def unwrapped(module: nn.Module) -> nn.Module:
    """The module that a wrapper runs: one that spreads batches over devices, or has compiled it."""
    while isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)) or _compiled(module):
        module = module.get_submodule("_orig_mod" if _compiled(module) else "module")
    return module


def _compiled(module: nn.Module) -> bool:
    return type(module).__name__ == "OptimizedModule" and type(module).__module__.startswith("torch.")


MIXED = (
    "the model depends on the batch: {} normalises by the statistics of the batch even in eval mode, so that a sample "
    "has no output of its own; build it with track_running_stats=True and train it"
)
