"""Settings as text: what results remember of the settings that they were made with.

Belongs here: the JSON of one value. A path counts by its name, so that a checkout or a home that
was moved makes nothing stale; what lies there counts by its fingerprint (staleness/study_files.py).
"""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mechinterp_assets.settings.section import PlaceName


def setting_text(value: Any) -> str:
    """JSON of a setting's value, with sorted keys."""
    return json.dumps(_plain(value), sort_keys=True, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, Path | PlaceName):
        return Path(value).name
    return value if isinstance(value, str | int | float | bool | None) else str(value)
