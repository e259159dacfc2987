"""Folds batch norms into adjacent layers: the same outputs in evaluation, with one pass over memory less per norm.

A batch norm in evaluation is y = a x + b for each channel, a = w / sqrt(var + eps), b = bias - a mean. It is folded
into the convolution before it, by scaling and shifting that layer's output channels. If there is another operation in
between (the exercises' blocks are convolution, ReLU, norm), it is folded into the convolutions and linear layers that
read it: their input channels are scaled, and their output for the constant b is added to their bias. That is exact only
without zero padding.
"""

from typing import Any

import torch
from torch import Tensor, fx, nn

BATCHES = ({0: torch.export.Dim("batch")},)  # of any size
aten = torch.ops.aten
_LAYERS = (aten.conv2d.default, aten.linear.default)
# These operations commute with a scale and a shift of channels.
_PASSES = (
    *(aten.dropout.default, aten.contiguous.default, aten.clone.default),
    *(aten.adaptive_avg_pool2d.default, aten.flatten.using_ints),
)
_POOLS = (aten.max_pool2d.default,)  # commutes only with positive scales, which preserve the order


def folded(model: nn.Module, example: Tensor) -> fx.GraphModule:
    """Exports a model in evaluation, for batches of any size, and folds its batch norms where possible.

    Args:
        model: in evaluation mode; it is not changed.
        example: at least two images, in the memory format of later batches.

    Raises:
        Exception: torch.export may raise anything for a model.
    """
    program = torch.export.export(model, (example,), dynamic_shapes=BATCHES).module()
    assert isinstance(program, fx.GraphModule)
    for norm in [n for n in program.graph.nodes if n.target is aten.batch_norm.default and not n.args[5]]:
        scale, shift = _affine(program, norm)
        source = norm.args[0]
        if _may_change(source) and list(source.users) == [norm]:
            _scale_outputs(program, source, scale, shift)
        else:
            readers = _readers(norm, all_positive=bool((scale > 0).all()), n=len(scale))
            if not readers:
                continue
            for reader in readers:
                _scale_inputs(program, reader, scale, shift)
        norm.replace_all_uses_with(source)
        program.graph.erase_node(norm)
    for guard in [n for n in program.graph.nodes if n.op == "call_module"]:  # shape guards, which still hold
        program.graph.erase_node(guard)
    for idle in [n for n in program.graph.nodes if n.target is aten.dropout.default and not n.args[2]]:
        idle.replace_all_uses_with(idle.args[0])
        program.graph.erase_node(idle)
    program.graph.eliminate_dead_code()
    program.delete_all_unused_submodules()
    return fx.GraphModule(program, program.graph)  # an exported module has no eval()


def n_norms(program: fx.GraphModule) -> int:
    """The number of batch norms left in a program."""
    return sum(node.target is aten.batch_norm.default for node in program.graph.nodes)


def _affine(program: fx.GraphModule, norm: fx.Node) -> tuple[Tensor, Tensor]:
    """a and b of a batch norm, in float64."""
    weight, bias, mean, var = (None if node is None else _tensor(program, node).double() for node in norm.args[1:5])
    assert mean is not None
    assert var is not None
    scale = (var + norm.args[7]).rsqrt()  # type: ignore[operator]
    scale = scale if weight is None else scale * weight
    return scale, (0 if bias is None else bias) - mean * scale


def _tensor(program: fx.GraphModule, node: Any) -> Tensor:
    holder, _, name = node.target.rpartition(".")
    found: Tensor = getattr(program.get_submodule(holder), name)
    return found.detach()


def _may_change(layer: Any) -> bool:
    """Whether a node is a convolution or linear layer whose weight and bias belong to it alone."""
    if not isinstance(layer, fx.Node) or layer.target not in _LAYERS:
        return False
    held = [node for node in layer.args[1:3] if isinstance(node, fx.Node)]
    return all(node.op == "get_attr" and list(node.users) == [layer] for node in held)


def _readers(norm: fx.Node, *, all_positive: bool, n: int) -> list[fx.Node]:
    """The layers that read a norm's output, if it can be folded into all its readers; otherwise an empty list."""
    found: list[fx.Node] = []
    ahead = [(norm, user) for user in norm.users]
    while ahead:
        source, node = ahead.pop()
        passes = node.target in _PASSES or (node.target in _POOLS and all_positive)
        if passes and node.args[0] is source:
            ahead += [(node, user) for user in node.users]
        elif _may_change(node) and node.args[0] is source and _reads_each_channel_once(node, n):
            found.append(node)
        else:
            return []
    return list(dict.fromkeys(found))


def _reads_each_channel_once(layer: fx.Node, n: int) -> bool:
    x, weight = (node.meta["val"] for node in layer.args[:2] if isinstance(node, fx.Node))
    if weight.shape[1] != n:  # a grouped convolution, or a linear layer after flattening
        return False
    if layer.target is aten.linear.default:
        return bool(x.ndim == 2)  # with more axes, the last one is not the channel
    padding = layer.args[4] if len(layer.args) > 4 else (0,)
    return isinstance(padding, list | tuple) and not any(padding)


def _scale_outputs(program: fx.GraphModule, layer: fx.Node, scale: Tensor, shift: Tensor) -> None:
    weight, bias = _held(program, layer)
    _replace(program, layer, weight * _along(scale, 0, weight), shift if bias is None else bias * scale + shift)


def _scale_inputs(program: fx.GraphModule, layer: fx.Node, scale: Tensor, shift: Tensor) -> None:
    weight, bias = _held(program, layer)
    constant = (weight.flatten(2).sum(2) if weight.ndim > 2 else weight) @ shift
    _replace(program, layer, weight * _along(scale, 1, weight), constant if bias is None else bias + constant)


def _held(program: fx.GraphModule, layer: fx.Node) -> tuple[Tensor, Tensor | None]:
    """A layer's weight and bias, in float64."""
    bias = layer.args[2] if len(layer.args) > 2 else None
    return _tensor(program, layer.args[1]).double(), None if bias is None else _tensor(program, bias).double()


def _along(vector: Tensor, axis: int, weight: Tensor) -> Tensor:
    return vector.view([-1 if a == axis else 1 for a in range(weight.ndim)])


def _replace(program: fx.GraphModule, layer: fx.Node, weight: Tensor, bias: Tensor) -> None:
    """Gives a layer another weight and bias."""
    old: Any = layer.args[1]
    holder, _, name = old.target.rpartition(".")
    module, like = program.get_submodule(holder), _tensor(program, old)
    setattr(module, name, nn.Parameter(weight.to(like), requires_grad=False))
    module.folded_bias = nn.Parameter(bias.to(like), requires_grad=False)
    with program.graph.inserting_before(layer):
        node = program.graph.get_attr(f"{holder}.folded_bias" if holder else "folded_bias")
    node.meta["val"] = bias.to(like)
    layer.args = (layer.args[0], layer.args[1], node, *layer.args[3:])
