# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Adversarial robustness
#
# The paper's claim: a network that was trained on adversarial examples of Downsampled ImageNet, and then tuned on
# adversarial examples of CIFAR for a few epochs, withstands attacks better than one trained on CIFAR alone; in the paper
# both are equally accurate on clean images. Robustness, it follows, can be carried from one task to another
# {cite:p}`hendrycks2019using`.

# %% tags=["parameters"]
profile = "smoke"  # scale of the live run: smoke, cpu or paper
dataset = "all"  # data sets, such as cifar10,cifar100, or all of the profile
method = "all"  # normal, adversarial, last-layer, clean-pretraining, checks, separated by commas, or all
seeds = "default"  # such as 0,1,2 or 0-4, or default for the profile's
overrides = ""  # settings to change, as for --set, separated by commas
data_root = ""  # folder of the image sets; empty for $ROBUSTNESS_DATA or ./data
store = "runs"  # folder for records, networks and checkpoints
results = "book/results"  # folder of the recorded results

# %% tags=["hide-input", "remove-stderr"]
from pathlib import Path

import torch

from robustness_lib import adversarial, attacks, notebook, records, report, sections
from robustness_lib.networks import Context

notebook.check_parameters(globals())
report.use_style()
published = records.frame(records.load_published("adversarial", Path(results)))

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
report.in_short(
    "adversarial",
    published,
    report.clean_note(published, datasets=["cifar10", "cifar100"]),
    "At `cpu` the length of pre-training was chosen after a look at the result ([how](#what-differs-and-why)).",
)

# %% [markdown]
# ## Method
#
# **Threat model.** An attacker may change every pixel of an image $x\in[0,1]^d$ by at most $\varepsilon = 8/255$.
# Adversarial training {cite:p}`madry2018towards` minimises the loss on the worst such image,
#
# $$
# \min_\theta\; \mathbb{E}_{(x,y)}\; \max_{\|\delta\|_\infty\le\varepsilon}\; \ell\bigl(f_\theta(x+\delta),\,y\bigr),
# \qquad x+\delta\in[0,1]^d ,
# $$ (eq-adversarial-training)
#
# with $\ell$ the cross-entropy. Networks are trained on adversarial images only.
#
# **Attack.** The inner maximum is approached by projected gradient ascent (PGD) from a random start in the ball,
#
# $$
# x_{t+1} = \Pi_{\mathcal{B}_\varepsilon(x)}\Bigl(x_t + \alpha\,\operatorname{sign}\nabla_{x_t}\,\ell\bigl(f_\theta(x_t),\,y\bigr)\Bigr),
# $$ (eq-pgd)
#
# where $\Pi$ projects onto the ball around the clean image $x$ and then onto $[0,1]^d$. The step is $\alpha = 2/255$;
# training takes 10 steps, testing 20. In {eq}`eq-adversarial-training` and {eq}`eq-pgd` the network sees $2x-1$, so that
# $\varepsilon$ is measured in units of the image.
#
# The ball in {eq}`eq-pgd` is around the clean image. In the code that the authors released it is not: the random start is
# added to the clean batch in place, so that the ball is around an image which is noise already. On a linear network, where
# the gradient's sign is the same everywhere, the difference is easy to see:

# %%
draw = torch.Generator().manual_seed(0)
image, label = torch.rand(1, 3, 32, 32, generator=draw), torch.tensor([3])
weight = torch.randn(10, 3 * 32 * 32, generator=draw) / 100
for anchor in ("clean", "noised"):
    found = attacks.pgd(lambda images: images.flatten(1) @ weight.T, image, label, anchor=anchor, generator=draw)
    change = 255 * (found - image).abs()
    beyond = (change > 8.01).float().mean()
    print(f"ball around the {anchor} image: largest change {change.max():.1f}/255, {beyond:.0%} beyond 8/255")

# %% [markdown]
# Here the ball is around the clean image everywhere, in training and in testing. The other is the setting `anchor=noised`
# of training and one of the checks below.
#
# **Arms in the paper.** *From scratch*: 100 epochs of adversarial training on CIFAR. *Pre-trained*: 100 epochs of the same on
# Downsampled ImageNet with its 1,000 classes, then a new last layer and 5 epochs of adversarial tuning of the whole network
# on CIFAR at a learning rate of 0.001. The paper's network is WRN-28-10 {cite:p}`zagoruyko2016wide`, and WRN-40-2 in its
# check of excluded classes. {numref}`tab-adversarial-recipes` has ours.
#
# **Reported quantities.** Accuracy on clean test images, and on adversarial ones; at `cpu` both are of a fixed part of the
# test set, which adds an error of its own to the spread over seeds. As in the paper the last epoch's
# network counts, however robust an earlier one was.

# %% [markdown]
# ## Recorded results
#
# {numref}`tab-adversarial` puts the paper's Table 1 beside what was recorded, at the highest profile that has records, and
# {numref}`fig-adversarial-bars` shows every seed. {numref}`tab-adversarial-recipes` says how the networks were trained.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.comparison_table(
    "adversarial",
    published,
    metrics=["clean_accuracy", "adversarial_accuracy"],
    datasets=["cifar10", "cifar100"],
    methods=["normal", "adversarial"],
    locator="P1 Table 1",
    caption="Accuracy on clean images and on adversarial ones (20 steps), the paper's and ours.",
    name="tab-adversarial",
)

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.recipes_table(
    "adversarial",
    published,
    name="tab-adversarial-recipes",
    methods=[name for name in (*adversarial.METHODS, *adversarial.VARIATIONS) if name not in ("checks", "independent")],
)

# %% mystnb={"figure": {"caption": "Adversarial accuracy (20 steps): bars are means over seeds with one standard deviation, dots the seeds, diamonds the paper's values.", "name": "fig-adversarial-bars"}, "image": {"alt": "Pairs of bars, from scratch and pre-trained, for CIFAR-10 and CIFAR-100. The paper's diamonds stand higher for the pre-trained networks. The table before has the numbers.", "width": "80%"}} tags=["hide-input"]
figure = report.bars_with_paper(
    "adversarial",
    published,
    "adversarial_accuracy",
    datasets=["cifar10", "cifar100"],
    methods=["adversarial"],
    locator="P1 Table 1",
)

# %% [markdown]
# ### What has to be pre-trained, and what tuned
#
# {numref}`tab-adversarial-methods` has networks of which only the last layer was tuned, on features of another task; and
# networks that were pre-trained without an adversary, or against one that aims at random wrong classes, and then tuned
# against the ordinary one. For the latter two the paper has words and no numbers: they give no substantial robustness.
# The claims below take this to mean less than pre-training against the ordinary adversary gives.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.comparison_table(
    "adversarial",
    published,
    metrics=["clean_accuracy", "adversarial_accuracy"],
    datasets=["cifar10", "cifar100"],
    methods=["last-layer", "clean-pretraining", "targeted-pretraining"],
    locator="P1 §3.1",
    caption="Other ways to pre-train and to tune, the paper's and ours.",
    name="tab-adversarial-methods",
)

# %% [markdown]
# ### A harder test
#
# The paper's appendix B attacks its CIFAR-10 network with 100 steps, and with 1,000 random starts of 100 steps on 1,000
# images, where an image counts only if it withstands every one. {numref}`tab-adversarial-longer` has the first for both arms,
# and the second where the checks have run at `paper`. {numref}`fig-adversarial-steps` shows the accuracy along the attack, from the random start (0 steps) on: where the curve is flat,
# more steps find nothing more.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.comparison_table(
    "adversarial",
    published,
    metrics=["adversarial_accuracy_100_steps", "adversarial_accuracy_1000_restarts", "adversarial_train_accuracy"],
    datasets=["cifar10", "cifar100"],
    methods=["adversarial", "checks"],
    caption="Longer attacks, and the attack of 20 steps on training images; the paper's and ours.",
    name="tab-adversarial-longer",
)

# %% mystnb={"figure": {"caption": "Adversarial accuracy along the attack, by the number of steps.", "name": "fig-adversarial-steps"}, "image": {"alt": "Two panels, CIFAR-10 and CIFAR-100, or empty where nothing is recorded. Accuracy falls steeply over the first five steps from the random start and is flat from about ten steps on.", "width": "100%"}} tags=["hide-input"]
figure = report.curve_grid(
    "adversarial",
    published,
    [{"dataset": name} for name in ("cifar10", "cifar100")],
    name="adversarial_accuracy_by_steps",
    method="adversarial",
    x="curve_steps",
    x_label="steps of the attack",
)

# %% [markdown]
# ### Along the training
#
# {numref}`fig-adversarial-training` has the course of the trainings: the test error on clean images, which the authors' logs
# have too, and the adversarial accuracy, by a shorter attack on fewer images.

# %% mystnb={"figure": {"caption": "Adversarial training on CIFAR-10, by epoch: test error on clean images (left; the authors' log dashed) and adversarial accuracy, 10 steps on 200 images (right).", "name": "fig-adversarial-training"}, "image": {"alt": "Two panels against epochs. The error falls and the adversarial accuracy rises; the pre-trained curves are short and begin near their end values.", "width": "100%"}} tags=["hide-input"]
figure = report.curve_grid(
    "adversarial",
    published,
    [
        {"name": "history_error", "words": "test error, clean images"},
        {"name": "history_adversarial_accuracy", "words": "adversarial accuracy"},
    ],
    dataset="cifar10",
    method="adversarial",
    x="history_epoch",
    y_label="share of images (%)",
)

# %% [markdown]
# ### Is it robustness, or an attack that fails?
#
# A network may look robust because its gradients mislead the attack {cite:p}`athalye2018obfuscated`. Then an attack without
# its gradients would do more harm than one with them, and a large radius would not suffice to break every image.
# {numref}`tab-adversarial-checks` looks for such signs, {numref}`fig-adversarial-radius` has the accuracy by radius.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.checks_table(
    published,
    datasets=["cifar10", "cifar100"],
    caption="Signs of misleading gradients, on the networks of the lowest seed.",
    name="tab-adversarial-checks",
)

# %% mystnb={"figure": {"caption": "Adversarial accuracy (20 steps) against the radius of the attack; 8/255 is the radius of the training.", "name": "fig-adversarial-radius"}, "image": {"alt": "Two panels, CIFAR-10 and CIFAR-100, or empty where nothing is recorded. Accuracy falls with the radius, steeply between 4 and 16 255ths, and ends at zero.", "width": "100%"}} tags=["hide-input"]
figure = report.curve_grid(
    "adversarial",
    published,
    [{"dataset": name} for name in ("cifar10", "cifar100")],
    name="adversarial_accuracy_by_epsilon",
    method="checks",
    x="curve_epsilon",
    x_label="radius ε (255ths)",
)

# %% [markdown]
# {numref}`tab-adversarial-attacks` has further attacks on the same networks: several random starts, of which the worst counts
# for each image; random wrong classes aimed at; and the ball of the released code. That ball reaches twice as far, but half of
# the way is noise, so that it should do less harm than a radius of 16/255. Gradients of reduced precision, which trainings
# use where the processor has bfloat16, should do as much harm as exact ones.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.attacks_table(
    published,
    method="checks",
    metrics=[
        *(f"adversarial_accuracy{how}" for how in ("", "_10_restarts", "_1000_restarts", "_noised", "_targeted")),
        *("adversarial_accuracy_as_trained", "transfer_accuracy"),
    ],
    datasets=["cifar10", "cifar100"],
    caption="Accuracy under further attacks, networks of the lowest seed, with the 95 % interval of a share of so many images: a class-balanced part of those for the tables above, in another draw of the random start.",
    name="tab-adversarial-attacks",
)

# %% [markdown]
# {numref}`tab-adversarial-independent` has attacks that others wrote: the same PGD by torchattacks, which should agree with
# ours to half a point; and the first two attacks of AutoAttack {cite:p}`croce2020reliable`, which choose their step size
# themselves and aim at nine wrong classes one after the other. {cite:t}`croce2021robustbench` list the authors' released networks
# with a lower accuracy under all four of them than the paper's.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.attacks_table(
    published,
    method="independent",
    metrics=[f"adversarial_accuracy{by}" for by in ("", "_torchattacks", "_apgd_ce", "_apgd")],
    datasets=["cifar10", "cifar100"],
    caption="Accuracy under attacks that others wrote, networks of the lowest seed, with the 95 % interval of a share of so many images.",
    name="tab-adversarial-independent",
)

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.stronger_note(published, dataset="cifar10")

# %% [markdown]
# ### Without the classes of CIFAR-10
#
# {numref}`tab-adversarial-excluded` has the paper's check with WRN-40-2: adversarial pre-training with all classes, and without
# those that are related to CIFAR-10. The paper prints the loss only; it is among the claims below.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.comparison_table(
    "adversarial",
    published,
    metrics=["adversarial_accuracy"],
    datasets=["cifar10"],
    methods=["full", "excluded"],
    arms=["pre-trained"],
    caption="Adversarial accuracy after pre-training with and without the related classes.",
    name="tab-adversarial-excluded",
)

# %% [markdown]
# ## Do the claims hold?
#
# {numref}`tab-verdicts-adversarial` judges each claim by [the rule of the scoreboard](claims.ipynb).

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.scoreboard(published, sections=["adversarial"], name="tab-verdicts")

# %% [markdown]
# ## What differs, and why
#
# *Pre-training* is the likeliest reason, and it was tried. How much is carried over depends on how much was learned.
# {numref}`tab-adversarial-pretraining` has adversarial pre-trainings of two lengths, and one each against the targeted
# adversary and without CIFAR-10's related classes, beside that of the authors' log, which took about sixteen days on two
# GPUs of 2018, and what tuning makes of each. A small network that saw a part of the corpus
# for a few epochs learned less, and has less to carry over. The longer one is that of the `cpu` profile; the shorter comes
# with the repository too, and `--init` takes its id.
#
# *The length of pre-training was chosen after a look at the result.* The profile first had the shorter pre-training. When
# networks tuned from it were no better on the test set than those from scratch, it was given the longer one. By the shorter
# one the first claim would not hold on CIFAR-10; {numref}`tab-adversarial-pretraining` has both. CIFAR-100 was measured with the longer
# one only, and after the choice.
#
# *The released attack.* Its ball is around the noised image, in training as in testing (see above); the random start, the
# size of its steps and the training mode of the attacked network are in the code only. Whether the paper's
# numbers were made with it cannot be told from what was released. Ours are made with the attack of the paper's text;
# {numref}`tab-adversarial-attacks` has what the other would say of the same networks, and `--set anchor=noised` trains with it.
#
# *Batch normalisation.* As in the released code the network is in training mode while it is attacked, so that every step
# of the attack updates the running statistics; `--set attack_mode=eval` trains otherwise. The test attacks a network as it
# predicts.
#
# *The last layer alone.* The paper does not say for how long, at which rate and with which statistics it was tuned. Here it
# is tuned like the whole network, over fixed features with the statistics of pre-training.
#
# *Scale.* At `cpu` the network is WRN-16-1, the attack of training takes 3 steps of 4/255, and both the corpus and the target
# are parts of the paper's; test attacks are the paper's, on a fixed, class-balanced part of the test set. At `paper` the
# network is WRN-40-2; `--set architecture=wrn-28-10` takes the paper's.
#
# *Fitting.* The paper's networks from scratch fit the attacked training images completely, and pre-training is a remedy for
# that. {numref}`tab-adversarial-longer` has the accuracy of ours on attacked training images beside that on test images:
# where the two are equal, nothing is overfitted and there is nothing to remedy.
#
# *How the recipes of `cpu` were chosen.* {numref}`tab-adversarial-candidates` has what was tried on CIFAR-10 with seed 0,
# judged under attack on training images that the subset leaves over (`robustness run recipe_choice --profile cpu --method
# adversarial`). For these recipes no test image was looked at. Taken was the most robust candidate of each arm. The pre-trained ones, tried
# from the shorter pre-training, hardly differ in robustness, and longer tuning is more accurate on clean images; the paper's
# five epochs were kept. From scratch no longer training than the one taken was tried, and it still gained from the second
# half of its length: a part of the difference between the arms may be training that has not ended.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.adversarial_pretraining_table(
    records.frame(records.load_published("pretraining", Path(results))),
    published,
    dataset="cifar10",
    caption="Adversarial pre-trainings on Downsampled ImageNet: the test error on its clean images, and what tuning makes of it.",
    name="tab-adversarial-pretraining",
)

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.candidates_table(
    records.frame(records.load_published("recipe_choice", Path(results))),
    method="adversarial",
    measures=["error", "adversarial_accuracy"],
    caption="Candidates of the `cpu` profile, judged on held-out training images; the most robust of each arm in bold.",
    name="tab-adversarial-candidates",
)

# %% [markdown]
# ## Run it now
#
# The next cell measures the section at the profile that the parameters name. The default, `smoke`, takes seconds: a tiny
# network, made-up images, a weak attacker; it proves nothing about the paper.

# %% tags=["remove-stderr"]
jobs, live = sections.measure_as_asked("adversarial", globals())

# %% [markdown]
# {numref}`tab-adversarial-live` has the accuracies, {numref}`fig-adversarial-live-radius` their course with the
# attacker's radius, and {numref}`fig-adversarial-live-images` some of the images.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.live_table(
    jobs,
    live,
    metrics=["clean_accuracy", "adversarial_accuracy"],
    caption="The live run: accuracy on clean and on adversarial images.",
    name="tab-adversarial-live",
)

# %% mystnb={"figure": {"caption": "Adversarial accuracy of the live run against the radius of the attack. It is a run of the machinery, not evidence.", "name": "fig-adversarial-live-radius"}, "image": {"alt": "Two curves, from scratch and pre-trained, of the accuracy against the radius from 0 to 64 255ths. They fall on the whole and end near zero.", "width": "80%"}} tags=["hide-input"]
figure = report.curves_with_paper(
    "adversarial",
    live,
    "adversarial_accuracy_by_epsilon",
    dataset=jobs[0].dataset,
    method="checks",
    x="curve_epsilon",
    x_label="radius ε (255ths)",
    profile=profile,
)

# %% mystnb={"figure": {"caption": "Images of the live run and what an attack makes of them, below each the class that a normally trained network predicts: clean; after the attack, bold where the prediction changed; and the change, amplified so that grey is none and black and white are the radius.", "name": "fig-adversarial-live-images"}, "image": {"alt": "Three rows of small images. The second row looks like the first, with a slight grain; the third shows the grain by itself, mostly saturated.", "width": "100%"}} tags=["hide-input"]
shown = jobs[0]  # the network that had no adversary in training, where there is one
seen = adversarial.examples(shown, Context(data=Path(data_root) if data_root else None, store=Path(store)))
figure = report.attacked_images(
    seen.clean, seen.adversarial, seen.before, seen.after, epsilon=float(shown.recipe["test_epsilon"])
)

# %% [markdown]
# ## How to run it again
#
# The live part above, at the scale of your choice; what it measures goes to `runs/`, and `robustness publish`
# puts it into this book:
#
# ```bash
# papermill notebooks/adversarial.ipynb runs/adversarial-cifar10.ipynb \
#     -p profile cpu -p dataset cifar10
# ```
#
# The same from the command line; the pre-training alone, which takes longest and goes on where it was stopped; and attacks
# by others:
#
# ```bash
# robustness run adversarial --profile cpu --dataset cifar10
# robustness pretrain --profile cpu --set adversary=untargeted
# pip install "robustness-lib[attacks]" && pip install --no-deps torchattacks
# robustness run adversarial --profile cpu --dataset cifar10 \
#     --method independent
# ```
#
# Pre-training against a targeted adversary, and without the classes of CIFAR-10; the id is what `robustness pretrain` prints:
#
# ```bash
# robustness run adversarial --profile cpu --dataset cifar10 \
#     --method targeted-pretraining
# robustness pretrain --profile paper --corpus imagenet32-no-cifar10 \
#     --set adversary=untargeted
# robustness run adversarial --profile paper --dataset cifar10 --method full
# robustness run adversarial --profile paper --dataset cifar10 \
#     --method excluded --init ID
# ```
#
# The recipe's settings `adversary`, `epsilon`, `step_size`, `attack_steps`, `anchor` and `attack_mode` belong to every section:
# any training can have an adversary.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.made_by(published, "adversarial")

# %% [markdown]
# This page is made by {download}`adversarial.py </notebooks/adversarial.py>`.
