"""The edits of ``mutations.py`` fit the source: the default run shows it at once, and ``.ci/run`` then puts each of them in."""

import pytest

from tests.guarantees.mutations import FAULTS
from tests.support.mutation_runner import Fault, misfit


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name.replace(" ", "-") for fault in FAULTS])
def test_the_edit_of_a_mutation_fits_the_source(fault):
    assert misfit(fault) is None


def test_an_edit_that_does_not_fit_is_named():
    here = "tests/guarantees/test_mutations.py::test_an_edit_that_does_not_fit_is_named"
    assert misfit(Fault("x", "api.py", "no such text", "", here)) == "api.py no longer holds 'no such text'"
    assert misfit(Fault("x", "nowhere.py", "", "", here)) == "no file src/llmft/nowhere.py"
    assert misfit(Fault("x", "api.py", "import", "import", f"{here}_")) == f"no test {here}_"
    assert "is no Python" in str(misfit(Fault("x", "api.py", "import", "import import", here)))
