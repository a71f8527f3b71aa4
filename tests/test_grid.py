"""What all sections promise alike: their jobs follow their table of methods, the profile and what a user selects."""

from functools import partial
from itertools import groupby, product
from typing import Any

import pytest

from robustness_lib.errors import UserError
from robustness_lib.experiments import calibration, ood, pretraining, registry
from robustness_lib.experiments.grid import SETTINGS, GridPoint, Method, expand
from robustness_lib.experiments.presets import PROFILES, profile
from robustness_lib.models.checkpoint_ids import OWN
from robustness_lib.runner.model_cache import Training
from robustness_lib.runner.records import SCRATCH, Job, canonical_json, checkpoint_id
from robustness_lib.training.config import TrainingConfig

SECTIONS = pytest.mark.parametrize(
    "section",
    [registry.section(name) for name in registry.SECTIONS if name != "recipe_choice"],
    ids=lambda one: one.SECTION,
)
OTHER = "wrn-16-1_{corpus}_9x9{against}_e1_s1_000000"


def config_of(section: Any) -> type[TrainingConfig]:
    """The section's own config, where it has one."""
    own = (one for one in vars(section).values() if isinstance(one, type) and issubclass(one, TrainingConfig))
    return next((one for one in own if one.__module__ == section.__name__), TrainingConfig)


def methods_of(section: Any) -> dict[str, Method]:
    return {name: method for name, method in section.METHODS.items() if isinstance(method, Method)}


def trained(section: Any, scale: str, **filters: Any) -> list[Job]:
    """The jobs that train networks."""
    return [job for job in section.jobs(scale, **filters) if "architecture" in job.recipe]


@pytest.mark.parametrize("scale", PROFILES)
@SECTIONS
def test_jobs_are_those_of_the_table(section: Any, scale: str) -> None:
    jobs, table = trained(section, scale), methods_of(section)
    assert len({job.key for job in jobs}) == len(jobs)
    assert [job.key for job in trained(section, scale)] == [job.key for job in jobs]
    assert {job.method for job in jobs} == {name for name, method in table.items() if scale in method.profiles}
    for name in {job.method for job in jobs}:
        own = [job for job in jobs if job.method == name]
        assert {"scratch" if job.init == SCRATCH else "tuned" for job in own} == set(table[name].arms)
        assert {job.level for job in own} == set(table[name].levels.get(scale) or [None])
        assert {job.seed for job in own} <= set(profile(scale).seeds)
        settings = [(job.dataset, job.level, job.seed) for job in own]
        assert all(len(list(both)) == len(table[name].arms) for _, both in groupby(settings)), "arms lie side by side"
        assert len(set(settings)) * len(table[name].arms) == len(own)
    for job in jobs:
        assert (job.section, job.profile) == (section.SECTION, scale)
        canonical_json(job.as_dict())
        assert config_of(section).of(job.recipe).as_dict() == job.recipe


@pytest.mark.parametrize("section", [calibration, ood])
def test_few_images_are_trained_in_other_ways(section: Any) -> None:
    usual = {"epochs": 20, "learning_rate": 0.03}
    others = {"longer": {"epochs": 60}, "rate-0.01": {"learning_rate": 0.01}, "rate-0.001": {"learning_rate": 0.001}}
    for images, (name, change) in product((1000, 2000), others.items()):
        method = f"standard-{images}-{name}"
        [job] = section.jobs("cpu", datasets=["cifar10"], methods=[method], seeds=[1])
        assert job.init != SCRATCH
        assert registry.is_planned(job)
        found = {setting: job.recipe[setting] for setting in ("train_images", "epochs", "learning_rate")}
        assert found == {"train_images": images} | usual | change
    [job] = section.jobs("cpu", datasets=["cifar10"], methods=["standard-5000-shorter"], seeds=[1])
    assert (job.init, job.recipe["train_images"], job.recipe["epochs"]) == (SCRATCH, 5000, 30)


@SECTIONS
def test_what_a_user_selects_is_followed(section: Any) -> None:
    method = next(name for name, one in methods_of(section).items() if "cpu" in one.profiles and len(one.arms) == 2)
    filters: dict[str, Any] = {"datasets": ["own"], "methods": [method], "seeds": [8, 7]}
    settings = {"batch_size": "77", "tuned.momentum": "0.3", "pretraining.epochs": "2"}
    jobs = trained(section, "cpu", overrides=settings, **filters)
    assert {(job.dataset, job.method, job.seed) for job in jobs} == {("own", method, 8), ("own", method, 7)}
    for job in jobs:
        assert job.recipe["batch_size"] == 77
        assert job.recipe["momentum"] == (0.9 if job.init == SCRATCH else 0.3)
        assert job.init == SCRATCH or "_e2_" in job.init
    against = methods_of(section)[method].pretrained_against
    mine = OTHER.format(corpus="mine", against=f"_{against}" if against else "")
    assert {job.init for job in trained(section, "cpu", init=mine, **filters)} == {SCRATCH, mine}
    tuned = [job for job in trained(section, "cpu", init=OWN, **filters) if job.init != SCRATCH]
    made = {checkpoint_id(job): job.seed for job in pretraining.missing(tuned, None, None)}
    assert {(job.seed, made[job.init], registry.is_planned(job)) for job in tuned} == {(8, 8, True), (7, 7, True)}
    assert not {job.key for job in jobs} & {job.key for job in trained(section, "cpu", **filters)}


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"methods": ["no-such-method"]}, "unknown method of the section .*choose one of"),
        ({"seeds": [-1]}, "the seed -1 is out of range"),
        ({"seeds": [2**32]}, "the seed 4294967296 is out of range"),
        ({"overrides": {"no_such_setting": "1"}}, "unknown setting of a recipe"),
        ({"overrides": {"tune.epochs": "1"}}, "unknown training to restrict a setting to"),
        ({"overrides": {"tuned.epochs": "0"}}, r"^tuned\.epochs is 0 but must be at least 1"),
        ({"overrides": {"scratch.epochs": "0"}}, r"^scratch\.epochs is 0 but must be at least 1"),
        ({"overrides": {"epochs": "0"}}, "^epochs is 0 but must be at least 1"),
        ({"overrides": {"epochs": "many"}}, "epochs='many' cannot be read"),
    ],
)
@SECTIONS
def test_unsuitable_selections_are_one_sentence(section: Any, filters: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        section.jobs("cpu", **filters)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="smoke, cpu, paper"):
        section.jobs("cpus")


@pytest.mark.parametrize(
    ("section", "setting", "message"),
    [
        ("adversarial", "test_epsilon=-1.0", "epsilon is -1.0"),
        ("adversarial", "test_images=-1", "test_images is -1 but must be at least 0"),
        ("adversarial", "long_steps=10", "long_steps is 10 but must be at least 20"),
        ("adversarial", "restarts=0", "restarts is 0"),
        ("adversarial", "restart_steps=-1", "restart_steps is -1"),
        ("label_noise", "noise=unifrom", "did you mean 'uniform'"),
        ("label_noise", "noise=human", "does not go with the data set cifar10"),
        ("label_noise", "trusted=last", "first, balanced, random"),
        ("label_noise", "noise_seed=-1", "noise_seed is -1"),
        ("label_noise", "observations=0", "observations is 0"),
        ("imbalance", "law=v3", "v1, v5"),
        ("imbalance", "smallest=2000", "smallest is 2000 and largest 1000"),
        ("imbalance", "smote_neighbours=0", "smote_neighbours is 0"),
        ("imbalance", "train_images=500", "train_images is 500.*set largest and smallest"),
        *(("ood", f"{name}=-1", f"{name} is -1 but must be") for name in ("draws", "draw_images", "neighbours")),
        ("ood", "reference_images=0", "reference_images is 0 but must be at least 1"),
        ("ood", "ood_sets=:", "ood_sets names no set"),
        ("ood", "ood_sets=textures:textures", "textures is named more than once"),
        ("ood", "ood_sets=blobs further_sets=cifar10", "cifar10 is the ID set"),
        *(("ood", f"further_sets={name}", f"an OOD set cannot be called {name}") for name in ("known", "mean")),
        ("effective_robustness", "examples=odd", "unknown choice of examples"),
        ("effective_robustness", "difficulty=guess", "unknown score of difficulty"),
        ("effective_robustness", "bins=0", "bins is 0"),
        ("effective_robustness", "test_images=-1", "test_images is -1"),
        ("effective_robustness", "observations=0", "observations is 0"),
    ],
)
def test_unsuitable_settings_of_a_section_are_refused(section: str, setting: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        registry.section(section).jobs("cpu", overrides=registry.parse_overrides(setting.split()))


@pytest.mark.parametrize(
    ("section", "selection", "message"),
    [
        ("label_noise", {"chosen_levels": [0.5, 1.5]}, r"corruption strength is 1\.5 but must lie in \[0, 1\]"),
        ("label_noise", {"chosen_levels": [0.5], "methods": ["longer"]}, r"nothing to measure.*0\.6"),
        ("label_noise", {"chosen_levels": [0.5], "datasets": ["cifar10n-worse"]}, "labels that people gave have no"),
        (
            "label_noise",
            {"datasets": ["cifar10n-worse"], "overrides": {"noise": "flip"}},
            "does not go with .* cifar10n",
        ),
        ("imbalance", {"chosen_levels": [-0.2]}, "gamma is -0.2 but must be above 0"),
        ("effective_robustness", {"methods": ["testbed-model"], "chosen_levels": [0, 99]}, "at the levels 0, 99"),
        ("effective_robustness", {"methods": ["head-penalty"], "chosen_levels": [-1]}, r"penalty of -1 .* at least 0"),
    ],
)
def test_unsuitable_levels_and_methods_are_refused(section: str, selection: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        registry.section(section).jobs("cpu", **selection)


@SECTIONS
def test_a_method_about_a_corpus_needs_a_checkpoint_of_it(section: Any) -> None:
    for name, method in methods_of(section).items():
        if not method.corpus:
            continue
        against = f"_{method.pretrained_against}" if method.pretrained_against else ""
        fits, other = OTHER.format(corpus=method.corpus, against=against), OTHER.format(corpus="mine", against=against)
        jobs = section.jobs("cpu", datasets=["cifar10"], methods=[name], seeds=[0], init=fits)
        assert {(job.method, job.init) for job in jobs} == {(name, fits)}
        unsuitable = [None, other, *([OTHER.format(corpus=method.corpus, against="")] if against else [])]
        for init in unsuitable:
            with pytest.raises(UserError, match=f"--corpus {method.corpus}.*give its id to --init"):
                section.jobs("cpu", methods=[name], init=init)


@pytest.mark.parametrize("scale", PROFILES)
@SECTIONS
def test_every_checkpoint_can_be_made(section: Any, scale: str) -> None:
    names = [
        name
        for name, method in methods_of(section).items()
        if not method.corpus
        and (not method.further or method.further in next(iter(profile(scale).targets.values())).further)
    ]
    settings = {"pretraining.attack_steps": "7", "pretraining.weight_decay": "0.1"}
    jobs = trained(section, scale, methods=names, seeds=[0], overrides=settings)
    made = pretraining.missing(jobs, settings, None)
    assert {checkpoint_id(job) for job in made} == {job.init for job in jobs} - {SCRATCH}
    assert {(job.recipe["attack_steps"], job.recipe["weight_decay"]) for job in made} == {(7, 0.1)}


@pytest.mark.parametrize("scale", PROFILES)
def test_sections_share_the_networks_of_ordinary_training(scale: str) -> None:
    keys = []
    for name, method in (("calibration", "standard"), ("ood", "standard"), ("adversarial", "normal")):
        section = registry.section(name)
        jobs = section.jobs(scale, datasets=["cifar10"], methods=[method], seeds=[1])
        recipes = {job.init: config_of(section).of(job.recipe) for job in jobs}
        keys.append({Training(dataset="a", init=init, seed=1, recipe=recipe).key for init, recipe in recipes.items()})
    assert keys[0] == keys[1] > keys[2]


@pytest.mark.parametrize("name", ["calibration", "ood", "label_noise"])
def test_other_numbers_of_images_change_nothing_else(name: str) -> None:
    method = "none" if name == "label_noise" else "standard"
    plan = partial(registry.section(name).jobs, "cpu", datasets=["cifar10"], seeds=[1])
    plain, sized = ({job.init: job.recipe for job in plan(methods=[one])} for one in (method, f"{method}-10000"))
    changes = {"train_images": 10_000, "observations": 1 if method == "none" else 0}
    assert sized == {init: {**recipe, **changes} for init, recipe in plain.items()}


def test_a_table_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {
        "plain": Method(),
        "weak": Method(arms=["tuned"], levels={"smoke": [1.0, 2.0]}, seeds=1, changes={"flip": False}),
        "fixed": Method(arms=["scratch"], levels={"smoke": [2.0]}, other_levels=False),
        "asked": Method(profiles=()),
    }

    def configure(config: TrainingConfig, point: GridPoint) -> TrainingConfig:
        assert point.profile == "smoke"
        return config.with_overrides({"epochs": str(10 * (point.level or 4)).removesuffix(".0")})

    def plan(**filters: Any) -> list[Job]:
        return expand("toy", "smoke", table, TrainingConfig, configure=configure, **filters)

    settings = {"smoke": {"all": {"momentum": 0.5}, "tuned": {"momentum": 0.6}, "weak": {"batch_size": 9}}}
    monkeypatch.setitem(SETTINGS, "toy", settings)

    jobs = plan()
    found = [(job.method, job.seed, job.level, job.init == SCRATCH) for job in jobs]
    assert found == [
        *(("plain", seed, None, scratch) for seed, scratch in product((0, 1, 2), (True, False))),
        *(("weak", 0, level, False) for level in (1.0, 2.0)),
        *(("fixed", seed, 2.0, True) for seed in (0, 1, 2)),
    ]
    weak = TrainingConfig.of(jobs[6].recipe)
    assert (weak.flip, weak.momentum, weak.batch_size, weak.epochs) == (False, 0.6, 9, 10)
    assert TrainingConfig.of(jobs[0].recipe).momentum == 0.5
    assert {(job.method, job.level) for job in plan(chosen_levels=[7.0])} == {("plain", None), ("weak", 7.0)}
    assert {job.method for job in plan(methods=["asked"], seeds=[9])} == {"asked"}
    assert [(job.level, job.seed) for job in plan(methods=["weak"], seeds=[2, 1])] == [(1, 2), (1, 1), (2, 2), (2, 1)]
    with pytest.raises(UserError, match="nothing to measure at the levels 7: fixed has 2 alone"):
        plan(methods=["fixed"], chosen_levels=[7.0])
    table["unknown"] = Method(arms=["tuned"], further="elsewhere")
    with pytest.raises(UserError, match="no pre-training for the method unknown; give a checkpoint"):
        plan(methods=["unknown"])
    assert [job.init for job in plan(methods=["unknown"], seeds=[0], init="mine")] == ["mine"]
