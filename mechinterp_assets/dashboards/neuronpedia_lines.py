"""Lines of a Neuronpedia bulk-import folder: names and types of their fields.

Belongs here: one class per file, in the order in which the files are imported. Names and types are
those of Neuronpedia's database (its prisma schema: SourceRelease, Model, SourceSet, Source, Neuron,
Activation). How lines are filled: neuronpedia.py.

The importer creates the first four through the schema, which refuses unknown fields, and inserts
features and activations into the columns that the first line of a file names: every line must have
the same keys, so every field is written, also where it is empty. Foreign keys: a model's or source
set's defaults name rows that do not exist yet at import, so they stay empty here.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Identifier = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=128)]
Timestamp = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")]
Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]  # PostgreSQL has no NUL in texts
Real = Annotated[float, Field(allow_inf_nan=False)]
Visibility = Literal["PUBLIC", "UNLISTED", "PRIVATE"]


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ReleaseLine(_Line):
    """release.jsonl: what belongs together in one publication."""

    name: Identifier
    visibility: Visibility
    isNewUi: bool = True
    featured: bool = False
    description: Text
    descriptionShort: Text | None
    urls: list[str]
    creatorEmail: str | None
    creatorName: Text
    creatorNameShort: Text | None
    creatorId: str
    defaultSourceSetName: Identifier | None
    defaultSourceId: Identifier | None
    defaultUmapSourceIds: list[str] = []
    createdAt: Timestamp


class ModelLine(_Line):
    """model.jsonl; a model that is there already is kept as it is."""

    id: Identifier
    displayNameShort: Text
    displayName: Text
    creatorId: str
    tlensId: str | None
    dimension: int | None
    visibility: Visibility
    inferenceEnabled: bool = False
    instruct: bool = False
    layers: Annotated[int, Field(ge=0)]
    neuronsPerLayer: Annotated[int, Field(ge=0)]
    createdAt: Timestamp
    owner: Annotated[str, Field(min_length=1)]
    updatedAt: Timestamp
    website: str | None


class SourceSetLine(_Line):
    """sourceset.jsonl: the SAEs of all layers. Attribution shows only with both flags set."""

    modelId: Identifier
    name: Identifier
    hasDashboards: bool = True
    allowInferenceSearch: bool = False
    visibility: Visibility
    description: Text
    type: Text
    creatorName: Text
    urls: list[str]
    creatorEmail: str | None
    creatorId: str
    releaseName: Identifier
    defaultRange: int = 1
    defaultShowBreaks: bool = True
    showDfa: bool = True
    showCorrelated: bool = False
    showHeadAttribution: bool = True
    showUmap: bool = False
    createdAt: Timestamp


class SourceLine(_Line):
    """source.jsonl: the SAE of one layer; its id is `<layer>-<source set>`."""

    id: Identifier
    modelId: Identifier
    hasDashboards: bool = True
    inferenceEnabled: bool = False
    saelensRelease: str | None
    saelensSaeId: str | None
    hfRepoId: str | None
    hfFolderId: str | None
    visibility: Visibility
    setName: Identifier
    creatorId: str
    hasUmap: bool = False
    hasUmapLogSparsity: bool = False
    hasUmapClusters: bool = False
    num_prompts: int | None
    num_tokens_in_prompt: int | None
    dataset: Text | None
    notes: Text | None
    createdAt: Timestamp


class FeatureLine(_Line):
    """features/batch-N.jsonl.gz (table Neuron). `layer` is the id of the source."""

    modelId: Identifier
    layer: Identifier
    index: Annotated[str, Field(pattern=r"^\d+$")]
    sourceSetName: Identifier
    creatorId: str
    createdAt: Timestamp
    maxActApprox: Real
    hasVector: bool = False
    vector: list[Real] = []
    vectorLabel: str | None = None
    hookName: str
    topkCosSimIndices: list[int]
    topkCosSimValues: list[Real]
    neuron_alignment_indices: list[int] = []
    neuron_alignment_values: list[Real] = []
    neuron_alignment_l1: list[Real] = []
    correlated_neurons_indices: list[int] = []
    correlated_neurons_pearson: list[Real] = []
    correlated_neurons_l1: list[Real] = []
    correlated_features_indices: list[int] = []
    correlated_features_pearson: list[Real] = []
    correlated_features_l1: list[Real] = []
    neg_str: list[Text]
    neg_values: list[Real]
    pos_str: list[Text]
    pos_values: list[Real]
    frac_nonzero: Annotated[float, Field(ge=0, le=1)]
    freq_hist_data_bar_heights: list[Real]
    freq_hist_data_bar_values: list[Real]
    logits_hist_data_bar_heights: list[Real]
    logits_hist_data_bar_values: list[Real]
    decoder_weights_dist: list[Real]

    @model_validator(mode="after")
    def _parallel(self) -> "FeatureLine":
        for one, other in (
            ("neg_str", "neg_values"),
            ("pos_str", "pos_values"),
            ("topkCosSimIndices", "topkCosSimValues"),
            ("freq_hist_data_bar_heights", "freq_hist_data_bar_values"),
            ("logits_hist_data_bar_heights", "logits_hist_data_bar_values"),
        ):
            if len(getattr(self, one)) != len(getattr(self, other)):
                raise ValueError(f"{one} and {other} differ in length")
        return self


class ActivationLine(_Line):
    """activations/batch-N.jsonl.gz: one text; values and DFA are parallel to its tokens.

    `binMin` -1 and `binContains` -1 mark a top activation; otherwise the bin is an activation
    interval and `binContains` the share of active tokens in it. `dfaTargetIndex` is the token whose
    pre-activation `dfaValues` split; an activation without DFA has no values and no target.
    """

    id: Annotated[str, Field(pattern=r"^c[0-9a-z]{24}$")]
    tokens: Annotated[list[Text], Field(min_length=1)]
    dataIndex: str | None
    index: Annotated[str, Field(pattern=r"^\d+$")]
    layer: Identifier
    modelId: Identifier
    dataSource: str | None
    maxValue: Real
    maxValueTokenIndex: Annotated[int, Field(ge=0)]
    minValue: Real
    values: list[Real]
    dfaValues: list[Real]
    dfaTargetIndex: int | None
    dfaMaxValue: Real | None
    creatorId: str
    createdAt: Timestamp
    lossValues: list[Real] = []
    logitContributions: str | None = None
    binMin: Real
    binMax: Real
    binContains: Real
    qualifyingTokenIndex: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _consistent(self) -> "ActivationLine":
        n = len(self.tokens)
        if len(self.values) != n or len(self.dfaValues) not in (0, n):
            raise ValueError(f"{n} tokens, {len(self.values)} values, {len(self.dfaValues)} DFA")
        if self.values[self.maxValueTokenIndex] != self.maxValue or self.qualifyingTokenIndex >= n:
            raise ValueError("maxValueTokenIndex or qualifyingTokenIndex names another token")
        if (self.dfaTargetIndex is None) != (not self.dfaValues):
            raise ValueError("dfaTargetIndex goes with dfaValues")
        return self
