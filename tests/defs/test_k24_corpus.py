"""K24's statistics of features in the tables of the tiny study, against the paper's words written
down again (k24_corpus_reference.py)."""

import re
from collections import Counter
from functools import cached_property

import numpy as np
import polars as pl
import pytest

from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.orchestration.artefacts import read_sae
from mechinterp_assets.storage.declarations import SQL_FOLDER
from tests.defs import k24_corpus_reference as slow
from tests.defs.conftest import Materialized
from tests.defs.k24_corpus_reference import Place, Text
from tests.statistics.clustered_reference import share_interval

LAYER = 2
AND, NAME_AND = "and", 'after a name and "and"'


class Layer:
    """Tables of one layer of the tiny study."""

    def __init__(self, tiny: Materialized) -> None:
        self.tiny = tiny
        self.statistics = self.of("feature_statistics")
        model = tiny.lake.read("language_model", "tiny").collect().row(0, named=True)
        self.text = Text.of_tables(
            tiny.lake.read("tokenized_corpus", "tiny").collect(),
            tiny.lake.read("vocabulary", "tiny").collect().sort("token_id")["token"].to_list(),
            model["bos_token_id"],
            self.statistics["n_tokens"][0],
        )

    def of(self, table: str) -> pl.DataFrame:
        return self.tiny.lake.read(table, f"tiny.L{LAYER:02}").collect()

    @cached_property
    def activations(self) -> pl.DataFrame:
        return self.of("feature_activations").sort("feature", "sequence", "position")

    def active(self, feature: int) -> dict[Place, float]:
        own = self.activations.filter(feature=feature)
        return {
            (sequence, position): value
            for sequence, position, value in own.select(
                "sequence", "position", "activation"
            ).iter_rows()
        }

    @cached_property
    def families(self) -> dict[tuple[int, str], dict[str, object]]:
        rows = self.of("feature_families").iter_rows(named=True)
        return {(row["feature"], row["measure"]): row for row in rows}

    @cached_property
    def some(self) -> list[int]:
        """Features that fire often, sometimes and rarely."""
        fired = self.statistics.filter(pl.col("n_active") > 20).sort("n_active")["feature"]
        return [fired[i] for i in (0, len(fired) // 3, len(fired) // 2, len(fired) - 1)]


@pytest.fixture(scope="module")
def layer(tiny: Materialized) -> Layer:
    return Layer(tiny)


def test_specificity_expected_value_and_false_negatives(layer: Layer) -> None:
    text, rows = layer.text, layer.of("feature_proxies")
    holds = {
        AND: {place for place in text.document if text.strings[text.token(place)] == " and"},
        NAME_AND: {
            place
            for place in text.document
            if re.search(" [A-Z][a-z]+ and$", text.window(place, 4))
        },
    }
    bars = layer.tiny.lake.sql(
        f"FROM feature_proxy_expected_value WHERE layer = {LAYER} ORDER BY interval"
    )
    best: dict[str, tuple[float, float]] = {}
    for proxy, true in holds.items():
        assert true
        chosen = rows.filter(proxy=proxy).sort("n_active_true", descending=True).head(3)
        for row in chosen.iter_rows(named=True):
            active = layer.active(row["feature"])
            both = [place for place in active if place in true]
            assert row["n_active_true"] / row["n_active"] == len(both) / len(active)
            assert row["n_silent_true"] == len(true) - len(both)
            total, weight = sum(active.values()), sum(active[place] for place in both)
            assert row["activation_sum_true"] == pytest.approx(weight)
            kish = total**2 / sum(value**2 for value in active.values())
            for name, terms, n in (
                ("specificity", [(p, p in true, 1) for p in active], None),
                ("sensitivity", [(p, p in active, 1) for p in true], None),
                ("mass_specificity", [(p, a * (p in true), a) for p, a in active.items()], kish),
            ):
                expected = share_interval(text.by_document(terms), n)
                found = (row[f"{name}_low"], row[f"{name}_high"])
                assert found == pytest.approx(expected, abs=1e-6), (proxy, name)
            own = bars.filter(proxy=proxy, feature=row["feature"]).iter_rows(named=True)
            for bar in own:
                inside = {p: a for p, a in active.items() if bar["low"] < a <= bar["high"]}
                held = sum(a for p, a in inside.items() if p in true)
                assert bar["weight_true"] == pytest.approx(held / total, abs=1e-9)
                missed = (sum(inside.values()) - held) / total
                assert bar["weight_false"] == pytest.approx(missed, abs=1e-9)
                if inside:
                    hits = sum(place in true for place in inside)
                    assert bar["specificity"] == pytest.approx(hits / len(inside))
        for row in layer.tiny.lake.read("feature_proxies").filter(proxy=proxy).collect().to_dicts():
            # F1 from the counts, which were compared above.
            f1 = 2 * row["n_active_true"] / (row["n_active"] + row["n_true"])
            silent = 1e6 * row["n_silent_true"] / row["n_tokens"]
            best[proxy] = max(best.get(proxy, (0.0, 0.0)), (f1, silent))
    published = (SQL_FOLDER / "reproduce" / "false_negatives.sql").read_text()
    found = dict(layer.tiny.lake.query(published, "tiny").iter_rows())
    for proxy, (_, silent) in best.items():
        assert found[proxy] == pytest.approx(silent)


def test_spans_their_ends_and_how_far_they_read(layer: Layer) -> None:
    text, dfa = layer.text, layer.of("feature_dfa")
    for feature in layer.some:
        found = slow.runs(text, layer.active(feature))
        lengths = [length for length, _, _ in found]
        row = layer.families[feature, "run_length"]
        assert (row["value"], row["n"]) == (pytest.approx(np.mean(lengths)), len(lengths))
        ends = [(place, token) for _, place, token in found if token is not None]
        row = layer.families[feature, "run_end_token_share"]
        counts = Counter(token for _, token in ends)
        assert (row["x"], row["n"]) == (max(counts.values()), len(ends))
        assert row["x"] == counts[text.strings.index(str(row["text"]))]
        terms = [(place, text.strings[token] == row["text"], 1) for place, token in ends]
        assert (row["ci_low"], row["ci_high"]) == pytest.approx(
            share_interval(text.by_document(terms)), abs=1e-9
        )
        examples = dfa.filter(feature=feature).to_dicts()
        sources = [slow.strongest_source(text, one) for one in examples]
        distances = [e["position"] - s for e, s in zip(examples, sources, strict=True)]
        row = layer.families[feature, "source_distance"]
        assert (row["value"], row["n"]) == (pytest.approx(np.mean(distances)), len(examples))


def test_pass_rates(layer: Layer) -> None:
    """App. F, where a token has no more sequences than are looked at."""
    text = layer.text
    promoted = {
        row["feature"]: row["token_id"]
        for row in layer.of("feature_logit_effects").to_dicts()
        if row["extreme"] == "top" and row["rank"] == 0
    }
    looked_at = 0
    for feature in layer.statistics.filter(pl.col("n_active") > 0)["feature"].to_list()[:40]:
        due = list(slow.due_by_induction(text, promoted[feature]))
        if not 2 <= len(due) <= 200:
            continue
        looked_at += 1
        active = layer.active(feature)
        later = [(place, place in active, 1) for places in due for place in places[1:]]
        whole = [
            (places[0], places[0] not in active and all(p in active for p in places[1:]), 1)
            for places in due
        ]
        for measure, terms in (("per_occurrence", later), ("per_sequence", whole)):
            row = layer.families[feature, f"induction_{measure}"]
            assert (row["x"], row["n"]) == (sum(hit for _, hit, _ in terms), len(terms))
            clusters = text.by_document(terms)
            assert row["n_documents"] == len(clusters)
            assert (row["ci_low"], row["ci_high"]) == pytest.approx(
                share_interval(clusters), abs=1e-9
            )
    assert looked_at >= 3


def test_share_of_the_variance_by_head_and_source_token(
    layer: Layer, organism: LanguageModel
) -> None:
    """Fig. 12: over all activations, and above a threshold."""
    shares = layer.tiny.lake.sql(f"FROM feature_dfa_shares WHERE layer = {LAYER}")
    sae = read_sae(layer.tiny.inputs(), f"tiny.L{LAYER:02}", organism)
    limit = layer.tiny.study.features.dfa_corpus_sequences
    read = sorted(layer.text.ids)[:limit]
    rare = shares.filter(interval=0).filter(pl.col("n").is_between(40, 120))["feature"]
    feature = int(rare.sort()[0])
    active = {p: a for p, a in layer.active(feature).items() if p[0] in read}
    for interval in (0, 3):
        rows = shares.filter(feature=feature, interval=interval).to_dicts()
        (above,) = {row["activation_above"] for row in rows}
        places = [place for place, value in active.items() if value > above]
        (main,) = {row["main_source_token_id"] for row in rows}
        expected = slow.variance_shares(organism, sae, LAYER, feature, layer.text, places, main)
        for row in rows:
            part = row["source_class"] if row["head"] is None else row["head"]
            assert row["n"] == len(places)
            if part in expected:
                assert row["variance_share"] == pytest.approx(expected[part], abs=1e-4), part


def test_families_of_heads_and_layers(layer: Layer) -> None:
    """App. M."""
    families = slow.families_of(layer.of("feature_families"))
    fired = layer.statistics.filter(pl.col("n_active") > 0)["feature"].to_list()
    attribution = layer.of("feature_head_attribution")
    found = layer.tiny.lake.sql(f"FROM head_family_shares WHERE layer = {LAYER}")
    n_shared = 0
    for head in attribution["head"].unique():
        top = slow.top_features(attribution, set(fired), head)
        expected = slow.shared(top, families)
        rows = found.filter(head=head).to_dicts()
        assert {row["family"]: row["n_with_family"] for row in rows} == expected
        for row in rows:
            assert row["n"] == len(top)
            assert row["family_share"] == expected[row["family"]] / len(top)
            assert row["is_shared_by_8_of_10"] == (expected[row["family"]] >= 8)
        n_shared += len(rows)
    assert n_shared > 0
    of_layer = layer.tiny.lake.sql(f"FROM layer_family_shares WHERE layer = {LAYER}")
    whole = slow.shared(fired, families)
    assert dict(of_layer.select("family", "n_with_family").iter_rows()) == whole
    assert of_layer["n"].unique().to_list() == [len(fired)]
