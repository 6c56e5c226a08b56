"""Related documents stay in one split, and every source keeps its budget."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.curation.passes.validation_split import choose_validation


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), documents=st.integers(2, 60))
def test_no_component_is_split_and_budgets_hold(seed: int, documents: int) -> None:
    generator = np.random.default_rng(seed)
    sources = generator.choice(["a", "b"], documents)
    sizes = generator.integers(1, 1000, documents)
    components = generator.integers(0, max(documents // 2, 1), documents)
    validation = choose_validation(sources, sizes, components, 0.2, seed)
    for label in set(components.tolist()):
        assert len(set(validation[components == label].tolist())) == 1
    for source in set(sources.tolist()):
        own = components[sources == source]
        if len(set(own.tolist())) > 1:
            assert validation[sources == source].any()
    assert np.array_equal(validation, choose_validation(sources, sizes, components, 0.2, seed))
