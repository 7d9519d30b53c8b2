import importlib
import inspect

import pytest

PACKAGES = [
    "smoothcache_core",
    "smoothcache_core.adapters",
    "smoothcache_core.evaluation",
    "smoothcache_core.fills",
    "smoothcache_core.pipelines",
    "smoothcache_core.planning",
    "smoothcache_core.reports",
    "smoothcache_core.runtime",
    "smoothcache_core.schedule",
    "smoothcache_core.sources",
    "smoothcache_image",
    "smoothcache_audio",
]


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_exist_once(package: str):
    module = importlib.import_module(package)
    assert len(module.__all__) == len(set(module.__all__))
    assert all(hasattr(module, name) for name in module.__all__)


@pytest.mark.parametrize("package", PACKAGES)
def test_public_functions_and_classes_are_documented(package: str):
    module = importlib.import_module(package)
    values = [getattr(module, name) for name in module.__all__]
    described = [v for v in values if inspect.isclass(v) or inspect.isfunction(v)]
    assert described
    assert [v.__name__ for v in described if not (v.__doc__ or "").strip()] == []
    methods = [
        (owner.__name__, name)
        for owner in described
        if inspect.isclass(owner) and not getattr(owner, "_is_protocol", False)
        for name, member in vars(owner).items()
        if not name.startswith("_") and inspect.isfunction(member) and not member.__doc__
    ]
    assert methods == []
