"""Models whose every value counts, shared by tests."""

import torch
from torch import nn


def stirred(model: nn.Module) -> nn.Module:
    """No parameter or statistic keeps a value that another could have as well."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    return model
