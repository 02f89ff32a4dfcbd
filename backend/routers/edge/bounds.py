"""The largest size of short texts that callers choose: ids, names of models, cursors.

Every text and number in a request has a bound where it enters. `tests/api/test_bounds.py` looks through OpenAPI for
one without.
"""

from typing import Annotated

from pydantic import Field

MAX_ID = 200
"""Characters of an id, or of the name of a model."""
MAX_CURSOR = 400

IdText = Annotated[str, Field(max_length=MAX_ID)]
"""An id, or the name of a model, in a body."""
