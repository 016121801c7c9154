import math

import pytest
import torch

from wavedistill.distributions import Gaussian, MixtureOfLogistics, MuLawCategorical, noise_generators

KINDS = {
    "gaussian": lambda: Gaussian(-9.0),
    "mixture of logistics": lambda: MixtureOfLogistics(4, -9.0),
    "mu-law": lambda: MuLawCategorical(64),
}


@pytest.fixture(params=KINDS)
def distribution(request):
    return KINDS[request.param]()


def _parameters(distribution, generator):
    return 0.5 * torch.randn(distribution.num_parameters, generator=generator, dtype=torch.float64)


def _support(distribution):
    low, high = (-1.0, 1.0) if isinstance(distribution, MuLawCategorical) else (-60.0, 60.0)
    edges = torch.linspace(low, high, 240001, dtype=torch.float64)
    return (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]


def test_density_integrates_to_one(distribution):
    parameters = _parameters(distribution, torch.Generator().manual_seed(0))
    points, width = _support(distribution)
    log_prob = distribution.log_prob(parameters.expand(len(points), -1), torch.tensor(0.1, dtype=torch.float64), points)
    assert float(log_prob.exp().sum() * width) == pytest.approx(1.0, abs=1e-4)


def test_samples_have_the_densitys_mean_and_variance(distribution):
    generator = torch.Generator().manual_seed(1)
    parameters = _parameters(distribution, generator)
    shift = torch.tensor(0.1, dtype=torch.float64)
    noise = distribution.draw_noise((200_000,), generator).double()
    values = distribution.sample(parameters.expand(len(noise), -1), shift, noise, 1.0)
    points, width = _support(distribution)
    weight = distribution.log_prob(parameters.expand(len(points), -1), shift, points).exp() * width
    mean = float((weight * points).sum())
    variance = float((weight * (points - mean).square()).sum())
    assert float(values.mean()) == pytest.approx(mean, abs=5 * math.sqrt(variance / len(values)))
    assert float(values.var()) == pytest.approx(variance, rel=0.03)


def test_float32_is_finite_far_outside(distribution):
    parameters = torch.zeros(2, distribution.num_parameters)
    values = (
        torch.tensor([-1.0, 0.999]) if isinstance(distribution, MuLawCategorical) else torch.tensor([-1000.0, 1000.0])
    )
    assert torch.isfinite(distribution.log_prob(parameters, torch.zeros(2), values)).all()


def test_temperature_narrows(distribution):
    generator = torch.Generator().manual_seed(2)
    parameters = _parameters(distribution, generator).float().expand(20_000, -1)
    noise = distribution.draw_noise((20_000,), generator)
    wide, narrow = (distribution.sample(parameters, torch.zeros(()), noise, heat).std() for heat in (1.0, 0.3))
    assert float(narrow) < float(wide)


def test_noise_of_an_item_does_not_depend_on_its_batch():
    alone = noise_generators(7, 1)[0]
    in_batch = noise_generators([3, 7], 2)[1]
    assert torch.equal(torch.randn(5, generator=alone), torch.randn(5, generator=in_batch))
    assert not torch.equal(
        torch.randn(5, generator=noise_generators(None, 1)[0]), torch.randn(5, generator=noise_generators(None, 1)[0])
    )
