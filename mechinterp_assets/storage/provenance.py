"""Provenance: what every stored table and artefact says about where it came from."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Provenance:
    """Origin of one written table partition or tensor artefact.

    The formula version is not here: it belongs to the table's declaration in `sql/tables`.

    Attributes:
        study: study the data belong to.
        run_id: Dagster run that wrote them.
        code_version: code version of the asset.
        model_version: data version (weights hash) of the language model, if one took part.
        corpus_version: data version of the tokenized corpus or prompt set, if one took part.
        sae_version: data version (weights hash) of the attention SAE, if one took part.
    """

    study: str
    run_id: str
    code_version: str
    model_version: str | None = None
    corpus_version: str | None = None
    sae_version: str | None = None

    def __post_init__(self) -> None:
        for name in ("study", "run_id", "code_version"):
            if not getattr(self, name):
                raise ValueError(f"provenance needs a {name}, got {getattr(self, name)!r}")

    def as_dict(self) -> dict[str, str | None]:
        """Field name -> value, in declaration order."""
        return asdict(self)
