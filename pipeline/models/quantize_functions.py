"""Rounding to a few levels, with gradients: one `autograd.Function` a scheme.

The gradient of rounding is 0 nearly everywhere, so each function says which one stands in its place; mostly it is the
straight-through estimator of Bengio et al. (2013, arXiv:1308.3432), which takes rounding for the identity. `dy` is the
gradient of the output. Inputs are float32 or float64, of any memory format, and the output is like them; halves are
rounded to even. A weight's first axis is that of its output channels: "per channel" is along all its other axes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

Gradients = tuple[torch.Tensor | None, ...]

SMALLEST_SCALE = 1e-8
"""A smaller scale or step is taken for this one, so that nothing is divided by 0."""


def others(weight: torch.Tensor, *, per_channel: bool) -> tuple[int, ...]:
    """Returns the axes that one scale is shared along: all, or all but the channels'."""
    return tuple(range(1 if per_channel else 0, weight.ndim))


class _FakeQuantize(Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | int, low: int, high: int
    ) -> torch.Tensor:
        levels = (x / scale).round_().add_(zero_point)
        ctx.save_for_backward(levels)
        ctx.low, ctx.high = low, high
        return levels.clamp(low, high).sub_(zero_point).mul_(scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: torch.Tensor) -> Gradients:
        (levels,) = ctx.saved_tensors
        return _where_between(levels, ctx.low - 0.5, ctx.high + 0.5, dy), None, None, None, None


def fake_quantize(
    x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | int, *, low: int, high: int
) -> torch.Tensor:
    """Rounds to the levels of a uniform affine quantizer; a symmetric one where `zero_point` is 0.

        y = scale * (clamp(round(x / scale) + zero_point, low, high) - zero_point)

    Gradients: of x, dy where round(x / scale) + zero_point lies in low..high, else 0; of scale and zero_point none, as
    they are measured, not learned. It is what `torch.fake_quantize_per_tensor_affine` and `..._per_channel_affine` do.

    Scale 0.5, zero point 3, levels 0..7: x = 0.8 gives 0.5 * (2 + 3 - 3) = 1.0 with gradient dy; x = 2.6 would be at
    level 8, which is clamped to 7: 2.0, with gradient 0.

    Jacob et al. (2018), "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
    arXiv:1712.05877, section 3; per channel: Krishnamoorthi (2018), arXiv:1806.08342.
    scale: > 0, a scalar or of a shape that spreads over x; zero_point: a whole number as a float, of such a shape too.
    """
    y: torch.Tensor = _FakeQuantize.apply(x, scale, zero_point, low, high)
    return y


class _Lsq(Function):
    @staticmethod
    def forward(
        ctx: Any, v: torch.Tensor, step: torch.Tensor, low: int, high: int, gradient_scale: float
    ) -> torch.Tensor:
        positive = spread(step, v).clamp(min=SMALLEST_SCALE)
        clipped = (v / positive).clamp_(low, high)
        y = clipped.round().mul_(positive)
        ctx.save_for_backward(clipped, y, step)
        ctx.low, ctx.high, ctx.gradient_scale = low, high, gradient_scale
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: torch.Tensor) -> Gradients:
        clipped, y, step = ctx.saved_tensors
        dv = _where_between(clipped, ctx.low, ctx.high, dy)
        if not ctx.needs_input_grad[1]:
            return dv, None, None, None, None
        positive = spread(step, y).clamp(min=SMALLEST_SCALE)
        rounding = (y / positive).sub_(clipped)  # 0 where it is clipped
        axes = others(y, per_channel=step.ndim > 0)
        dstep = _sum_of_products(dy, rounding, axes) + _sum_of_products(dy - dv, clipped, axes)
        return dv, dstep * ctx.gradient_scale, None, None, None


def lsq(v: torch.Tensor, step: torch.Tensor, *, low: int, high: int, gradient_scale: float) -> torch.Tensor:
    """Rounds to multiples of a step size that is learned.

        y = step * round(clamp(v / step, low, high))

    Gradients: of v, dy where low < v / step < high, else 0. Of step, gradient_scale times the sum over its elements of
    dy * (round(v / step) - v / step) where low < v / step < high, dy * low below and dy * high above.

    Two bits with sign are the levels -2..1. With step 0.5, v = 0.3 gives 0.5 and v = -1.7 gives -1.0; the gradients of
    v are dy and 0; for dy = 1 that of step is g * ((1 - 0.6) - 2) = -1.6 g, with g = 1 / sqrt(2 * 1) it is -1.1314.

    Esser et al. (2020), "Learned Step Size Quantization", arXiv:1902.08153, equations 1 to 5; its section 2.2 scales
    the gradient by 1 / sqrt(N * high), N being the number of weights, or of values of an image.
    step: a scalar, or (C,) for a step each channel. A step below SMALLEST_SCALE is taken for it, straight-through.
    """
    y: torch.Tensor = _Lsq.apply(v, step, low, high, gradient_scale)
    return y


def spread(step: torch.Tensor, over: torch.Tensor) -> torch.Tensor:
    """Returns a step, () or (C,), in a shape that spreads over a weight, (C, ...)."""
    return step.view(-1, *[1] * (over.ndim - 1)) if step.ndim else step


def _where_between(x: torch.Tensor, low: float, high: float, dy: torch.Tensor) -> torch.Tensor:
    """Returns dy where low < x < high, else 0: in one pass, without a mask."""
    where: torch.Tensor = torch.ops.aten.hardtanh_backward(dy, x, low, high)
    return where


def _sum_of_products(a: torch.Tensor, b: torch.Tensor, axes: tuple[int, ...]) -> torch.Tensor:
    if len(axes) < a.ndim:
        return (a * b).sum(axes)
    if a.ndim == 4:
        a, b = a.permute(0, 2, 3, 1), b.permute(0, 2, 3, 1)  # so that images in channels_last are flat as they lie
    return torch.dot(a.flatten(), b.flatten())


class _DorefaWeight(Function):
    @staticmethod
    def forward(ctx: Any, w: torch.Tensor, bits: int) -> torch.Tensor:
        squashed = w.tanh()
        ctx.save_for_backward(squashed)
        largest, most = squashed.abs().amax().clamp(min=SMALLEST_SCALE), 2**bits - 1
        share = squashed.div(2 * largest).add_(0.5)
        return share.mul_(most).round_().mul_(2 / most).sub_(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: torch.Tensor) -> Gradients:
        (squashed,) = ctx.saved_tensors
        sizes = squashed.abs()
        largest = sizes.amax().clamp(min=SMALLEST_SCALE)
        is_largest = sizes == largest
        through_largest = (dy * squashed).sum() / largest.square() / is_largest.sum().clamp(min=1)
        dsquashed = dy / largest - is_largest * squashed.sign() * through_largest
        return dsquashed * (1 - squashed.square()), None


def dorefa_weight(w: torch.Tensor, *, bits: int) -> torch.Tensor:
    """Rounds weights, squashed into [-1, 1], to 2**bits levels at equal distances, -1 and 1 among them.

        y = 2 * round((2**bits - 1) * (tanh(w) / (2 * max|tanh(w)|) + 1/2)) / (2**bits - 1) - 1

    Gradient of w: that of tanh(w) / max|tanh(w)|, rounding taken for the identity. With t = tanh(w), m = max|t| it is
    (1 - t**2) * (dy / m - [|t| = m] * sign(t) * sum(dy * t) / m**2); several largest ones share what goes through m.

    Two bits, w = (0.5, -1): t = (0.4621, -0.7616), so that round(3 * (0.8034, 0)) = (2, 0) and y = (1/3, -1). For
    dy = (1, 0) the gradient is (0.7864 / 0.7616, 0.4200 * 0.4621 / 0.5800) = (1.0326, 0.3346).

    Zhou et al. (2016), "DoReFa-Net", arXiv:1606.06160, equation 9; the gradient goes through the maximum as in the
    authors' code. It is for 2 bits and more; for one see `dorefa_sign`.
    """
    y: torch.Tensor = _DorefaWeight.apply(w, bits)
    return y


class _DorefaSign(Function):
    @staticmethod
    def forward(ctx: Any, w: torch.Tensor) -> torch.Tensor:  # noqa: ARG004
        return _signs(w).mul_(w.abs().mean())

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> torch.Tensor:  # noqa: ARG004
        return dy


def dorefa_sign(w: torch.Tensor) -> torch.Tensor:
    """Gives each weight the mean size of them all, with its own sign: DoReFa's weights of one bit.

        y = mean|w| * sign(w), with sign(0) = 1

    Gradient of w: dy. w = (0.5, -0.25, 1.5) gives (0.75, -0.75, 0.75), with gradient dy.

    Zhou et al. (2016), arXiv:1606.06160, equation 7.
    """
    y: torch.Tensor = _DorefaSign.apply(w)
    return y


class _DorefaActivation(Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, bits: int) -> torch.Tensor:
        ctx.save_for_backward(x)
        most = 2**bits - 1
        return x.clamp(0, 1).mul_(most).round_().div_(most)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: torch.Tensor) -> Gradients:
        (x,) = ctx.saved_tensors
        return _where_between(x, -torch.finfo(x.dtype).tiny, 1 + torch.finfo(x.dtype).eps, dy), None


def dorefa_activation(x: torch.Tensor, *, bits: int) -> torch.Tensor:
    """Clips to [0, 1] and rounds to 2**bits levels at equal distances, 0 and 1 among them.

        y = round((2**bits - 1) * clip(x, 0, 1)) / (2**bits - 1)

    Gradient of x: dy where 0 <= x <= 1, else 0. Two bits: x = 0.7 gives round(2.1) / 3 = 2/3 with gradient dy; x = 1.4
    gives 1 with gradient 0.

    Zhou et al. (2016), arXiv:1606.06160, equations 5 and 11.
    """
    y: torch.Tensor = _DorefaActivation.apply(x, bits)
    return y


class _Binary(Function):
    @staticmethod
    def forward(ctx: Any, w: torch.Tensor, per_channel: bool) -> torch.Tensor:
        ctx.save_for_backward(w)
        ctx.axes = others(w, per_channel=per_channel)
        return _signs(w).mul_(w.abs().mean(ctx.axes, keepdim=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: torch.Tensor) -> Gradients:
        (w,) = ctx.saved_tensors
        signs, sizes = _signs(w), w.abs()
        through_mean = (dy * signs).mean(ctx.axes, keepdim=True) * signs
        return dy * (sizes <= 1) * sizes.mean(ctx.axes, keepdim=True) + through_mean, None


def binary(w: torch.Tensor, *, per_channel: bool = False) -> torch.Tensor:
    """Gives each weight the mean size of them all, or of its channel, with its own sign.

        y = a * sign(w), a = mean|w|, with sign(0) = 1

    Gradient of w: a * dy where |w| <= 1, else 0 (the sign, clipped straight-through), and sign(w) * mean(dy * sign(w))
    by way of a, of which |w| has the gradient sign(w) at 0 as well.

    w = (0.5, -0.25, 1.5): a = 0.75 and y = (0.75, -0.75, 0.75). For dy = (1, 0, 0) the gradient is
    (0.75 + 1/3, -1/3, 1/3).

    Rastegari et al. (2016), "XNOR-Net", arXiv:1603.05279, section 3.1; the clipping is that of Courbariaux et al.
    (2016), "BinaryNet", arXiv:1602.02830, section 1.3. XNOR-Net's gradient keeps of the sum over a channel the weight's
    own part alone; here it is whole.
    """
    y: torch.Tensor = _Binary.apply(w, per_channel)
    return y


class _Ternary(Function):
    @staticmethod
    def forward(ctx: Any, w: torch.Tensor, per_channel: bool) -> torch.Tensor:  # noqa: ARG004
        axes, sizes = others(w, per_channel=per_channel), w.abs()
        is_large = sizes > 0.7 * sizes.mean(axes, keepdim=True)
        size = (sizes * is_large).sum(axes, keepdim=True) / is_large.sum(axes, keepdim=True).clamp(min=1)
        return w.sign() * is_large * size

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> Gradients:  # noqa: ARG004
        return dy, None


def ternary(w: torch.Tensor, *, per_channel: bool = False) -> torch.Tensor:
    """Sets small weights to 0 and gives the others their mean size, of them all or of their channel.

        y = a * sign(w) where |w| > d, else 0, with d = 0.7 * mean|w| and a = the mean of |w| where |w| > d

    Gradient of w: dy. w = (0.9, -0.2, 0.5, -0.8): d = 0.42, a = 2.2 / 3 and y = (0.7333, 0, 0.7333, -0.7333), with
    gradient dy.

    Li, Zhang and Liu (2016), "Ternary Weight Networks", arXiv:1605.04711, equations 5 and 6, and 0.7 from section 2.2.
    """
    y: torch.Tensor = _Ternary.apply(w, per_channel)
    return y


def _signs(w: torch.Tensor) -> torch.Tensor:
    """Returns 1 and -1; the sign of 0 is 1."""
    return torch.where(w < 0, -torch.ones_like(w), torch.ones_like(w))
