"""What the explorer page may ask, as validated data.

Belongs here: the fields of each question and their limits. Does not belong here: answering
(explorer_answers.py), transport (app/explorer_app.py).
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

MAX_CHARACTERS = 32_768
MAX_TOKENS = 256

Text = Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS)]
Index = Annotated[int, Field(ge=0, lt=2**31)]
Token = Annotated[str, Field(min_length=1, max_length=256)] | Index
PartName = Annotated[str, Field(min_length=1, max_length=64)]


class QuestionError(ValueError):
    """A question that cannot be read; the message says what of it."""


class _Question(BaseModel):
    """Data that forbids unknown keys and takes no number as text or the other way round."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Studies(_Question):
    """Which studies can be explored."""

    ask: Literal["studies"]


class _OfStudy(_Question):
    """study: name of a study."""

    study: Annotated[str, Field(min_length=1, max_length=200)]


class Open(_OfStudy):
    """Load model and SAEs, so that the next question need not."""

    ask: Literal["open"]


class _OfPrompt(_OfStudy):
    """text: the prompt."""

    text: Text


class Prompt(_OfPrompt):
    """Tokens of a prompt."""

    ask: Literal["prompt"]


class Features(_OfPrompt):
    """Features of a layer at every position."""

    ask: Literal["features"]
    layer: Index


class Dfa(_OfPrompt):
    """Direct feature attribution by head and source."""

    ask: Literal["dfa"]
    layer: Index
    feature: Index
    position: Index


class FeatureRoot(_Question):
    """A feature whose recursive attribution is opened."""

    layer: Index
    feature: Index
    position: Index


class LogitRoot(_Question):
    """A logit whose attribution is opened."""

    token: Token
    position: Index
    versus: Token | None = None


class Parts(_OfPrompt):
    """Parts of nodes of an attribution: of the root, and of those that the paths lead to."""

    ask: Literal["parts"]
    root: FeatureRoot | LogitRoot
    paths: Annotated[
        list[Annotated[list[PartName], Field(max_length=64)]], Field(min_length=1, max_length=64)
    ]


class Heads(_OfPrompt):
    """What the heads of a layer attend to from a position."""

    ask: Literal["heads"]
    layer: Index
    position: Index


class Pattern(_OfPrompt):
    """Attention of one head."""

    ask: Literal["pattern"]
    layer: Index
    head: Index


class Slices(_OfPrompt):
    """The score of a pair by singular vectors and by writers of some of them."""

    ask: Literal["slices"]
    layer: Index
    head: Index
    destination: Index
    source: Index
    slices: Annotated[list[Index], Field(min_length=1, max_length=512)] | None = None


class Next(_OfPrompt):
    """Next tokens behind a position, and the logit lens there."""

    ask: Literal["next"]
    position: Index


class Logits(_OfPrompt):
    """Direct attribution of a logit."""

    ask: Literal["logits"]
    position: Index
    token: Token
    versus: Token | None = None
    by: Literal["head", "feature"] = "head"


class WhatIf(_OfPrompt):
    """The next token with interventions made together; other: the prompt to patch from."""

    ask: Literal["what_if"]
    position: Index
    edits: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=32)]
    other: Text | None = None


class Difference(_OfPrompt):
    """Features of a layer at a place of this prompt and at one of another."""

    ask: Literal["difference"]
    layer: Index
    position: Index
    other: Text
    other_position: Index


class LogitEffect(_OfStudy):
    """What a feature's decoder row adds to the logit of a token, whatever the prompt."""

    ask: Literal["logit_effect"]
    layer: Index
    feature: Index
    token: Token


class Keep(_OfPrompt):
    """Write the prompt to the kept prompts of the study."""

    ask: Literal["keep"]


OfExploration = (
    Prompt | Features | Dfa | Parts | Heads | Pattern | Slices | Next | Logits | WhatIf | Difference
)
Question = Studies | Open | Keep | LogitEffect | OfExploration
_QUESTION: TypeAdapter[Question] = TypeAdapter(Annotated[Question, Field(discriminator="ask")])


def read_question(content: bytes) -> Question:
    """A question from JSON. Raises QuestionError, which names the key and the value."""
    try:
        return _QUESTION.validate_json(content)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in problem["loc"])
        shown = repr(problem["input"])[:100]
        raise QuestionError(f"{key or 'question'}: {problem['msg']} (value {shown})") from None
