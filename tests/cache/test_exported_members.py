from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import cache

MODULES = sorted(f"cache.{module.name}" for module in pkgutil.iter_modules(cache.__path__))


def test_all_is_exactly_what_the_package_offers() -> None:
    offered = {
        name
        for name, value in vars(cache).items()
        if not name.startswith("_") and name != "annotations" and not isinstance(value, type(cache))
    }
    assert set(cache.__all__) == offered
    assert cache.__all__ == sorted(cache.__all__, key=lambda name: (name.islower(), name))


def test_every_public_name_has_a_docstring_or_is_a_type_alias() -> None:
    undocumented = [name for name in cache.__all__ if not getattr(cache, name).__doc__]
    assert undocumented == []


def test_every_error_is_a_cache_error_and_a_built_in_that_a_caller_would_catch() -> None:
    assert issubclass(cache.StoreError, (cache.CacheError,))
    assert issubclass(cache.StoreError, OSError)
    assert issubclass(cache.KeyFieldError, cache.CacheError)
    assert issubclass(cache.KeyFieldError, ValueError)
    assert issubclass(cache.BudgetError, cache.CacheError)
    assert issubclass(cache.BudgetError, ValueError)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_are_true(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
