"""The `quantize` section of a model: which levels its weights and the inputs of its layers are rounded to.

What the schemes compute is in `pipeline/models/quantize_functions.py`, and docs/quantization.md says when to use which.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pipeline.jobfile.entries import FieldConflict
from pipeline.jobfile.fields import Bounds, field
from pipeline.jobfile.schema_parts import when
from pipeline.jobfile.sections import Section

DEFAULT_BITS = 8
BITS_OF = {"binary": 1, "ternary": 2}  # schemes of weights that have so many and no others
OF_ONE_BIT = ("dorefa", "binary")
PER_TENSOR_ONLY = ("dorefa",)

LayerName = Annotated[str, Bounds(min_length=1, max_length=1000)]


class QuantizeWeights(Section):
    scheme: Literal["symmetric", "affine", "lsq", "dorefa", "binary", "ternary"] = field(
        "lsq",
        description="symmetric, affine: equal steps over the weights' range; lsq: a learned step; dorefa: of tanh; "
        "binary: two values; ternary: these and 0.",
    )
    bits: int | None = field(
        None, ge=1, le=8, description="Of each weight: at most 2**bits values. Default: 8; of binary 1, of ternary 2."
    )
    per: Literal["tensor", "channel"] = field(
        "tensor", description="A scale for the whole weight, or one for each output channel."
    )

    schema_rules = (
        *(when({"scheme": {"const": scheme}}, {"bits": {"enum": [bits, None]}}) for scheme, bits in BITS_OF.items()),
        when({"bits": {"const": 1}}, {"scheme": {"enum": list(OF_ONE_BIT)}}, needs=["scheme"]),
        when({"scheme": {"enum": list(PER_TENSOR_ONLY)}}, {"per": {"const": "tensor"}}),
    )

    @property
    def num_bits(self) -> int:
        return self.bits or BITS_OF.get(self.scheme, DEFAULT_BITS)

    def options(self) -> dict[str, Any]:
        """As `pipeline.models.weight_quantizers.weight_quantizer` takes them."""
        return {"scheme": self.scheme, "bits": self.num_bits, "per": self.per}

    def conflicts(self, at: str) -> Iterator[FieldConflict]:
        fields = (f"{at}.scheme", f"{at}.bits")
        exact = BITS_OF.get(self.scheme)
        if exact is not None and self.num_bits != exact:
            noun = "bit" if exact == 1 else "bits"
            message = (
                f"{self.scheme!r} weights have {exact} {noun}, not {self.num_bits}; leave bits out, or set {exact}"
            )
            yield FieldConflict(fields[1], message, fields)
        elif self.num_bits == 1 and self.scheme not in OF_ONE_BIT:
            yield FieldConflict(
                fields[1],
                f"1 is too few for {self.scheme!r} weights, at least 2; weights of one bit are 'binary' or 'dorefa'",
                fields,
            )
        if self.per == "channel" and self.scheme in PER_TENSOR_ONLY:
            per = f"{at}.per"
            yield FieldConflict(per, f"{self.scheme!r} weights have one scale; set per: tensor", (per, fields[0]))


class QuantizeActivations(Section):
    scheme: Literal["symmetric", "affine", "lsq", "dorefa"] = field(
        "lsq",
        description="symmetric, affine: equal steps over the measured range; lsq: a learned step; dorefa: of [0, 1].",
    )
    bits: int = field(DEFAULT_BITS, ge=1, le=8, description="Of each value: at most 2**bits values.")

    schema_rules = (when({"bits": {"const": 1}}, {"scheme": {"enum": list(OF_ONE_BIT)}}, needs=["scheme"]),)

    def options(self) -> dict[str, Any]:
        """As `pipeline.models.activation_quantizers.activation_quantizer` takes them."""
        return {"scheme": self.scheme, "bits": self.bits}

    def conflicts(self, at: str) -> Iterator[FieldConflict]:
        if self.bits == 1 and self.scheme not in OF_ONE_BIT:
            fields = (f"{at}.bits", f"{at}.scheme")
            message = f"1 is too few for {self.scheme!r} activations, at least 2; those of one bit are 'dorefa'"
            yield FieldConflict(fields[0], message, fields)


class Quantize(Section):
    weights: QuantizeWeights = field({}, description="How each layer's weight is rounded.")
    activations: QuantizeActivations | None = field(
        None, description="How each layer's input is rounded; default: not at all. `{}`: by the defaults below."
    )
    skip: tuple[LayerName, ...] = field(
        ("first", "last"),
        max_length=1000,
        description="Layers that are left as they are: `first`, `last`, and names of layers or of what they lie in, "
        "as `features.conv2`.",
    )

    def conflicts(self, at: str) -> Iterator[FieldConflict]:
        """What does not fit together, `at` being where the section is in the file."""
        yield from self.weights.conflicts(f"{at}.weights")
        if self.activations is not None:
            yield from self.activations.conflicts(f"{at}.activations")
