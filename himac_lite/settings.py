"""The settings: one frozen dataclass per concern, with a docstring under every field."""

from __future__ import annotations

from dataclasses import dataclass, field

AUTO, FLOAT32, BFLOAT16 = PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class Pretrain:
    """How a base model is made (`himac-lite pretrain`). The stages are in the recipe of its task."""

    width: int = 128
    """Hidden size; a multiple of 64 (the block of NF4)."""
    inner: int = 0
    """Width of the feed-forward layers, a multiple of 64; 0: three times `width`."""
    layers: int = 8
    """Transformer blocks."""
    heads: int = 4
    """Attention heads."""
    batch_tokens: int = 24_576
    """Tokens of a batch, padding included."""
    expert_steps: int = 1500
    """Batches of expert demonstrations, at a constant learning rate."""
    drill_steps: int = 0
    """Batches of short demonstrations after that, at the same learning rate (ALFWorld)."""
    mixed_steps: int = 500
    """Batches of mixed demonstrations, the learning rate down to zero, through NF4."""
    settle_steps: int = 0
    """Sokoban: batches of expert demonstrations, the learning rate down to zero, through NF4. Text-action tasks:
    batches with fewer beginners again, at a lower learning rate."""
    habit_steps: int = 150
    """Batches of the last stage: bad habits, at a lower learning rate, through NF4."""
    lr_muon: float = 3e-3
    """Learning rate of the hidden matrices (Muon, RMS-matched to AdamW)."""
    lr_adam: float = 3e-3
    """Learning rate of embeddings and norms (AdamW)."""
    noise: float = 0.05
    """Share of random steps in expert play and segments (Sokoban): the model learns to recover from them, not to make
    them."""
    micro_tokens: int = 4096
    """Tokens of one forward and backward pass: its activations stay in the cache. Micro-batches go to all cores."""
    precision: str = AUTO
    """Matrix products of the linear layers: float32, bfloat16, or auto (bfloat16 where the CPU has it)."""
    seed: int = 0
    """Seed of weights and demonstrations."""


@dataclass(frozen=True)
class Model:
    """The model and its adapter."""

    path: str = "sokoban-base"
    """A folder, a hub id, or the name of a shipped model."""
    revision: str = "main"
    """Branch, tag or commit of a hub id. The presets name commits, so that the files never change."""
    adapter: str = ""
    """A saved adapter to start from, such as one made by `himac-lite sft`; it is then part of the reference."""
    observation: str = "text"
    """The observation: text, or rgb (a picture of the board, for a vision-language model)."""
    rank: int = 16
    """LoRA rank of every linear layer."""
    alpha: int = 32
    """LoRA scale is alpha / rank."""
    four_bit: bool = True
    """Keep the base weights in NF4."""
    precision: str = FLOAT32
    """Matrix products of the linear layers on a CPU: float32, bfloat16, or auto (bfloat16 where the CPU has its
    instructions). bfloat16 adds noise to log-probabilities and gains little for a model of this size. A run keeps the
    precision that it began with."""
    checkpointing: bool = False
    """Recompute activations in the backward pass instead of storing them: less memory, a third more time."""


@dataclass(frozen=True)
class Sft:
    """A warm start on expert demonstrations (`himac-lite sft`)."""

    task: str = "sokoban"
    """Which environment: one of `TASKS`."""
    levels: str = "core/train"
    """Split or file to demonstrate on."""
    steps: int = 300
    """Optimizer steps."""
    batch: int = 24
    """Demonstrations a step: blueprints, segments and flat play in equal parts."""
    lr: float = 2e-4
    """Learning rate of AdamW on the LoRA parameters at the start; it falls linearly to zero."""
    micro_tokens: int = 0
    """Tokens of one forward and backward pass; 0: as many as fit."""
    save_every: int = 25
    """Steps between two saved states, from which an interrupted run resumes."""
    seed: int = 0
    """Seed of LoRA's start and of the demonstrations."""
    model: Model = field(default_factory=Model)


@dataclass(frozen=True)
class Rollout:
    """Rollouts."""

    levels: int = 32
    """P: levels of an iteration."""
    min_length: int = 10
    """Train only on levels of at least this optimal length: all members solve shorter ones, which teaches nothing."""
    group: int = 8
    """G and N: blueprints per level, and executions of z* (paper: 8)."""
    temperature: float = 1.0
    """Sampling temperature of blueprints (phase A) and actions (phase B)."""
    max_steps: int = 50
    """Step limit of an episode."""
    subgoal_budget: int = 20
    """Steps after which a sub-goal ends even without <sub_done>."""
    progress_share: float = 0.0
    """The return of a failed episode is this times its progress (success: 1); 0 is the sparse reward."""
    curriculum: float = 0.0
    """Over this share of the budget, add longer levels, one bin of optimal length after another; 0: all at once.
    Set min_length=0, because the curriculum starts with short levels."""
    static_cache: str = "auto"
    """Decode at fixed shapes in a preallocated cache, on a GPU with CUDA graphs: on, off, or auto (only on a GPU)."""


@dataclass(frozen=True)
class Update:
    """The update of one phase."""

    lr: float = 1e-3
    """Initial learning rate of AdamW on the LoRA parameters; it decays linearly as the budget is spent."""
    lr_floor: float = 0.1
    """Final learning rate as a share of `lr`."""
    minibatches: int = 4
    """Largest number of optimizer steps per epoch."""
    groups_per_step: int = 8
    """Groups per optimizer step; with few groups an epoch has fewer than `minibatches` steps."""
    epochs: int = 2
    """Passes over the groups of a phase; more than one relies on the clipped ratio."""
    clip_low: float = 0.2
    """The ratio is clipped below 1 − clip_low."""
    clip_high: float = 0.2
    """The ratio is clipped above 1 + clip_high."""
    beta: float = 0.01
    """Weight of the KL term (paper: 0.01)."""
    grad_clip: float = 1.0
    """Largest norm of the gradient; larger ones are scaled down to it."""
    micro_tokens: int = 2048
    """Tokens per micro-batch: bounds memory, does not change the gradient; 0: as many as fit."""


@dataclass(frozen=True)
class Train:
    """One training run (`himac-lite train`)."""

    task: str = "sokoban"
    """The task: one of `tasks.registry.WORLDS`, or the name of a `World` from FILE.py:NAME."""
    variant: str = "himac"
    """A preset of `himac_lite.hierarchy`, or the NAME of a variant from FILE.py:NAME."""
    train_levels: str = "core/train"
    """Split or file to train on."""
    validation_levels: str = "core/validation"
    """Split or file for the validation curve."""
    test_levels: str = "core/test"
    """Split or file for the final scores; nothing is selected by them."""
    iterations: int = 40
    """Iterations of phase A and phase B."""
    minutes: float | None = None
    """Stop after this number of minutes even if iterations remain."""
    env_steps: int | None = None
    """Stop after this number of environment steps even if iterations remain: the budget for comparisons."""
    seed: int = 0
    """Seed of everything: drawn levels, samples, LoRA's initialisation."""
    validate_every: int = 10
    """Iterations between two points of the validation curve; 0: no curve."""
    validate_on: int = 128
    """Levels per point of the validation curve."""
    checkpoint_every: int = 5
    """Iterations between two checkpoints."""
    keep_checkpoints: int = 2
    """Number of newest checkpoints to keep; the one with the best validation score is kept as well."""
    keep_rollouts: int | None = None
    """Number of newest files in rollouts/ to keep; all by default."""
    warn_after: int = 5
    """Consecutive iterations without a signal, or with a collapse, before a warning (docs/metrics.md, health)."""
    record_levels: int = 4
    """Levels per iteration whose groups are written to rollouts/."""
    probe_levels: int = 2
    """Validation levels whose groups are recorded repeatedly, for the co-evolution strip; 0: none."""
    probe_every: int = 10
    """Iterations between two of these records; the first record shows the untrained model."""
    test_limit: int | None = None
    """Use only this many test levels, the first ones (smoke tests)."""
    model: Model = field(default_factory=Model)
    rollout: Rollout = field(default_factory=Rollout)
    update: Update = field(default_factory=Update)


DEFAULT_TOKENS = 2048
"""Tokens per micro-batch on a CPU, where more are slower; also the most that are chosen for a GPU (not measured)."""
