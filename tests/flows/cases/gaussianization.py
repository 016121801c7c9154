"""Mixture distribution functions and the flows made of them."""

from helpers.flow_case import Case, shake

from wavedistill.flows import GaussianizationFlow, MixtureCDF

CASES = {
    "mixture-cdf": Case(lambda: shake(MixtureCDF(3, 4), 0.2), (3,), density=lambda dim: shake(MixtureCDF(dim, 3), 0.2)),
    "mixture-cdf-gaussian": Case(
        lambda: shake(MixtureCDF(2, 3, "gaussian"), 0.2),
        (2, 12),
        density=lambda dim: shake(MixtureCDF(dim, 3, "gaussian"), 0.2),
    ),
    "gaussianization": Case(lambda: shake(GaussianizationFlow(3, 2, 3)), (3,)),
}
