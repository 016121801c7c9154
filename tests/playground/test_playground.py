"""Densities of the plane, the families in small, fitting them, the pictures and `wavedistill playground`."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from PIL import Image

from wavedistill import cli
from wavedistill.errors import WavedistillError
from wavedistill.files import read_json
from wavedistill.flows import AffineCoupling, Compose, Flow, NetworkConfig, Orthogonal, Rescale, Scale
from wavedistill.playground import (
    DENSITIES,
    FAMILIES,
    animate_layers,
    fit_density,
    plot_layers,
    run_playground,
    training,
    warp_stages,
)
from wavedistill.playground.fit import train_step


@pytest.fixture
def seeded():
    return torch.Generator().manual_seed(0)


# ---- densities


@pytest.mark.parametrize("name", DENSITIES)
def test_a_density_integrates_to_one_and_its_entropy_is_the_integral(name):
    spacing = 0.05 if name == "checkerboard" else 0.03
    ticks = torch.arange(-3.0, 3.0, spacing, dtype=torch.float64) + spacing / 2
    log_prob = DENSITIES[name].log_prob(torch.cartesian_prod(ticks, ticks))
    density = log_prob.exp()
    assert float(density.sum()) * spacing**2 == pytest.approx(1.0, abs=1e-6)
    entropy = -torch.where(density > 0, density * log_prob, 0.0).sum() * spacing**2
    assert DENSITIES[name].entropy == pytest.approx(float(entropy), abs=1e-5)


@pytest.mark.parametrize("name", DENSITIES)
def test_samples_are_of_the_density(name, seeded):
    """Chi-square of the counts in 20 x 20 boxes against the integral of the density."""
    count = 20_000
    boxes = 20
    inner = 10
    x = DENSITIES[name].sample(count, seeded)
    assert x.shape == (count, 2) and torch.equal(x, DENSITIES[name].sample(count, torch.Generator().manual_seed(0)))
    counts, _, _ = np.histogram2d(*x.T.numpy(), bins=boxes, range=[[-2.5, 2.5], [-2.5, 2.5]])
    ticks = (torch.arange(boxes * inner, dtype=torch.float64) + 0.5) * 5.0 / (boxes * inner) - 2.5
    density = DENSITIES[name].log_prob(torch.cartesian_prod(ticks, ticks)).exp()
    shares = density.reshape(boxes, inner, boxes, inner).sum((1, 3)).numpy() * (5.0 / (boxes * inner)) ** 2
    expected = count * shares
    likely = expected > 5
    statistic = ((counts - expected)[likely] ** 2 / expected[likely]).sum()
    degrees = likely.sum()
    assert abs(statistic - degrees) < 5 * math.sqrt(2 * degrees)
    assert counts[expected < 1e-9].sum() == 0


def test_log_prob_keeps_the_type_and_takes_no_points():
    for density in DENSITIES.values():
        for dtype in (torch.float32, torch.float64):
            assert density.log_prob(torch.zeros(3, 2, dtype=dtype)).dtype == dtype
        assert density.log_prob(torch.zeros(0, 2)).shape == (0,)


# ---- families


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_learns_and_is_a_bijection(name, seeded):
    torch.manual_seed(0)
    family = FAMILIES[name]
    target = DENSITIES["two_moons"]
    flow = Flow(family.build(2))
    optimizer = torch.optim.Adam(flow.parameters(), lr=family.learning_rate)
    losses = [train_step(flow, optimizer, target.sample(256, seeded)) for _ in range(25)]
    assert np.mean(losses[-5:]) < np.mean(losses[:3]) - 0.05
    flow.eval()
    x = target.sample(50, seeded)
    z, log_det = flow.transform.forward(x)
    back, log_det_back = flow.transform.inverse(z)
    solved = 10.0 if name == "continuous" else 1.0  # the playground's solver keeps to 1e-3 a step
    assert torch.allclose(back, x, atol=5e-3 * solved) and torch.allclose(log_det, -log_det_back, atol=2e-2 * solved)
    assert len(flow.transform.transforms) in (2, 3)  # NICE adds a rescaling


# ---- fitting


def test_a_fit_is_repeatable_and_leaves_the_global_randomness_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = fit_density("realnvp", "two_moons", depth=1, steps=5, seed=3)
    assert torch.equal(torch.rand(3), expected)
    second = fit_density("realnvp", "two_moons", depth=1, steps=5, seed=3)
    other = fit_density("realnvp", "two_moons", depth=1, steps=5, seed=4)
    assert first.nats == second.nats != other.nats
    assert [report.held_out_nats for report in first.history] == [report.held_out_nats for report in second.history]


def test_a_fit_tells_nats_gap_and_errors():
    fit = fit_density("spline", "checkerboard", depth=1, steps=60)
    x = DENSITIES["checkerboard"].sample(10_000, torch.Generator().manual_seed(77))
    with torch.no_grad():
        nats = float(-fit.flow.log_prob(x).mean())
    assert fit.nats == pytest.approx(nats, abs=6 * fit.standard_error)
    assert (
        fit.gap == pytest.approx(fit.nats - fit.entropy, abs=1e-4) and fit.gap > 0
    )  # a uniform density: no noise but the flow's
    assert fit.steps == 60 and fit.skipped == 0 and not fit.flow.training
    assert fit.parameters == sum(p.numel() for p in fit.flow.parameters())
    assert fit.history[-1].share == 1.0 and fit.history[-1].held_out_nats < fit.history[0].held_out_nats
    json.dumps(fit.to_json(), allow_nan=False)


def test_a_time_budget_ends_the_training():
    fit = fit_density("planar", "rings", depth=1, seconds=0.2)
    assert 0.2 <= fit.seconds < 5 and fit.steps > 1


def test_an_answer_to_a_report_ends_the_training_there():
    run = training("planar", "rings", depth=1, steps=1000)
    first = next(run)
    with pytest.raises(StopIteration) as end:
        run.send(True)
    assert end.value.value.steps == first.step == 40


def test_a_step_that_is_not_finite_is_left_out():
    flow = Flow(Compose(Rescale(2)))
    optimizer = torch.optim.Adam(flow.parameters())
    before = flow.transform[0].log_scale.detach().clone()
    assert math.isnan(train_step(flow, optimizer, torch.full((4, 2), torch.nan)))
    assert torch.equal(flow.transform[0].log_scale, before)
    assert math.isfinite(train_step(flow, optimizer, torch.full((4, 2), 2.0)))
    assert not torch.equal(flow.transform[0].log_scale, before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nvp", "rings"), "no flow family 'nvp': choose from nice"),
        (("planar", "squares"), "no density 'squares': choose from two_moons"),
        (("planar", "rings", 0), "depth must be above 0, got 0"),
        (("planar", "rings", 1, 0), "steps must be above 0"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(WavedistillError, match=message):
        fit_density(*arguments)


# ---- pictures


@pytest.fixture(scope="module")
def flow():
    torch.manual_seed(0)
    coupling = AffineCoupling(2, network=NetworkConfig(8))
    torch.nn.init.normal_(coupling.network.output.weight, std=0.3)
    rescale = Rescale(2)
    torch.nn.init.constant_(rescale.log_scale, -0.5)
    return Flow(Compose(Scale(2.0), Compose(coupling, Orthogonal(2)), rescale))


def test_stages_run_from_the_prior_to_the_model(flow):
    stages = warp_stages(flow, resolution=40, num_samples=200)
    labels = ["prior", "layer 3\nRescale", "layer 2\nAffineCoupling\nOrthogonal", "layer 1\nScale"]
    assert [stage.label for stage in stages] == labels
    x, z = (torch.from_numpy(stage.samples) for stage in (stages[-1], stages[0]))
    assert torch.allclose(flow.to_latent(x), z, atol=1e-4)
    step = 5.0 / 40
    corner = torch.tensor([[-2.5 + 7.5 * step, -2.5 + 20.5 * step]])  # column 7, row 20
    assert flow.log_prob(corner).exp().item() == pytest.approx(float(stages[-1].density[20, 7]), rel=1e-4)
    mean = stages[0].density.mean() * 25
    assert mean == pytest.approx(0.975, abs=0.01)  # the prior's mass in the view
    assert stages[3].density.max() == pytest.approx(
        4 * stages[2].density.max(), rel=0.1
    )  # Scale(2): half as wide, 4 x as dense


def test_many_layers_are_taken_together_and_backwards_reads_backwards():
    many = Flow(Compose(*(Scale(1.1) for _ in range(9))).inv)
    stages = warp_stages(many, max_layers=4, resolution=8, num_samples=5)
    assert [stage.label for stage in stages[1:]] == [
        "layers 8 to 9\n2 × Scale.inv",
        "layers 6 to 7\n2 × Scale.inv",
        "layers 4 to 5\n2 × Scale.inv",
        "layers 1 to 3\n3 × Scale.inv",
    ]
    assert np.allclose(stages[-1].samples, stages[0].samples * 1.1**9, rtol=1e-4)


def test_pictures_are_written_and_show_the_layers(flow, tmp_path):
    stages = warp_stages(flow)
    figure = plot_layers(flow, tmp_path / "new" / "layers.png", DENSITIES["rings"], stages, "title")
    assert [axis.get_title() for axis in figure.axes[::2]] == [stage.label for stage in stages] + ["target:\nrings"]
    assert imread(tmp_path / "new" / "layers.png").shape[1] > 700
    animation = Image.open(animate_layers(flow, tmp_path / "layers.gif", stages))
    assert animation.n_frames == 1 + 3 * 6 and animation.info["loop"] == 0
    assert (tmp_path / "layers.gif").stat().st_size < 1e6
    first = np.asarray(animation.convert("RGB"), dtype=float)
    animation.seek(animation.n_frames - 1)
    assert np.abs(np.asarray(animation.convert("RGB"), dtype=float) - first).mean() > 2
    assert {path.name for path in tmp_path.iterdir()} == {"new", "layers.gif"}


def test_drawing_leaves_no_figure_and_no_mode_behind(flow):
    from matplotlib import pyplot

    flow.train()
    plot_layers(flow)
    assert flow.training and pyplot.get_fignums() == []


def test_what_cannot_be_drawn_is_told(flow, tmp_path):
    with pytest.raises(WavedistillError, match="cannot be drawn in two dimensions: Rescale needs"):
        warp_stages(Flow(Compose(Rescale(3))))
    with pytest.raises(WavedistillError, match=".gif"):
        animate_layers(flow, tmp_path / "layers.mp4")


# ---- the command


def test_the_command_writes_table_and_pictures_and_goes_on_where_it_was(tmp_path, capsys, monkeypatch):
    command = [
        "playground",
        "--out",
        str(tmp_path),
        "--density",
        "rings",
        "--family",
        "planar",
        "--depth",
        "2",
        "--steps",
        "4",
    ]
    assert cli.main(command) == 0
    table = capsys.readouterr().out
    assert "| **entropy** |  |  | **1.914** |" in table and "| planar | 2 | 10 |" in table
    result = read_json(tmp_path / "rings-planar.json")
    assert f"{result['nats']:.3f} ± {result['standard_error']:.3f} ({result['gap']:.3f})" in table
    assert (tmp_path / "table.md").read_text().strip() == table.strip()
    assert {path.name for path in tmp_path.iterdir()} == {
        "rings-planar.json",
        "rings-planar.png",
        "rings-planar.gif",
        "table.md",
        "table.json",
    }
    trained = []
    monkeypatch.setattr(
        "wavedistill.playground.run.fit_density", lambda *args: trained.append(args) or fit_density(*args)
    )
    assert cli.main([*command, "--density", "two_moons"]) == 0
    assert [args[:2] for args in trained] == [("planar", "two_moons")]
    cli.main([*command[:-1], "5"])
    assert trained[1:] == [("planar", "rings", 2, 5, 0)]
    results = read_json(tmp_path / "table.json")["results"]
    assert [(fit["family"], fit["density"], fit["steps"]) for fit in results] == [("planar", "rings", 5)]


def test_a_family_that_cannot_be_trained_does_not_stop_the_others(tmp_path, monkeypatch):
    def failing(family, *args):
        if family == "radial":
            raise WavedistillError("radial needs something")
        return fit_density(family, *args)

    monkeypatch.setattr("wavedistill.playground.run.fit_density", failing)
    report = run_playground(tmp_path, ["rings"], ["radial", "planar"], depth=1, steps=2)
    assert (
        report.failures == {"radial": "radial needs something"}
        and "* radial: radial needs something" in report.markdown
    )
    with pytest.raises(WavedistillError, match="something"):
        run_playground(tmp_path, ["rings"], ["radial"], depth=1, steps=2)


def test_unknown_names_are_told_before_anything_is_trained(tmp_path, capsys):
    assert cli.main(["playground", "--out", str(tmp_path / "out"), "--family", "glow", "--density", "moons"]) == 2
    assert "no density 'moons': choose from two_moons" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
