"""Networks of this project and of torchvision, with parameters as if they had been trained."""

from collections.abc import Callable

import torch
from torch import nn

from reg_sweep.config.schema import NormConfig
from reg_sweep.training.model import make_model


def lively(model: nn.Module) -> nn.Module:
    """Gives a model's norms random scales, shifts and running statistics, as if it had been trained."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
        is_norm = isinstance(module, nn.modules.batchnorm._BatchNorm | nn.GroupNorm | nn.LayerNorm)
        if is_norm and module.weight is not None:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    return model.eval()


def ours(name: str, norm: str) -> Callable[[], nn.Module]:
    spec = {"_target_": f"reg_sweep.{name}", **({"hidden": 12} if name == "Mlp" else {"channels": 4})}
    return lambda: make_model(spec, NormConfig(norm), (3, 32, 32), 10, 1)


def torchvisions(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        from torchvision import models

        if name == "vit":
            vit = models.VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=10)
            nn.init.normal_(vit.heads[0].weight)
            return vit
        if name == "densenet":
            return models.DenseNet(8, (2, 2, 2, 2), 16, num_classes=10)
        model: nn.Module = getattr(models, name)(weights=None, num_classes=10)
        return model

    return make


def tied() -> nn.Module:
    """A perceptron of which two layers have one weight."""
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    model[2].weight = model[0].weight
    return model


def fill_gradients(model: nn.Module, value: float = 0.0) -> None:
    for p in model.parameters():
        p.grad = torch.full_like(p, value)
