"""The sections of a study file: what may be said about each stage, with defaults and their checks.

Belongs here: one pydantic model per section. Does not belong here: reading files, the registry and
checks against a model (study.py).
"""

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from mechinterp_assets.organism import ORGANISM_FOLDER
from mechinterp_assets.studies.exact_scalars import exact_scalars

EMBEDDED_MODEL = "organism"

Positive = Annotated[int, Field(gt=0)]
Index = Annotated[int, Field(ge=0)]
Family = Literal["greater_than", "gendered_pronoun", "colored_objects"]
TaskName = Literal["digit_copying", "url_completion", "successor_lists", "induction"]
TaskRoot = tuple[int, int] | tuple[int, int, str]
Root = tuple[int, int] | tuple[int, int, Literal["IO", "S1", "S2"]]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
EXTERNAL_KEYS = {
    "architecture", "path", "min_explained_variance", "evaluation_tokens", "seed"
}  # fmt: skip
Architecture = Literal["standard", "topk", "batchtopk", "jumprelu", "gated", "matryoshka"]


class StudyError(ValueError):
    """A study that cannot be used; the message names file, key, value and remedy."""


class Section(BaseModel):
    """A mapping that forbids unknown keys, has finite numbers alone, and does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    _exact = field_validator("*", mode="wrap")(exact_scalars)


class ModelSection(Section):
    """Which model: exactly one of `embedded`, `path` and `hub`.

    `n_layers`, `n_heads`, `d_head` are needed for `hub`, whose config is not read at load; beside
    `path` they may be left out, and where they are given they must agree with its config.json.
    """

    embedded: Literal["organism"] | None = None
    path: Path | None = None
    hub: str | None = None
    n_layers: Positive | None = None
    n_heads: Positive | None = None
    d_head: Positive | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"

    @model_validator(mode="after")
    def _one_source(self) -> "ModelSection":
        given = [name for name in ("embedded", "path", "hub") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of embedded, path and hub (given: {given})")
        missing = [n for n in ("n_layers", "n_heads", "d_head") if getattr(self, n) is None]
        if self.hub is not None and missing:
            raise ValueError(
                f"a hub model's sizes are not known before it is loaded: add {missing}"
            )
        return self

    @property
    def source(self) -> str:
        """What LanguageModel.load is given."""
        if self.embedded is not None:
            return str(ORGANISM_FOLDER)
        return str(self.path) if self.path is not None else str(self.hub)


class CorpusSection(Section):
    """Documents and how they become token sequences.

    `structured` documents are generated (`documents`, `seed`); the other formats are read from
    `path` (file, folder or, for huggingface, also a hub name in `dataset`). Documents are taken in
    a random order from a window of `shuffle_buffer`, since sources are often sorted.
    """

    format: Literal["structured", "parquet", "jsonl", "text", "huggingface"]
    path: Path | None = None
    dataset: str | None = None
    dataset_config: str | None = None
    dataset_split: str = "train"
    text_column: str = "text"
    documents: Positive | None = None
    shuffle_buffer: Annotated[int, Field(ge=0)] = 10_000
    max_tokens: Positive = 2_000_000
    context_size: Annotated[int, Field(ge=8)] = 128
    held_out_fraction: Fraction = 0.1
    split_by: Literal["document", "title"] = "document"
    seed: int = 0

    @model_validator(mode="after")
    def _has_source(self) -> "CorpusSection":
        if self.format == "structured":
            if self.path is not None or self.dataset is not None:
                raise ValueError("structured text is generated: remove path and dataset")
        elif self.format == "huggingface":
            if (self.path is None) == (self.dataset is None):
                raise ValueError("give either path (a local dataset folder) or dataset (hub name)")
        elif self.path is None:
            raise ValueError(f"format {self.format!r} needs path")
        return self


class ActivationSection(Section):
    """The activation cache: which layers, how many tokens, how they are stored."""

    layers: Literal["all"] | list[Annotated[int, Field(ge=0)]] = "all"
    max_tokens: Positive = 2_000_000
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    batch_size: Positive = 64
    sequences_per_shard: Positive = 4096

    @field_validator("layers")
    @classmethod
    def _distinct(cls, layers: Any) -> Any:
        if layers != "all" and (not layers or len(set(layers)) != len(layers)):
            raise ValueError("name each layer once, or all")
        return layers


class SaeSection(Section):
    """Attention-output SAEs (K24 section 2), one per layer.

    Sparsity: `k` (topk, batchtopk, matryoshka), `l1_coefficient` (standard, gated) or
    `l0_coefficient` (jumprelu); `group_sizes` are matryoshka's nested prefixes, `k_start` lets k
    fall from there over sparsity_warmup, `bandwidth` and `initial_threshold` are jumprelu's,
    `auxk_coefficient` and `auxk` the TopK family's, `resample_at` (shares of the training) and
    `resample_warmup_steps` those of architectures that resample. What an architecture does not have
    is refused. `d_sae_by_layer` gives single layers another width.

    `source`: where rows come from. cache: the activation cache, layer by layer. forward: one
    forward pass over the train split for all layers of a run, which then train in lockstep and need
    no disk. `buffer_rows` of each layer are held and mixed at a time, by forward in `buffer_dtype`.

    `compute_dtype` of the encoder's matrix product: auto is bfloat16 on CUDA and float32 elsewhere.
    Adam: `learning_rate`, `adam_betas`, `adam_epsilon`. `lr_warmup`, `lr_decay` and
    `sparsity_warmup` are shares of the training. Every key means what it does in
    sae/settings.py: TrainingSettings.

    `architecture: external` takes SAEs trained elsewhere: folders in SAELens's format for hook_z.
    `path` is one folder name with {layer} in it (gpt2/blocks.{layer}.hook_z), or a mapping of
    layers to folders. Each SAE must explain more than `min_explained_variance` of the variance of
    the study's own activations. Of the other keys evaluation_tokens and seed remain.
    """

    architecture: Architecture | Literal["external"] = "topk"
    path: str | dict[int, str] | None = None
    min_explained_variance: Annotated[float, Field(lt=1)] = 0.0
    source: Literal["cache", "forward"] = "cache"
    d_sae: Positive = 0  # 0: not given, which only external SAEs may leave so
    d_sae_by_layer: dict[Annotated[int, Field(ge=0)], Positive] = {}
    k: Positive | None = None
    k_start: Positive | None = None
    l1_coefficient: NotNegative | None = None
    l0_coefficient: NotNegative | None = None
    bandwidth: PositiveFloat | None = None
    initial_threshold: PositiveFloat | None = None
    group_sizes: tuple[Positive, ...] | None = None
    training_tokens: Positive = 0  # as d_sae
    batch_size: Positive = 2048
    buffer_rows: Positive = 131_072
    buffer_dtype: Literal["bfloat16", "float32"] = "bfloat16"
    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    learning_rate: PositiveFloat = 1e-3
    adam_betas: tuple[Share, Share] = (0.9, 0.99)
    adam_epsilon: PositiveFloat = 1e-8
    lr_warmup: Share = 0.05
    lr_decay: Share = 0.2
    sparsity_warmup: Share = 0.2
    max_gradient_norm: PositiveFloat | None = None
    normalize_input: bool = True
    decoder_init: Literal["random", "data"] = "random"
    b_dec_init: Literal["mean", "geometric_median"] = "mean"
    encoder_scale: PositiveFloat | None = None
    dead_after_tokens: Positive = 250_000
    auxk_coefficient: NotNegative | None = None
    auxk: Positive | None = None
    resample_at: tuple[Share, ...] | None = None
    resample_warmup_steps: Positive | None = None
    log_every: Positive = 50
    checkpoint_every: Positive = 1000
    evaluation_tokens: Positive = 65_536
    seed: int = 0

    @model_validator(mode="after")
    def _trained_or_external(self) -> "SaeSection":
        if self.architecture == "external":
            if self.path is None:
                raise ValueError("external SAEs need path, a folder name with {layer} in it")
            if foreign := sorted(self.model_fields_set - EXTERNAL_KEYS):
                raise ValueError(f"external SAEs are not trained: remove {', '.join(foreign)}")
            return self
        if self.path is not None or self.min_explained_variance:
            raise ValueError(
                "path and min_explained_variance are for SAEs trained elsewhere: set architecture "
                "to external or remove them"
            )
        if missing := [name for name in ("d_sae", "training_tokens") if not getattr(self, name)]:
            raise ValueError(f"required keys are missing: {', '.join(missing)}; add them")
        return self

    def external_folder(self, layer: int) -> Path:
        """Folder of an external SAE. Raises StudyError if `path` names none for this layer."""
        if isinstance(self.path, dict):
            if layer not in self.path:
                raise StudyError(f"sae.path: no folder for layer {layer}; add it")
            return Path(self.path[layer])
        try:
            return Path(str(self.path).format(layer=layer))
        except (KeyError, IndexError, ValueError) as error:
            raise StudyError(
                f"sae.path: {self.path!r} is not a folder name with {{layer}} in it ({error})"
            ) from error


class SweepVariant(Section):
    """One SAE of a sweep; what is left out comes from the section `sae`."""

    architecture: Architecture
    k: Positive | None = None
    l1_coefficient: NotNegative | None = None
    l0_coefficient: NotNegative | None = None
    group_sizes: tuple[Positive, ...] | None = None
    d_sae: Positive | None = None
    learning_rate: PositiveFloat | None = None


class SweepSection(Section):
    """SAEs of several sparsities per layer, for the frontier of L0 against CE loss recovered.

    All variants of a layer train in lockstep on the same rows. Without variants the table
    sae_frontier is empty. `training_tokens` and `evaluation_tokens` are those of `sae` unless
    given.
    """

    variants: list[SweepVariant] = []
    training_tokens: Positive | None = None
    evaluation_tokens: Positive | None = None

    @field_validator("variants")
    @classmethod
    def _distinct(cls, variants: list[SweepVariant]) -> list[SweepVariant]:
        for i, variant in enumerate(variants):
            if variant in variants[:i]:
                raise ValueError(f"variants[{i}] is there twice; remove it")
        return variants


class ProxySection(Section):
    """A rule that stands for what features mean, under a `name`; exactly one kind.

    `tokens`: the current token is one of these (as in the table vocabulary, with their spaces).
    `regex`: found in the text of the last `window` tokens (16) up to and including the current one,
    from the last BOS on; Rust's regex syntax; end it with $ to tie it to the current token.
    `next_by_induction`: an earlier occurrence of the current token was followed by this token.
    `induction: true`: an earlier occurrence of the current token was followed by any token.
    `promoted_by_induction: true`: ... by the token that the feature itself promotes most.
    `features`: layer -> features compared with the proxy; layers left out have none. Default: all
    that fired.
    """

    name: Annotated[str, Field(min_length=1, max_length=80)]
    tokens: list[Annotated[str, Field(min_length=1)]] | None = None
    regex: Annotated[str, Field(min_length=1)] | None = None
    window: Positive | None = None
    next_by_induction: Annotated[str, Field(min_length=1)] | None = None
    induction: Literal[True] | None = None
    promoted_by_induction: Literal[True] | None = None
    features: dict[Annotated[int, Field(ge=0)], list[Annotated[int, Field(ge=0)]]] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> "ProxySection":
        kinds = ("tokens", "regex", "next_by_induction", "induction", "promoted_by_induction")
        given = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(
                f"proxy {self.name!r}: give exactly one of {', '.join(kinds)} (given: {given})"
            )
        if self.tokens == []:
            raise ValueError(f"proxy {self.name!r}: tokens is empty; name at least one")
        if self.window is not None and self.regex is None:
            raise ValueError(f"proxy {self.name!r}: window belongs to regex; remove it")
        return self

    @field_validator("regex")
    @classmethod
    def _compiles(cls, regex: str | None) -> str | None:
        if regex is not None:
            from mechinterp_assets.features.proxies import check_regex  # imports polars

            check_regex(regex)
        return regex


class ComparisonSection(Section):
    """Another SAE that each layer's SAE is matched with (table sae_matching).

    `with`: its study (default: this one). `layer`: its layer, `next` for the layer after (default:
    the same layer). `version: previous`: its previous published version. The previous version of a
    layer's own SAE is compared without being named, where one is still stored.
    """

    with_study: str | None = Field(default=None, alias="with")
    layer: Annotated[int, Field(ge=0)] | Literal["next"] | None = None
    version: Literal["previous"] | None = None

    @model_validator(mode="after")
    def _not_itself(self) -> "ComparisonSection":
        if self.with_study is None and self.layer is None and self.version is None:
            raise ValueError("an SAE is not compared with itself: give with, layer or version")
        return self


class FeatureSection(Section):
    """What is kept of each feature; the `pages` most often active of a layer get a page.

    Each of `intervals` activation intervals has `interval_examples` random examples and
    `interval_top_examples` strongest ones; `ngrams` n-grams are kept for each of n = 1, 2, 3, and
    `neighbours` other features each by co-activation and by decoder cosine.

    The first `dfa_examples` of the top examples have direct feature attribution, by head and by
    source; the first `dfa_matrix_examples` of those the whole head x source matrix.

    `proxies`: rules that each feature is compared with (feature_proxies).
    """

    max_tokens: Positive = 1_000_000
    top_examples: Positive = 20
    context_window: Positive = 24
    intervals: Positive = 10
    interval_examples: Positive = 5
    interval_top_examples: Positive = 5
    ngrams: Positive = 10
    neighbours: Positive = 10
    logit_tokens: Positive = 10
    dfa_examples: Positive = 20
    dfa_matrix_examples: Annotated[int, Field(ge=0)] = 2
    pages: Positive = 256
    proxies: list[ProxySection] = []

    @field_validator("proxies")
    @classmethod
    def _distinct_names(cls, proxies: list[ProxySection]) -> list[ProxySection]:
        names = [proxy.name for proxy in proxies]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"proxies share the name {', '.join(map(repr, twice))}; rename one")
        return proxies


class RdfaFeature(Section):
    """One example of one feature: the `rank`-th of feature_top_examples."""

    layer: Annotated[int, Field(ge=0)]
    feature: Annotated[int, Field(ge=0)]
    rank: Annotated[int, Field(ge=0)] = 0


class RdfaSection(Section):
    """Recursive direct feature attribution (K24 App. N): trees from a feature down to tokens.

    `features` are named examples. Beside them `per_layer` features of every layer above 0 are
    chosen, each with its strongest example: `rule` induction takes those labelled so first, the
    most often active ones otherwise; frequent the most often active; strongest those with the
    largest activation.

    A tree splits at most `max_depth` features on a path. Of the parts of a node the `branching`
    largest that reach `min_share` of the root get a row of their own, and the others share one row,
    so that every level still sums; nodes are split largest first up to `max_nodes`. `by_head`:
    split a feature by source position and head.
    """

    features: list[RdfaFeature] = []
    per_layer: Annotated[int, Field(ge=0)] = 8
    rule: Literal["induction", "frequent", "strongest"] = "induction"
    max_depth: Positive = 3
    branching: Positive = 5
    min_share: Annotated[float, Field(ge=0, lt=1)] = 0.05
    max_nodes: Positive = 400
    by_head: bool = False

    @field_validator("features")
    @classmethod
    def _distinct(cls, features: list[RdfaFeature]) -> list[RdfaFeature]:
        for i, feature in enumerate(features):
            if feature in features[:i]:
                raise ValueError(f"features[{i}] is there twice; remove it")
        return features


class HeadSection(Section):
    """Data that head scores are measured on.

    `sequences` random repeated sequences of `repeat_length` tokens, twice, and as many held-out
    texts. `suppression_tokens`: vocabulary tokens that copy suppression is measured on.
    `cspa_sequences`: texts of the ablation that keeps only copy suppression, three forward passes
    per head; 0 leaves it out, as one may for large models. `ioi_prompts`: base prompts of the
    scores on IOI; `patched_prompts` of them are used for path patching into the movers' queries.
    `movers`: [layer, head] of the name movers; auto takes the heads with the role name_mover.

    `attention_examples` held-out sequences are kept per head; `top_features` features per head are
    listed and compared. Two of them are alike from `slice_similarity` (cosine of decoder slices) or
    `ngram_similarity` (weighted Jaccard index) on, and `similarity_draws` sets of random features
    are compared in the same way (head_polysemanticity_proxy).
    """

    sequences: Positive = 64
    repeat_length: Positive = 50
    attention_examples: Positive = 6
    top_features: Positive = 10
    slice_similarity: Fraction = 0.5
    ngram_similarity: Fraction = 1 / 3
    similarity_draws: Annotated[int, Field(ge=2)] = 100
    suppression_tokens: Positive = 1024
    cspa_sequences: Annotated[int, Field(ge=0)] = 8
    ioi_prompts: Positive = 128
    patched_prompts: Positive = 32
    movers: Literal["auto"] | list[tuple[int, int]] = "auto"
    seed: int = 0

    @field_validator("cspa_sequences")
    @classmethod
    def _enough_for_a_mean(cls, cspa_sequences: int) -> int:
        if cspa_sequences in (1, 2):
            raise ValueError("means over sequences need at least 3, or 0 to leave the score out")
        return cspa_sequences


class PrefixInductionSection(Section):
    """Induction by prefix length: how many matching tokens heads need (K24 section 4.2).

    `sequences` of random tokens for each prefix length 1 .. 9; `corpus_sequences` of held-out text;
    `cases` of a head's are edited in the causal check.
    """

    sequences: Positive = 400
    corpus_sequences: Positive = 512
    cases: Positive = 100
    seed: int = 0


class IoiSection(Section):
    """Indirect object identification: prompts and singular vector tracing (FC24).

    `roots` are [layer, head] at (END, IO), or [layer, head, S1 or S2]; or the name of a part of a
    published circuit of this model, such as "wang-2022-ioi: name mover", at (END, IO); auto takes
    the heads with the largest direct effect on the logit difference. `trace_variants` are rules
    traced beside the standard one (circuits/trace_variants.py); `near_threshold` is the least
    attention of a pair that nearly fires. `firing_score_min`: least score of a root pair, 0 as in
    FC24, or null: by attention alone; where the score is then negative, what raises it above the
    mean score of the other sources is traced (this project's rule; absolute positions only).
    `slice_contrast`: table ioi_slice_contrast. `usage_sequences` corpus sequences are compared
    with the prompts in slice usage. `consensus_nodes`: traced nodes whose consensus subspace is
    read. `reference_heads`: name -> [layer, head] pairs to compare the circuit with, beside
    published circuits of the same model. What is said of rules, thresholds and variants holds
    for the traces of other tasks too.
    """

    prompts: Positive = 128
    variants: list[str] = ["base", "ABC"]
    held_out_pairs: bool = False
    seed: int = 0
    roots: str | list[Root] = "auto"
    max_roots: Positive = 3
    firing_threshold: Fraction = 0.5
    firing_score_min: Literal[0] | None = 0
    contribution_fraction: Fraction = 0.7
    trace_variants: list[Literal["near", "negative", "all_slices", "published"]] = [
        "near",
        "negative",
        "all_slices",
        "published",
    ]
    near_threshold: Fraction = 0.25
    slice_contrast: bool = True
    usage_sequences: Positive = 64
    consensus_nodes: Positive = 12
    reference_heads: dict[str, list[tuple[int, int]]] = {}

    @field_validator("roots")
    @classmethod
    def _named_roots_exist(cls, roots: Any) -> Any:
        if isinstance(roots, str) and roots != "auto":
            from mechinterp_assets.circuits.reference_heads import part_names  # imports torch

            if roots not in (known := part_names()):
                raise ValueError(
                    f"give a list of [layer, head], auto, or one of {', '.join(known)}"
                )
        return roots

    @model_validator(mode="after")
    def _near_is_below_firing(self) -> "IoiSection":
        if "near" in self.trace_variants and self.near_threshold >= self.firing_threshold:
            raise ValueError(
                f"near_threshold {self.near_threshold} is not below firing_threshold "
                f"{self.firing_threshold}; lower it or leave near out of trace_variants"
            )
        return self

    @field_validator("variants")
    @classmethod
    def _known_variants(cls, variants: list[str]) -> list[str]:
        from mechinterp_assets.prompts.ioi import VARIANTS  # imports torch

        unknown = sorted(set(variants) - set(VARIANTS))
        if unknown or "base" not in variants:
            raise ValueError(f"name base and any of {', '.join(VARIANTS)}")
        return variants


class OwnPrompt(Section):
    """A prompt of a user's task: `text`, and how it goes on.

    `answer` and `wrong` stand as they follow the text, with their leading space where a new word
    begins; the text then ends without one. Of an answer of several tokens the first is scored.
    A task whose prompts have no `answer` has no loss; its heads are measured by KL alone.
    """

    text: Annotated[str, Field(min_length=1)]
    answer: Annotated[str, Field(min_length=1)] | None = None
    wrong: Annotated[str, Field(min_length=1)] | list[Annotated[str, Field(min_length=1)]] = []

    @property
    def wrong_answers(self) -> tuple[str, ...]:
        """Wrong answers, none or several."""
        return (self.wrong,) if isinstance(self.wrong, str) else tuple(self.wrong)


class OwnTaskSection(Section):
    """A user's task: its name and exactly one of `prompts` and `path`.

    `path`: a CSV, Parquet or JSONL file with columns text and, if it likes, answer and wrong.
    Either all prompts have an answer or none has.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
    prompts: list[OwnPrompt] = []
    path: Path | None = None

    @model_validator(mode="after")
    def _usable(self) -> "OwnTaskSection":
        if bool(self.prompts) == (self.path is not None):
            raise ValueError(f"task {self.name!r}: give exactly one of prompts and path")
        texts = [prompt.text for prompt in self.prompts]
        if twice := [text for text in texts if texts.count(text) > 1]:
            raise ValueError(f"task {self.name!r}: the text {twice[0]!r} is there twice; remove it")
        without = [prompt.text for prompt in self.prompts if prompt.answer is None]
        if 0 < len(without) < len(self.prompts):
            raise ValueError(
                f"task {self.name!r}: {without[0]!r} has no answer while others have one; give it, "
                "or make a task of the texts without answers"
            )
        for prompt in self.prompts:
            if prompt.answer is None and prompt.wrong_answers:
                raise ValueError(
                    f"task {self.name!r}: {prompt.text!r} has wrong answers and no answer; give it"
                )
            if prompt.answer in prompt.wrong_answers:
                raise ValueError(
                    f"task {self.name!r}: {prompt.answer!r} is both answer and wrong of "
                    f"{prompt.text!r}; remove it from wrong"
                )
        return self


class TasksSection(Section):
    """Prompts with answers beside IOI, and the tasks whose circuit is traced (tasks/families.py).

    `families`: prompt families, each with `prompts` base prompts and as many corrupted ones; auto
    takes those that the model's tokenizer can express, a named one that it cannot is an error.
    `names`: further tasks of the platform (tasks/suite.py), by the same rule; `own`: the user's.
    `traced`: tasks that are traced, ioi among them where wanted. `roots`: task -> [layer, head] or
    [layer, head, role] that its trace starts from, at END -> role; without a role, the one that the
    head attends to most. Tasks left out start from the heads with the largest direct effect, at
    most ioi.max_roots. IOI's own are ioi.roots.
    """

    families: Literal["auto"] | list[Family] = "auto"
    names: Literal["auto"] | list[TaskName] = "auto"
    own: list[OwnTaskSection] = []
    prompts: Positive = 64
    seed: int = 0
    traced: list[str] = ["ioi"]
    roots: dict[str, list[TaskRoot]] = {}

    @field_validator("families", "names", "traced")
    @classmethod
    def _distinct_tasks(cls, names: Any, info: ValidationInfo) -> Any:
        if names != "auto" and len(set(names)) != len(names):
            raise ValueError("name each task once")
        if info.field_name == "traced" and not names:
            raise ValueError("name at least one task, such as ioi")
        return names

    @field_validator("own")
    @classmethod
    def _distinct_own_tasks(cls, own: list[OwnTaskSection]) -> list[OwnTaskSection]:
        taken = {"ioi", "random", *get_args(Family), *get_args(TaskName)}
        for number, task in enumerate(own):
            if task.name in taken:
                raise ValueError(f"own.{number}: the name {task.name!r} is taken; choose another")
            taken.add(task.name)
        return own

    @model_validator(mode="after")
    def _traced_tasks_exist(self) -> "TasksSection":
        known = ["ioi", *self.known]
        if unknown := [name for name in self.traced if name not in known]:
            raise ValueError(
                f"traced names {unknown[0]!r}, which is no task of this study; known: "
                f"{', '.join(known)}"
            )
        if foreign := [name for name in self.roots if name == "ioi" or name not in self.traced]:
            raise ValueError(
                f"roots names {foreign[0]!r}; give roots of tasks in traced, those of ioi in "
                "ioi.roots"
            )
        return self

    @property
    def known(self) -> list[str]:
        """Tasks in task_prompts; with auto, those that it may come to."""
        families = get_args(Family) if self.families == "auto" else self.families
        return [*families, *(name for name in self.to_ablate if name != "ioi")]

    @property
    def to_ablate(self) -> list[str]:
        """IOI, `names` and the user's own: tasks for head ablation; with auto, possible ones."""
        names = get_args(TaskName) if self.names == "auto" else self.names
        return ["ioi", *names, *(task.name for task in self.own)]


class TaskEffectSection(Section):
    """Ablation of every head on tasks (K24 Fig. 3), and whether tasks share heads.

    `tasks`: which; auto takes ioi and those of tasks.names and tasks.own, others (prompt families)
    must be named. `ablations`: tasks/ablation.py says what replaces a head. The first `prompts`
    base prompts of each task are scored; all of them make the mean. `null_prompts` random prompts
    are KL's null. `bootstrap` resamples. `top_shares`: sizes of the top sets that are compared, as
    shares of all heads; `kept_share`: of the sets that are kept alone in
    component_reuse_faithfulness, which is empty unless mean is among the ablations.
    """

    tasks: Literal["auto"] | list[str] = "auto"
    ablations: list[Literal["zero", "mean", "uniform"]] = ["zero", "mean"]
    prompts: Positive = 32
    null_prompts: Annotated[int, Field(ge=16)] = 16
    bootstrap: Positive = 1000
    top_shares: list[Fraction] = [0.05, 0.1, 0.2]
    kept_share: Fraction = 0.2
    seed: int = 0

    @field_validator("tasks", "ablations", "top_shares")
    @classmethod
    def _distinct(cls, values: Any, info: ValidationInfo) -> Any:
        if values != "auto" and len(set(values)) != len(values):
            raise ValueError("name each once")
        if info.field_name != "tasks" and not values:
            raise ValueError("name at least one")
        return values


class ExperimentSection(Section):
    """Interventions of the user's own on the prompts of one task (docs/interventions.md).

    `interventions`: descriptions, or `file`, a YAML file that is a list of them. `task`: ioi or a
    task of this study. The first `prompts` prompts of `variant` are run (default: as many as
    interventions.prompts); activations come from the other variants, means and resampled
    activations from `reference_variant`.
    """

    task: str = "ioi"
    variant: str = "base"
    reference_variant: str = "ABC"
    prompts: Positive | None = None
    file: Path | None = None
    interventions: list[dict[str, Any]] = []

    @model_validator(mode="before")
    @classmethod
    def _read_file(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("file") is None:
            return data
        from mechinterp_assets.interventions.api import read_descriptions  # imports torch

        if data.get("interventions"):
            raise ValueError("give either interventions or file")
        # Their text becomes part of the settings, so that a changed file makes results stale.
        return {**data, "interventions": read_descriptions(Path(data["file"]))}

    @model_validator(mode="after")
    def _descriptions_are_valid(self) -> "ExperimentSection":
        if not self.interventions:
            raise ValueError("nothing would run: give interventions or file")
        _ = self.source_variants
        return self

    @property
    def source_variants(self) -> list[str]:
        """Variants that activations are taken from. Raises InterventionError for what is invalid.

        What needs the model's shape (does this head exist?) is checked before the run.
        """
        from mechinterp_assets.interventions.api import expand
        from mechinterp_assets.interventions.spec import members

        planned = expand(self.interventions)
        sources = [one.source for many in planned for one in members(many)]
        return sorted({source for source in sources if source is not None})


class InterventionSection(Section):
    """Ablations of heads and edits of traced edges that run by default, on `prompts` IOI prompts.

    `published`: experiments of the papers, by name (interventions/published.py), on the first
    `published_prompts` IOI prompts, with up to `published_edges` edges of each chosen head and
    `published_features` SAE features per layer. `experiments`: interventions of the user's own, on
    IOI or another task. `bootstrap` resamples of prompts give the intervals.
    """

    head_ablations: list[Literal["zero", "mean"]] = ["zero", "mean"]
    edges: Annotated[int, Field(ge=0)] = 10
    prompts: Positive = 64
    published: Literal["all"] | list[str] = "all"
    published_prompts: Positive = 32
    published_edges: Positive = 3
    published_features: Positive = 3
    bootstrap: Positive = 1000
    seed: int = 0
    experiments: list[ExperimentSection] = []

    @field_validator("published")
    @classmethod
    def _known_experiments(cls, names: Any) -> Any:
        if names and names != "all":
            from mechinterp_assets.interventions.published import published_experiments

            published_experiments(names)
        return names

    @model_validator(mode="after")
    def _something_to_do(self) -> "InterventionSection":
        if not (self.head_ablations or self.edges or self.experiments or self.published):
            raise ValueError(
                "nothing would run: name a mode in head_ablations, an experiment in published, or "
                "set edges"
            )
        return self


class CircuitsSection(Section):
    """Circuit quality: edge attribution, faithfulness of edge and head sets, the subspace check.

    `tasks`: ioi or tasks of this study that have corrupted prompts. IOI's counterfactual is the
    variant `counterfactual`, that of other tasks is their corrupt variant. `prompts` pairs are run;
    the first `exact_prompts` of them for exact patching of every edge, or of `exact_edges` edges
    drawn at random where the model has more (then exact effects rank no circuit). `ig_steps` points
    of EAP-IG by each of `ig_rules`; the first rule's ranking has a curve. `random_rankings` and
    `random_head_sets` are controls. `head_set_size`: heads of the trace's and of the ablation's
    set; sets of at most `minimality_heads` heads have minimality. `random_subsets` of each set are
    taken out for completeness. `subspace_features`: SAE features per layer and role whose decoder
    rows are patched, those that differ most between prompts and counterfactuals.
    """

    tasks: list[str] = ["ioi"]
    counterfactual: str = "ABC"
    prompts: Positive = 16
    ig_steps: Positive = 5
    ig_rules: list[Literal["library", "paper", "midpoint"]] = ["library", "paper", "midpoint"]
    exact_prompts: Positive = 4
    exact_edges: Positive = 5000
    random_rankings: Annotated[int, Field(ge=0)] = 3
    head_set_size: Positive = 8
    minimality_heads: Annotated[int, Field(ge=0)] = 12
    random_head_sets: Annotated[int, Field(ge=0)] = 5
    random_subsets: Annotated[int, Field(ge=0)] = 3
    subspace_features: Annotated[int, Field(ge=0)] = 2
    seed: int = 0

    @field_validator("tasks", "ig_rules")
    @classmethod
    def _distinct_and_some(cls, names: list[str]) -> list[str]:
        if not names or len(set(names)) < len(names):
            raise ValueError("name at least one, each once")
        return names


class QkFeatureSection(Section):
    """Attention scores split into pairs of SAE features (K24 Fig. 18), on `prompts` of one task.

    `heads`: [layer, head] pairs, or auto (of ioi alone): the `max_heads` name movers with the
    largest direct effect or, where no head is one, the `max_heads` that attend END -> IO most.
    Scores from the role `destination` to the roles `sources` are split, and the differences
    `contrasts` between two of those; auto: between the first source and every other one. The first
    `top_pairs` pairs by each order are kept; `top_k`: numbers of pairs whose explained variance is
    measured. `residual_sae`: folders with {layer} in their name, in SAELens's format for
    hook_resid_pre, that split the keys; `centre_residual`: they read the stream less its mean, as
    those trained on centred weights do.
    """

    task: str = "ioi"
    heads: Literal["auto"] | list[tuple[Index, Index]] = "auto"
    max_heads: Positive = 2
    prompts: Annotated[int, Field(ge=4)] = 64
    destination: str = "END"
    sources: list[str] = ["IO", "S1", "S2"]
    contrasts: Literal["auto"] | list[tuple[str, str]] = "auto"
    top_pairs: Positive = 20
    top_k: list[Positive] = [1, 2, 5, 10, 20, 50, 100, 200, 500]
    residual_sae: str | None = None
    centre_residual: bool = False

    @model_validator(mode="after")
    def _usable(self) -> "QkFeatureSection":
        if self.heads == "auto" and self.task != "ioi":
            raise ValueError("heads are found for task ioi alone; name [layer, head] pairs")
        if self.heads != "auto" and (not self.heads or len(set(self.heads)) < len(self.heads)):
            raise ValueError("heads: name at least one, each once")
        if not self.sources or len(set(self.sources)) < len(self.sources):
            raise ValueError("sources: name at least one role, each once")
        if unknown := [role for pair in self.compared for role in pair if role not in self.sources]:
            raise ValueError(
                f"contrasts: {unknown[0]!r} is none of the sources ({', '.join(self.sources)}); "
                "add it there"
            )
        if not self.top_k:
            raise ValueError("top_k: name at least one number of pairs")
        if self.residual_sae is not None and "{layer}" not in self.residual_sae:
            raise ValueError(f"residual_sae: {self.residual_sae!r} has no {{layer}} in it")
        return self

    @property
    def compared(self) -> list[tuple[str, str]]:
        """Pairs of sources whose difference is split."""
        if self.contrasts != "auto":
            return self.contrasts
        return [(self.sources[0], role) for role in self.sources[1:]]


class CheckSection(Section):
    """Bounds of the asset checks that block what lies downstream."""

    l0: tuple[float, float] = (0.5, 256.0)
    ce_recovered_min: float = 0.5
    ioi_accuracy_min: float | None = None
