"""Program: the model and the corpus of one study, and what Dagster was told of its documents.

`python -m tests.defs.corpus_run STUDY`, in a process of its own: studies are read when assets are
imported. Prints metadata of corpus_documents as JSON, or one line with the error.
"""

import json
import sys

import dagster as dg

from mechinterp_assets.definitions import build_definitions

ASSETS = ("language_model", "corpus_documents")


def main(study: str) -> int:
    """Exit code 1 when a step failed."""
    selection = dg.AssetSelection.assets(*ASSETS).required_multi_asset_neighbors()
    job = dg.define_asset_job("some", selection=selection)
    definitions = dg.Definitions.merge(build_definitions(), dg.Definitions(jobs=[job]))
    with dg.DagsterInstance.ephemeral() as instance:
        result = definitions.resolve_job_def("some").execute_in_process(
            instance=instance, partition_key=study, raise_on_error=False
        )
        for event in result.filter_events(lambda event: event.is_step_failure):
            error = event.step_failure_data.error
            cause = error.cause if error and error.cause else error
            print(cause.message if cause else "no error")
            return 1
        (made,) = result.asset_materializations_for_node("corpus")[:1]
        numbers = {name: v.value for name, v in made.metadata.items() if "skipped" in name}
        print(json.dumps(numbers))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
