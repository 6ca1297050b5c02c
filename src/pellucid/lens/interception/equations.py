"""Equations of `torch.einsum`, read as products of matrices."""

from string import ascii_letters

from torch import Tensor


def labels(equation: str, left: Tensor, right: Tensor) -> tuple[str, str, str] | None:
    """The letters of two operands and of the result, one per axis; None if one is repeated."""
    left_side, _, result = equation.replace(" ", "").partition("->")
    operands = left_side.split(",")
    if len(operands) != 2:
        return None
    free = [letter for letter in ascii_letters if letter not in equation]
    ellipsis: list[str] = []
    for operand, tensor in zip(operands, (left, right), strict=True):
        if "..." in operand:
            ellipsis.append("".join(free)[: tensor.ndim - len(operand) + 3])
    longest = max(ellipsis, key=len, default="")
    named = []
    for operand, tensor in zip(operands, (left, right), strict=True):
        own = longest[len(longest) - (tensor.ndim - len(operand) + 3) :] if "..." in operand else ""
        named.append(operand.replace("...", own))
    if "->" in equation:
        result = result.replace("...", longest)
    else:
        once = sorted(x for x in set("".join(named)) if "".join(named).count(x) == 1)
        result = longest + "".join(x for x in once if x not in longest)
    if any(len(set(x)) != len(x) for x in (*named, result)):
        return None
    return named[0], named[1], result


def arranged(tensor: Tensor, own: str, wanted: str) -> Tensor:
    """A view with the axes in another order; missing axes have size one."""
    tensor = tensor.permute([own.index(letter) for letter in wanted if letter in own])
    for place, letter in enumerate(wanted):
        if letter not in own:
            tensor = tensor.unsqueeze(place)
    return tensor
