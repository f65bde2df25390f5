"""What every objective promises, exercised through the registered recipes on tiny runs."""

from __future__ import annotations

import atexit
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from izograf.core.registry import UnknownName
from izograf.core.rng import generator
from izograf.core.types import Batch, Objective, Phase
from izograf.data.dataset import ImageSet
from izograf.data.scan import ScanReport
from izograf.recipes.registry import RECIPES, Hyperparameters, RunRequest
from izograf.schema.labels import ClassLabel
from izograf.training.ema import MovingAverage
from izograf.training.run import Job
from izograf.training.state import load_state, save_state
from izograf.training.trainer import StopTraining, TrainingConfig, TrainingState, train

STEPS = 5
BATCH = 8


@dataclass(frozen=True)
class Tiny:
    """A picture size and network settings with which a recipe takes a step in milliseconds."""

    image_size: int
    settings: tuple[str, ...]


TINY: Mapping[str, Tiny] = {
    "diffusion-unet": Tiny(16, ("width=16", "depth=1", "head_dim=16")),
    "ddpm": Tiny(16, ("width=16", "depth=1", "head_dim=16")),
    "dit": Tiny(16, ("width=32", "depth=2", "head_dim=16")),
    "uvit": Tiny(16, ("width=32", "depth=3", "head_dim=16")),
    "dcgan": Tiny(16, ("width=8", "latent_dim=8", "class_dim=4")),
    "classifier": Tiny(16, ("width=16", "depth=1")),
    "latent-diffusion": Tiny(16, ("width=16", "depth=1", "head_dim=16")),
    "upscaler": Tiny(16, ("width=8", "depth=1")),
    "kl-autoencoder": Tiny(16, ("width=8", "latent_channels=3")),
    "ae": Tiny(16, ("width=8", "latent_dim=8", "class_dim=4")),
    "vae": Tiny(16, ("width=8", "latent_dim=8", "class_dim=4")),
    "cvae": Tiny(16, ("width=8", "latent_dim=8", "class_dim=4")),
    "clip": Tiny(16, ("width=32", "depth=1", "head_dim=16", "image_width=16", "image_depth=1")),
    "text-to-image": Tiny(16, ("width=16", "depth=1", "head_dim=16")),
    "progressive-distillation": Tiny(16, ("stages=2",)),
    "consistency": Tiny(16, ("num_levels=18",)),
    "trajectory-distillation": Tiny(16, ("substeps=2",)),
}


@pytest.fixture(params=RECIPES)
def name(request: pytest.FixtureRequest) -> str:
    if request.param not in TINY:
        pytest.fail(
            f"add tiny settings of the recipe {request.param} to TINY in this file: "
            "a picture size and the --set values that make its network small"
        )
    return str(request.param)


def test_no_recipe_in_the_table_is_gone() -> None:
    assert set(TINY) <= set(RECIPES)


@pytest.mark.parametrize(
    ("name", "objective"),
    [(name, what) for name in RECIPES if name in TINY for what in sorted(RECIPES[name].objectives)],
)
def test_a_recipe_trains_with_every_objective_it_names(
    name: str, objective: str, tmp_path: Path
) -> None:
    RECIPES[name].check(Hyperparameters(objective=objective, **needs(name)))
    needed = {"perceptual": some_classifier(tmp_path)} if objective == "perceptual" else {}
    job = build(name, objective=objective, **needed)
    recorder = run(job, fresh_state(job), steps=1)
    assert all(math.isfinite(float(value)) for value in recorder.stats[0].values())


def test_what_a_recipe_minimises_by_default_is_among_its_objectives(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[str | None] = []
    over = Hyperparameters.over

    def noted(self: Hyperparameters, defaults: Hyperparameters) -> Hyperparameters:
        chosen.append(defaults.objective)
        return over(self, defaults)

    needs(name)  # which recipes of their own made
    monkeypatch.setattr(Hyperparameters, "over", noted)
    build(name)
    assert chosen
    assert set(chosen) <= set(RECIPES[name].objectives)


def test_an_objective_the_recipe_does_not_know_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"Unknown objective of dcgan 'hing': .* mean hinge\?"):
        RECIPES["dcgan"].check(Hyperparameters(objective="hing"))
    with pytest.raises(UnknownName, match=r"known are cross-entropy\.$"):
        RECIPES["classifier"].check(Hyperparameters(objective="hinge"))


def pictures(size: int, count: int, *, split: str) -> ImageSet:
    """Half bright pictures with stripes, half dark ones without."""
    rng = generator("tests", "pictures", split)
    class_ids = torch.arange(count) % 2
    images = torch.randint(0, 90, (count, 3, size, size), generator=rng, dtype=torch.uint8)
    images[class_ids == 1, :, ::2] += 150
    return ImageSet(
        images=images,
        class_ids=class_ids,
        classes=(ClassLabel("dark"), ClassLabel("striped")),
        names=tuple(f"{split}-{i}.png" for i in range(count)),
        name="tiny",
        split=split,
        resize="none",
        report=ScanReport(read=count),
    )


def build(name: str, **chosen: Any) -> Job:
    tiny = TINY[name]
    hyperparameters = Hyperparameters(
        **{
            "images": STEPS * BATCH,
            "batch_size": BATCH,
            "device": "cpu",
            "precision": "fp32",
            "settings": tiny.settings,
            "seed": 3,
            **needs(name),
            **chosen,
        }
    )
    request = RunRequest(
        name="tiny",
        train=pictures(tiny.image_size, 20, split="train"),
        held_out=pictures(tiny.image_size, 10, split="test"),
        data_licence="made here",
        hyperparameters=hyperparameters,
    )
    return RECIPES[name].build(request)


def needs(name: str) -> dict[str, Any]:
    """What a run of the recipe cannot do without."""
    makers = {
        "autoencoder": some_autoencoder,
        "teacher": some_teacher,
        "text_encoder": some_text_encoder,
    }
    return {option: makers[option]() for option in RECIPES[name].needs}


@cache
def some_autoencoder() -> str:
    """A folder with an untrained autoencoder in it, the same for all tests of this file."""
    return exported(build("kl-autoencoder"), steps=0)


@cache
def some_teacher() -> str:
    """A folder with a hardly trained diffusion model in it, the same for all tests of this file."""
    return exported(build("diffusion-unet", warmup=0.0), steps=3)


@cache
def some_text_encoder() -> str:
    """A folder with an untrained text encoder in it, the same for all tests of this file."""
    return exported(build("clip"), steps=0)


def exported(job: Job, *, steps: int) -> str:
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    state = fresh_state(job)
    if steps:
        run(job, state, steps=steps)
    assert job.export is not None
    job.export(state.average.modules, Path(folder.name), {})
    return folder.name


def some_classifier(folder: Path) -> str:
    """A folder with an untrained classifier in it, for the loss that looks at features."""
    job = build("classifier")
    assert job.export is not None
    job.export(fresh_state(job).average.modules, folder, {})
    return str(folder)


def fresh_state(job: Job, *, share: float | None = None) -> TrainingState:
    share = job.training.ema_share if share is None else share
    return TrainingState(MovingAverage(job.objective.modules, job.objective.averaged, share=share))


class Recorder:
    """Keeps the statistics of every step; stops the run after `steps` of them."""

    def __init__(self, steps: int | None = None) -> None:
        self.stats: list[Mapping[str, Tensor]] = []
        self._steps = steps

    def __call__(self, state: TrainingState, stats: Mapping[str, Tensor]) -> None:
        self.stats.append(dict(stats))
        if state.step == self._steps:
            raise StopTraining("the test has seen enough")


def run(job: Job, state: TrainingState, *, steps: int | None = None) -> Recorder:
    recorder = Recorder(steps)
    try:
        train(job.objective, job.batches, job.training, state, job.placement, recorder)
    except StopTraining:
        assert state.step == steps
    return recorder


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def parameters_of(optimizer: Optimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def assert_same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    different = [key for key in first if not torch.equal(first[key], second[key])]
    assert not different, f"{len(different)} of {len(first)} tensors differ, as {different[0]}"


def optimizer_tensors(objective: Objective) -> dict[str, Tensor]:
    return {
        f"{name}.{index}.{key}": torch.as_tensor(value).clone()
        for name, optimizer in objective.optimizers().items()
        for index, entries in optimizer.state_dict()["state"].items()
        for key, value in entries.items()
    }


class OnlyPhase:
    """The objective reduced to one of its phases, run at every step."""

    def __init__(self, whole: Objective, phase: Phase) -> None:
        self.modules, self.averaged = whole.modules, whole.averaged
        self._whole, self._phase = whole, replace(phase, every=1, after=0)

    def optimizers(self) -> Mapping[str, Optimizer]:
        return self._whole.optimizers()

    def phases(self) -> Sequence[Phase]:
        return (self._phase,)

    def after_step(self, images_seen: int, stats: Mapping[str, Tensor]) -> None:
        self._whole.after_step(images_seen, stats)


def test_every_statistic_of_every_step_is_finite_and_every_phase_reports_its_loss(
    name: str,
) -> None:
    job = build(name)
    recorder = run(job, fresh_state(job))
    assert len(recorder.stats) == STEPS
    phases = job.objective.phases()
    for step, stats in enumerate(recorder.stats):
        due = {
            f"{phase.name}/loss"
            for phase in phases
            if step % phase.every == 0 and step * BATCH >= phase.after
        }
        assert due <= set(stats)
        for key, value in stats.items():
            assert value.shape == (), key
            assert not value.requires_grad, f"{key} would keep the graph of its step alive"
            assert math.isfinite(float(value)), key


def test_phases_and_optimizers_name_each_other(name: str) -> None:
    objective = build(name).objective
    phases = objective.phases()
    assert len({phase.name for phase in phases}) == len(phases)
    assert {phase.optimizer for phase in phases} == set(objective.optimizers())
    assert all(phase.every >= 1 for phase in phases)
    assert set(objective.averaged) <= set(objective.modules.keys())
    assert objective.averaged


def test_every_trainable_parameter_has_exactly_one_optimizer(name: str) -> None:
    objective = build(name).objective
    owned = [id(p) for o in objective.optimizers().values() for p in parameters_of(o)]
    assert len(owned) == len(set(owned)), "a parameter belongs to two optimisers"
    trainable = {id(p) for p in objective.modules.parameters() if p.requires_grad}
    assert set(owned) == trainable


def test_a_phase_changes_the_parameters_of_its_optimizer_and_no_others(name: str) -> None:
    names = [phase.name for phase in build(name).objective.phases()]
    for index, phase_name in enumerate(names):
        job = build(name, warmup=0.0, weight_decay=0.0)
        phase = job.objective.phases()[index]
        before = weights(job.objective.modules)
        run(replace(job, objective=OnlyPhase(job.objective, phase)), fresh_state(job), steps=2)
        after = dict(job.objective.modules.named_parameters())
        own = {id(p) for p in parameters_of(job.objective.optimizers()[phase.optimizer])}
        changed = {key for key, p in after.items() if not torch.equal(p, before[key])}
        foreign = {key for key, p in after.items() if p.requires_grad and id(p) not in own}
        assert changed, f"{phase_name} changes nothing"
        assert not changed & foreign, f"{phase_name} changes what belongs to another optimiser"


def test_every_parameter_learns_within_a_few_steps(name: str) -> None:
    job = build(name, weight_decay=0.0, warmup=0.0)
    before = weights(job.objective.modules)
    run(job, fresh_state(job))
    after = dict(job.objective.modules.named_parameters())
    learning = {key: value for key, value in after.items() if value.requires_grad}
    assert learning
    still = [key for key, value in learning.items() if torch.equal(value, before[key])]
    assert not still, f"never moved: {still}"


def test_gradients_are_left_on_no_other_optimizer(name: str) -> None:
    """Or the next phase of that optimiser would have to know about it."""
    job = build(name)
    for phase in job.objective.phases():
        fresh = build(name)
        chosen = next(p for p in fresh.objective.phases() if p.name == phase.name)
        run(
            replace(fresh, objective=OnlyPhase(fresh.objective, chosen)),
            fresh_state(fresh),
            steps=1,
        )
        for key, optimizer in fresh.objective.optimizers().items():
            has_gradient = [p.grad is not None for p in parameters_of(optimizer)]
            assert any(has_gradient) == (key == chosen.optimizer)


def test_the_loss_of_a_phase_is_a_function_of_the_batch_and_its_generator(name: str) -> None:
    job = build(name)
    job.objective.modules.eval()
    batch = job.batches(0)
    for phase in job.objective.phases():
        losses = [float(phase.loss(batch, generator("tests", seed))[0].detach()) for seed in (1, 1)]
        assert losses[0] == losses[1], phase.name


def test_the_same_seed_trains_the_same_weights_and_another_one_does_not(name: str) -> None:
    results = []
    for seed in (3, 3, 4):
        job = build(name, seed=seed)
        run(job, fresh_state(job), steps=2)
        results.append(weights(job.objective.modules))
    assert_same(results[0], results[1])
    assert any(not torch.equal(results[0][key], results[2][key]) for key in results[0])


def test_training_leaves_the_global_generator_alone(name: str) -> None:
    before = torch.get_rng_state()
    job = build(name)
    run(job, fresh_state(job), steps=1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(
    name: str, optimizer: str, tmp_path: Path
) -> None:
    chosen = {"optimizer": optimizer, "learning_rate": 1e-3}
    whole = build(name, **chosen)
    whole_state = fresh_state(whole)
    run(whole, whole_state)

    first = build(name, **chosen)
    state = fresh_state(first)
    run(first, state, steps=2)
    saved = save_state(tmp_path, first.objective, state, {"note": "of the test"})

    # as in a new process: another objective, and weights that must not survive
    second = build(name, **chosen)
    restored = fresh_state(second)
    with torch.no_grad():
        for parameter in (
            *second.objective.modules.parameters(),
            *restored.average.modules.parameters(),
        ):
            parameter.fill_(7.0)
    assert load_state(saved, second.objective, restored) == {"note": "of the test"}
    assert (restored.step, restored.images_seen) == (2, 2 * BATCH)
    run(second, restored)

    assert (restored.step, restored.images_seen) == (whole_state.step, whole_state.images_seen)
    assert_same(weights(second.objective.modules), weights(whole.objective.modules))
    assert_same(weights(restored.average.modules), weights(whole_state.average.modules))
    assert_same(optimizer_tensors(second.objective), optimizer_tensors(whole.objective))


def test_the_average_follows_the_weights_by_its_half_life(name: str) -> None:
    """Against the recursion written out in float64."""
    job = build(name, warmup=0.0)
    state = fresh_state(job, share=0.9)
    expected = {key: value.double() for key, value in weights(state.average.modules).items()}
    start = dict(expected)

    def watch(state: TrainingState, stats: Mapping[str, Tensor]) -> None:  # noqa: ARG001
        half_life = 0.9 * state.images_seen
        weight = 1 - 0.5 ** (BATCH / half_life)
        for key, value in weights(job.objective.modules).items():
            if key not in expected:
                continue
            if value.is_floating_point():
                expected[key] = expected[key] + weight * (value.double() - expected[key])
            else:
                expected[key] = value.double()

    train(job.objective, job.batches, job.training, state, job.placement, watch)
    average = weights(state.average.modules)
    assert average
    for key, value in average.items():
        torch.testing.assert_close(value.double(), expected[key], rtol=1e-4, atol=1e-6)
    now = weights(job.objective.modules)
    parameters = [key for key, _ in state.average.modules.named_parameters()]
    assert any(not torch.equal(average[key], now[key]) for key in parameters)
    assert any(not torch.equal(average[key].double(), start[key]) for key in parameters)


def test_an_average_without_memory_is_the_weights(name: str) -> None:
    job = build(name)
    state = fresh_state(job, share=0.0)
    run(job, state, steps=2)
    now = weights(job.objective.modules)
    average = weights(state.average.modules)
    assert average
    assert_same(average, {key: now[key] for key in average})
    assert not any(module.training for module in state.average.modules.modules())
    assert not any(p.requires_grad for p in state.average.modules.parameters())


def test_held_out_evaluation_is_finite_and_repeatable(name: str) -> None:
    job = build(name)
    if job.evaluate is None:
        assert job.preview is not None, "a run that measures nothing should at least show something"
        return
    state = fresh_state(job)
    first, second = (dict(job.evaluate(state.average.modules)) for _ in range(2))
    assert first == second
    assert all(math.isfinite(value) for value in first.values())
    assert not job.run.monitor or job.run.monitor in first


def test_a_penalty_on_absolute_weights_pulls_them_towards_zero(name: str) -> None:
    """Measured against the same run without it."""
    sizes: dict[float, float] = {}
    for l1 in (0.0, 10.0):
        job = build(name, l1=l1, gradient_clip=0.0, warmup=0.0)
        run(job, fresh_state(job))
        matrices = [p for p in job.objective.modules.parameters() if p.ndim > 1]
        sizes[l1] = sum(float(p.detach().abs().sum()) for p in matrices)
    assert sizes[10.0] < sizes[0.0]


def _always(batch: Batch, step: int) -> Batch:  # noqa: ARG001
    return batch


def test_training_on_one_batch_lowers_the_loss_of_a_minimised_phase() -> None:
    """Where one network minimises one thing; a game has no such promise."""
    single = [key for key in TINY if len(build(key).objective.phases()) == 1]
    assert single
    for key in single:
        job = build(key, images=60 * BATCH, warmup=0.0)
        job = replace(job, batches=partial(_always, job.batches(0)))
        (loss,) = {f"{phase.name}/loss" for phase in job.objective.phases()}
        state, losses = fresh_state(job), []
        for steps in (30, 60):  # most have learnt enough after the half
            losses += [float(stats[loss]) for stats in run(job, state, steps=steps).stats]
            # ten each: a single loss of a denoiser depends on the noise that was drawn
            learnt = sum(losses[-10:]) < 0.9 * sum(losses[:10])
            if learnt:
                break
        assert learnt, f"{key}: {losses}"


def test_the_last_step_is_taken_even_when_images_are_no_multiple_of_the_batch(name: str) -> None:
    job = build(name)
    config: TrainingConfig = replace(job.training, images=BATCH + 1)
    state = fresh_state(job)
    run(replace(job, training=config), state)
    assert (state.step, state.images_seen) == (2, 2 * BATCH)
